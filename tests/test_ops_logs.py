"""make logs against real objects that grow, tear, shrink and change hands. Run: pytest tests/test_ops_logs.py"""

import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from calls import calls
from cloud import Cloud
from faults import proxy
from watching import Stage, forbidden, iso, machine, stage

from infra.box.mirror import Mirror
from infra.box.transfer import Bucket
from infra.ops import door
from infra.ops.tail import KEPT, OVERLAP, Tail

RUN = "2026-01-31-184502-r50"
OUTPUT = f"runs/{RUN}/output.txt"
FINISHED = {"outcome": "finished", "reason": "all stages are done", "exit_code": 0, "last_lines": []}


@pytest.fixture
def desk(aws: Cloud, tmp_path: Path) -> Iterator[Stage]:
    with stage(aws, tmp_path) as made:
        yield made


@pytest.fixture
def tail(desk: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Tail]]:
    """Makes tails in this process, on the object "log"."""
    for name, value in desk.environment().items():
        monkeypatch.setenv(name, value)
    door.client.cache_clear()
    yield lambda: Tail(desk.outputs, "log")
    door.client.cache_clear()


def lines(first: int, last: int, word: str = "line") -> bytes:
    return b"".join(b"%s %d of the log\n" % (word.encode(), number) for number in range(first, last))


def read_all(tail: Tail, *, final: bool = False) -> bytes:
    return b"".join(iter(lambda: tail.look(final=final), b""))


def test_a_line_is_given_when_it_is_whole_and_a_last_one_without_end_at_the_end(
    desk: Stage, tail: Callable[[], Tail]
) -> None:
    follower = tail()
    assert follower.look() == b""
    assert not follower.there
    desk.put("log", b"one\ntw")
    assert read_all(follower) == b"one\n"
    desk.put("log", b"one\ntwo\nthr")
    assert read_all(follower) == b"two\n"
    assert read_all(follower, final=True) == b"thr"
    assert read_all(follower, final=True) == b""


