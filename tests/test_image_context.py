"""What the image is made of, and what it is called. Run: pytest tests/test_image_context.py"""

import io
import os
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from workshop import copy_project, git

from infra import policies
from infra.builder import BUILDSPEC, COMPUTE
from infra.ops import builder
from infra.ops.context import read_context
from infra.ops.engine import instruction, reach
from infra.ops.errors import UserError
from infra.recording import record

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()


@pytest.fixture
def project(tmp_path):
    copy_project(tmp_path)
    return tmp_path


def test_the_image_is_made_of_the_trainer_the_manifests_and_the_box_and_of_nothing_else():
    files = read_context(ROOT).files
    packages = {"manifests", "trainer", "infra/box"}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and (package != "infra/box" or path.suffix == ".py")
    }
    others = {"docker/Dockerfile", "pyproject.toml", "requirements.lock", "infra/__init__.py"}
    assert set(files) == wanted | others
    assert list(files) == sorted(files)


def test_packing_twice_gives_the_same_bytes_whatever_the_clock_says(project):
    before = read_context(project)
    for name in before.files:
        os.utime(project / name, (1, 1))
    after = read_context(project)
    assert (after.tar(), after.zip()) == (before.tar(), before.zip())
    with tarfile.open(fileobj=io.BytesIO(after.tar())) as archive:
        assert archive.getnames() == list(after.files)
    packed = zipfile.ZipFile(io.BytesIO(after.zip()))
    assert packed.namelist() == list(after.files)
    assert packed.read("requirements.lock") == (project / "requirements.lock").read_bytes()


def test_a_commit_gives_its_name_to_the_image(project):
    context = read_context(project)
    commit = git(project, "rev-parse", "HEAD").strip()
    assert (context.tag, context.arguments["REVISION"]) == (commit[:12], commit)


@pytest.mark.parametrize("name", ["README.md", "tests/test_new.py", "infra/ops/verb.py", "infra/box/documents/run.sh"])
def test_what_is_not_in_the_image_does_not_change_its_name(project, name):
    before = read_context(project).tag
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text("something")
    assert read_context(project).tag == before


@pytest.mark.parametrize("name", ["trainer/train.py", "trainer/new.py", "requirements.lock", "docker/Dockerfile"])
def test_what_differs_from_the_commit_shows_in_the_name_and_so_does_each_further_change(project, name):
    commit = read_context(project).tag
    tags = {commit}
    for _ in range(2):
        with (project / name).open("a") as file:
            file.write("# more\n")
        context = read_context(project)
        tags.add(context.tag)
        assert context.tag == f"{commit}-dirty-{context.digest[:12]}"
        assert context.arguments["REVISION"].endswith("+changes")
    assert len(tags) == 3
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "second")
    assert "dirty" not in read_context(project).tag


def test_a_file_that_is_taken_away_shows_in_the_name(project):
    (project / "trainer" / "train.py").unlink()
    assert "-dirty-" in read_context(project).tag


def test_another_base_is_another_image(project):
    plain, other = read_context(project), read_context(project, "registry.example.org/python:3.11")
    assert other.tag.startswith(f"{plain.tag}-dirty-")
    assert other.arguments["BASE"] == "registry.example.org/python:3.11"
    assert "BASE" not in plain.arguments


def test_without_git_the_files_alone_name_the_image(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("unpacked") / "project"
    subprocess.run(["cp", "-r", project, elsewhere], check=True)
    subprocess.run(["rm", "-rf", elsewhere / ".git"], check=True)
    context = read_context(elsewhere)
    assert context.tag == f"no-commit-dirty-{context.digest[:12]}"


def test_a_folder_without_a_dockerfile_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="no docker/Dockerfile"):
        read_context(tmp_path)


def test_the_base_is_named_by_digest():
    assert re.search(r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.M)


def test_every_argument_that_is_given_is_declared():
    declared = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.M))
    assert set(read_context(ROOT, "some/base").arguments) <= declared
    assert {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST"} <= declared


def test_a_password_in_an_index_is_refused_for_the_image_would_keep_it():
    assert reach({"PIP_INDEX_URL": "https://pypi.example.org/simple", "HOME": "/root"}) == {
        "PIP_INDEX_URL": "https://pypi.example.org/simple"
    }
    with pytest.raises(UserError, match="PIP_EXTRA_INDEX_URL holds a password"):
        reach({"PIP_EXTRA_INDEX_URL": "https://a.example.org https://me:secret@pypi.example.org/simple"})


@pytest.mark.parametrize(
    ("told", "made_by"),
    [
        ("/bin/sh -c #(nop) COPY dir:0c00 in trainer ", "COPY dir:0c00 in trainer"),
        ("|2 PIP_INDEX_URL=http://x PIP_TRUSTED_HOST=x /bin/sh -c useradd it   && true", "useradd it && true"),
        ("RUN |1 PIP_INDEX_URL= /bin/sh -c python -m compileall -q . # buildkit", "python -m compileall -q ."),
        ("COPY trainer trainer # buildkit", "COPY trainer trainer"),
        ("", "the base"),
    ],
)
def test_a_layer_is_told_by_what_made_it(told, made_by):
    assert instruction(told) == made_by


# The builder in AWS, as the stack declares it.


def test_the_builder_may_read_its_source_push_and_log_and_nothing_else():
    names = policies.Names(**{name: f"arn:{name}" for name in policies.Names.__dataclass_fields__})
    allowed = {
        action: statement for statement in policies.builder(names)["Statement"] for action in statement["Action"]
    }
    assert allowed["s3:GetObject"]["Resource"] == ["arn:bucket/images/*"]
    assert allowed["ecr:PutImage"]["Resource"] == ["arn:repository"]
    assert not [action for action in allowed if re.search("Delete|s3:Put|iam|codebuild|ssm", action)]
    everywhere = {action for action, statement in allowed.items() if statement["Resource"] == ["*"]}
    assert everywhere == {"ecr:GetAuthorizationToken"}


def test_the_project_has_docker_its_script_its_log_and_an_end():
    (project,) = [r for r in record().resources if r.type.endswith(":Project")]
    assert project.inputs["environment"]["privilegedMode"] is True
    assert project.inputs["environment"]["computeType"] == COMPUTE
    assert project.inputs["source"]["location"].endswith(f"/{builder.KEY}")
    assert project.inputs["source"]["buildspec"] == BUILDSPEC.read_text()
    assert project.inputs["logsConfig"]["cloudwatchLogs"]["groupName"] == "/slowfast-emotion-dev"
    assert 30 <= project.inputs["buildTimeout"] <= 120


def test_the_script_is_told_every_argument_of_the_dockerfile():
    script = str(yaml.safe_load(BUILDSPEC.read_text())["phases"])
    for name in read_context(ROOT, "some/base").arguments:
        assert f'--build-arg {name}="${name}"' in script
