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
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cloud import REGION, Cloud, cloud
from faults import Metadata, Proxy, metadata, proxy
from toys import TINY, make_corpus

from infra.box import courier
from infra.box.station import Station
from infra.box.transfer import open_bucket

FAKE = Path(__file__).with_name("faketrainer.py")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("cloud")) as started:
        started.client("s3").create_bucket(Bucket="bucket")
        image = started.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        started.client("autoscaling").create_launch_configuration(
            LaunchConfigurationName="box", ImageId=image, InstanceType="g4dn.xlarge"
        )
        yield started


@pytest.fixture
def faulty(aws: Cloud) -> Iterator[Proxy]:
    with proxy(aws.url) as made:
        yield made


@pytest.fixture
def imds() -> Iterator[Metadata]:
    with metadata({"instance-type": "g4dn.xlarge", "instance-life-cycle": "spot"}) as service:
        yield service


@dataclass
class Box:
    """A machine of a group of one, with a courier on it."""

    aws: Cloud
    faulty: Proxy
    imds: Metadata
    folder: Path
    run_id: str
    group: str
    instance: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def run(self) -> Path:
        return self.folder / "scratch" / "runs" / self.run_id

    def put(self, key: str, data: bytes | str) -> None:
        self.aws.client("s3").put_object(Bucket="bucket", Key=key, Body=data)

    def get(self, name: str) -> bytes | None:
        s3 = self.aws.client("s3")
        try:
            return bytes(s3.get_object(Bucket="bucket", Key=f"runs/{self.run_id}/{name}")["Body"].read())
        except s3.exceptions.NoSuchKey:
            return None

    def text(self, name: str) -> str:
        return (self.get(name) or b"").decode()

    def told(self, name: str = "outcome.json") -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.text(name))
        return value

    def is_active(self) -> bool:
        found = self.aws.client("s3").list_objects_v2(Bucket="bucket", Prefix=f"active/{self.run_id}")
        return found["KeyCount"] == 1

    def capacity(self) -> int:
        groups = self.aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[self.group])
        return int(groups["AutoScalingGroups"][0]["DesiredCapacity"])

    def ask_for(self, *settings: str, **changes: Any) -> None:
        request = {
            "config": f"runs/{self.run_id}/config.yaml", "manifest": "manifests/toy/manifest.csv",
            "clips": "clips/toy/", "settings": list(settings), "processes": 1, "cap_dollars": 20,
            "price_per_hour": 1.0, "deadline": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        }  # fmt: skip
        self.put(f"runs/{self.run_id}/request.json", json.dumps(request | changes))
        self.put(f"active/{self.run_id}", self.run_id)

    def start(self, *, fake: bool = True, scratch: str = "scratch", **environment: str) -> subprocess.Popen[str]:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        if fake and not (home / "trainer").exists():
            (home / "trainer").mkdir()
            shutil.copy(FAKE, home / "trainer" / "__main__.py")
            (home / "trainer" / "__init__.py").touch()
        disk = self.folder / scratch
        disk.mkdir(exist_ok=True)
        (disk / ".charged").write_text(Path("/proc/uptime").read_text().split()[0])
        variables = os.environ | self.aws.environment() | {
            "AWS_ENDPOINT_URL": self.faulty.url, "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.imds.url,
            "AWS_EC2_METADATA_DISABLED": "false", "OMP_NUM_THREADS": "1", "STACK": self.run_id, "REGION": REGION,
            "BUCKET": "bucket", "ASG": self.group, "INSTANCE": self.instance, "IMAGE": "image@sha256:0",
        } | environment  # fmt: skip
        # Its own lines go to a file, for nobody here reads a pipe.
        with (self.folder / "courier.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "infra.box.courier", self.run_id, "--scratch", str(disk)],
                cwd=home, env={k: v for k, v in variables.items() if v}, stdout=log, stderr=log, text=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        for told in self.folder.glob("scratch*/runs/*/run.json"):
            with suppress(ProcessLookupError, KeyError):
                os.kill(json.loads(told.read_text())["pid"], signal.SIGKILL)

    def wait_until(self, happens: Callable[[], Any], what: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not happens():
            assert time.monotonic() < end, f"waited in vain until {what}; {(self.folder / 'courier.log').read_text()}"
            time.sleep(0.05)

    def ends(self, process: subprocess.Popen[str], code: int = 0, seconds: float = 90) -> dict[str, Any]:
        """Wait for the courier's own end; what outcome.json in S3 says then."""
        assert process.wait(seconds) == code, (self.folder / "courier.log").read_text()
        return self.told()


@pytest.fixture
def box(aws: Cloud, faulty: Proxy, imds: Metadata, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Box]:
    run_id = "r" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    scaling = aws.client("autoscaling")
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=run_id, LaunchConfigurationName="box", MinSize=0, MaxSize=2, DesiredCapacity=1,
        AvailabilityZones=[REGION + "a"],
    )  # fmt: skip
    group = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[run_id])["AutoScalingGroups"][0]
    made = Box(aws, faulty, imds, tmp_path, run_id, run_id, group["Instances"][0]["InstanceId"])
    made.put(f"runs/{run_id}/config.yaml", "{}")
    made.put("manifests/toy/manifest.csv", "clip_id\n")
    made.put("manifests/toy/manifest.json", "{}")
    for number in range(5):
        made.put(f"clips/toy/{number:02}/{number}.clip", bytes([number]) * 1000)
    yield made
    made.close()


