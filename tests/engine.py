"""A real Docker engine, and the project's own image in it, built once for all tests that want it.

    engine = docker_engine()       # a docker client; the test is skipped, with the reason, where none can be had
    image = project_image()        # "slowfast-emotion:test", of the code as it stands; skips likewise

The engine that runs is taken; where none does and the shared tools are at hand, theirs is started and left running.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from wheels import local_index, why_no_torch

import docker
from infra.ops.context import DOCKERFILE, IGNORE, Context, read_context

ROOT = Path(__file__).parents[1]
TOOLS = Path(os.environ.get("SLOWFAST_TEST_TOOLS") or ROOT.parent / "shared" / "tools")
BASE = "slowfast-base:py311"
ROOM = 25e9  # bytes: the image is 6 GB, and its wheels and layers lie there several times
IMAGE = "slowfast-emotion:test"
LABEL = "slowfast-emotion.context"


@cache
def _engine() -> Any:
    """A client, or in words why there is none."""
    try:
        return _answering()
    except docker.errors.DockerException as error:
        if not (TOOLS / "docker-engine").is_file() or os.geteuid():
            return f"no Docker engine answers: {error}"
    with one_at_a_time("engine"):
        done = subprocess.run([TOOLS / "docker-engine"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return _answering() if done.returncode == 0 else f"the Docker engine does not start: {done.stderr[-300:]}"


def _answering() -> Any:
    client = docker.from_env(timeout=1800)
    client.ping()
    return client


@cache
def base() -> str:
    """What images are built upon here: made of Debian's packages, or "" for the Dockerfile's own."""
    if not (TOOLS / "docker-base").is_file():
        return ""
    with one_at_a_time("base"):
        made = subprocess.run([TOOLS / "docker-base", BASE], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if made.returncode:
        pytest.skip(f"there is no base to build upon: {made.stderr[-300:]}")
    return BASE


def docker_engine() -> Any:
    if isinstance(found := _engine(), str):
        pytest.skip(found)
    return found


def buildkit() -> str | None:
    """A docker client on the PATH that speaks BuildKit."""
    for folder in os.get_exec_path():
        client = shutil.which("docker", path=folder)
        if client and not _build(client, "--help").returncode:
            return client
    return None


def project_image() -> str:
    client = docker_engine()
    if reason := why_no_torch():
        pytest.skip(reason)
    context = read_context(ROOT, base())
    with one_at_a_time("image"):
        known = client.images.list(name=IMAGE)
        if not known or known[0].labels.get(LABEL) != context.digest:
            free = shutil.disk_usage(client.info()["DockerRootDir"]).free
            if not known and free < ROOM:
                pytest.skip(
                    f"the image wants {ROOM / 1e9:.0f} GB of Docker's disk while it is built, {free / 1e9:.0f} are free"
                )
            build_image(context, IMAGE)
    return IMAGE


def build_image(context: Context, name: str) -> None:
    """Build as `docker build` does, with the real packages. Without BuildKit the older builder does it, more slowly."""
    with local_index() as index, tempfile.TemporaryDirectory() as folder:
        for file in (*context.files, IGNORE):
            (Path(folder) / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(context.root / file, Path(folder) / file)
        values = context.arguments | index.arguments
        words = [word for key, value in values.items() for word in ("--build-arg", f"{key}={value}")]
        line = ["--network", "host", "--file", f"{folder}/{DOCKERFILE}", "--tag", name, *words, folder]
        done = _build(buildkit() or "docker", *line)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def _build(client: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DOCKER_BUILDKIT": "1" if client != "docker" else "0", "BUILDKIT_PROGRESS": "plain"}
    return subprocess.run([client, "build", *words], env=environment, capture_output=True, text=True)


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Test processes that want the same thing made wait for each other."""
    with (Path(tempfile.gettempdir()) / f"slowfast-test-{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
