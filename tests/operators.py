"""An operator at work: a stack in a local cloud, with data, and the verbs run in this process over real HTTP.

with operating(folder) as office:           # a cloud and a proxy that counts and upsets calls (calls.py)
    desk = office.desk(monkeypatch, folder)  # a fresh stack; desk.do("train", "--yes") is (exit code, stdout, stderr)
    desk.machine_comes(); desk.tells("status.json", {...})
"""

import importlib
import io
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from calls import Calls, calls
from cloud import IMAGE_PARAMETER, REGION, Cloud, cloud

from infra.ops import door
from infra.outputs import Outputs, parameter_name, tags

ROOT = Path(__file__).parents[1]
DIGEST = "sha256:" + "ab" * 32
NUMBERS = itertools.count(1)
# Spot prices that differ by zone; moto's are all the same.
SPOT = {("g6.xlarge", "us-east-1a"): 0.31, ("g5.xlarge", "us-east-1b"): 0.4}
LISTED = {"g6.xlarge": 0.8048, "g5.xlarge": 1.006}


@cache
def client(aws: Cloud, service: str) -> Any:
    """Making a client takes longer than most calls."""
    return aws.client(service)


def list_price(call: Any) -> dict[str, Any]:
    """What the price list answers for the type that is asked for."""
    (name,) = [f["Value"] for f in call.parameters["Filters"] if f["Field"] == "instanceType"]
    if name not in LISTED:
        return {"FormatVersion": "aws_v1", "PriceList": []}
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": f"{LISTED[name]:.10f}"}}
    product = {"product": {}, "terms": {"OnDemand": {"SKU.TERM": {"priceDimensions": {"SKU.TERM.RATE": dimension}}}}}
    return {"FormatVersion": "aws_v1", "PriceList": [json.dumps(product)]}


def spot_history(_: Any) -> bytes:
    rows = "".join(
        f"<item><instanceType>{name}</instanceType><availabilityZone>{zone}</availabilityZone>"
        f"<spotPrice>{price}</spotPrice><productDescription>Linux/UNIX</productDescription></item>"
        for (name, zone), price in SPOT.items()
    )
    answer = f"<DescribeSpotPriceHistoryResponse><spotPriceHistorySet>{rows}</spotPriceHistorySet>"
    return f"{answer}</DescribeSpotPriceHistoryResponse>".encode()


