"""make image WHERE=aws: the source goes to the bucket, the project's own script really builds it, its log is shown.

Run: pytest tests/test_image_aws.py
"""

import re
import signal

import pytest
from codebuild import CodeBuild, machine
from engine import base, buildkit, docker_engine
from registry import registry
from toys import wait_until
from workshop import into_ecr, workshop

from infra import policies

# What is tried here is the script; what the real Dockerfile makes is looked at in test_image.py.
SMALL = """FROM scratch
COPY trainer trainer
COPY manifests manifests
ARG REVISION
ARG VERSION
ARG TORCH
ARG CONTEXT
LABEL revision=${REVISION} version=${VERSION} torch=${TORCH} context=${CONTEXT}
"""
PASSWORD = "123456789012-auth-token"  # that moto's ECR deals out


@pytest.fixture(scope="module")
def store(office):
    with registry("AWS", PASSWORD, into_ecr(office.aws)) as made:
        yield made


@pytest.fixture
def shop(office, store, monkeypatch, tmp_path):
    made = workshop(office.desk(monkeypatch, tmp_path), store, base=base())
    outputs = made.desk.outputs
    versioned = {"Status": "Enabled"}
    office.aws.client("s3").put_bucket_versioning(Bucket=outputs.bucket, VersioningConfiguration=versioned)
    office.aws.client("logs").create_log_group(logGroupName=outputs.log_group)
    return made


def builds_of(shop, tmp_path, docker="docker", script=None):
    """CodeBuild with the stack's project in it."""
    own = (shop.folder / "docker" / "buildspec.yml").read_text()
    environment = machine(tmp_path / "there", docker, shop.desk.aws.url)
    made = CodeBuild(shop.desk.aws, shop.desk.outputs, script or own, tmp_path / "there", environment)
    made.answer(shop.desk.seen)
    return made


def script(*commands):
    lines = "".join(f"      - {command}\n" for command in commands)
    return f"version: 0.2\nenv:\n  shell: bash\nphases:\n  build:\n    commands:\n{lines}"


def test_the_image_is_built_by_the_projects_own_script_and_used(shop, tmp_path):
    engine, client = docker_engine(), buildkit()
    if client is None:
        pytest.skip("no docker client on the PATH speaks BuildKit, which CodeBuild has")
    (shop.folder / "docker" / "Dockerfile").write_text(SMALL)
    builds = builds_of(shop, tmp_path, client)
    code, out, err = shop.image("--where", "aws", "--yes")
    assert code == 0, err
    digest = shop.store.tags[shop.repository][shop.tag]
    assert out.strip() == f"{shop.desk.outputs.repository_url}@{digest}"
    assert shop.asked() == [["config", "set", "image_digest", digest], ["up", "--yes", "--skip-preview"]]
    assert "$0.01 a minute" in err
    assert "Phase complete: SUCCEEDED" in err, "its last words, too"
    assert re.search(r"^\d+kB COPY trainer", err, re.M), "the layers and their sizes"
    labels = engine.images.get(f"{shop.desk.outputs.repository_url}:{shop.tag}").labels
    assert labels == {name.lower(): builds.asked[0][name] for name in ("REVISION", "VERSION", "TORCH", "CONTEXT")}
    assert not builds.stopped
    assert PASSWORD not in out + err

    # The next one begins with what the last has pushed.
    before = len(shop.store.uploads)
    shop.change("manifests/__init__.py")
    code, _, err = shop.image("--where", "aws", "--yes")
    assert code == 0, err
    assert builds.asked[1]["LAST"] == digest
    assert re.search(r"CACHED$", err, re.M)
    assert len(shop.store.uploads) - before == 2, "the layer that changed, and what describes the image"
    engine.images.remove(f"{shop.desk.outputs.repository_url}:{shop.tag}", force=True)
    assert set(shop.desk.seen.names) <= allowed()


def allowed():
    """What the operator policy lets one do."""
    names = policies.Names(**{name: f"arn:{name}" for name in policies.Names.__dataclass_fields__})
    policy = policies.operator(policies.Place("aws", "us-east-1", "1"), names, [], "role", "template", {})
    return {action for statement in policy["Statement"] for action in statement["Action"]}


def test_not_a_line_of_the_log_is_lost_or_told_twice(shop, tmp_path):
    builds_of(shop, tmp_path, script=script("for n in $(seq 150); do echo line $n; done"))
    _, _, err = shop.image("--where", "aws", "--yes")
    assert re.findall(r"^line (\d+)$", err, re.M) == [str(n) for n in range(1, 151)]


def test_a_build_that_fails_is_a_sentence_that_says_where(shop, tmp_path):
    builds = builds_of(shop, tmp_path, script=script("echo what went wrong", "exit 3"))
    code, out, err = shop.image("--where", "aws", "--yes")
    assert (code, out) == (2, "")
    assert "what went wrong" in err
    assert re.search(r"error: the build \S+ ended as FAILED in BUILD \(Error while executing command: exit 3", err)
    assert not shop.asked()
    assert builds.builds


def test_a_build_that_pushes_nothing_is_no_success(shop, tmp_path):
    builds_of(shop, tmp_path, script=script("echo done"))
    code, _, err = shop.image("--where", "aws", "--yes")
    assert code == 2
    assert f"error: the registry has no image {shop.tag}" in err
    assert not shop.asked()


def test_ctrl_c_ends_the_build_in_aws_which_would_cost_on(shop, tmp_path):
    builds = builds_of(shop, tmp_path, script=script("echo at work", "sleep 20"))
    process = shop.start("--where", "aws", "--yes")
    wait_until(lambda: shop.desk.seen.names["codebuild:BatchGetBuilds"] > 0, "the build is followed", 60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert builds.stopped == list(builds.builds)
    assert not shop.asked()


def test_looking_first_says_what_it_would_cost_and_starts_nothing(shop, tmp_path):
    builds = builds_of(shop, tmp_path)
    code, out, _ = shop.image("--where", "aws", "--dry-run")
    assert code == 0
    assert "$0.01 a minute" in out
    assert f"s3://{shop.desk.outputs.bucket}/images/context.zip" in out
    assert not builds.builds
    assert not shop.desk.keys("images/")
