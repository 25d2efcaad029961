"""The courier as a process of its own, over real HTTP, with clouds, metadata and trainers that fail it.

Run: pytest tests/test_box_courier.py
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloud import REGION
from couriers import Machine, begun, lines_of, machine, together

from infra.box import tending
from infra.box.child import Step
from infra.box.duty import Duty
from infra.box.station import Station
from infra.box.transfer import open_bucket

__all__ = ["begun", "machine"]  # fixtures


@together
def test_a_run_goes_from_s3_to_its_outcome_and_the_machine_is_given_back(machine: Machine) -> None:
    machine.ask_for("lines=40")
    outcome = machine.ends(machine.start())
    assert outcome["outcome"] == "finished"
    assert lines_of(machine.text("log.txt")) == list(range(40))
    assert lines_of(machine.text("output.txt"), "print") == list(range(40))
    there = {p.relative_to(machine.run).as_posix() for p in machine.run.rglob("*") if p.is_file()}
    for name in there:
        if name != "checkpoints/step-00000020.pt":  # last.json names it no more
            assert machine.get(name) == (machine.run / name).read_bytes(), name
    last = [seen for seen in machine.faulty.seen if seen.method in ("PUT", "DELETE") and "/runs/" in seen.path][-1]
    assert last.path.endswith("/outcome.json")
    assert not machine.is_active()
    assert machine.capacity() == 0
    told = machine.told("machine.json")
    assert (told["type"], told["market"], told["phase"]) == ("g4dn.xlarge", "spot", "ended")
    assert 0 < told["dollars"] < 0.1


@pytest.mark.parametrize(("mode", "seconds"), [("503", 60), ("expired", 5), ("hang", 5), ("cut", 5)])
@together
def test_training_goes_on_while_s3_is_away_and_nothing_is_lost(machine: Machine, mode: str, seconds: float) -> None:
    machine.ask_for("lines=220", "per_second=20", "checkpoint=20000000")
    process = machine.start()
    machine.wait_until(lambda: lines_of(machine.text("log.txt")), "the first lines are in S3")
    machine.faulty.mode = mode
    before = len(lines_of((machine.run / "log.txt").read_text()))
    time.sleep(seconds)
    assert len(lines_of((machine.run / "log.txt").read_text())) > before + 20  # of 100: this machine may be busy
    assert machine.faulty.refused
    machine.faulty.mode = "pass"
    assert machine.ends(process)["outcome"] == "finished"
    assert lines_of(machine.text("log.txt")) == list(range(220))
    # What hangs or is cut for so long may be mended by botocore's own retry.
    assert mode in ("hang", "cut") or "S3 takes the run's files again" in machine.text("output.txt")
    assert machine.get("checkpoints/step-00000220.pt") == (machine.run / "checkpoints/step-00000220.pt").read_bytes()
    assert machine.capacity() == 0


@together
def test_a_full_disk_ends_the_run_with_that_reason_and_keeps_the_checkpoint_before(machine: Machine) -> None:
    disk = machine.folder / "scratch"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2300m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk of one's own needs the right to mount")
    try:
        machine.ask_for("lines=400", "checkpoint=9000000")
        process = machine.start()
        machine.wait_until(lambda: machine.get("checkpoints/last.json"), "the first checkpoint is in S3")
        used = shutil.disk_usage(disk).used
        subprocess.run(["mount", "-o", f"remount,size={used + 4_000_000}", str(disk)], check=True)
        outcome = machine.ends(process)
        assert (outcome["outcome"], outcome["exit_code"]) == ("failed", 2)
        assert outcome["reason"].startswith("cannot write into ")
        assert outcome["reason"].endswith("No space left on device")
        assert lines_of(machine.text("output.txt"), "print") == list(range(400))
        named = json.loads(machine.text("checkpoints/last.json"))[0]
        assert hashlib.sha256(machine.get("checkpoints/" + named["file"]) or b"").hexdigest() == named["sha256"]
        assert machine.capacity() == 0
    finally:
        machine.close()
        subprocess.run(["umount", str(disk)], check=True)


@together
def test_bringing_outlives_an_s3_that_cuts_every_transfer(machine: Machine) -> None:
    machine.ask_for("lines=5", clips=f"clips/{machine.run_id}/")
    big = os.urandom(3_000_000)
    machine.put(f"clips/{machine.run_id}/big.clip", big)
    machine.faulty.mode, machine.faulty.only = "cut", f"/clips/{machine.run_id}/"
    process = machine.start()
    machine.wait_until(lambda: machine.faulty.refused > 2, "it was cut more than once")
    assert process.poll() is None
    machine.faulty.mode = "pass"
    assert machine.ends(process)["outcome"] == "finished"
    assert (machine.folder / f"scratch/clips/{machine.run_id}/big.clip").read_bytes() == big


@together
def test_a_second_run_on_the_machine_brings_no_clip_again(machine: Machine) -> None:
    machine.ask_for("lines=3")
    machine.ends(machine.start())
    machine.faulty.seen.clear()
    machine.ask_for("lines=6")
    machine.ends(machine.start())  # though the machine has left its group, which cannot be done twice
    assert [s for s in machine.faulty.seen if s.method == "GET" and "/clips/" in s.path] == []
    assert lines_of(machine.text("log.txt")) == list(range(6))


@pytest.mark.parametrize("killed", ["trainer", "courier"])
@together
def test_whatever_is_killed_no_line_is_lost(machine: Machine, killed: str) -> None:
    machine.ask_for("lines=100")
    process = machine.start()
    machine.wait_until(lambda: len(lines_of(machine.text("log.txt"))) > 10, "lines are in S3")
    pid = json.loads((machine.run / "run.json").read_text())["pid"]
    if killed == "trainer":
        os.kill(pid, signal.SIGKILL)
        outcome = machine.ends(process)
        assert outcome["outcome"] == "failed"
        assert outcome["reason"] == "the trainer was killed by SIGKILL"
        assert outcome["last_lines"]
        assert not machine.is_active()
        assert machine.capacity() == 0
    else:
        process.kill()
        os.kill(pid, signal.SIGKILL)  # as the end of the container does
        assert machine.get("outcome.json") is None
        assert machine.is_active()
        outcome = machine.ends(machine.start())
        assert outcome["outcome"] == "finished"
        assert lines_of(machine.text("output.txt"), "print") == list(range(100))
    written = (machine.run / "log.txt").read_text()
    assert machine.text("log.txt") == written


@together
def test_after_a_spot_notice_another_machine_goes_on(machine: Machine) -> None:
    machine.ask_for("lines=200")
    process = machine.start()
    machine.wait_until(lambda: len(lines_of(machine.text("log.txt"))) > 10, "lines are in S3")
    noticed = time.monotonic()
    machine.imds.texts["spot/instance-action"] = json.dumps({"action": "terminate", "time": "2026-01-31T18:00:00Z"})
    outcome = machine.ends(process)
    assert time.monotonic() - noticed < 20
    assert (outcome["outcome"], outcome["reason"]) == ("interrupted", "spot machine taken back")
    assert machine.told("machine.json")["spot_notice"]["action"] == "terminate"
    assert machine.is_active()
    assert machine.capacity() == 1  # so that the group replaces it
    stopped_at = len(lines_of(machine.text("log.txt")))
    spent = machine.told("machine.json")["dollars"]
    del machine.imds.texts["spot/instance-action"]
    outcome = machine.ends(machine.start(scratch="scratch-of-another"))
    assert outcome["outcome"] == "finished"
    assert machine.told("run.json")["resumed_at"] == stopped_at
    assert lines_of(machine.text("log.txt")) == list(range(200))
    assert machine.told("machine.json")["dollars"] > spent
    assert not machine.is_active()


@together
def test_sigterm_reaches_the_trainer_and_the_note_tells_who_wanted_it(machine: Machine) -> None:
    machine.ask_for("lines=400")
    process = machine.start()
    machine.wait_until(lambda: lines_of(machine.text("log.txt")), "lines are in S3")
    process.terminate()
    outcome = machine.ends(process)
    assert (outcome["outcome"], outcome["exit_code"]) == ("interrupted", 143)
    assert machine.is_active()
    assert machine.capacity() == 1
    process = machine.start()
    before = len(lines_of(machine.text("log.txt")))
    machine.wait_until(lambda: len(lines_of(machine.text("log.txt"))) > before, "it trains again")
    machine.aws.client("s3").delete_object(Bucket="bucket", Key=f"active/{machine.run_id}")  # as `make stop` does
    process.terminate()
    assert machine.ends(process)["outcome"] == "stopped"
    assert machine.capacity() == 0
    assert len(lines_of(machine.text("log.txt"))) < 400


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@together
def test_of_two_processes_under_torchrun_each_is_asked_and_each_end_is_understood(
    machine: Machine, number: int
) -> None:
    machine.ask_for("lines=2000", processes=2)
    process = machine.start()
    machine.wait_until(lambda: lines_of(machine.text("log.txt")), "lines are in S3")
    if number == signal.SIGTERM:
        process.terminate()
        outcome = machine.ends(process)
        assert (outcome["outcome"], outcome["exit_code"]) == ("interrupted", 143)
    else:
        os.kill(json.loads((machine.run / "run.json").read_text())["pid"], signal.SIGKILL)
        outcome = machine.ends(process)
        assert (outcome["outcome"], outcome["reason"]) == ("failed", "the trainer was killed by SIGKILL")


@together
def test_the_deadline_stops_a_run_and_keeps_what_it_has(machine: Machine) -> None:
    machine.ask_for("lines=1000", deadline=(datetime.now(UTC) + timedelta(seconds=20)).isoformat())
    outcome = machine.ends(machine.start())
    assert outcome["outcome"] == "stopped"
    assert outcome["reason"].startswith("the deadline has come")
    assert outcome["exit_code"] == 143  # it saved before
    assert machine.capacity() == 0
    assert not machine.is_active()
    assert machine.get("checkpoints/last.json")


@together
def test_the_cap_in_dollars_stops_a_run(machine: Machine) -> None:
    machine.ask_for("lines=1000", price_per_hour=3600, cap_dollars=6)  # a dollar a second
    outcome = machine.ends(machine.start())
    assert outcome["outcome"] == "stopped"
    assert outcome["reason"].startswith("the cap of $6.00 is reached")
    assert 6 <= machine.told("machine.json")["dollars"] < 20
    assert machine.capacity() == 0


@contextmanager
def listener(machine: Machine) -> Iterator[tuple[str, Callable[[], list[tuple[str, str]]]]]:
    """A topic's ARN, and what somebody has heard of it who subscribed: subject and text of each message."""
    sns, sqs = machine.aws.client("sns"), machine.aws.client("sqs")
    topic = sns.create_topic(Name=machine.run_id)["TopicArn"]
    queue = sqs.create_queue(QueueName=machine.run_id)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)

    def heard() -> list[tuple[str, str]]:
        found = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        bodies = [json.loads(message["Body"]) for message in found]
        return [(body["Subject"], body["Message"]) for body in bodies]

    yield topic, heard