def activities(*refusals: str) -> bytes:
    """Scaling activities that have failed just now, newest first."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    rows = "".join(
        f"<member><ActivityId>{n}</ActivityId><AutoScalingGroupName>g</AutoScalingGroupName><Cause>c</Cause>"
        f"<StartTime>{when}</StartTime><StatusCode>Failed</StatusCode><StatusMessage>{why}</StatusMessage></member>"
        for n, why in enumerate(refusals)
    )
    answer = f"<DescribeScalingActivitiesResult><Activities>{rows}</Activities></DescribeScalingActivitiesResult>"
    return f"<DescribeScalingActivitiesResponse>{answer}</DescribeScalingActivitiesResponse>".encode()


def instances(*ids: str) -> bytes:
    """What EC2 answers: these machines, running; none without any."""
    rows = "".join(
        f"<item><instanceId>{name}</instanceId><instanceType>g6.xlarge</instanceType>"
        "<placement><availabilityZone>us-east-1a</availabilityZone></placement>"
        "<instanceState><code>16</code><name>running</name></instanceState>"
        "<launchTime>2026-01-31T18:00:00.000Z</launchTime></item>"
        for name in ids
    )
    found = f"<item><instancesSet>{rows}</instancesSet></item>" if ids else ""
    return f"<DescribeInstancesResponse><reservationSet>{found}</reservationSet></DescribeInstancesResponse>".encode()


@dataclass
class Desk:
    """One operator's desk: a stack of its own, and a folder to stand in."""

    aws: Cloud
    seen: Calls
    outputs: Outputs
    folder: Path
    online: list[str] = field(default_factory=list)  # machines that take commands
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)  # by document: exit code and what it prints

    def do(self, verb: str, *arguments: str) -> tuple[int, str, str]:
        """Run a verb; its exit code, stdout and stderr."""
        module = importlib.import_module(f"infra.ops.{verb}")
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with redirect_stdout(out), redirect_stderr(err):
            code = module.main(list(arguments))
        return code, *(stream.buffer.getvalue().decode() for stream in (out, err))

    # What stands in the cloud.
    def put(self, key: str, body: str | bytes | dict[str, Any]) -> None:
        data = json.dumps(body) if isinstance(body, dict) else body
        client(self.aws, "s3").put_object(Bucket=self.outputs.bucket, Key=key, Body=data)

    def get(self, key: str) -> bytes | None:
        s3 = client(self.aws, "s3")
        try:
            return bytes(s3.get_object(Bucket=self.outputs.bucket, Key=key)["Body"].read())
        except s3.exceptions.NoSuchKey:
            return None

    def tree(self, key: str) -> dict[str, Any]:
        text = self.get(key)
        assert text is not None, f"{key} is not there"
        return dict(json.loads(text))

    def keys(self, prefix: str) -> list[str]:
        found = client(self.aws, "s3").list_objects_v2(Bucket=self.outputs.bucket, Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", ())]

    def runs(self) -> list[str]:
        return sorted({key.split("/")[1] for key in self.keys("runs/")})

    def active(self) -> str | None:
        text = self.get(f"active/{self.outputs.stack}")
        return text.decode() if text else None

    def group(self) -> dict[str, Any]:
        groups = client(self.aws, "autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[self.outputs.asg])
        return dict(groups["AutoScalingGroups"][0])

    def capacity(self) -> int:
        return int(self.group()["DesiredCapacity"])

    def deadlines(self) -> list[Any]:
        autoscaling = client(self.aws, "autoscaling")
        found = autoscaling.describe_scheduled_actions(AutoScalingGroupName=self.outputs.asg)
        return [action["StartTime"] for action in found["ScheduledUpdateGroupActions"]]

    def machines(self) -> list[str]:
        return [instance["InstanceId"] for instance in self.group()["Instances"]]

    def set_capacity(self, machines: int) -> None:
        client(self.aws, "autoscaling").set_desired_capacity(
            AutoScalingGroupName=self.outputs.asg, DesiredCapacity=machines
        )

    def is_at_rest(self) -> bool:
        """No machine, none asked for, and no run that one would take up."""
        return self.capacity() == 0 and self.machines() == [] and self.active() is None

    # What a machine does.
    def tells(self, run_id: str, name: str, tree: dict[str, Any]) -> None:
        self.put(f"runs/{run_id}/{name}", tree)

    def hands_in(self, run_id: str, outcome: str = "stopped", reason: str = "stopped by the operator") -> None:
        """What the courier does at a run's end: the last word, the note, and the machine."""
        self.tells(run_id, "machine.json", {"phase": "ended", "dollars": 1.5})
        told = {"outcome": outcome, "reason": reason, "exit_code": 143, "last_lines": []}
        self.tells(run_id, "outcome.json", told)
        if self.active() == run_id:
            client(self.aws, "s3").delete_object(Bucket=self.outputs.bucket, Key=f"active/{self.outputs.stack}")
        self.set_capacity(0)

    def listen(self) -> None:
        """Let SSM know the machines of `online`, and answer documents by `answers`."""
        sent: dict[str, str] = {}

        def information(call: Any) -> dict[str, Any]:
            (wanted,) = [f["Values"] for f in call.parameters["Filters"] if f["Key"] == "InstanceIds"]
            found = [name for name in wanted if name in self.online]
            return {"InstanceInformationList": [{"InstanceId": name, "PingStatus": "Online"} for name in found]}

        def send(call: Any) -> dict[str, Any]:
            name = f"{len(sent):08}-0000-4000-8000-000000000000"
            sent[name] = call.parameters["DocumentName"].rpartition("-")[2]
            return {"Command": {"CommandId": name}}

        def invocation(call: Any) -> dict[str, Any]:
            code, text = self.answers.get(sent[call.parameters["CommandId"]], (0, ""))
            status, stream = ("Success", "Output") if code == 0 else ("Failed", "Error")
            return {"Status": status, "ResponseCode": code, f"Standard{stream}Content": text}

        self.seen.answers["ssm:DescribeInstanceInformation"] = information
        self.seen.answers["ssm:SendCommand"] = send
        self.seen.answers["ssm:GetCommandInvocation"] = invocation


@dataclass
class Office:
    aws: Cloud
    seen: Calls
    earlier: Desk | None = None

    def desk(self, monkeypatch: pytest.MonkeyPatch, folder: Path, **more: Any) -> Desk:
        """A stack of its own with manifest and clips, and this process as its operator's; `more` are outputs."""
        stack = f"t{next(NUMBERS)}"
        desk = Desk(self.aws, self.seen, replace(outputs_for(stack), **more), folder)
        if self.earlier:
            self.earlier.set_capacity(0)  # its machines are none of ours, and `status` would say so
        self.earlier = desk
        make_stack(self.aws, desk.outputs)
        for key in ("manifests/all/manifest.csv", "manifests/all/manifest.json", "clips/all/a.npz"):
            desk.put(key, b"x")
        for name in [name for name in os.environ if name.startswith(("AWS_", "PULUMI_"))]:
            monkeypatch.delenv(name)
        for name, value in (self.aws.environment() | {"AWS_ENDPOINT_URL": self.seen.url, "STACK": stack}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.stdin", io.StringIO())
        shutil.copy(ROOT / "Pulumi.yaml", folder)
        self.seen.reset()
        pushed = {"imageDigest": DIGEST, "imageTags": ["0123456789ab"], "imagePushedAt": 1769880000}
        self.seen.answers |= {
            "pricing:GetProducts": list_price,
            "ec2:DescribeSpotPriceHistory": spot_history,
            "ecr:DescribeImages": {"imageDetails": [pushed]},
        }
        desk.listen()
        return desk


def outputs_for(stack: str) -> Outputs:
    name = f"slowfast-emotion-{stack}"
    return Outputs(
        stack=stack,
        region=REGION,
        bucket=f"{name}-bucket",
        repository_url=f"123456789012.dkr.ecr.{REGION}.amazonaws.com/{name}",
        builder=name,
        image_digest=DIGEST,
        asg=name,
        launch_template="lt-0",
        log_group=f"/{name}",
        topic=f"arn:aws:sns:{REGION}:123456789012:{name}",
        role="arn:aws:iam::123456789012:role/machine",
        operator_policy="arn:aws:iam::123456789012:policy/operator",
        document_run=f"{name}-run",
        document_stop=f"{name}-stop",
        document_status=f"{name}-status",
        document_clean=f"{name}-clean",
        document_attach=f"{name}-attach",
        instance_types=("g6.xlarge", "g5.xlarge"),
        market="spot-then-on-demand",
        nodes=2,
        cap_dollars=20,
        deadline_hours=24,
        idle_minutes=20,
        volume_gb=150,
        private_subnets=False,
        keep_data=True,
    )


@cache
def given_by(aws: Cloud) -> tuple[str, str]:
    """What the account has of its own: a machine image, and subnets in two zones."""
    image = client(aws, "ssm").get_parameter(Name=IMAGE_PARAMETER)["Parameter"]["Value"]
    subnets = client(aws, "ec2").describe_subnets()["Subnets"]
    return image, ",".join(s["SubnetId"] for s in subnets if s["AvailabilityZone"][-1] in "ab")


def make_stack(aws: Cloud, outputs: Outputs) -> None:
    """What `make up` makes, as far as the verbs look at it."""
    ec2, name = client(aws, "ec2"), outputs.asg
    client(aws, "s3").create_bucket(Bucket=outputs.bucket)
    image, subnets = given_by(aws)
    ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData={"ImageId": image})
    client(aws, "autoscaling").create_auto_scaling_group(
        AutoScalingGroupName=name,
        MinSize=0,
        MaxSize=outputs.nodes,
        DesiredCapacity=0,
        VPCZoneIdentifier=subnets,
        MixedInstancesPolicy={
            "InstancesDistribution": {"OnDemandPercentageAboveBaseCapacity": 0},
            "LaunchTemplate": {
                "LaunchTemplateSpecification": {"LaunchTemplateName": name, "Version": "$Latest"},
                "Overrides": [{"InstanceType": kind} for kind in outputs.instance_types],
            },
        },
        Tags=[{"Key": k, "Value": v, "PropagateAtLaunch": True} for k, v in tags(outputs.stack).items()],
    )
    text = json.dumps(asdict(outputs))
    client(aws, "ssm").put_parameter(Name=parameter_name(outputs.stack), Value=text, Type="String")


@contextmanager
def operating(folder: Path) -> Iterator[Office]:
    with cloud(folder) as aws, calls(aws.url) as seen:
        door.client.cache_clear()
        yield Office(aws, seen)
        door.client.cache_clear()


def environment(desk: Desk) -> dict[str, str]:
    """For a verb in a process of its own."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PULUMI_"))}
    more = {"AWS_ENDPOINT_URL": desk.seen.url, "STACK": desk.outputs.stack, "PYTHONPATH": str(ROOT)}
    return clean | desk.aws.environment() | more | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
