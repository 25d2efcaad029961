"""A cloud on this machine: moto's server behind real HTTP, in a process of its own, with what moto lacks for us.

    with cloud(folder) as aws: ...        # aws.environment() is what a command needs to speak to it

It knows EC2's vCPU quotas (in a file that a test may rewrite), a Deep Learning machine image and the parameter that
names it. Where the shared tools are, SSM really runs what it is sent; see ssm_host.py there.
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
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(os.environ.get("SLOWFAST_TEST_TOOLS") or ROOT.parent / "shared" / "tools")
REGION = "us-east-1"
IMAGE_PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
ROOM_FOR_TWO = {"L-DB2E81BA": 8.0, "L-3819A6DF": 8.0}


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
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def set_quotas(self, limits: dict[str, float]) -> None:
        (self.folder / "quotas.json").write_text(json.dumps(limits))


@contextmanager
def cloud(folder: Path, *ssm_options: str, run_commands: bool = False) -> Iterator[Cloud]:
    """A fresh cloud in a process of its own. `run_commands` needs the shared tools and takes ssm_host.py's options."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    (folder / "quotas.json").write_text(json.dumps(ROOM_FOR_TWO))
    line = [sys.executable, __file__, "--folder", str(folder), *(["--run-commands"] if run_commands else []), "--"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([*line, *ssm_options], stdout=log, stderr=log)
    try:
        for _ in range(300):
            if ready.exists() and (url := ready.read_text()):
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        else:
            raise TimeoutError("the cloud did not start within 30 s")
        yield Cloud(url, folder)
    finally:
        server.terminate()
        server.wait()


def serve(folder: Path, run_commands: bool, ssm_options: list[str]) -> None:
    os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    if (TOOLS / "aws").is_dir():
        sys.path.insert(0, str(TOOLS / "aws"))
        import moto_gaps

        moto_gaps.apply()
    _know_quotas(folder / "quotas.json")
    _publish_image()
    if run_commands:
        import ssm_host

        sys.argv = ["ssm_host", "--root", str(folder / "machines"), "--ready", str(folder / "ready"), *ssm_options]
        return ssm_host.main()
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    temporary = folder / "ready.tmp"
    temporary.write_text("http://{}:{}".format(*server.get_host_and_port()))
    temporary.rename(folder / "ready")
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    server.stop()


def _know_quotas(path: Path) -> None:
    """moto knows the quotas of VPC only."""
    from moto.servicequotas.exceptions import NoSuchResource
    from moto.servicequotas.models import ServiceQuotasBackend

    def get_service_quota(self: Any, service_code: str, quota_code: str) -> dict[str, Any]:
        limits = json.loads(path.read_text())
        if service_code != "ec2" or quota_code not in limits:
            raise NoSuchResource
        return {"ServiceCode": "ec2", "QuotaCode": quota_code, "Value": limits[quota_code]}

    ServiceQuotasBackend.get_service_quota = get_service_quota  # type: ignore[method-assign]


def _publish_image() -> None:
    """PutParameter refuses names under /aws, so the image and its parameter are put in from the inside."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.ec2.models import ec2_backends
    from moto.ssm.models import Parameter, ssm_backends

    name = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 20251101"
    image: Any = ec2_backends[DEFAULT_ACCOUNT_ID][REGION].register_image(name, name)
    image.owner_alias, image.owner_id = "amazon", "898082745236"
    image.launch_permissions = [{"Group": "all"}]
    image.root_device_type, image.root_device_name = "ebs", "/dev/sda1"
    image.virtualization_type, image.architecture = "hvm", "x86_64"
    ssm_backends[DEFAULT_ACCOUNT_ID][REGION]._parameters[IMAGE_PARAMETER].append(
        Parameter(
            account_id=DEFAULT_ACCOUNT_ID,
            name=IMAGE_PARAMETER,
            value=image.id,
            parameter_type="String",
            description=None,
            allowed_pattern=None,
            keyid=None,
            last_modified_date=datetime.now(),
            version=1,
            data_type="text",
        )
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--run-commands", action="store_true")
    arguments.add_argument("ssm_options", nargs="*")
    given = arguments.parse_args()
    serve(given.folder, given.run_commands, given.ssm_options)
