"""make attach and make shell on a real terminal, with a plugin that really runs what the session would.

Run: pytest tests/test_ops_attach.py
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from box import can_enter
from calls import Call, Calls, calls
from cloud import Cloud
from terminal import Terminal
from watching import Stage, forbidden, machine, stage, status

from infra.documents import SESSIONS, read_script, session

RUN = "2026-01-31-184502-r50"
SECRET = "token-that-nobody-may-see"
# What AWS's plugin is given and does: it takes the session from the environment and shows the machine's side of it,
# here the document's own script in a root directory of its own, whose /scratch is a folder of the test's.
PLUGIN = """#!{python}
import json, os, re, subprocess, sys
from pathlib import Path
notes = Path({notes!r})
if sys.argv[1:] == ["--version"]:
    sys.exit(print((notes / "version").read_text()))
token, region, what, profile, asked, endpoint = sys.argv[1:]
told = json.loads(os.environ[token])
assert what == "StartSession" and told["TokenValue"] == {secret!r} and told["StreamUrl"].startswith("wss://")
assert sys.stdin.isatty() and sys.stdout.isatty()
asked = json.loads(asked)
with (notes / "sessions").open("a") as calls:
    calls.write(json.dumps([os.getpid(), sys.argv, asked, list(os.get_terminal_size())]) + "\\n")
if asked["DocumentName"] == "AWS-StartInteractiveCommand":
    sys.exit(subprocess.run(asked["Parameters"]["command"][0].split(), env={{"PS1": "machine> "}}).returncode)
document = json.loads((notes / "document").read_text())
script = document["properties"]["linux"]["commands"]
for name, (value,) in asked["Parameters"].items():
    assert re.fullmatch(document["parameters"][name]["allowedPattern"].removesuffix("$"), value)
    script = script.replace("{{{{ " + name + " }}}}", value)
