"""doctor, preview, up and destroy against a local AWS and a Pulumi CLI that notes what it is asked.

Run: pytest tests/test_ops_verbs.py
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloud import IMAGE_PARAMETER, REGION, Cloud

from infra.ops.doctor import main as doctor
from infra.outputs import Outputs, parameter_name, tags

ROOT = Path(__file__).parents[1]
# A CLI that notes its arguments and environment, keeps settings as the real one does, and fails or waits when told.
PULUMI = """#!{python}
import json, os, signal, sys, time
from pathlib import Path
import yaml
notes = Path({notes!r})
if sys.argv[1:3] == ["stack", "output"]:
    if (notes / "state").exists():
        sys.exit(print((notes / "state").read_text()))
    sys.exit(f"error: no stack named {{sys.argv[-1]!r}} found")
wanted = ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "AWS_REGION")
with (notes / "calls").open("a") as calls:
    calls.write(json.dumps([sys.argv[1:], {{key: os.environ.get(key) for key in wanted}}]) + "\\n")
verb, stack = sys.argv[1], sys.argv[-1]
print("what the CLI says")
if sys.argv[1:3] == ["config", "set"]:
    file = Path(f"Pulumi.{{stack}}.yaml")
    settings = yaml.safe_load(file.read_text()) if file.exists() else {{"config": {{}}}}
    name = sys.argv[3]
    settings["config"][name if ":" in name else "slowfast-emotion:" + name] = sys.argv[4]
    file.write_text(yaml.safe_dump(settings))
if sys.argv[1:3] == ["config", "rm"]:
    file = Path(f"Pulumi.{{stack}}.yaml")
    settings = yaml.safe_load(file.read_text())
    del settings["config"]["slowfast-emotion:" + sys.argv[3]]
    file.write_text(yaml.safe_dump(settings))
if (notes / "fail").exists() and verb == (notes / "fail").read_text():
    sys.exit(255)
if verb == "up" and (notes / "slow").exists():
    def finish(*_):
        time.sleep(1)
        (notes / "finished").touch()
        sys.exit(255)
    signal.signal(signal.SIGINT, finish)
    (notes / "waiting").touch()
    time.sleep(30)
