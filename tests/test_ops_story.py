"""The operator's first day, with the real program: up, nothing to change, doctor, destroy, and the data are kept.

A minute or two, with the shared tools (a Pulumi CLI over Terraform's AWS provider). Run: pytest tests/test_ops_story.py
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud import TOOLS, Cloud, cloud

ROOT = Path(__file__).parents[1]
# What the local AWS gives back otherwise than it was given (see test_infra_acceptance.py), and so changes for ever.
FAULTS = "aws:(autoscaling/policy|budgets/budget|ec2/launchTemplate):.*"
# The provider waits a minute until S3 has spread lifecycle rules; that one is planned and not applied.
RULES = "aws_s3_bucket_lifecycle_configuration"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    if not (TOOLS / "aws" / "pulumi").exists():
        pytest.skip("the shared tools are not here")
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not on the PATH")
    with cloud(tmp_path_factory.mktemp("cloud"), run_commands=True) as started:
        yield started


@pytest.fixture(scope="module")
def environment(aws: Cloud, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PULUMI_"))}
    path = f"{TOOLS / 'aws'}:{Path(sys.executable).parent}:{clean['PATH']}"
    state = str(tmp_path_factory.mktemp("state"))
    shim = {"PULUMI_SHIM_HOME": state, "PULUMI_SHIM_TF_ARGS": f"--tolerate-drift {FAULTS} --plan-only {RULES}"}
    return clean | aws.environment() | shim | {"PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's folder, except that its settings file is the test's own."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("Pulumi.yaml", "infra", ".venv"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def make(verb: str, *arguments: str, project: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"infra.ops.{verb}", *arguments],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_up_then_nothing_to_change_then_doctor_then_destroy(
    aws: Cloud, project: Path, environment: dict[str, str]
) -> None:
    at = {"project": project, "environment": environment}
    up = make("up", "--yes", "--json", **at)
    assert up.returncode == 0, up.stderr
    outputs = json.loads(up.stdout)
    group = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"][0]
    assert (group["AutoScalingGroupName"], group["DesiredCapacity"]) == (outputs["asg"], 0)

    preview = make("preview", **at)
    assert preview.returncode == 0, preview.stderr
    assert "Previewing (dev)" in preview.stderr
    planned = re.findall(r"^  [a-z/]+: (aws:.*)$", preview.stderr, re.M)
    assert all(re.match(f"{FAULTS}|aws:s3/bucketLifecycleConfiguration:", line) for line in planned)

    doctor = make("doctor", "--json", **at)
    found = {check["name"]: check for check in json.loads(doctor.stdout)}
    ticks = {"Pulumi CLI", "region", "credentials", "instance types", "machine image", "stack", "bucket"}
    assert {name for name in ticks if found[name]["ok"]} == ticks
    assert (found["image"]["cure"], found["data"]["cure"]) == ("make image", "make data SRC=DIR")
    assert doctor.returncode == 1

    aws.client("s3").put_object(Bucket=outputs["bucket"], Key="data/a.mp4", Body=b"film")
    destroy = make("destroy", "--yes", "--json", **at)
    assert destroy.returncode == 0, destroy.stderr
    assert json.loads(destroy.stdout)["bucket"] == outputs["bucket"]
    assert aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"] == []
    kept = aws.client("s3").get_object(Bucket=outputs["bucket"], Key="data/a.mp4")["Body"].read()
    assert kept == b"film"
