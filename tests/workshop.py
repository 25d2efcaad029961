"""Where `make image` is tried: an operator's stack, a copy of the project under git, a registry, and a Pulumi CLI.

    shop = workshop(desk, folder, store)     # desk of operators.py, store of registry.py
    shop.image("--yes")                      # exit code, stdout, stderr

The Pulumi CLI notes what it is asked and publishes the digest that it was told, as `up` does; with a file `no-state`
beside its notes it knows no stack.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cloud import REGION
from operators import Desk, environment
from registry import Store
from wheels import Index

from infra.ops.context import read_context
from infra.outputs import parameter_name

ROOT = Path(__file__).parents[1]
PULUMI = """#!{python}
import json, os, sys
from pathlib import Path
import boto3
asked = Path({asked!r})
if sys.argv[1:3] == ["stack", "output"]:
    if asked.with_name("no-state").exists():
        sys.exit("error: no stack named 'x' found")
    sys.exit(print(json.dumps({{"region": {region!r}}})))
with asked.open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
told = [json.loads(line) for line in asked.read_text().splitlines()]
if sys.argv[1] == "up":
    ssm = boto3.client("ssm", endpoint_url={url!r})
    digest = [line[3] for line in told if line[:3] == ["config", "set", "image_digest"]][-1]
    outputs = json.loads(ssm.get_parameter(Name={parameter!r})["Parameter"]["Value"]) | {{"image_digest": digest}}
    ssm.put_parameter(Name={parameter!r}, Value=json.dumps(outputs), Type="String", Overwrite=True)
"""


@dataclass
class Workshop:
    desk: Desk
    store: Store | None
    index: Index | None
    base: str

    @property
    def folder(self) -> Path:
        return self.desk.folder

    def image(self, *arguments: str, **more: str) -> tuple[int, str, str]:
        """Run `make image` in a process of its own; its exit code, stdout and stderr. `more` is environment."""
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "infra.ops.image", *arguments, *(["--base", self.base] if self.base else [])]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            line, cwd=self.folder, env=self.environment() | more, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe,
            text=True,
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        """The operator's: the cloud, the stand-in for Pulumi, and an index that the build reaches."""
        told = environment(self.desk)
        for name in ("PIP_EXTRA_INDEX_URL", "HTTPS_PROXY", "https_proxy", "WHERE", "BASE"):
            told.pop(name, None)
        path = f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        # What speaks to the cloud on this machine goes there straight.
        return told | {"PATH": path, "NO_PROXY": "127.0.0.1,localhost"} | (self.index.arguments if self.index else {})

    @property
    def repository(self) -> str:
        return self.desk.outputs.repository_url.partition("/")[2]

    @property
    def tag(self) -> str:
        return read_context(self.folder, self.base).tag

    def asked(self) -> list[list[str]]:
        """What the Pulumi CLI was asked, in order, without the name of the stack."""
        file = self.folder / "asked"
        return [json.loads(line)[:-2] for line in file.read_text().splitlines()] if file.exists() else []

    def change(self, name: str = "trainer/__init__.py", text: str = "# changed\n") -> None:
        with (self.folder / name).open("a") as file:
            file.write(text)


def workshop(desk: Desk, store: Store | None = None, index: Index | None = None, base: str = "") -> Workshop:
    """The desk's folder made a copy of the project with a commit, and its stack's registry `store`."""
    folder = desk.folder
    copy_project(folder)
    desk.outputs = replace(desk.outputs, image_digest="")
    desk.seen.answers.pop("ecr:DescribeImages", None)  # what is pushed here is in the cloud's own registry
    if store:
        desk.outputs = replace(desk.outputs, repository_url=f"{store.place}/{desk.outputs.asg}")
        desk.aws.client("ecr").create_repository(repositoryName=desk.outputs.asg)
    name = parameter_name(desk.outputs.stack)
    text = json.dumps(asdict(desk.outputs))
    desk.aws.client("ssm").put_parameter(Name=name, Value=text, Type="String", Overwrite=True)
    programs = folder / "bin"
    programs.mkdir()
    script = PULUMI.format(
        python=sys.executable, asked=str(folder / "asked"), url=desk.aws.url, parameter=name, region=REGION
    )
    (programs / "pulumi").write_text(script)
    (programs / "pulumi").chmod(0o755)
    return Workshop(desk, store, index, base)


def copy_project(folder: Path) -> None:
    """The files of the image, and Pulumi.yaml, as the first commit of a repository of their own."""
    for name in (*read_context(ROOT).files, "docker/Dockerfile.dockerignore", "docker/buildspec.yml", "Pulumi.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".gitignore").write_text("__pycache__/\nbin/\nasked\nno-state\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def into_ecr(aws: Any) -> Callable[[str, str, str, str], None]:
    """Has the cloud's ECR know what the registry is given."""

    def told(repository: str, tag: str, manifest: str, digest: str) -> None:
        aws.client("ecr").put_image(repositoryName=repository, imageTag=tag, imageManifest=manifest, imageDigest=digest)

    return told
