"""The stack under test: recordings of the program, and a loopback AWS with a stand-in for the Pulumi CLI."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from infra.recording import Declared, Recording, record

ROOT = Path(__file__).parents[1]
TOOLS = Path(os.environ.get("SLOWFAST_TEST_TOOLS", ROOT.parent / "shared" / "tools")) / "aws"
# One stack of each kind that the settings can make: every branch of the program is in one of them.
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "on-demand": {"market": "on-demand", "image_digest": "sha256:" + "ab" * 32},
    "spot": {"market": "spot", "email": "someone@example.org"},
    "four nodes": {"nodes": 4, "cluster_placement": True, "operators": "arn:aws:iam::123456789012:role/team/trainer"},
    "private": {"private_subnets": True, "keep_data": False, "budget_dollars": 0},
    "private, four nodes": {"private_subnets": True, "nodes": 4, "operators": "arn:aws:iam::123456789012:user/eve"},
}


@cache
def kind(name: str) -> Recording:
    return record(KINDS[name])


def of_type(recording: Recording, suffix: str) -> list[Declared]:
    """The resources whose type ends so, such as `:Subnet`."""
    return [resource for resource in recording.resources if resource.type.endswith(suffix)]


def only(recording: Recording, suffix: str) -> Declared:
    (resource,) = of_type(recording, suffix)
    return resource


@contextmanager
def loopback_aws(folder: Path) -> Iterator[dict[str, str]]:
    """An AWS on this machine for the block; yields the environment that leads to it."""
    ready = folder / "ready"
    # In the background and on whatever core is free, as long as the block lasts and 15 minutes at most.
    command = [sys.executable, str(TOOLS / "ssm_host.py"), "--root", str(folder / "hosts"), "--ready", str(ready)]
    with (folder / "aws.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--seed", str(TOOLS / "seed.json"), "--max-seconds", "900"], stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + 60
        while not (ready.exists() and ready.read_text()):
            assert server.poll() is None, (folder / "aws.log").read_text()
            assert time.monotonic() < until, "the loopback AWS does not come up"
            time.sleep(0.1)
        region = "us-east-1"
        yield os.environ | {
            "AWS_ENDPOINT_URL": ready.read_text(),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
        }
    finally:
        server.terminate()
        server.wait()


class Cli:
    """The stand-in for the Pulumi CLI, on a copy of the project's folder with settings and state of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.project = folder / "project"
        self.project.mkdir(parents=True)
        for name in ("Pulumi.yaml", "infra", ".venv"):
            (self.project / name).symlink_to(ROOT / name)
        self.environment = environment | {
            "PATH": f"{TOOLS}:{Path(sys.executable).parent}:{environment['PATH']}",
            "PULUMI_SHIM_HOME": str(folder / "pulumi"),
            "PULUMI_CONFIG_PASSPHRASE": "",
            # What the project's own folder gives to a real `pulumi`: the package, installed editable.
            "PYTHONPATH": str(ROOT),
        }
        self("login", "--local")
        self("stack", "init", "dev")

    def __call__(self, *arguments: str, tools: str = "", fails: bool = False) -> str:
        """Run one command; returns what it prints. `tools` are options of the stand-in's own."""
        done = subprocess.run(
            ["pulumi", *arguments],
            cwd=self.project,
            env=self.environment | {"PULUMI_SHIM_TF_ARGS": tools},
            capture_output=True,
            text=True,
            timeout=300,
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said
        return said

    def outputs(self) -> dict[str, Any]:
        return json.loads(self("stack", "output", "--json"))