enter = '''set -e
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root"
mount --rbind /proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount --bind "$1/scratch" "$1/root/scratch"
exec chroot "$1/root" sh -c "$2"'''
path = "/opt/stand-ins:/usr/sbin:/usr/bin:/sbin:/bin"
os.execvpe("unshare", ["unshare", "--mount", "bash", "-c", enter, "enter", {folder!r}, script], {{"PATH": path}})
"""
SYSTEMCTL = '#!/bin/sh\n[ -e "/scratch/going" ] && echo active || { echo inactive; exit 3; }\n'


class Bench:
    """A stack with one machine on which a run prints, and the plugin on the operator's PATH."""

    def __init__(self, desk: Stage, seen: Calls, folder: Path) -> None:
        self.desk, self.seen, self.folder = replace(desk, endpoint=seen.url), seen, folder
        self.root = folder / "machine"
        for part in ("upper/opt/stand-ins", "upper/scratch", "work", "root", "scratch/runs"):
            (self.root / part).mkdir(parents=True)
        systemctl = self.root / "upper/opt/stand-ins/systemctl"
        systemctl.write_text(SYSTEMCTL)
        systemctl.chmod(0o755)
        (folder / "bin").mkdir()
        plugin = folder / "bin" / "session-manager-plugin"
        known = {"python": sys.executable, "notes": str(folder), "secret": SECRET, "folder": str(self.root)}
        plugin.write_text(PLUGIN.format(**known))
        plugin.chmod(0o755)
        (folder / "version").write_text("1.2.764.0\n")
        (folder / "document").write_text(json.dumps(session("attach", read_script("attach"))))
        self.instance = desk.instances()[0]
        seen.answers["ssm:DescribeInstanceInformation"] = self._online
        seen.answers["ssm:StartSession"] = self._start
        seen.answers["ssm:TerminateSession"] = {"SessionId": "operator-1"}
        self.log = self.root / "scratch" / "runs" / RUN / "output.txt"
        self.going = self.root / "scratch" / "going"

    def _online(self, call: Call) -> dict[str, Any]:
        names = call.parameters["Filters"][0]["Values"]
        return {"InstanceInformationList": [{"InstanceId": name, "PingStatus": "Online"} for name in names]}

    def _start(self, call: Call) -> dict[str, Any]:
        return {"SessionId": "operator-1", "TokenValue": SECRET, "StreamUrl": "wss://example.org/x"}

    def start_run(self, *lines: str) -> None:
        self.desk.put_run(RUN, machine=machine(instance=self.instance), status=status())
        self.desk.activate(RUN)
        self.going.touch()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.say(*lines)

    def say(self, *lines: str) -> None:
        with self.log.open("a") as stream:
            stream.writelines(f"{line}\n" for line in lines)

    def end_run(self) -> None:
        self.desk.put(f"runs/{RUN}/machine.json", machine(phase="ended"))
        self.desk.put(f"runs/{RUN}/outcome.json", {"outcome": "finished", "reason": "all stages are done"})
        self.desk.delete(f"active/{self.desk.outputs.stack}")
        self.going.unlink()

    def sessions(self) -> list[list[Any]]:
        """Of each session: the plugin's process id, its command line, what was asked, and its terminal's size."""
        notes = self.folder / "sessions"
        return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []

    def environment(self) -> dict[str, str]:
        return self.desk.environment() | {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin"}

    @contextmanager
    def terminal(self, verb: str, *arguments: str) -> Iterator[Terminal]:
        line = [sys.executable, "-m", f"infra.ops.{verb}", *arguments]
        made = Terminal(line, self.environment(), self.folder, 100, 30)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def bench(aws: Cloud, tmp_path: Path) -> Iterator[Bench]:
    if reason := can_enter(tmp_path / "try"):
        pytest.skip(reason)
    with stage(aws, tmp_path) as desk, calls(aws.url) as seen:
        desk.make_group(desired=1)
        yield Bench(desk, seen, tmp_path)


def test_the_machines_live_lines_are_shown_until_the_run_ends(bench: Bench) -> None:
    bench.start_run("first", "second")
    with bench.terminal("attach") as seen:
        seen.wait_for(lambda: "second" in seen.text, "what was printed before")
        bench.say("third, while we look")
        seen.wait_for(lambda: "third, while we look" in seen.text, "the next line")
        ((_, line, asked, size),) = bench.sessions()
        assert asked == {
            "Target": bench.instance, "DocumentName": bench.desk.outputs.document_attach,
            "Parameters": {"run_id": [RUN]},
        }  # fmt: skip
        assert size == [100, 30]
        assert SECRET not in " ".join(line)  # the command line is there for everybody
        bench.say("last words")
        bench.end_run()
        assert seen.end() == 0
    assert f"attached to {RUN} on {bench.instance}" in seen.text
    assert "last words" in seen.text
    assert f"run {RUN} has ended on this machine" in seen.text
    assert f"run {RUN} finished: all stages are done" in seen.text
    assert SECRET not in seen.text
    assert forbidden(bench.desk, bench.seen.made) == []


def test_a_session_that_drops_is_opened_again(bench: Bench) -> None:
    bench.start_run("first")
    with bench.terminal("attach") as seen:
        seen.wait_for(lambda: "first" in seen.text, "the first line")
        os.killpg(bench.sessions()[0][0], signal.SIGKILL)
        bench.say("said in between")
        seen.wait_for(lambda: "said in between" in seen.text, "what was said in between")
        assert len(bench.sessions()) == 2
        assert "the session has ended; looking after the run in 2 s" in seen.text
        seen.type("q")
        assert seen.end() == 0


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("\x03", 130)])
def test_detaching_leaves_the_run_and_closes_the_session(bench: Bench, key: str, code: int) -> None:
    bench.start_run("first")
    with bench.terminal("attach") as seen:
        seen.wait_for(lambda: "first" in seen.text, "the first line")
        seen.type("rm -rf /\r")  # nothing that is typed gets there
        bench.say("still here")
        seen.wait_for(lambda: "still here" in seen.text, "the next line")
        seen.type(key)
        assert seen.end() == code
        assert seen.is_as_before()
    assert "detached; the run goes on" in seen.text
    assert "rm -rf" not in seen.text
    assert bench.seen.names["ssm:TerminateSession"] == 1
    assert bench.desk.aws.client("s3").list_objects_v2(Bucket=bench.desk.outputs.bucket, Prefix="active/")["KeyCount"]
    ((pid, *_),) = bench.sessions()
    end = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_terminal_on_the_machine_follows_the_size_of_ours(bench: Bench) -> None:
    bench.start_run("first")
    with bench.terminal("attach") as seen:
        seen.wait_for(lambda: "first" in seen.text, "the first line")
        tty = os.readlink(f"/proc/{bench.sessions()[0][0]}/fd/0")
        seen.resize(60, 10)
        seen.wait_for(lambda: size_of(tty) == (60, 10), "the smaller size")
        seen.type("q")
        assert seen.end() == 0


