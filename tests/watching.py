"""A stack as the watching verbs find it: published outputs and a bucket with runs, in the cloud of tests/cloud.py."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from itertools import count
from pathlib import Path
from typing import Any

from calls import Call
from cloud import REGION, Cloud

from infra.outputs import PROJECT, Outputs, parameter_name
from infra.policies import Names, Place, operator

ROOT = Path(__file__).parents[1]
KNOWN: dict[str, Any] = {
    "region": REGION,
    "image_digest": "sha256:" + "ab" * 32,
    "instance_types": ("g6.xlarge", "g5.xlarge"),
    "market": "spot",
    "nodes": 2,
    "cap_dollars": 20,
    "deadline_hours": 24,
    "idle_minutes": 20,
    "volume_gb": 150,
    "private_subnets": False,
    "keep_data": True,
}
ACCOUNT = "123456789012"
DOCUMENTS = ("-document-run", "-document-stop", "-document-status", "-document-clean", "-document-attach")
_numbers = count()


@dataclass(frozen=True)
class Stage:
    """One stack of its own in a cloud that others use too."""

    aws: Cloud
    outputs: Outputs
    folder: Path
    endpoint: str

    def environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PULUMI_"))}
        own = {"STACK": self.outputs.stack, "AWS_ENDPOINT_URL": self.endpoint, "PYTHONPATH": str(ROOT)}
        return clean | self.aws.environment() | own

    def start(self, verb: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a verb as make does; its stdin is no terminal unless the options say so."""
        line = [sys.executable, "-m", f"infra.ops.{verb}", *arguments]
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        given |= {"cwd": self.folder, "env": self.environment()} | options
        return subprocess.Popen(line, **given)

    def make(self, verb: str, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        started = self.start(verb, *arguments)
        try:
            out, err = started.communicate(timeout=seconds)
        finally:
            started.kill()
        return subprocess.CompletedProcess(started.args, started.returncode, out, err)

    def put(self, key: str, body: bytes | str | dict[str, Any]) -> None:
        data = json.dumps(body) if isinstance(body, dict) else body
        self.aws.client("s3").put_object(Bucket=self.outputs.bucket, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.aws.client("s3").delete_object(Bucket=self.outputs.bucket, Key=key)

    def activate(self, run_id: str) -> None:
        self.put(f"active/{self.outputs.stack}", run_id)

    def put_run(self, run_id: str, **parts: dict[str, Any] | bytes | str) -> None:
        """Objects of a run by their names without ending, such as status={...} or output=b"..."; the request always."""
        endings = {"output": "txt", "metrics": "jsonl"}
        for name, body in {"request": request(), **parts}.items():
            self.put(f"runs/{run_id}/{name}.{endings.get(name, 'json')}", body)

    def make_group(self, desired: int = 0) -> None:
        """The stack's Auto Scaling group; its machines come up at once."""
        ec2, groups = self.aws.client("ec2"), self.aws.client("autoscaling")
        name = self.outputs.asg
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        ec2.create_launch_template(
            LaunchTemplateName=name, LaunchTemplateData={"ImageId": image, "InstanceType": "g6.xlarge"}
        )
        labels = {"project": PROJECT, "stack": self.outputs.stack}
        groups.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchTemplate={"LaunchTemplateName": name},
            MinSize=0,
            MaxSize=4,
            DesiredCapacity=desired,
            AvailabilityZones=[f"{REGION}a"],
            Tags=[{"Key": key, "Value": value, "PropagateAtLaunch": True} for key, value in labels.items()],
        )

    def instances(self) -> list[str]:
        groups = self.aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[self.outputs.asg])
        return [machine["InstanceId"] for machine in groups["AutoScalingGroups"][0]["Instances"]]


@contextmanager
def stage(aws: Cloud, folder: Path, endpoint: str | None = None) -> Iterator[Stage]:
    """A stack that nobody else uses, its machines gone at the end."""
    name = f"w{next(_numbers)}-{os.getpid()}"
    values = {field.name: f"slowfast-emotion-{name}-{field.name.replace('_', '-')}" for field in fields(Outputs)}
    outputs = replace(Outputs(**{**values, **KNOWN}), stack=name, bucket=f"bucket-{name}", asg=f"group-{name}")
    aws.client("s3").create_bucket(Bucket=outputs.bucket)
    aws.client("ssm").put_parameter(Name=parameter_name(name), Value=json.dumps(asdict(outputs)), Type="String")
    yield Stage(aws, outputs, folder, endpoint or aws.url)
    groups = aws.client("autoscaling")
    if groups.describe_auto_scaling_groups(AutoScalingGroupNames=[outputs.asg])["AutoScalingGroups"]:
        groups.delete_auto_scaling_group(AutoScalingGroupName=outputs.asg, ForceDelete=True)


