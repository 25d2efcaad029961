"""A cloud on this machine: moto's server behind real HTTP, in a process of its own, with what moto lacks for us.

    with cloud(folder) as aws: ...        # aws.environment() is what a command needs to speak to it

It knows EC2's vCPU quotas (in a file that a test may rewrite), a Deep Learning machine image and the parameter that
names it. With `run_commands` its instances are stand-in machines (machines.py) that boot their user data, and SSM
really runs on them what it is sent (runcommand.py).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(os.environ.get("SLOWFAST_TEST_TOOLS") or ROOT.parent / "shared" / "tools")
REGION = "us-east-1"
IMAGE_NAME = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 20251101"
IMAGE_PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
ROOM_FOR_TWO = {"L-DB2E81BA": 8.0, "L-3819A6DF": 8.0}


def client_at(url: str, service: str) -> Any:
    return boto3.client(
        service, endpoint_url=url, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
    )


@dataclass(frozen=True)
class Cloud:
    url: str
    folder: Path

    def environment(self) -> dict[str, str]:
        """Variables of the AWS SDKs: this endpoint, and nothing of the person's own who runs the tests."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": str(self.folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "no-credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str) -> Any:
        return client_at(self.url, service)

    def set_quotas(self, limits: dict[str, float]) -> None:
        (self.folder / "quotas.json").write_text(json.dumps(limits))

    def spot_notice(self, instance: str, seconds: float = 120) -> None:
        """Tell a machine that it is taken back, and take it so many seconds later."""
        written = self.folder / "notice.tmp"
        written.write_text(json.dumps(seconds))
        written.rename(self.folder / "machines" / "notices" / instance)


@contextmanager
def cloud(folder: Path, *, run_commands: bool = False, boot_seconds: float = 1.0, image: str = "") -> Iterator[Cloud]:
    """A fresh cloud in a process of its own. With `run_commands` it has machines, as can_stand_in() allows.

    Their containers are processes; given an `image` of this machine's Docker engine, they are containers of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    (folder / "quotas.json").write_text(json.dumps(ROOM_FOR_TWO))
    line = [sys.executable, __file__, "--folder", str(folder), "--boot-seconds", str(boot_seconds)]
    line += ["--image", image]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([*line, *(["--run-commands"] if run_commands else [])], stdout=log, stderr=log)
    try:
        for _ in range(600):
            if ready.exists():
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        else:
            raise TimeoutError("the cloud did not start within a minute")
        yield Cloud(ready.read_text(), folder)
    finally:
        server.terminate()
        server.wait()


def serve(folder: Path, run_commands: bool, boot_seconds: float, image: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    # Without these, which moto reads when it is imported, AWS's own policies cannot be attached to a role.
    os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    import gaps
    from moto.server import ThreadedMotoServer

    gaps.repair(folder / "quotas.json")
    gaps.publish_image(IMAGE_NAME, IMAGE_PARAMETER, REGION)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    machines = None
    if run_commands:
        from machines import Machines
        from runcommand import run_commands as run_commands_on

        machines = Machines(folder / "machines", partial(client_at, url), url, boot_seconds, image)
        run_commands_on(machines.online)
        machines.watch()
    temporary = folder / "ready.tmp"
    temporary.write_text(url)
    temporary.rename(folder / "ready")
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    if machines:
        machines.close()
    server.stop()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--run-commands", action="store_true")
    arguments.add_argument("--boot-seconds", type=float, default=1.0)
    arguments.add_argument("--image", default="")
    given = arguments.parse_args()
    serve(given.folder, given.run_commands, given.boot_seconds, given.image)
