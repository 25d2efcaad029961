"""A GPU machine on this machine: a root directory of its own over the real one, with stand-ins for what needs hardware.

Whatever a script writes lands in a layer that is thrown away. systemctl, docker, nvidia-smi and shutdown are stand-ins,
small but real: systemctl starts the very unit that boot.sh has written, docker starts a real process and stops it with
real signals. aws is the real AWS CLI, speaking to the endpoint of the environment. Needs root and overlayfs.

Run as a program it is the stand-ins: `box.py docker ps`.
"""

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STATE = Path("/var/lib/box")  # what the stand-ins remember, in the machine's own layer
UNITS = Path("/etc/systemd/system")
AWS = Path(sys.executable).with_name("aws")
STAND_INS = ("docker", "systemctl", "nvidia-smi", "shutdown")
ENTER = """
set -e
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root"
mount --rbind /proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount --rbind "$2" "$1/root$2"
exec chroot "$1/root" "${@:3}"
"""


class Box:
    """One machine; its files stay between calls, its processes are ended by `close`."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.upper = folder / "upper"
        for part in ("upper", "work", "root"):
            (folder / part).mkdir(parents=True)
        for name in STAND_INS:
            self.write(f"/opt/stand-ins/{name}", f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        self.write("/opt/stand-ins/aws", f'#!/bin/sh\nexec {AWS} "$@"\n')
        self.write("/var/lib/cloud/data/instance-id", "i-0123456789abcdef0\n")
        self.write(f"{STATE}/workload", "#!/bin/sh\nexec sleep 300\n")
        path = "/opt/stand-ins:/usr/sbin:/usr/bin:/sbin:/bin"
        self.environment = {"PATH": path, "LANG": "C.UTF-8", **(environment or {})}

    def write(self, path: str, text: str) -> None:
        file = self.upper / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)

    def read(self, path: str) -> str:
        return (self.upper / path.lstrip("/")).read_text()

    def has(self, path: str) -> bool:
        """Whether the machine has a file of its own there (one deleted on it is a device node in the layer)."""
        file = self.upper / path.lstrip("/")
        return file.exists() and not file.is_char_device()

    def run(self, script: str, *, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a script as the SSM agent does: from a file, by `sh -c FILE`: its first line chooses the shell."""
        self.write("/tmp/box-script", script)
        line = ["unshare", "--mount", "bash", "-c", ENTER, "enter", str(self.folder), str(ROOT), "sh", "-c"]
        return subprocess.run(
            [*line, "/tmp/box-script"],
            env=self.environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def calls(self, name: str) -> list[list[str]]:
        """What a stand-in was asked, in order."""
        path = f"{STATE}/calls"
        rows = [json.loads(line) for line in self.read(path).splitlines()] if self.has(path) else []
        return [row[1:] for row in rows if row[0] == name]

    def close(self) -> None:
        for file in (self.upper / str(STATE).lstrip("/")).glob("*/*.json"):
            pid = json.loads(file.read_text()).get("pid")
            if pid and alive(pid):
                os.kill(pid, signal.SIGKILL)


def can_enter(folder: Path) -> str | None:
    """Why there can be no box here, or None."""
    if os.geteuid():
        return "a machine's root directory needs root"
    if not AWS.exists():
        return "the AWS CLI (awscli) is not installed"
    for part in ("upper", "work", "root"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    line = ["unshare", "--mount", "bash", "-c", ENTER, "enter", str(folder), str(ROOT), "true"]
    tried = subprocess.run(line, capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no overlay of the root directory: {tried.stderr.strip()}"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# The stand-ins, which run inside.


def nvidia_smi(arguments: list[str]) -> int:
    if not (STATE / "gpu").exists():
        print("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
        return 9
    print("NVIDIA L4, 37, 11021, 23034, 61, 68.20" if "--query-gpu" in " ".join(arguments) else "GPU 0: NVIDIA L4")
    return 0


def docker(arguments: list[str]) -> int:
    if (STATE / "docker-is-down").exists():
        print("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", file=sys.stderr)
        return 1
    verb, rest = arguments[0], arguments[1:]
    if verb == "run":
        return docker_run(rest)
    if verb == "ps":
        return docker_ps(rest)
    if verb == "pull" and (STATE / "registry-is-down").exists():
        print("manifest unknown", file=sys.stderr)
        return 1
    if verb == "pull":
        remember("images", rest[-1], image=rest[-1])
        return 0
    if verb == "image":
        return 0 if recall("images", rest[-1]) else 1
    if verb == "login":
        return 0 if sys.stdin.read() else 1
    name = rest[-1]
    container = recall("containers", name)
    if container is None:
        print(f"Error: No such container: {name}", file=sys.stderr)
        return 1
    if verb == "logs":
        print((STATE / "containers" / f"{name}.log").read_text(), end="")
    elif verb == "inspect":
        print(json.dumps({"Status": state_of(container), "ExitCode": container.get("code")}))
    elif verb in ("stop", "kill"):
        return docker_end(container["pid"], verb, int(rest[rest.index("-t") + 1]) if "-t" in rest else 10)
    elif verb == "rm":
        if state_of(container) == "running" and "--force" not in rest:
            return 1
        docker_end(container["pid"], "kill", 0)
        (STATE / "containers" / f"{name}.json").unlink()
    return 0


def docker_run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    for option in ("--name", "--label", "--network", "--ipc", "--stop-timeout", "--env-file", "--volume", "--gpus"):
        parser.add_argument(option)
    parser.add_argument("--init", action="store_true")
    parser.add_argument("image")
    parser.add_argument("run_id")
    given = parser.parse_args(arguments)
    if recall("containers", given.name):
        print(f'The container name "/{given.name}" is already in use', file=sys.stderr)
        return 125
    settings = dict(line.split("=", 1) for line in Path(given.env_file).read_text().splitlines())
    with (STATE / "containers" / f"{given.name}.log").open("w") as log:
        line = [str(STATE / "workload"), given.run_id]
        process = subprocess.Popen(line, stdout=log, stderr=log, env={**os.environ, **settings}, start_new_session=True)
    known = {"name": given.name, "label": given.label, "image": given.image, "pid": process.pid}
    remember("containers", given.name, **known)
    code = process.wait()
    if recall("containers", given.name):
        remember("containers", given.name, **known, code=code)
    return code % 256


def docker_ps(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--filter", action="append", default=[])
    parser.add_argument("--format", default="")
    given = parser.parse_args(arguments)
    for file in sorted((STATE / "containers").glob("*.json")):
        row = json.loads(file.read_text())
        filters = dict(text.split("=", 1) for text in given.filter)
        if filters.get("label", row["label"]) != row["label"] or not re.search(filters.get("name", ""), row["name"]):
            continue
        if not given.all and state_of(row) != "running":
            continue
        full = {"Names": row["name"], "Image": row["image"], "State": state_of(row), "Status": "Up 2 minutes"}
        assert given.quiet or given.format in ("{{.Names}}", "{{json .}}")
        print(row["name"] if given.quiet or given.format == "{{.Names}}" else json.dumps(full))
    return 0


def docker_end(pid: int, verb: str, seconds: int) -> int:
    end = time.monotonic() + (seconds if verb == "stop" else 0)
    if verb == "stop" and alive(pid):
        os.kill(pid, signal.SIGTERM)
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    if alive(pid):
        os.kill(pid, signal.SIGKILL)
    while alive(pid):
        time.sleep(0.02)
    return 0


def state_of(container: dict) -> str:
    return "running" if alive(container["pid"]) else "exited"


def systemctl(arguments: list[str]) -> int:
    verb, names = arguments[0], [name for name in arguments[1:] if not name.startswith("--")]
    units = {file.stem: json.loads(file.read_text()) for file in (STATE / "units").glob("*.json")}
    active = [name for name, unit in units.items() if alive(unit["pid"])]
    if verb == "is-active":
        timer = names[0].endswith(".timer") and recall("timers", names[0]) is not None
        states = ["active"] * timer + [units[name]["state"] for name in active if fnmatch(name, names[0])]
        if "--quiet" not in arguments:
            print("\n".join(states) or "inactive")
        return 0 if "active" in states else 3
    if verb == "stop" and names[0] in active:
        return stop_unit(names[0], "--no-block" not in arguments)
    if verb == "list-units":
        (wanted,) = [word.removeprefix("--state=").split(",") for word in arguments if word.startswith("--state=")]
        shown = [name for name in active if units[name]["state"] in wanted]
        print("".join(f"{name}.service loaded {units[name]['state']} running {name}\n" for name in shown), end="")
    elif verb == "enable":
        remember("timers", names[0], enabled=True)
    elif verb == "start" and names[0] not in active:
        return start_unit(names[0])
    return 0


def start_unit(name: str) -> int:
    """Start a unit as its file says, in the background: ExecStartPre, if that ends well ExecStart, then ExecStopPost.

    With Restart=on-failure again and again, as systemd does, unless it is being stopped.
    """
    lines, stopping = unit_of(name), threading.Event()
    if (pid := os.fork()) == 0:
        leave()
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
        for _ in range(int(lines["StartLimitBurst"])):
            remember("units", name, pid=os.getpid(), state="activating")
            if not (code := execute(lines, "ExecStartPre")) and not stopping.is_set():
                remember("units", name, pid=os.getpid(), state="active")
                code = execute(lines, "ExecStart")
            execute(lines, "ExecStopPost")
            if not code or lines["Restart"] != "on-failure" or stopping.wait(float(lines["RestartSec"])):
                break
        os._exit(0)
    while (recall("units", name) or {}).get("pid") != pid:
        time.sleep(0.01)
    return 0


def leave() -> None:
    """Go on in the background, holding nothing of whoever started this."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(10):
        os.dup2(null, stream) if stream < 3 else os.closerange(stream, stream + 1)


def stop_unit(name: str, wait: bool) -> int:
    os.kill(recall("units", name)["pid"], signal.SIGTERM)  # not to be started again
    if not wait:
        if os.fork() == 0:
            leave()
            execute(unit_of(name), "ExecStop")
            os._exit(0)
        return 0
    execute(unit_of(name), "ExecStop")
    while alive(recall("units", name)["pid"]):
        time.sleep(0.02)
    return 0


def unit_of(name: str) -> dict[str, str]:
    template, _, instance = name.partition("@")
    text = (UNITS / f"{template}@.service").read_text().replace("\\\n", " ").replace("%i", instance)
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def execute(unit: dict[str, str], line: str) -> int:
    settings = dict(line.split("=", 1) for line in Path(unit["EnvironmentFile"]).read_text().splitlines())
    # systemd expands a word that is a variable by itself; an empty one is no argument.
    words = [word for part in shlex.split(unit[line].removeprefix("-")) for word in expand(part, settings)]
    return subprocess.run(words, env={**os.environ, **settings}).returncode


def expand(word: str, settings: dict[str, str]) -> list[str]:
    return settings.get(word[1:], "").split() if re.fullmatch(r"\$\w+", word) else [word]


def remember(kind: str, name: str, /, **what: object) -> None:
    file = STATE / kind / f"{name.replace('/', '_')}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(what))
    temporary.rename(file)


def recall(kind: str, name: str) -> dict | None:
    file = STATE / kind / f"{name.replace('/', '_')}.json"
    return json.loads(file.read_text()) if file.exists() else None


def main(name: str, arguments: list[str]) -> int:
    for kind in ("containers", "images", "units", "timers"):
        (STATE / kind).mkdir(parents=True, exist_ok=True)
    with (STATE / "calls").open("a") as calls:
        calls.write(json.dumps([name, *arguments]) + "\n")
    programs = {"docker": docker, "systemctl": systemctl, "nvidia-smi": nvidia_smi}
    return programs[name](arguments) if name in programs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