def request(**changes: Any) -> dict[str, Any]:
    known = {"manifest": "manifests/all/manifest.csv", "clips": "clips/all/", "config": "slowfast_face.yaml"}
    money = {"deadline": iso(hours=6), "cap_dollars": 20, "price_per_hour": 1.0}
    return known | money | changes


def iso(**before_or_after: float) -> str:
    """A time from now on, as the machine writes it."""
    return (datetime.now(UTC) + timedelta(**before_or_after)).isoformat(timespec="seconds")


def machine(**changes: Any) -> dict[str, Any]:
    """machine.json of a machine that trains."""
    gpu = {"name": "NVIDIA L4", "use_percent": 87.0, "memory_used_mib": 11021.0, "memory_total_mib": 23034.0}
    return {
        "instance": "i-0123456789abcdef0",
        "type": "g6.xlarge",
        "zone": "us-east-1a",
        "market": "spot",
        "image": "x@sha256:ab",
        "gpus": [gpu | {"celsius": 61.0, "watts": 68.2}],
        "memory": {"total_bytes": 16 * 2**30, "used_bytes": 5 * 2**30},
        "disk": {"total_bytes": 250 * 10**9, "used_bytes": 80 * 10**9},
        "load": 1.5,
        "phase": "training",
        "time": iso(),
        "price_per_hour": 1.0,
        "dollars": 1.25,
        "dollars_at_finish": 4.5,
        "cap_dollars": 20.0,
        "deadline": iso(hours=6),
        "spot_notice": None,
        "rebalance": None,
        "mirror": {"bytes_sent": 1000, "trouble": None},
    } | changes


def status(**changes: Any) -> dict[str, Any]:
    """status.json of a trainer that is half-way through its third epoch of ten."""
    figures = {"uar": 0.6123, "war": 0.64, "loss": 1.1}
    return {
        "phase": "training",
        "epoch": 3,
        "epochs": 10,
        "step": 250,
        "steps": 1000,
        "loss": 0.8125,
        "clips_per_second": 31.4,
        "data_wait": 0.02,
        "eta": 4980,
        "val": figures,
        "heartbeat": iso(),
    } | changes


def forbidden(desk: Stage, made: list[Call]) -> list[str]:
    """Those of the calls that the operator's policy does not allow on that stack."""
    stack, place = desk.outputs, Place("aws", REGION, ACCOUNT)
    known = {
        "bucket": f"arn:aws:s3:::{stack.bucket}",
        "repository": place.arn("ecr", f"repository/{stack.repository_url.partition('/')[2]}"),
        "log_group": place.arn("logs", f"log-group:{stack.log_group}"),
        "group": f"arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/{stack.asg}",
        "parameter": place.arn("ssm", f"parameter{parameter_name(stack.stack)}"),
    }
    names = Names(**{field.name: known.get(field.name, "arn:aws:none") for field in fields(Names)})
    documents = [place.arn("ssm", f"document/{name}") for name in vars(stack).values() if str(name).endswith(DOCUMENTS)]
    told = operator(place, names, documents, "arn:aws:iam::*:role/x", "arn:aws:ec2:*:*:launch-template/x", {})
    allowed = [
        (action, pattern) for rule in told["Statement"] for action in rule["Action"] for pattern in rule["Resource"]
    ]
    own = place.arn("ssm", "session/${aws:userid}-1")  # as the policy writes whose session it is
    return [
        f"{call.name} on {resource}"
        for call in made
        for told in call.resources
        for resource in [
            own if call.name == "ssm:TerminateSession" else told.replace(f":{ACCOUNT}:document/AWS-", "::document/AWS-")
        ]
        if not any(call.name == action and fnmatch(resource, pattern) for action, pattern in allowed)
    ]
