"""Machines with couriers on them: real processes, over real HTTP, to a cloud and a metadata service that may fail them.

    @together
    def test_something_survives(machine: Machine) -> None: ...

Stories wait far more than they work, so all that are chosen are begun at once, some at a time, each on a machine and
with a run of its own; a test then waits for its story's end.
"""

import atexit
import functools
import hashlib
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cloud import REGION, ROOT, Cloud, cloud
from faults import Metadata, Proxy, metadata, proxy

FAKE = Path(__file__).with_name("faketrainer.py")
AT_ONCE = 6


@functools.cache
def the_cloud() -> Cloud:
    """One cloud for all tests of the session, with a bucket, and two machines' worth of addresses on this one."""
    stack = ExitStack()
    atexit.register(stack.close)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    started = stack.enter_context(cloud(folder))
    started.client("s3").create_bucket(Bucket="bucket")
    toys = {"manifests/toy/manifest.csv": b"clip_id\n", "manifests/toy/manifest.json": b"{}"}
    toys |= {f"clips/toy/{number:02}/{number}.clip": bytes([number]) * 1000 for number in range(5)}
    for key, data in toys.items():
        started.client("s3").put_object(Bucket="bucket", Key=key, Body=data)
    ec2 = started.client("ec2")
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    started.client("autoscaling").create_launch_configuration(
        LaunchConfigurationName="box", ImageId=image, InstanceType="g4dn.xlarge"
    )
    return started


@dataclass
class Machine:
    """A machine of a group of its own, with a courier on it."""

    aws: Cloud
    faulty: Proxy
    imds: Metadata
    folder: Path
    run_id: str
    instance: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def run(self) -> Path:
        return self.folder / "scratch" / "runs" / self.run_id

    def put(self, key: str, data: bytes | str) -> None:
        self.aws.client("s3").put_object(Bucket="bucket", Key=key, Body=data)

    def put_folder(self, prefix: str, folder: Path) -> None:
        for path in (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
            self.put(prefix + path.relative_to(folder).as_posix(), path.read_bytes())

    def object(self, key: str) -> bytes | None:
        s3 = self.aws.client("s3")
        try:
            return bytes(s3.get_object(Bucket="bucket", Key=key)["Body"].read())
        except s3.exceptions.NoSuchKey:
            return None

    def keys(self, prefix: str) -> set[str]:
        pages = self.aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
        return {found["Key"] for page in pages for found in page.get("Contents", ())}

    def get(self, name: str) -> bytes | None:
        """A file of the run, as S3 has it."""
        return self.object(f"runs/{self.run_id}/{name}")

    def text(self, name: str) -> str:
        return (self.get(name) or b"").decode()

    def told(self, name: str = "outcome.json") -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.text(name))
        return value

    def is_active(self) -> bool:
        return self.object(f"active/{self.run_id}") is not None

    def capacity(self) -> int:
        groups = self.aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[self.run_id])
        return int(groups["AutoScalingGroups"][0]["DesiredCapacity"])

    def ask_for(self, *settings: str, **changes: Any) -> None:
        request = {
            "config": f"runs/{self.run_id}/config.yaml", "manifest": "manifests/toy/manifest.csv",
            "clips": "clips/toy/", "settings": list(settings), "processes": 1, "cap_dollars": 20,
            "price_per_hour": 1.0, "deadline": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        }  # fmt: skip
        self.put(f"runs/{self.run_id}/request.json", json.dumps(request | changes))
        self.put(f"active/{self.run_id}", self.run_id)

    def environment(self, **changes: str) -> dict[str, str]:
        variables = os.environ | self.aws.environment() | {
            "AWS_ENDPOINT_URL": self.faulty.url, "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.imds.url,
            "AWS_EC2_METADATA_DISABLED": "false", "OMP_NUM_THREADS": "1", "STACK": self.run_id, "REGION": REGION,
            "BUCKET": "bucket", "ASG": self.run_id, "INSTANCE": self.instance, "IMAGE": "image@sha256:0",
            "PYTHONPATH": str(ROOT),
        } | changes  # fmt: skip
        return {name: value for name, value in variables.items() if value}

    def start(
        self, *, fake: bool = True, scratch: str = "scratch", addresses: int | None = None, **environment: str
    ) -> subprocess.Popen[str]:  # fmt: skip
        """Start a courier, with the fake trainer or the real one; it may be held to so many KiB of addresses."""
        home = self.folder / ("home" if fake else "real-home")
        if not home.exists():
            (home / "trainer").mkdir(parents=True) if fake else home.mkdir()
        if fake:
            shutil.copy(FAKE, home / "trainer" / "__main__.py")
            (home / "trainer" / "__init__.py").touch()
        disk = self.folder / scratch
        disk.mkdir(exist_ok=True)
        if not (disk / ".charged").exists():  # it "booted" just now
            (disk / ".charged").write_text(Path("/proc/uptime").read_text().split()[0])
        # Its own lines go to a file, for nobody here reads a pipe.
        with (self.folder / "courier.log").open("a") as log:
            limit = ["bash", "-c", f'ulimit -v {addresses}; exec "$@"', "limited"] if addresses else []
            process = subprocess.Popen(
                [*limit, sys.executable, "-m", "infra.box.courier", self.run_id, "--scratch", str(disk)],
                cwd=home, env=self.environment(**environment), stdout=log, stderr=log, text=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        for told in self.folder.glob("scratch*/runs/*/run.json"):
            with suppress(ProcessLookupError, KeyError, ValueError):
                os.kill(json.loads(told.read_text())["pid"], signal.SIGKILL)

    def wait_until(self, happens: Callable[[], Any], what: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not happens():
            assert time.monotonic() < end, f"waited in vain until {what}; {self.log()}"
            time.sleep(0.1)

    def log(self) -> str:
        path = self.folder / "courier.log"
        return path.read_text() if path.exists() else ""

    def ends(self, process: subprocess.Popen[str], code: int = 0, seconds: float = 90) -> dict[str, Any]:
        """Wait for the courier's own end; what outcome.json in S3 says then."""
        assert process.wait(seconds) == code, self.log()
        return self.told()


@contextmanager
def new_machine(name: str, folder: Path, *, size: int = 1) -> Iterator[Machine]:
    """A machine whose run and group are named after `name`; the group may have others, too."""
    aws = the_cloud()
    run_id = "r" + hashlib.sha256(name.encode()).hexdigest()[:12]
    scaling = aws.client("autoscaling")
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=run_id, LaunchConfigurationName="box", MinSize=0, MaxSize=4, DesiredCapacity=size,
        AvailabilityZones=[REGION + "a"],
    )  # fmt: skip
    group = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[run_id])["AutoScalingGroups"][0]
    with proxy(aws.url) as faulty, metadata({"instance-type": "g4dn.xlarge", "instance-life-cycle": "spot"}) as imds:
        made = Machine(aws, faulty, imds, folder, run_id, group["Instances"][0]["InstanceId"])
        made.put(f"runs/{run_id}/config.yaml", "{}")
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    with new_machine(request.node.nodeid, tmp_path) as made:
        yield made