def lines_of(text: str, word: str = "line") -> list[int]:
    return [int(found) for found in re.findall(rf"^\S+ {word} (\d+)$", text, re.MULTILINE)]


def test_a_run_goes_from_s3_to_its_outcome_and_the_machine_is_given_back(box: Box) -> None:
    box.ask_for("lines=40")
    outcome = box.ends(box.start())
    assert outcome["outcome"] == "finished"
    assert lines_of(box.text("log.txt")) == list(range(40))
    assert lines_of(box.text("output.txt"), "print") == list(range(40))
    there = {p.relative_to(box.run).as_posix() for p in box.run.rglob("*") if p.is_file()}
    for name in there:
        assert box.get(name) == (box.run / name).read_bytes(), name
    last = [seen for seen in box.faulty.seen if seen.method in ("PUT", "DELETE") and "/runs/" in seen.path][-1]
    assert last.path.endswith("/outcome.json")
    assert not box.is_active()
    assert box.capacity() == 0
    machine = box.told("machine.json")
    assert (machine["type"], machine["market"], machine["phase"]) == ("g4dn.xlarge", "spot", "ended")
    assert 0 < machine["dollars"] < 0.1


def test_a_checkpoint_is_uploaded_once_and_named_only_when_it_is_there(box: Box) -> None:
    size = 40_000_000
    box.ask_for("lines=40", f"checkpoint={size}")
    box.ends(box.start())
    for step in (20, 40):
        parts = box.faulty.uploads(f"step-{step:08}.pt")
        # Each part is sent with a signature of its own around it, hence the per mille.
        assert size <= sum(part.sent for part in parts) < size * 1.001
    done = [s for s in box.faulty.seen if s.path.endswith(".pt") and s.method == "POST" and "uploadId" in s.query]
    pointers = box.faulty.uploads("last.json")
    assert len(done) == 2
    assert done[0].time <= pointers[0].time
    named = json.loads(box.text("checkpoints/last.json"))
    assert hashlib.sha256(box.get("checkpoints/" + named[0]["file"]) or b"").hexdigest() == named[0]["sha256"]


