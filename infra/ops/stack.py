"""The stack as this machine knows it: its settings, in Pulumi's two files, and the Pulumi CLI, run in the project.

The project is the nearest folder upwards with a Pulumi.yaml, as for the CLI itself. `backend:` in that file keeps the
state in the home directory (~/.pulumi), so that no account with anyone but AWS is needed; PULUMI_BACKEND_URL says
otherwise, for instance s3://BUCKET.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra.ops.capacity import MARKETS
from infra.ops.door import default_region
from infra.ops.errors import UserError
from infra.outputs import PROJECT, to_set

INSTALL = "https://www.pulumi.com/docs/install/ tells how to install it"


@dataclass(frozen=True)
class Settings:
    """The settings that the commands look at before there is a stack; the program checks them all."""

    stack: str
    region: str | None
    instance_types: tuple[str, ...]
    market: str
    nodes: int
    machine_image: str


def project_folder() -> Path:
    """The project that the working directory is in; the one of this file if it is in none."""
    here = Path.cwd()
    found = (folder for folder in (here, *here.parents) if (folder / "Pulumi.yaml").is_file())
    return next(found, Path(__file__).resolve().parents[2])


def read_settings(stack: str) -> Settings:
    """A stack's settings over the defaults of Pulumi.yaml. Raises UserError for what the commands cannot work with."""
    return settings_of(stack, declared_values() | own_values(stack))


def settings_of(stack: str, values: dict[str, str]) -> Settings:
    """The same from every setting as text."""
    market, nodes = values.get("market", ""), values.get("nodes", "")
    if market not in MARKETS:
        raise UserError(f"market is {market!r}, not one of {', '.join(MARKETS)}; `{to_set(stack, 'market=spot')}`")
    if not re.fullmatch(r"[1-9][0-9]{0,2}", nodes):
        raise UserError(f"nodes is {nodes!r}, not a number of machines; `{to_set(stack, 'nodes=1')}`")
    return Settings(
        stack=stack,
        region=values.get("aws:region") or default_region(),
        instance_types=tuple(name.strip() for name in values.get("instance_types", "").split(",") if name.strip()),
        market=market,
        nodes=int(nodes),
        machine_image=values.get("machine_image", ""),
    )


def cli() -> str:
    """Path of the Pulumi CLI. Raises UserError if there is none on the PATH."""
    found = shutil.which("pulumi")
    if found is None:
        raise UserError(f"the Pulumi CLI is not on the PATH; {INSTALL}")
    return found


def pulumi(settings: Settings, *arguments: str) -> None:
    """Run one command of the Pulumi CLI on the stack, its output on our stderr; raises UserError if it fails.

    On a terminal it stays a terminal to the CLI, which then draws its display and asks its questions.
    """
    line = [cli(), *arguments, "--stack", settings.stack]
    process = subprocess.Popen(line, cwd=project_folder(), env=_environment(settings), stdout=sys.stderr)
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:
            # The CLI has had the same Ctrl-C: it finishes what is under way and frees the stack. Killing it would not.
            print("waiting for pulumi to finish what it began", file=sys.stderr)
    if code:
        raise UserError(f"`pulumi {arguments[0]}` ended with {code}, its reason is above; `make doctor` may know more")


def create_if_missing(settings: Settings) -> None:
    """Select the stack, made first if the backend has none of that name."""
    pulumi(settings, "stack", "select", "--create", settings.stack)


def recorded(settings: Settings) -> dict[str, Any]:
    """The outputs that Pulumi's state has of the stack; none if it knows no such stack, or nothing of it is made."""
    line = [cli(), "stack", "output", "--json", "--stack", settings.stack]
    null = subprocess.DEVNULL
    done = subprocess.run(
        line, cwd=project_folder(), env=_environment(settings), stdin=null, capture_output=True, text=True
    )
    if done.returncode == 0:
        return dict(json.loads(done.stdout))
    if "no stack named" in done.stderr:
        return {}
    raise UserError(
        f"Pulumi's state cannot be read ({' '.join(done.stderr.split())[:200]}); infra/README.md tells where it is"
    )


def require_one_region(settings: Settings) -> None:
    """Raise UserError where the shell asks for another region than the one that the stack is pinned to."""
    asked = os.environ.get("AWS_REGION")
    if asked and asked != settings.region:
        raise UserError(
            f"the stack {settings.stack} is in {settings.region}, and AWS_REGION says {asked}; unset AWS_REGION, or "
            f"say STACK=NAME for another stack, in {asked}"
        )


def declared_values() -> dict[str, str]:
    """The default of every setting, as text. Raises UserError outside of a clone of the project."""
    declared = _read_yaml(project_folder() / "Pulumi.yaml")
    if not declared:
        raise UserError(f"{Path.cwd()} is in no clone of this project, for there is no Pulumi.yaml; cd into one")
    entries = (declared.get("config") or {}).items()
    return {
        name: _text(entry.get("value", entry.get("default")) if isinstance(entry, dict) else entry)
        for name, entry in entries
    }


def own_values(stack: str) -> dict[str, str]:
    """What has been set for a stack, as text; settings of other packages keep their prefix, as in aws:region."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", stack):
        raise UserError(f"{stack!r} is no name for a stack: up to 20 small letters, digits and hyphens; try STACK=dev")
    own = _read_yaml(project_folder() / f"Pulumi.{stack}.yaml").get("config") or {}
    return {name.removeprefix(f"{PROJECT}:"): _text(value) for name, value in own.items()}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML ({' '.join(str(error).split())}); mend it, or remove it") from None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _environment(settings: Settings) -> dict[str, str]:
    environment = dict(os.environ)
    if "PULUMI_CONFIG_PASSPHRASE_FILE" not in environment:
        # No setting of ours is secret; a backend in files wants a passphrase all the same.
        environment.setdefault("PULUMI_CONFIG_PASSPHRASE", "")
    if settings.region:
        environment["AWS_REGION"] = settings.region
    return environment | {"PULUMI_SKIP_UPDATE_CHECK": "1"}