@pytest.mark.parametrize(
    ("settings", "changes", "told"),
    [
        (["lines=3"], {}, "has finished: .*Next: make download RUN={run}"),
        (["crash=1"], {}, "has failed: optim.lr must be positive.*Next: make logs RUN={run}"),
        (
            ["lines=1000"], {"price_per_hour": 3600, "cap_dollars": 3},
            r"has stopped: the cap of \$3.00 is reached.*Next: make resume RUN={run} CAP=6",
        ),
        (
            ["lines=1000"], {"deadline": (datetime.now(UTC) + timedelta(seconds=15)).isoformat()},
            "has stopped: the deadline has come.*Next: make resume RUN={run}",
        ),
    ],
    ids=["finished", "failed", "cap", "deadline"],
)  # fmt: skip
@together
def test_whoever_listens_hears_once_how_a_run_ended_and_what_it_cost(
    machine: Machine, settings: list[str], changes: dict[str, Any], told: str
) -> None:
    machine.ask_for(*settings, **changes)
    with listener(machine) as (topic, heard):
        outcome = machine.ends(machine.start(TOPIC=topic))
        ((subject, text),) = heard()
    assert subject == f"run {machine.run_id} has {outcome['outcome']}"
    assert re.fullmatch(f"Run {machine.run_id} {told.format(run=machine.run_id)} STACK={machine.run_id}", text), text
    assert re.search(r"It has cost \$\d+\.\d\d\. ", text)