def together(story: Callable[..., Any]) -> Callable[..., None]:
    """Make a test of a story, begun with the other chosen ones of its file; what it returns is printed."""
    parameters = [p for name, p in inspect.signature(story).parameters.items() if name != "machine"]

    def test(request: pytest.FixtureRequest, begun: dict[str, Future[Any]], **_: Any) -> None:
        if (said := begun[request.node.nodeid].result()) is not None:
            print(f"\n{said}")

    functools.update_wrapper(test, story)
    del test.__wrapped__  # type: ignore[attr-defined]
    own = [p for name, p in inspect.signature(test).parameters.items() if name != "_"]
    test.__signature__ = inspect.Signature([*own, *(p.replace(kind=p.KEYWORD_ONLY) for p in parameters)])  # type: ignore[attr-defined]
    test.story = story  # type: ignore[attr-defined]
    return test


@pytest.fixture
def begun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Any]]:
    """All chosen stories of the session, by their tests' ids; the first who asks begins them."""
    if not hasattr(request.session, "stories"):
        request.session.stories = _begin(request.session.items, tmp_path_factory.mktemp("machines"))  # type: ignore[attr-defined]
    stories: dict[str, Future[Any]] = request.session.stories  # type: ignore[attr-defined]
    return stories


def _begin(items: list[Any], folder: Path) -> dict[str, Future[Any]]:
    def tell(number: int, item: Any) -> Any:
        (folder / str(number)).mkdir()
        with new_machine(item.nodeid, folder / str(number)) as made:
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            return item.function.story(made, **parameters)

    the_cloud()
    chosen = [item for item in items if hasattr(item.function, "story")]
    pool = ThreadPoolExecutor(AT_ONCE)
    begun = {item.nodeid: pool.submit(tell, number, item) for number, item in enumerate(chosen)}
    atexit.register(pool.shutdown, wait=False, cancel_futures=True)
    return begun


def lines_of(text: str, word: str = "line") -> list[int]:
    return [int(found) for found in re.findall(rf"^\S+ {word} (\d+)$", text, re.MULTILINE)]