"""
OUTPUTS = Outputs(
    stack="dev",
    region=REGION,
    bucket="kept-bucket",
    repository_url=f"123456789012.dkr.ecr.{REGION}.amazonaws.com/slowfast-emotion-dev",
    builder="slowfast-emotion-dev",
    image_digest="",
    asg="slowfast-emotion-dev",
    launch_template="lt-0",
    log_group="/slowfast-emotion-dev",
    topic="arn:aws:sns:us-east-1:123456789012:slowfast-emotion-dev",
    role="arn:aws:iam::123456789012:role/machine",
    operator_policy="arn:aws:iam::123456789012:policy/operator",
    document_run="slowfast-emotion-dev-run",
    document_stop="slowfast-emotion-dev-stop",
    document_status="slowfast-emotion-dev-status",
    document_clean="slowfast-emotion-dev-clean",
    document_attach="slowfast-emotion-dev-attach",
    instance_types=("g6.xlarge", "g5.xlarge"),
    market="spot",
    nodes=1,
    cap_dollars=20,
    deadline_hours=24,
    idle_minutes=20,
    volume_gb=150,
    private_subnets=False,
    keep_data=True,
)


@dataclass(frozen=True)
class Desk:
    """An operator's project folder, with a Pulumi CLI of its own and a fresh cloud."""

    aws: Cloud
    folder: Path

    def environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PULUMI_"))}
        path = f"{self.folder / 'bin'}:/usr/bin:/bin"
        return clean | self.aws.environment() | {"PATH": path, "PYTHONPATH": str(ROOT)}

    def make(self, verb: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", f"infra.ops.{verb}", *arguments]
        environment = self.environment() | more
        null = subprocess.DEVNULL
        return subprocess.run(line, cwd=self.folder, env=environment, stdin=null, capture_output=True, text=True)

    def asked(self) -> list[list[str]]:
        """What the CLI was asked, in order."""
        return [line[0] for line in self.notes()]

    def notes(self) -> list[tuple[list[str], dict[str, str]]]:
        file = self.folder / "notes" / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def tell_cli(self, name: str, text: str = "") -> None:
        (self.folder / "notes" / name).write_text(text)

    def publish(self, outputs: Outputs = OUTPUTS) -> None:
        """As an `up` from here does: in AWS, and in the state of Pulumi."""
        text = json.dumps(asdict(outputs))
        self.tell_cli("state", text)
        self.aws.client("ssm").put_parameter(Name=parameter_name("dev"), Value=text, Type="String", Overwrite=True)


@pytest.fixture
def desk(aws: Cloud, tmp_path: Path) -> Iterator[Desk]:
    shutil.copy(ROOT / "Pulumi.yaml", tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pulumi").write_text(PULUMI.format(python=sys.executable, notes=str(tmp_path / "notes")))
    (tmp_path / "bin" / "pulumi").chmod(0o755)
    aws.set_quotas({"L-DB2E81BA": 8.0, "L-3819A6DF": 8.0})
    yield Desk(aws, tmp_path)
    ssm = aws.client("ssm")
    ssm.delete_parameters(Names=[parameter_name("dev")])


def settings_of(desk: Desk) -> dict[str, str]:
    """What Pulumi's file of the stack's settings holds."""
    return dict(yaml.safe_load((desk.folder / "Pulumi.dev.yaml").read_text())["config"])


def published_image(aws: Cloud) -> str:
    return aws.client("ssm").get_parameter(Name=IMAGE_PARAMETER)["Parameter"]["Value"]


def test_doctor_gives_each_thing_a_tick_or_a_cure_and_its_exit_code_says_which(desk: Desk) -> None:
    done = desk.make("doctor", "--json")
    assert done.returncode == 1
    found = {check["name"]: check for check in json.loads(done.stdout)}
    ticks = {name for name, check in found.items() if check["ok"]} - {"Docker", "AWS CLI"}  # this machine may have them
    assert ticks == {
        "Pulumi CLI",
        "region",
        "credentials",
        "instance types",
        "vCPU quota, spot",
        "vCPU quota, on-demand",
        "machine image",
    }
    assert all(check["cure"] for check in found.values() if not check["ok"])
    assert found["vCPU quota, spot"]["detail"] == "room for 1 x g6.xlarge, g5.xlarge, g4dn.xlarge"
    assert found["instance types"]["detail"].startswith("g6.xlarge in a b")
    assert found["role for spot"]["cure"].startswith("aws iam create-service-linked-role")
    assert found["machine image"]["detail"] == f"{published_image(desk.aws)}, the newest; `make up` pins it"
    assert found["stack"] == {
        "name": "stack",
        "ok": False,
        "detail": "there is no stack dev in us-east-1, and AWS_REGION=REGION looks in another",
        "cure": "`make up` makes it",
        "needed": True,
    }
    assert {name for name, check in found.items() if not check["needed"]} == {
        *("Docker", "session-manager-plugin", "AWS CLI", "role for spot"),
    }


def test_what_nobody_needs_is_marked_and_not_counted_and_the_last_line_is_the_next_command(desk: Desk) -> None:
    done = desk.make("doctor")
    marks = {line[2:24].strip(): line[0] for line in done.stdout.splitlines() if line[0] != " "}
    assert (marks["session-manager-plugin"], marks["role for spot"], marks["stack"]) == ("-", "-", "✗")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "next: make up")


def test_doctor_is_content_when_nothing_is_missing(desk: Desk) -> None:
    """Everything there: the same machine, the role, a pinned image, and a stack that holds an image and clips."""
    s3, ecr, iam = desk.aws.client("s3"), desk.aws.client("ecr"), desk.aws.client("iam")
    s3.create_bucket(Bucket="kept-bucket")
    s3.put_object(Bucket="kept-bucket", Key="clips/a.npz", Body=b"x")
    ecr.create_repository(repositoryName="slowfast-emotion-dev")
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    layer = {
        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "size": 1,
        "digest": "sha256:" + "1" * 64,
    }
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": layer, "layers": [layer]}
    repository = "slowfast-emotion-dev"
    pushed = ecr.put_image(repositoryName=repository, imageManifest=json.dumps(manifest), imageTag="1")["image"]
    iam.create_role(RoleName="AWSServiceRoleForEC2Spot", AssumeRolePolicyDocument="{}")
    desk.publish(replace(OUTPUTS, image_digest=pushed["imageId"]["imageDigest"]))
    settings = f"config:\n  slowfast-emotion:machine_image: {published_image(desk.aws)}\n"
    (desk.folder / "Pulumi.dev.yaml").write_text(settings)
    done = desk.make("doctor")
    iam.delete_role(RoleName="AWSServiceRoleForEC2Spot")
    assert done.returncode == 0, done.stdout
    assert "✗" not in done.stdout
    assert "\033[" not in done.stdout  # no colour off a terminal
    lines = [line.split()[1] for line in done.stdout.splitlines() if line[0] != " "]
    assert lines[-5:] == ["stack", "bucket", "image", "data", "warnings"]
    assert done.stderr.splitlines()[-1] == "next: make train"


def test_doctor_tells_the_quota_to_ask_for(desk: Desk) -> None:
    desk.aws.set_quotas({"L-DB2E81BA": 0.0, "L-3819A6DF": 4.0})
    found = {check["name"]: check for check in json.loads(desk.make("doctor", "--json").stdout)}
    assert found["vCPU quota, spot"]["ok"]
    short = found["vCPU quota, on-demand"]
    assert short["detail"] == "0 vCPUs allowed, 4 needed for 1 x g6.xlarge"
    assert short["cure"].endswith("--quota-code L-DB2E81BA --desired-value 4 --region us-east-1")


def test_doctor_goes_on_to_the_tools_but_not_to_the_account_without_credentials(desk: Desk) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    found = json.loads(desk.make("doctor", "--json", **environment).stdout)
    assert found[-1]["name"] == "credentials"
    assert found[-1]["cure"].startswith("`aws configure sso`")
    assert [check["name"] for check in found[:3]] == ["Pulumi CLI", "Docker", "session-manager-plugin"]


def test_doctor_names_a_region_that_is_not_set(desk: Desk) -> None:
    found = json.loads(desk.make("doctor", "--json", AWS_DEFAULT_REGION="").stdout)
    assert found[-1] == {
        "name": "region",
        "ok": False,
        "detail": "none is set",
        "cure": "make set SET=aws:region=us-east-1 (or AWS_REGION)",
        "needed": True,
    }


def test_a_type_that_the_region_does_not_sell_is_named_with_those_that_it_does(desk: Desk) -> None:
    text = "config:\n  slowfast-emotion:instance_types: g6.xlarge,g99.xlarge\n"
    (desk.folder / "Pulumi.dev.yaml").write_text(text)
    found = {check["name"]: check for check in json.loads(desk.make("doctor", "--json").stdout)}
    assert found["instance types"]["detail"].endswith("; g99.xlarge nowhere")
    assert found["instance types"]["cure"] == "make set SET=instance_types=g6.xlarge"


def test_up_pins_the_machine_image_once_and_then_leaves_it(desk: Desk) -> None:
    desk.publish()
    done = desk.make("up", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bucket"] == "kept-bucket"  # stdout is data only
    assert "what the CLI says" in done.stderr
    image = published_image(desk.aws)
    region = ["config", "set", "aws:region", REGION, "--stack", "dev"]
    pin = ["config", "set", "machine_image", image, "--stack", "dev"]
    up = ["up", "--yes", "--skip-preview", "--stack", "dev"]
    assert desk.asked() == [["stack", "select", "--create", "dev", "--stack", "dev"], region, pin, up]
    assert f"pinned machine_image to {image}" in done.stderr
    desk.make("up", "--yes")
    assert (desk.asked().count(region), desk.asked().count(pin)) == (1, 1)


def test_a_stack_stays_in_the_region_of_its_first_up_whatever_another_shell_says(desk: Desk) -> None:
    desk.publish()
    assert desk.make("up", "--yes", AWS_REGION=REGION).returncode == 0
    # Another shell, whose profile names another region: the stack is found where it is.
    done = desk.make("destroy", "--dry-run", AWS_DEFAULT_REGION="eu-central-1")
    assert "kept-bucket stays" in done.stderr
    assert desk.make("up", "--yes", AWS_DEFAULT_REGION="eu-central-1").returncode == 0
    assert {environment["AWS_REGION"] for _, environment in desk.notes()} == {REGION}
    for verb in ("up", "destroy"):
        done = desk.make(verb, "--yes", AWS_REGION="eu-central-1")
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: the stack dev is in {REGION}, and AWS_REGION says eu-central-1; unset")


def test_settings_that_were_lost_do_not_move_the_stack(desk: Desk) -> None:
    """A fresh clone has no Pulumi.dev.yaml; the state, in the home directory, still knows the region."""
    desk.publish()
    for verb in ("up", "destroy"):
        done = desk.make(verb, "--yes", AWS_DEFAULT_REGION="eu-central-1")
        assert done.returncode == 2
        assert (
            "Pulumi's state has the stack dev in us-east-1, not in eu-central-1; `make set SET=aws:reg" in done.stderr
        )
    assert desk.asked() == []


@pytest.mark.parametrize("verb", [("up", "--yes"), ("preview",), ("destroy", "--yes")])
def test_a_stack_that_another_machine_has_made_is_not_made_twice(desk: Desk, verb: tuple[str, ...]) -> None:
    desk.publish()
    (desk.folder / "notes" / "state").unlink()
    done = desk.make(*verb)
    assert done.returncode == 2
    assert "error: the stack dev is up in us-east-1, but Pulumi's state here does not know it" in done.stderr
    assert desk.asked() == []


def test_a_state_that_cannot_be_read_is_a_sentence(desk: Desk) -> None:
    (desk.folder / "bin" / "pulumi").write_text("#!/bin/sh\necho error: no such bucket >&2; exit 255\n")
    done = desk.make("up", "--yes", PULUMI_BACKEND_URL="s3://nowhere")
    assert done.returncode == 2
    assert "error: Pulumi's state cannot be read (error: no such bucket); infra/README.md" in done.stderr


def test_up_tells_whose_account_it_is_and_what_that_costs(desk: Desk) -> None:
    desk.publish()
    said = desk.make("up", "--yes").stderr
    assert "of account 123456789012, in us-east-1: without a machine about $0.73 a month, with 10 GB of data" in said
    (desk.folder / "Pulumi.dev.yaml").write_text("config:\n  slowfast-emotion:private_subnets: true\n")
    assert "about $59.13 a month" in desk.make("up", "--yes").stderr


def test_up_tells_when_nobody_hears_of_warnings(desk: Desk) -> None:
    sns = desk.aws.client("sns")
    topic = sns.create_topic(Name="slowfast-emotion-dev")["TopicArn"]
    desk.publish()
    assert "nobody hears of warnings: make set SET=email=you@example.org\n" in desk.make("up", "--yes").stderr
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="me@example.org")
    assert "hears of warnings" not in desk.make("up", "--yes").stderr
    found = {check["name"]: check for check in json.loads(desk.make("doctor", "--json").stdout)}
    assert found["warnings"]["detail"] == "me@example.org hears of them"
    sns.delete_topic(TopicArn=topic)


def test_after_destroy_and_up_the_image_is_the_next_thing(desk: Desk) -> None:
    """The registry goes with the stack, and a setting that still names an image of it would start machines in vain."""
    desk.publish(replace(OUTPUTS, image_digest="sha256:" + "ab" * 32))
    (desk.folder / "Pulumi.dev.yaml").write_text(f"config:\n  slowfast-emotion:image_digest: sha256:{'ab' * 32}\n")
    assert (
        "next: make image, make data SRC=DIR" in desk.make("up", "--yes").stderr
    )  # as a bare `pulumi destroy` left it
    assert desk.make("destroy", "--yes").returncode == 0
    assert "slowfast-emotion:image_digest" not in settings_of(desk)
    assert "slowfast-emotion:machine_image" in settings_of(desk)
    desk.publish()
    assert desk.make("up", "--yes").stderr.splitlines()[-1].endswith("; next: make image, make data SRC=DIR")


def test_state_is_local_and_no_passphrase_is_asked_unless_the_operator_says_otherwise(desk: Desk) -> None:
    desk.publish()
    desk.make("up", "--yes")
    assert desk.notes()[-1][1] == {"PULUMI_BACKEND_URL": None, "PULUMI_CONFIG_PASSPHRASE": "", "AWS_REGION": REGION}
    assert yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["backend"] == {"url": "file://~"}
    desk.make("up", "--yes", PULUMI_BACKEND_URL="s3://state", PULUMI_CONFIG_PASSPHRASE="said")
    assert desk.notes()[-1][1]["PULUMI_BACKEND_URL"] == "s3://state"
    assert desk.notes()[-1][1]["PULUMI_CONFIG_PASSPHRASE"] == "said"


def test_a_dry_run_only_prints(desk: Desk) -> None:
    done = desk.make("up", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "pulumi stack select --create dev",
        f"pulumi config set aws:region {REGION} --stack dev",
        f"pulumi config set machine_image {published_image(desk.aws)} --stack dev",
        "pulumi up --stack dev",
    ]
    assert desk.asked() == []


def test_up_asks_before_and_where_it_cannot_ask_it_refuses(desk: Desk) -> None:
    done = desk.make("up")
    assert done.returncode == 2
    assert (
        done.stderr == "error: there is no terminal to ask on; say `make up YES=1`, or `make preview` to look first\n"
    )
    assert desk.asked() == []


@pytest.mark.parametrize("verb", [("up", "--yes"), ("preview",)])
def test_nothing_is_begun_where_no_machine_is_sold(desk: Desk, verb: tuple[str, ...]) -> None:
    (desk.folder / "Pulumi.dev.yaml").write_text("config:\n  slowfast-emotion:instance_types: g99.xlarge\n")
    done = desk.make(*verb)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: not ready: instance types; ")
    assert desk.asked() == []


def test_an_account_without_any_quota_yet_is_warned_and_gets_its_stack(desk: Desk) -> None:
    """AWS takes days to grant one, in which bucket, data and image can be made."""
    desk.publish()
    desk.aws.set_quotas({"L-DB2E81BA": 0.0, "L-3819A6DF": 0.0})
    done = desk.make("up", "--yes")
    assert done.returncode == 0
    assert "✗ vCPU quota, spot: 0 vCPUs allowed, 4 needed" in done.stderr
    assert "aws service-quotas request-service-quota-increase" in done.stderr
    assert "no machine can start before AWS has granted that" in done.stderr


def test_room_in_one_market_is_enough_for_up(desk: Desk) -> None:
    desk.publish()
    desk.aws.set_quotas({"L-DB2E81BA": 0.0, "L-3819A6DF": 8.0})
    done = desk.make("up", "--yes")
    assert done.returncode == 0
    assert "quota" not in done.stderr


def test_a_machine_without_pulumi_is_told_where_to_get_it(desk: Desk) -> None:
    (desk.folder / "bin" / "pulumi").unlink()
    for verb in (("up", "--yes"), ("preview",), ("destroy", "--yes")):
        done = desk.make(*verb)
        assert done.returncode == 2
        assert done.stderr.startswith("error: the Pulumi CLI is not on the PATH; https://www.pulumi.com/docs/install/")


def test_a_cli_that_fails_is_not_taken_for_success(desk: Desk) -> None:
    desk.tell_cli("fail", "up")
    done = desk.make("up", "--yes")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: `pulumi up` ended with 255, its reason is above")


def test_ctrl_c_lets_the_cli_finish_what_it_began(desk: Desk) -> None:
    """Both are in the terminal's process group, so both get the signal; only the CLI may decide when it is done."""
    desk.tell_cli("slow")
    line = [sys.executable, "-m", "infra.ops.up", "--yes"]
    up = subprocess.Popen(
        line,
        cwd=desk.folder,
        env=desk.environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        # What is started in a shell's background inherits a Ctrl-C that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        text=True,
    )
    end = time.monotonic() + 60
    while not (desk.folder / "notes" / "waiting").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(up.pid, signal.SIGINT)
    _, said = up.communicate(timeout=30)
    assert (desk.folder / "notes" / "finished").exists()
    assert "waiting for pulumi to finish what it began" in said
    assert up.returncode == 2


def test_destroy_says_what_stays_and_what_that_costs_a_month(desk: Desk) -> None:
    s3 = desk.aws.client("s3")
    s3.create_bucket(Bucket="weighed")
    s3.put_bucket_versioning(Bucket="weighed", VersioningConfiguration={"Status": "Enabled"})
    for _ in range(2):  # the old version costs as much as the new
        s3.put_object(Bucket="weighed", Key="data/a", Body=b"x" * 1000)
    desk.publish(replace(OUTPUTS, bucket="weighed"))
    done = desk.make("destroy", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "bucket": "weighed",
        "bytes": 2000,
        "all_counted": True,
        "dollars_a_month": 0.0,
        "in_words": "0.0 GiB, about $0.00 a month",
    }
    assert "weighed stays: 0.0 GiB, about $0.00 a month" in done.stderr
    assert desk.asked() == [["destroy", "--yes", "--skip-preview", "--stack", "dev"]]


def test_destroy_believes_cloudwatch_before_it_counts(desk: Desk) -> None:
    desk.aws.client("s3").create_bucket(Bucket="large")
    names = {"BucketName": "large", "StorageType": "StandardStorage"}
    dimensions = [{"Name": key, "Value": value} for key, value in names.items()]
    point: dict[str, Any] = {"MetricName": "BucketSizeBytes", "Dimensions": dimensions, "Value": 100.0 * 2**30}
    point |= {"Unit": "Bytes", "Timestamp": datetime.now(UTC) - timedelta(days=1)}  # once a day, and late
    desk.aws.client("cloudwatch").put_metric_data(Namespace="AWS/S3", MetricData=[point])
    desk.publish(replace(OUTPUTS, bucket="large"))
    done = desk.make("destroy", "--dry-run")
    assert "large stays: 100.0 GiB, about $2.30 a month" in done.stderr
    assert desk.asked() == []


def test_destroy_says_it_loudly_when_the_data_go_too(desk: Desk) -> None:
    desk.publish(replace(OUTPUTS, keep_data=False))
    done = desk.make("destroy", "--dry-run", "--json")
    assert "kept-bucket and everything in it is DELETED" in done.stderr
    assert json.loads(done.stdout) == {}


def test_destroy_refuses_while_a_machine_of_the_stack_runs(desk: Desk) -> None:
    desk.publish(replace(OUTPUTS, keep_data=False))
    ec2 = desk.aws.client("ec2")
    image = published_image(desk.aws)
    ids = {}
    for stack in ("dev", "somebody-elses"):
        labels = [{"Key": key, "Value": value} for key, value in tags(stack).items()]
        launched = ec2.run_instances(
            ImageId=image,
            MinCount=1,
            MaxCount=1,
            InstanceType="g6.xlarge",
            TagSpecifications=[{"ResourceType": "instance", "Tags": labels}],
        )
        ids[stack] = launched["Instances"][0]["InstanceId"]
    done = desk.make("destroy", "--yes")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"error: machines run: {ids['dev']}; `make stop` saves and ends what is there"
    )
    assert desk.asked() == []
    assert desk.make("destroy", "--yes", "--force").returncode == 0
    ec2.terminate_instances(InstanceIds=list(ids.values()))
    assert desk.make("destroy", "--yes").returncode == 0