@together
def test_the_operator_who_stops_a_run_is_not_told_so_and_a_machine_that_is_taken_ends_none(machine: Machine) -> None:
    machine.ask_for("lines=400")
    with listener(machine) as (topic, heard):
        process = machine.start(TOPIC=topic)
        machine.wait_until(lambda: lines_of(machine.text("log.txt")), "lines are in S3")
        process.terminate()
        assert machine.ends(process)["outcome"] == "interrupted"
        process = machine.start(TOPIC=topic)
        before = len(lines_of(machine.text("log.txt")))
        machine.wait_until(lambda: len(lines_of(machine.text("log.txt"))) > before, "it trains again")
        machine.aws.client("s3").delete_object(Bucket="bucket", Key=f"active/{machine.run_id}")  # as `make stop` does
        process.terminate()
        assert machine.ends(process)["outcome"] == "stopped"
        assert heard() == []


@together
def test_a_topic_that_takes_nothing_keeps_no_run_from_its_end(machine: Machine) -> None:
    machine.ask_for("lines=3")
    outcome = machine.ends(machine.start(TOPIC=f"arn:aws:sns:{REGION}:123456789012:gone"))
    assert outcome["outcome"] == "finished"
    assert "nobody could be told of the run's end" in machine.log()
    assert not machine.is_active()
    assert machine.capacity() == 0