@pytest.mark.parametrize("mode", ["503", "expired", "hang", "cut"])
def test_training_goes_on_while_s3_is_away_and_nothing_is_lost(box: Box, mode: str) -> None:
    box.ask_for("lines=220", "per_second=20", "checkpoint=20000000")
    process = box.start()
    box.wait_until(lambda: lines_of(box.text("log.txt")), "the first lines are in S3")
    box.faulty.mode = mode
    before = len(lines_of((box.run / "log.txt").read_text()))
    time.sleep(5)
    assert len(lines_of((box.run / "log.txt").read_text())) > before + 50  # of 100: this machine may be busy
    assert box.faulty.refused
    box.faulty.mode = "pass"
    assert box.ends(process)["outcome"] == "finished"
    assert lines_of(box.text("log.txt")) == list(range(220))
    # What hangs or is cut for so long may be mended by botocore's own retry.
    assert mode in ("hang", "cut") or "S3 takes the run's files again" in box.text("output.txt")
    assert box.get("checkpoints/step-00000220.pt") == (box.run / "checkpoints/step-00000220.pt").read_bytes()
    assert box.capacity() == 0


def test_bringing_outlives_an_s3_that_cuts_every_transfer(box: Box) -> None:
    box.ask_for("lines=5")
    big = os.urandom(3_000_000)
    box.put("clips/toy/big.clip", big)
    box.faulty.mode, box.faulty.only = "cut", "/clips/toy/"
    process = box.start()
    box.wait_until(lambda: box.faulty.refused > 9, "some files were cut more than once")
    assert process.poll() is None
    box.faulty.mode = "pass"
    assert box.ends(process)["outcome"] == "finished"
    assert (box.folder / "scratch/clips/toy/big.clip").read_bytes() == big


def test_a_second_run_on_the_machine_brings_no_clip_again(box: Box) -> None:
    box.ask_for("lines=3")
    box.ends(box.start())
    box.faulty.seen.clear()
    box.ask_for("lines=6")
    box.ends(box.start())  # though the machine has left its group, which cannot be done twice
    assert [s for s in box.faulty.seen if s.method == "GET" and "/clips/" in s.path] == []
    assert lines_of(box.text("log.txt")) == list(range(6))


@pytest.mark.parametrize("killed", ["trainer", "courier"])
def test_whatever_is_killed_no_line_is_lost(box: Box, killed: str) -> None:
    box.ask_for("lines=100")
    process = box.start()
    box.wait_until(lambda: len(lines_of(box.text("log.txt"))) > 10, "lines are in S3")
    pid = json.loads((box.run / "run.json").read_text())["pid"]
    if killed == "trainer":
        os.kill(pid, signal.SIGKILL)
        outcome = box.ends(process)
        assert outcome["outcome"] == "failed"
        assert outcome["reason"] == "the trainer was killed by SIGKILL"
        assert outcome["last_lines"]
        assert not box.is_active()
        assert box.capacity() == 0
    else:
        process.kill()
        os.kill(pid, signal.SIGKILL)  # as the end of the container does
        assert box.get("outcome.json") is None
        assert box.is_active()
        outcome = box.ends(box.start())
        assert outcome["outcome"] == "finished"
        assert lines_of(box.text("output.txt"), "print") == list(range(100))
    written = (box.run / "log.txt").read_text()
    assert box.text("log.txt") == written


def test_after_a_spot_notice_another_machine_goes_on(box: Box) -> None:
    box.ask_for("lines=200")
    process = box.start()
    box.wait_until(lambda: len(lines_of(box.text("log.txt"))) > 10, "lines are in S3")
    noticed = time.monotonic()
    box.imds.texts["spot/instance-action"] = json.dumps({"action": "terminate", "time": "2026-01-31T18:00:00Z"})
    outcome = box.ends(process)
    assert time.monotonic() - noticed < 20
    assert (outcome["outcome"], outcome["reason"]) == ("interrupted", "spot machine taken back")
    assert box.told("machine.json")["spot_notice"]["action"] == "terminate"
    assert box.is_active()
    assert box.capacity() == 1  # so that the group replaces it
    stopped_at = len(lines_of(box.text("log.txt")))
    spent = box.told("machine.json")["dollars"]
    del box.imds.texts["spot/instance-action"]
    outcome = box.ends(box.start(scratch="scratch-of-another"))
    assert outcome["outcome"] == "finished"
    assert box.told("run.json")["resumed_at"] == stopped_at
    assert lines_of(box.text("log.txt")) == list(range(200))
    assert box.told("machine.json")["dollars"] > spent
    assert not box.is_active()