def test_half_a_stack_can_be_destroyed_too(desk: Desk) -> None:
    done = desk.make("destroy", "--yes")
    assert done.returncode == 0, done.stderr
    assert "there is no stack dev" in done.stderr
    assert desk.asked() == [["destroy", "--yes", "--skip-preview", "--stack", "dev"]]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("market: sometimes", "market is 'sometimes', not one of spot, on-demand, spot-then-on-demand; "),
        ("nodes: many", "nodes is 'many', not a number of machines; "),
        ("nodes: 0", "nodes is '0', not a number of machines; "),
    ],
)
def test_a_setting_that_cannot_be_is_named(desk: Desk, settings: str, told: str) -> None:
    (desk.folder / "Pulumi.dev.yaml").write_text(f"config:\n  slowfast-emotion:{settings}\n")
    done = desk.make("doctor")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {told}")


def test_a_settings_file_that_is_no_yaml_is_named(desk: Desk) -> None:
    (desk.folder / "Pulumi.dev.yaml").write_text("config: [\n")
    done = desk.make("up", "--yes")
    assert done.returncode == 2
    assert "Pulumi.dev.yaml is no YAML" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stack", ["$(touch pwned)", "a b", "-x", "../up", "A", "dev;ls", "", "x" * 21, "a\nb"])
def test_a_stacks_name_never_gets_further_than_the_check(
    stack: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", forbidden)
    assert doctor([f"--stack={stack}"]) == 2
    assert "is no name for a stack" in capsys.readouterr().err


def test_published_outputs_of_another_version_are_named(desk: Desk) -> None:
    name = parameter_name("dev")
    desk.aws.client("ssm").put_parameter(Name=name, Value='{"bucket": "x"}', Type="String", Overwrite=True)
    found = {check["name"]: check for check in json.loads(desk.make("doctor", "--json").stdout)}
    assert "of another version of this project" in found["stack"]["detail"]
    assert found["stack"]["cure"] == "`make up` publishes them anew"