def test_a_trainer_that_says_nothing_and_hears_nothing_is_killed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (machine.aws.environment() | {"AWS_ENDPOINT_URL": machine.faulty.url}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tending, "SECONDS_TO_SAVE", 1.0)
    station = Station(
        open_bucket("bucket", REGION), machine.folder, machine.run_id, REGION, machine.run_id, machine.instance, ""
    )
    duty = Duty(machine.run_id, station)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    began = time.monotonic()
    step = Step("training", "the trainer", [sys.executable, "-c", deaf], is_trainer=True)
    outcome = tending.tend(duty, step, stall_minutes=0.03)
    assert time.monotonic() - began < 20
    assert (outcome["outcome"], outcome["exit_code"]) == ("failed", -signal.SIGKILL)
    assert outcome["reason"].startswith("the trainer gave no sign of life for 0.03 minutes; the trainer did not save")


@pytest.mark.parametrize(
    ("settings", "changes", "reason"),
    [
        (["crash=1"], {}, "optim.lr must be positive"),
        (["toobig=1"], {}, "8 videos in 1 pieces do not fit into memory"),
        ([], {"processes": "gpu"}, "the run asks for GPUs and nvidia-smi shows none"),
        ([], {"clips": "clips/none/"}, "s3://bucket/clips/none/ holds no clips"),
        ([], {"manifest": "manifests/none.csv"}, "s3://bucket/manifests/none.csv is not there"),
        ([], {"cap_dollars": "much"}, 'the request\'s cap_dollars is a number above zero, not "much"'),
    ],
)
@together
def test_a_run_that_cannot_be_says_why_and_gives_the_machine_back(
    machine: Machine, settings: list[str], changes: dict[str, Any], reason: str
) -> None:
    machine.ask_for(*settings, **changes)
    outcome = machine.ends(machine.start(PATH="/nowhere"))
    assert outcome["outcome"] == "failed"
    assert outcome["reason"].startswith(reason)
    assert not machine.is_active()
    assert machine.capacity() == 0


@together
def test_a_run_that_does_not_exist_is_told_so_where_it_would_be_looked_for(machine: Machine) -> None:
    machine.put(f"active/{machine.run_id}", machine.run_id)
    outcome = machine.ends(machine.start())
    assert outcome["outcome"] == "failed"
    assert outcome["reason"].startswith(f"there is no run {machine.run_id}")
    assert not machine.is_active()
    assert machine.capacity() == 0