def test_sigterm_reaches_the_trainer_and_the_note_tells_who_wanted_it(box: Box) -> None:
    box.ask_for("lines=400")
    process = box.start()
    box.wait_until(lambda: lines_of(box.text("log.txt")), "lines are in S3")
    process.terminate()
    outcome = box.ends(process)
    assert (outcome["outcome"], outcome["exit_code"]) == ("interrupted", 143)
    assert box.is_active()
    assert box.capacity() == 1
    process = box.start()
    before = len(lines_of(box.text("log.txt")))
    box.wait_until(lambda: len(lines_of(box.text("log.txt"))) > before, "it trains again")
    box.aws.client("s3").delete_object(Bucket="bucket", Key=f"active/{box.run_id}")  # as `make stop` does
    process.terminate()
    assert box.ends(process)["outcome"] == "stopped"
    assert box.capacity() == 0
    assert len(lines_of(box.text("log.txt"))) < 400


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_of_two_processes_under_torchrun_each_is_asked_and_each_end_is_understood(box: Box, number: int) -> None:
    box.ask_for("lines=2000", processes=2)
    process = box.start()
    box.wait_until(lambda: lines_of(box.text("log.txt")), "lines are in S3")
    if number == signal.SIGTERM:
        process.terminate()
        outcome = box.ends(process)
        assert (outcome["outcome"], outcome["exit_code"]) == ("interrupted", 143)
    else:
        os.kill(json.loads((box.run / "run.json").read_text())["pid"], signal.SIGKILL)
        outcome = box.ends(process)
        assert (outcome["outcome"], outcome["reason"]) == ("failed", "the trainer was killed by SIGKILL")


def test_the_deadline_stops_a_run_and_keeps_what_it_has(box: Box) -> None:
    box.ask_for("lines=1000", deadline=(datetime.now(UTC) + timedelta(seconds=5)).isoformat())
    outcome = box.ends(box.start())
    assert outcome["outcome"] == "stopped"
    assert outcome["reason"].startswith("the deadline has come")
    assert outcome["exit_code"] == 143  # it saved before
    assert box.capacity() == 0
    assert not box.is_active()
    assert box.get("checkpoints/last.json")


def test_the_cap_in_dollars_stops_a_run(box: Box) -> None:
    box.ask_for("lines=1000", price_per_hour=3600, cap_dollars=6)  # a dollar a second
    outcome = box.ends(box.start())
    assert outcome["outcome"] == "stopped"
    assert outcome["reason"].startswith("the cap of $6.00 is reached")
    assert 6 <= box.told("machine.json")["dollars"] < 20
    assert box.capacity() == 0