def test_an_empty_object_and_one_line_longer_than_a_piece_are_no_trouble(
    desk: Stage, tail: Callable[[], Tail], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.ops.tail.PIECE", 100_000)
    follower = tail()
    desk.put("log", b"")
    follower.start(5)
    assert read_all(follower) == b""
    desk.put("log", b"x" * 450_000 + b"\nend\n")
    assert read_all(follower) == b"x" * 450_000 + b"\nend\n"


@pytest.mark.parametrize("count", [0, 1, 3, 20, 100])
def test_it_begins_so_many_lines_back(
    desk: Stage, tail: Callable[[], Tail], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("infra.ops.tail.FIRST", 64)
    desk.put("log", lines(0, 50) + b"torn")
    follower = tail()
    follower.start(count)
    assert read_all(follower, final=True) == lines(max(0, 50 - count), 50) + b"torn"


def test_an_object_that_is_shorter_for_a_moment_doubles_nothing(desk: Stage, tail: Callable[[], Tail]) -> None:
    whole = lines(0, 5000)
    follower = tail()
    desk.put("log", whole[:60_000])
    given = read_all(follower)
    for size in (59_990, 20_000, 0, 30_000, 60_000, len(whole)):
        desk.put("log", whole[:size])
        given += read_all(follower)
    assert given == whole


def test_a_replacement_that_went_on_from_an_older_copy_is_given_from_the_line_that_differs(
    desk: Stage, tail: Callable[[], Tail]
) -> None:
    follower = tail()
    desk.put("log", lines(0, 3000))
    assert read_all(follower) == lines(0, 3000)
    # Far more than the stretch that is asked for again, and as long as it was.
    common = lines(0, 1000)
    desk.put("log", common + lines(1000, 3000, "LINE"))
    assert len(lines(1000, 3000)) > OVERLAP
    assert read_all(follower) == lines(1000, 3000, "LINE")
    # Torn within a line that was given whole: that line is another one now.
    desk.put("log", (common + lines(1000, 3000, "LINE"))[:-5] + b"another\nnext\n")
    assert read_all(follower) == b"LINE 2999 of theanother\nnext\n"


def test_what_changed_before_all_that_is_remembered_is_given_from_there_on(
    desk: Stage, tail: Callable[[], Tail]
) -> None:
    follower = tail()
    old, new = (b"%s\n" % (letter * 99) * 30_000 for letter in (b"a", b"b"))
    desk.put("log", old)
    read_all(follower)
    desk.put("log", new)
    assert read_all(follower) == new[-KEPT:]


@pytest.mark.parametrize("seed", range(8))
def test_not_one_numbered_line_is_lost_or_doubled_whatever_is_killed(
    desk: Stage, tail: Callable[[], Tail], seed: int
) -> None:
    """A writer that numbers its lines, mirrored at random bytes, killed, and taken up from a copy in S3."""
    chance = random.Random(seed)
    follower, given = tail(), b""
    log, copies, number = b"", [b""], 0
    for _ in range(60):
        for _ in range(chance.randrange(0, 40)):
            log += b"%d %s\n" % (number, b"x" * chance.randrange(0, 400))
            number += 1
        copies.append(log[: chance.randrange(len(copies[-1]), len(log) + 1)])  # torn anywhere
        desk.put("log", copies[-1])
        if chance.random() < 0.2:  # killed: what was not mirrored is lost, and the next begins on a line of its own
            log = copies[-1]
            log = log if log.endswith(b"\n") or not log else log + b"\n"
            number = len(log.splitlines())
        if chance.random() < 0.1:  # a reader may be shown the object as it was
            desk.put("log", chance.choice(copies[-3:]))
            given += follower.look()
            desk.put("log", copies[-1])
        if chance.random() < 0.7:
            given += follower.look()
    desk.put("log", log)
    given += read_all(follower, final=True)
    assert given == log


def follow(desk: Stage, *arguments: str) -> tuple[subprocess.Popen[str], list[str]]:
    """Start the verb and collect its lines as they come."""
    started = desk.start("logs", *arguments)
    heard: list[str] = []

    def hear() -> None:
        assert started.stdout
        for line in started.stdout:
            heard.append(line)

    threading.Thread(target=hear, daemon=True).start()
    return started, heard


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.05)


def end_run(desk: Stage, outcome: dict[str, object]) -> None:
    desk.put(f"runs/{RUN}/machine.json", machine(phase="ended"))
    desk.put(f"runs/{RUN}/outcome.json", outcome)
    desk.delete(f"active/{desk.outputs.stack}")


def test_a_run_is_followed_from_its_machines_boot_to_its_end(desk: Stage) -> None:
    desk.make_group(desired=1)
    instance = desk.instances()[0]
    logs = desk.aws.client("logs")
    logs.create_log_group(logGroupName=desk.outputs.log_group)
    streams = (f"boot-{instance}", "boot-i-of-yesterday")
    for stream in streams:
        logs.create_log_stream(logGroupName=desk.outputs.log_group, logStreamName=stream)

    def boots(stream: str, *said: str) -> None:
        now = int(time.time() * 1000) + 1000  # not before the machine's launch, of which moto knows no fraction
        events = [{"timestamp": now + i, "message": f"boot: {text}"} for i, text in enumerate(said)]
        logs.put_log_events(logGroupName=desk.outputs.log_group, logStreamName=stream, logEvents=events)

    boots(streams[0], "idle timer set to 20 minutes")
    boots(streams[1], "of another machine")
    desk.put_run(RUN)
    desk.activate(RUN)
    watcher, heard = follow(desk)
    wait_for(lambda: "boot: idle timer set to 20 minutes\n" in heard, "the first line of the boot")
    boots(streams[0], "image is here")
    wait_for(lambda: "boot: image is here\n" in heard, "the next line of the boot")
    desk.put_run(RUN, machine=machine(), output=b"a\nb\nc")
    wait_for(lambda: heard[-2:] == ["a\n", "b\n"], "the run's first lines")
    desk.put_run(RUN, machine=machine(), output=b"a\nb\nc\nlast words")
    end_run(desk, FINISHED)
    assert watcher.wait(60) == 0
    assert heard == [
        "boot: idle timer set to 20 minutes\n", "boot: image is here\n", "a\n", "b\n", "c\n", "last words",
    ]  # fmt: skip
    assert watcher.stderr
    said = watcher.stderr.read()
    assert f"machine {instance} (g6.xlarge" in said
    assert f"run {RUN} finished: all stages are done; `make download RUN={RUN}`\n" in said


@pytest.mark.parametrize(("outcome", "code"), [("finished", 0), ("failed", 1), ("stopped", 3), ("interrupted", 4)])
def test_the_exit_code_tells_the_outcome_of_a_run_whose_machine_is_gone(desk: Stage, outcome: str, code: int) -> None:
    ended = {"outcome": outcome, "reason": "it was so", "exit_code": 1, "last_lines": []}
    desk.put_run(RUN, machine=machine(phase="ended", time=iso(hours=-9)), output=b"one\ntwo", outcome=ended)
    done = desk.make("logs", *(["--no-follow"] if outcome == "failed" else []))
    assert (done.returncode, done.stdout) == (code, "one\ntwo")
    assert done.stderr.startswith(f"run {RUN} {outcome}: it was so; `make ")


def test_a_run_that_is_being_stopped_is_followed_until_it_has_saved(desk: Stage) -> None:
    """make stop takes the note away first; an outcome of the time before is not this one's."""
    old = {"outcome": "interrupted", "reason": "the last time", "exit_code": 143, "last_lines": []}
    desk.put_run(RUN, machine=machine(), output=b"one\n", outcome=old)
    watcher, heard = follow(desk)
    wait_for(lambda: heard == ["one\n"], "the first line")
    time.sleep(5)  # longer than it takes to ask whether the run is over
    desk.put_run(RUN, machine=machine(), output=b"one\nsaved\n", outcome=old)
    end_run(desk, {"outcome": "stopped", "reason": "stopped by the operator", "exit_code": 143})
    assert watcher.wait(60) == 3
    assert heard == ["one\n", "saved\n"]


DEATH = '{"Status":"exited","ExitCode":1}\nTraceback (most recent call last):\nImportError: no module\n'


def test_a_container_that_ends_before_it_wrote_a_line_is_heard_all_the_same(desk: Stage) -> None:
    desk.put(f"runs/{RUN}/machine-i-0.txt", "of an earlier go")
    time.sleep(1)  # S3 tells times in whole seconds
    desk.put_run(RUN)
    desk.activate(RUN)
    desk.make_group(desired=1)
    desk.aws.client("logs").create_log_group(logGroupName=desk.outputs.log_group)
    watcher, heard = follow(desk)
    desk.put(f"runs/{RUN}/machine-i-1.txt", DEATH)
    wait_for(lambda: "ImportError: no module\n" in heard, "the container's last word")
    desk.put(f"runs/{RUN}/outcome.json", {"outcome": "failed", "reason": "its container ends", "exit_code": None})
    desk.delete(f"active/{desk.outputs.stack}")
    assert watcher.wait(60) == 1
    assert "".join(heard) == DEATH
    again = desk.make("logs", "--run", RUN)
    assert (again.returncode, again.stdout) == (1, DEATH)
    assert "machine i-1: its container has ended; its last words:\n" in again.stderr


def test_ctrl_c_ends_the_watching_only(desk: Stage) -> None:
    desk.put_run(RUN, machine=machine(), output=b"one\n")
    desk.activate(RUN)
    started = desk.start("logs", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert started.stdout
    assert started.stdout.readline() == "one\n"
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130
    assert said == "\nno longer watching; the run goes on (`make stop` would end it)\n"
    listed = desk.aws.client("s3").list_objects_v2(Bucket=desk.outputs.bucket, Prefix="active/")
    assert listed["KeyCount"] == 1


def test_a_run_that_is_not_there_is_a_sentence(desk: Stage) -> None:
    done = desk.make("logs")
    assert (done.returncode, done.stdout) == (2, "")
    assert "holds no run yet; `make train` starts one" in done.stderr
    done = desk.make("logs", "--run", "no-such-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no run no-such-run in s3://" in done.stderr
    done = desk.make("logs", "--run", "$(touch /tmp/pwned)")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is no run" in done.stderr


def test_it_asks_for_no_more_than_it_needs_within_the_operators_policy(desk: Stage, aws: Cloud) -> None:
    desk.put_run(RUN, machine=machine(phase="ended"), output=b"one\ntwo\n", outcome=FINISHED)
    with calls(aws.url) as seen:
        assert replace(desk, endpoint=seen.url).make("logs", "--run", RUN).returncode == 0
        # the log's end, what is in it, and twice that there is no more; four objects, the note
        assert seen.names == {"ssm:GetParameter": 1, "s3:GetObject": 4 + 4 + 1}
        assert forbidden(desk, seen.made) == []


@pytest.mark.parametrize("mode", ["cut", "drop"])
def test_an_answer_that_is_cut_off_ends_no_watching(desk: Stage, aws: Cloud, mode: str) -> None:
    """Of each kind of call that a follower makes while a machine boots."""
    desk.make_group(desired=1)
    desk.aws.client("logs").create_log_group(logGroupName=desk.outputs.log_group)
    desk.put_run(RUN)
    desk.activate(RUN)
    with calls(aws.url) as seen:
        for name in ("s3:GetObject output.txt", "s3:GetObject status.json", "s3:GetObject active"):
            seen.upset(name, mode)
        seen.upset("ec2:DescribeInstances", mode)
        seen.upset("logs:FilterLogEvents", mode)
        watcher, heard = follow(replace(desk, endpoint=seen.url), "--run", RUN)
        wait_for(lambda: len(seen.of("logs:FilterLogEvents")) > 1, "the second try at the last of them")
        desk.put_run(RUN, machine=machine(), output=b"one\n")
        wait_for(lambda: heard == ["one\n"], "the run's first line")
        end_run(desk, FINISHED)
        assert watcher.wait(60) == 0


def test_credentials_that_expire_end_the_watching_with_what_renews_them(desk: Stage, aws: Cloud) -> None:
    desk.put_run(RUN, machine=machine(), output=b"one\n")
    desk.activate(RUN)
    with proxy(aws.url) as between:
        watcher, heard = follow(replace(desk, endpoint=between.url))
        wait_for(lambda: heard == ["one\n"], "the first line")
        between.mode = "expired"
        assert watcher.wait(60) == 2
    assert watcher.stderr
    assert watcher.stderr.read().startswith("error: your AWS credentials have expired; `aws sso login` renews them")


def test_of_a_long_log_only_the_end_is_fetched(desk: Stage, aws: Cloud) -> None:
    desk.put_run(RUN, machine=machine(phase="ended"), output=b"%099d\n" * 10 % (*range(10),) * 20_000)
    desk.put(f"runs/{RUN}/outcome.json", FINISHED)
    with proxy(aws.url) as between:
        seen = replace(desk, endpoint=between.url)
        done = seen.make("logs", "--lines", "10", "--no-follow")
        asked = [s for s in between.seen if s.path.endswith("output.txt")]
    assert done.stdout.splitlines() == [f"{number:099}" for number in range(10)]
    assert len(asked) == 3  # the end of it, what follows the tenth line from there, nothing more


def test_a_machine_killed_half_way_and_an_unruly_s3_cost_no_line(desk: Stage, aws: Cloud, tmp_path: Path) -> None:
    """The courier's own mirror, and a second one that goes on where the first was killed."""
    desk.put_run(RUN, machine=machine())
    desk.activate(RUN)
    bucket = Bucket(desk.outputs.bucket, aws.client("s3"))
    with proxy(aws.url) as between:
        watcher, heard = follow(replace(desk, endpoint=between.url))
        number = 0
        for life in range(2):
            folder = tmp_path / f"life-{life}"
            folder.mkdir()
            log = folder / "output.txt"
            log.write_bytes(bucket.read(OUTPUT) or b"")
            number = len(log.read_bytes().splitlines())
            mirror = Mirror(bucket, folder, f"runs/{RUN}/", lambda _: None)
            for turn in range(40):
                with log.open("ab") as stream:
                    stream.write(b"%d " % number)
                    if turn % 10 == 5:
                        mirror.look()  # in the middle of a line
                    stream.write(b"words\n")
                number += 1
                between.mode = ["pass", "503", "pass", "cut"][turn // 10]
                if turn % 4 == 0:
                    mirror.look()
                time.sleep(0.02)
            if life:
                assert mirror.finish()
        between.mode = "pass"
        end_run(desk, FINISHED)
        assert watcher.wait(120) == 0, watcher.stderr and watcher.stderr.read()
    final = (bucket.read(OUTPUT) or b"").decode()
    assert "".join(heard) == final
    told = [int(found[0]) for line in heard if (found := re.match(r"\d+", line))]
    assert told == list(range(number))
