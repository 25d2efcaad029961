"""make image against a real Docker engine and a registry: built, weighed, pushed, and told to the stack.

The packages are empty, of the versions that the lock names; what the real ones make is looked at in test_image.py.
Run: pytest tests/test_image_make.py
"""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from engine import base, docker_engine
from registry import registry
from toys import wait_until
from wheels import empty_index
from workshop import git, into_ecr, workshop

from infra import policies
from infra.ops.image import main

ROOT = Path(__file__).parents[1]
SMALL = "FROM scratch\nCOPY trainer trainer\n"
PASSWORD = "123456789012-auth-token"  # that moto's ECR deals out


@pytest.fixture(scope="module")
def index():
    with empty_index() as made:
        yield made


@pytest.fixture(scope="module")
def store(office):
    with registry("AWS", PASSWORD, into_ecr(office.aws)) as made:
        yield made


@pytest.fixture
def shop(office, store, index, monkeypatch, tmp_path):
    engine = docker_engine()
    store.uploads.clear()
    made = workshop(office.desk(monkeypatch, tmp_path), store, index, base())
    yield made
    for image in engine.images.list(name=made.desk.outputs.repository_url):
        engine.images.remove(image.id, force=True)


def test_the_image_is_built_pushed_and_used_by_the_next_machine(shop):
    code, out, err = shop.image("--yes", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert shop.store.tags[shop.repository] == {shop.tag: told["digest"]}
    assert shop.asked() == [["config", "set", "image_digest", told["digest"]], ["up", "--yes", "--skip-preview"]]

    # What it weighs: all of it, and its ten largest layers.
    layers = [layer["bytes"] for layer in told["largest_layers"]]
    assert layers == sorted(layers, reverse=True)
    assert len(layers) <= 10
    assert sum(layers) <= told["bytes"]
    assert f"{told['bytes'] / 1e9:.2f} GB" in err
    assert all(f"{layer['bytes'] / 1e6:.1f} MB" in err for layer in told["largest_layers"])
    assert len(shop.store.uploads) > 5
    assert told["bytes_pushed"] > sum(shop.store.uploads) / 2, "the engine counts before it packs"

    # What its labels say, and that nothing of the registry's password is kept or told.
    config = docker_engine().images.get(f"{shop.desk.outputs.repository_url}:{shop.tag}").attrs["Config"]
    commit = git(shop.folder, "rev-parse", "HEAD").strip()
    assert config["Labels"]["org.opencontainers.image.revision"] == commit
    assert config["Labels"]["org.opencontainers.image.version"] == "0.1.0"
    assert re.fullmatch(r"\d+\.\d+\.\d+", config["Labels"]["slowfast-emotion.torch"])
    assert PASSWORD not in out + err
    kept = Path.home() / ".docker" / "config.json"
    assert not kept.exists() or shop.store.place not in kept.read_text()

    # Again: the registry has it and the stack uses it.
    before = len(shop.store.uploads)
    code, out, err = shop.image("--yes")
    assert (code, out.strip()) == (0, f"{shop.desk.outputs.repository_url}@{told['digest']}")
    assert "nothing to build" in err
    assert "the stack uses it already" in err
    assert len(shop.store.uploads) == before
    assert len(shop.asked()) == 2

    # A change of the code sends the code's layers, and nothing of what lies below.
    shop.change()
    code, out, err = shop.image("--yes", "--json")
    assert code == 0, err
    changed = json.loads(out)
    assert changed["digest"] != told["digest"]
    assert sum(shop.store.uploads[before:]) < 5e6
    assert changed["bytes_pushed"] < 50e6
    assert f"{changed['bytes_pushed'] / 1e6:.1f} MB of layers were new" in err
    assert shop.asked()[-2:] == [
        ["config", "set", "image_digest", changed["digest"]], ["up", "--yes", "--skip-preview"]
    ]  # fmt: skip

    # So does a newer linter, or a line of pyproject.toml: torch and its libraries stay what they are.
    parts = rootfs(shop)
    lock = (shop.folder / "requirements.lock").read_text()
    (shop.folder / "requirements.lock").write_text(re.sub(r"^ruff==.*$", "ruff==99.0", lock, flags=re.M))
    shop.change("pyproject.toml", "# changed\n")
    code, out, err = shop.image("--yes", "--json")
    assert code == 0, err
    same = [one for one, other in zip(parts, rootfs(shop), strict=True) if one == other]
    assert parts[: len(same)] == same
    assert len(same) == 1 + layers_up_to("torch.txt"), "the base's layer and those of torch"


def rootfs(shop):
    """The image's layers, from the base up, by what they hold."""
    name = f"{shop.desk.outputs.repository_url}:{shop.tag}"
    return docker_engine().images.get(name).attrs["RootFS"]["Layers"]


def layers_up_to(name):
    """How many layers the Dockerfile has up to the one that installs what a file names."""
    stage = (ROOT / "docker" / "Dockerfile").read_text().rpartition("\nFROM")[2]
    steps = re.findall(r"^(?:RUN|COPY) (?:.*\\\n)*.*$", stage, re.M)
    return 1 + next(number for number, step in enumerate(steps) if f"/tmp/{name}" in step)


def test_looking_first_changes_nothing(shop):
    code, out, _ = shop.image("--dry-run")
    assert code == 0
    assert out.splitlines() == [
        f"docker build {shop.desk.outputs.repository_url}:{shop.tag} ({len(files(shop))} files)",
        f"docker push {shop.desk.outputs.repository_url}:{shop.tag}",
        f"pulumi config set image_digest sha256:... --stack {shop.desk.outputs.stack}",
        f"pulumi up --stack {shop.desk.outputs.stack}",
    ]
    assert not shop.asked()
    assert not shop.store.uploads
    assert not docker_engine().images.list(name=shop.desk.outputs.repository_url)


def test_somebody_who_pushed_the_same_commit_meanwhile_is_agreed_with(shop):
    (shop.folder / "docker" / "Dockerfile").write_text(SMALL)
    theirs = "sha256:" + "cd" * 32

    def push_first(_):
        shop.store.tags[shop.repository][shop.tag] = theirs
        manifest = json.dumps({"mediaType": "application/vnd.docker.distribution.manifest.v2+json"})
        into_ecr(shop.desk.aws)(shop.repository, shop.tag, manifest, theirs)

    shop.desk.seen.before["ecr:GetAuthorizationToken"] = push_first
    code, out, err = shop.image("--yes")
    assert code == 0, err
    assert out.strip().endswith(theirs)
    assert shop.asked()[0] == ["config", "set", "image_digest", theirs]


def test_a_build_that_fails_shows_its_last_lines_and_pushes_nothing(shop):
    dockerfile = shop.folder / "docker" / "Dockerfile"
    dockerfile.write_text(f"FROM {base()}\nRUN echo what went wrong && false\n" if base() else "FROM scratch\nRUN x\n")
    code, out, err = shop.image("--yes")
    assert (code, out) == (2, "")
    assert "what went wrong" in err
    assert "error: the image cannot be built" in err
    assert "Traceback" not in err
    assert not shop.store.uploads
    assert not shop.asked()


def test_a_registry_that_refuses_is_a_sentence(shop, monkeypatch):
    monkeypatch.setattr(shop.store, "credentials", "Basic other")
    (shop.folder / "docker" / "Dockerfile").write_text(SMALL)
    code, _, err = shop.image("--yes")
    assert code == 2
    assert "error: the registry does not take the image" in err
    assert not shop.asked()


def test_ctrl_c_ends_the_build_and_leaves_no_container(shop):
    name = f"sleeps-{os.getpid()}"
    (shop.folder / "docker" / "Dockerfile").write_text(f"FROM {base() or 'busybox'}\nRUN : {name} && sleep 300\n")
    engine = docker_engine()
    running = lambda: [c for c in engine.containers.list() if name in str(c.attrs["Args"])]  # noqa: E731
    process = shop.start("--yes")
    wait_until(lambda: bool(running()), "the build runs", 60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in err
    wait_until(lambda: not running(), "the build has ended", 60)
    assert not shop.asked()


def test_on_a_terminal_it_asks_first_and_then_goes_through_with_bars(shop):
    (shop.folder / "docker" / "Dockerfile").write_text(SMALL)
    ours, theirs = pty.openpty()
    line = [sys.executable, "-m", "infra.ops.image"]
    process = subprocess.Popen(
        line, cwd=shop.folder, env=shop.environment() | {"TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while b"go on? [y/N]" not in shown:
        shown += os.read(ours, 65536)
    assert not shop.asked()
    assert not shop.store.uploads
    os.write(ours, b"y\n")
    with suppress(OSError):  # which is how a terminal ends
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert process.wait(60) == 0, shown.decode()
    assert shop.asked()[-1] == ["up", "--yes", "--skip-preview"]
    assert "━" in shown.decode()
    assert "COPY trainer trainer" in shown.decode()


# What needs no engine.


@pytest.fixture
def bare(office, monkeypatch, tmp_path):
    return workshop(office.desk(monkeypatch, tmp_path))


def files(shop):
    from infra.ops.context import read_context

    return read_context(shop.folder).files


def test_docker_that_does_not_answer_is_a_sentence_that_names_the_other_way(bare, office):
    office.aws.client("ecr").create_repository(repositoryName=bare.repository)
    code, _, err = bare.image("--yes", DOCKER_HOST="unix:///nowhere.sock")
    assert code == 2
    assert err.startswith("error: Docker does not answer (")
    assert "make image WHERE=aws" in err


def test_a_run_that_is_active_keeps_its_image_and_that_is_said(bare, office):
    office.aws.client("ecr").create_repository(repositoryName=bare.repository)
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": {}, "layers": []})
    office.aws.client("ecr").put_image(repositoryName=bare.repository, imageTag=bare.tag, imageManifest=manifest)
    bare.desk.put(f"active/{bare.desk.outputs.stack}", "r50")
    code, _, err = bare.image("--yes")
    assert code == 0, err
    assert "run r50 goes on in the image that it was begun in" in err
    assert err.splitlines()[-1].startswith("the next run works in it")


def test_who_has_not_the_state_is_told_before_anything_is_built(bare):
    """A build takes ten minutes, and the stack could not be told of its image."""
    (bare.folder / "no-state").touch()
    code, _, err = bare.image("--yes", "--where", "aws")
    assert code == 2
    assert "but Pulumi's state here does not know it; whoever made it changes it" in err
    assert not bare.asked()
    assert not any(name.startswith(("ecr:", "codebuild:", "s3:")) for name in bare.desk.seen.names)


@pytest.mark.parametrize("answer", ["n", ""])
def test_a_no_builds_nothing(bare, office, monkeypatch, capsys, answer):
    office.aws.client("ecr").create_repository(repositoryName=bare.repository)
    for name, value in bare.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdin", Typist(answer))
    assert main([]) == 0
    err = capsys.readouterr().err
    assert "a `make up` without a question, with whatever else was set since the last" in err
    assert err.splitlines()[-1].endswith("nothing is built")
    assert not bare.asked()


class Typist(io.StringIO):
    """A terminal at which somebody types a line."""

    def isatty(self):
        return True


def test_a_registry_that_is_gone_is_a_sentence(bare):
    code, _, err = bare.image("--yes")
    assert code == 2
    assert "is gone; `make up` makes it again" in err


def test_without_a_terminal_one_must_say_yes_before_anything_is_built(bare):
    code, _, err = bare.image()
    assert code == 2
    assert "make image YES=1" in err
    assert not bare.desk.seen.made


def test_a_place_that_is_not_known_is_a_sentence(bare):
    code, _, err = bare.image("--yes", WHERE="$(reboot)")
    assert code == 2
    assert "WHERE is '$(reboot)', not here or aws" in err


def test_the_operator_policy_allows_every_call_that_is_made(shop):
    (shop.folder / "docker" / "Dockerfile").write_text(SMALL)
    shop.image("--yes")
    made = set(shop.desk.seen.names)
    assert made >= {"ssm:GetParameter", "ecr:DescribeImages", "ecr:GetAuthorizationToken"}
    names = policies.Names(**{name: f"arn:{name}" for name in policies.Names.__dataclass_fields__})
    policy = policies.operator(policies.Place("aws", "us-east-1", "1"), names, [], "role", "template", {})
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert made <= allowed