def size_of(tty: str) -> tuple[int, int]:
    descriptor = os.open(tty, os.O_RDWR | os.O_NOCTTY)
    try:
        return tuple(os.get_terminal_size(descriptor))
    finally:
        os.close(descriptor)


def test_it_waits_for_a_machine_that_boots(bench: Bench) -> None:
    bench.start_run("first")
    bench.seen.answers["ssm:DescribeInstanceInformation"] = {"InstanceInformationList": []}
    with bench.terminal("attach") as seen:
        seen.wait_for(lambda: "no machine takes sessions yet" in seen.text, "that there is none")
        bench.seen.answers["ssm:DescribeInstanceInformation"] = bench._online
        seen.wait_for(lambda: "first" in seen.text, "the first line")
        seen.type("q")
        assert seen.end() == 0


def test_without_terminal_plugin_or_a_good_one_it_says_what_helps(bench: Bench) -> None:
    for verb in ("attach", "shell"):
        done = bench.desk.make(verb)
        assert done.returncode == 2
        assert "there is no terminal to show it on; `make " in done.stderr
        (bench.folder / "version").write_text("1.2.400.0\n")
        with bench.terminal(verb) as seen:
            assert seen.end() == 2
            assert "would show the session's token to everybody" in seen.text
        (bench.folder / "bin" / "session-manager-plugin").rename(bench.folder / "away")
        with bench.terminal(verb) as seen:
            assert seen.end() == 2
            assert "sessions need AWS's session-manager-plugin" in seen.text
            assert "installs it" in seen.text
        (bench.folder / "away").rename(bench.folder / "bin" / "session-manager-plugin")
    assert bench.seen.made == []


def test_a_shell_is_a_login_shell_on_the_machine(bench: Bench) -> None:
    with bench.terminal("shell") as seen:
        seen.wait_for(lambda: re.search(r"[#$>] ?$", seen.text), "the shell's prompt")
        seen.type("shopt login_shell; echo sum $((40 + 2))\r")
        seen.wait_for(lambda: "sum 42" in seen.text, "its answer")
        assert re.search(r"login_shell\s+on", seen.text)
        seen.type("exit 7\r")
        assert seen.end() == 7
    ((_, line, asked, _),) = bench.sessions()
    assert asked["Target"] == bench.instance
    assert asked["Parameters"] == {"command": ["bash --login"]}
    assert SECRET not in " ".join(line)
    assert forbidden(bench.desk, bench.seen.made) == []


def test_there_is_no_shell_where_there_is_no_machine(bench: Bench) -> None:
    with bench.terminal("shell", "--machine", "i-of-somebody-else") as seen:
        assert seen.end() == 2
        assert "error: no i-of-somebody-else of the stack" in seen.text
    bench.seen.answers["ssm:DescribeInstanceInformation"] = {"InstanceInformationList": []}
    with bench.terminal("shell") as seen:
        assert seen.end() == 2
        assert "error: no machine of the stack" in seen.text


def test_only_a_runs_id_gets_into_the_session() -> None:
    assert SESSIONS["attach"][1] == {"run_id": r"^[a-z0-9][a-z0-9-]{2,62}$"}