def test_a_trainer_that_says_nothing_and_hears_nothing_is_killed(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (box.aws.environment() | {"AWS_ENDPOINT_URL": box.faulty.url}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(courier, "SECONDS_TO_SAVE", 1.0)
    box.ask_for(stall_minutes=0.03)
    station = Station(open_bucket("bucket", REGION), box.folder, box.run_id, REGION, box.group, box.instance, "")
    carried = courier.Courier(box.run_id, station)
    carried.request = courier.read_request(courier.ask(carried))
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    began = time.monotonic()
    outcome = courier.train(carried, carried.request, [sys.executable, "-c", deaf])
    assert time.monotonic() - began < 20
    assert (outcome["outcome"], outcome["exit_code"]) == ("failed", -signal.SIGKILL)
    assert outcome["reason"].startswith("the trainer gave no sign of life for 0.03 minutes; the trainer did not save")


@pytest.mark.parametrize(
    ("settings", "changes", "reason"),
    [
        (["crash=1"], {}, "optim.lr must be positive"),
        ([], {"processes": "gpu"}, "the run asks for GPUs and nvidia-smi shows none"),
        ([], {"clips": "clips/none/"}, "s3://bucket/clips/none/ holds no clips"),
        ([], {"manifest": "manifests/none.csv"}, "s3://bucket/manifests/none.csv is not there"),
        ([], {"cap_dollars": "much"}, 'the request\'s cap_dollars is a number above zero, not "much"'),
    ],
)
def test_a_run_that_cannot_be_says_why_and_gives_the_machine_back(
    box: Box, settings: list[str], changes: dict[str, Any], reason: str
) -> None:
    box.ask_for(*settings, **changes)
    outcome = box.ends(box.start(PATH="/nowhere"))
    assert outcome["outcome"] == "failed"
    assert outcome["reason"].startswith(reason)
    assert not box.is_active()
    assert box.capacity() == 0


def test_a_run_that_does_not_exist_is_told_so_where_it_would_be_looked_for(box: Box) -> None:
    box.put(f"active/{box.run_id}", box.run_id)
    outcome = box.ends(box.start())
    assert outcome["outcome"] == "failed"
    assert outcome["reason"].startswith(f"there is no run {box.run_id}")
    assert not box.is_active()
    assert box.capacity() == 0


def test_a_line_is_in_s3_within_five_seconds_and_the_courier_costs_little(box: Box) -> None:
    box.ask_for("lines=150", "per_second=10")
    process = box.start()
    box.wait_until(lambda: lines_of(box.text("output.txt"), "print"), "the trainer prints")
    ticks = os.sysconf("SC_CLK_TCK")

    def seconds() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks

    arrived: dict[int, float] = {}

    def watch() -> None:
        while process.poll() is None:
            text, now = box.text("output.txt"), time.time()
            for line in lines_of(text, "print"):
                arrived.setdefault(line, now)
            time.sleep(0.2)

    watching = threading.Thread(target=watch)
    watching.start()
    used, began = seconds(), time.monotonic()
    time.sleep(10)
    share = (seconds() - used) / (time.monotonic() - began)
    box.ends(process)
    watching.join()
    printed = dict(re.findall(r"^(\S+) print (\d+)$", box.text("output.txt"), re.MULTILINE))
    late = sorted(arrived[int(line)] - float(when) for when, line in printed.items() if int(line) in arrived)
    p95 = late[int(0.95 * len(late))]
    print(f"\nline to S3: p50 {late[len(late) // 2]:.2f} s, p95 {p95:.2f} s; courier {share:.2%} of a core")
    assert len(late) == 150
    assert p95 <= 5
    assert share < 0.06  # 2 % on a machine that is not shared; the figure is printed


def test_a_real_training_goes_from_s3_to_weights_in_s3(box: Box) -> None:
    manifest, clips = make_corpus(box.folder / "corpus", actors=4, takes=1)
    for path in (manifest, manifest.with_suffix(".json")):
        box.put(f"manifests/real/{path.name}", path.read_bytes())
    for path in (p for p in clips.rglob("*") if p.is_file()):
        box.put(f"clips/real/{path.relative_to(clips).as_posix()}", path.read_bytes())
    box.ask_for(
        *TINY, "optim.epochs=1", "device=cpu", config="demo.yaml", manifest="manifests/real/manifest.csv",
        clips="clips/real/",
    )  # fmt: skip
    outcome = box.ends(box.start(fake=False), seconds=150)
    assert outcome["outcome"] == "finished", outcome
    for name in ("model.safetensors", "log.txt", "metrics.jsonl", "evaluation.json", "report.html", "output.txt"):
        assert box.get(name) == (box.run / name).read_bytes(), name
    assert not box.is_active()
    assert box.capacity() == 0
