"""Sessions on a machine through SSM's own session-manager-plugin: which machine, and the plugin's command line."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

from infra.ops import agent
from infra.ops.door import client
from infra.ops.errors import UserError
from infra.ops.fleet import find_machines
from infra.outputs import Outputs

PLUGIN = "session-manager-plugin"
INSTALL = (
    "https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html"
)
# From here on it takes the session's token by environment; a command line is there for everybody to read.
OLDEST = (1, 2, 497, 1)
TOKEN = "AWS_SSM_START_SESSION_RESPONSE"


@dataclass(frozen=True)
class Session:
    """An open session: its id, its machine, and what to start for it."""

    id: str
    machine: str
    line: list[str]
    environment: dict[str, str]


def require_terminal(otherwise: str) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(f"there is no terminal to show it on; {otherwise}")


def find_plugin() -> str:
    """Path of the plugin. Raises UserError with what installs it, if it is absent or too old."""
    path = shutil.which(PLUGIN)
    cure = "`brew install --cask session-manager-plugin`" if sys.platform == "darwin" else INSTALL
    if path is None:
        raise UserError(f"sessions need AWS's {PLUGIN}, which is not on the PATH; {cure} installs it")
    said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout.strip()
    version = tuple(int(part) for part in re.findall(r"\d+", said))
    if version < OLDEST:
        raise UserError(
            f"this {PLUGIN} ({said or 'of no version'}) would show the session's token to everybody; {cure} renews it"
        )
    return path


def find_machine(outputs: Outputs, preferred: str | None = None) -> str | None:
    """A machine of the stack that takes sessions: the preferred one if it does, else the longest there."""
    machines = [m for m in find_machines(outputs.region, outputs.stack) if m.state == "running" and m.group]
    online = agent.online(outputs, [m.id for m in machines])
    if preferred in online:
        return preferred
    return next((m.id for m in sorted(machines, key=lambda m: m.launched) if m.id in online), None)


def open_session(outputs: Outputs, plugin: str, machine: str, document: str, **parameters: str) -> Session | None:
    """Open a session on a machine; None if it takes none just now."""
    ssm = client("ssm", outputs.region)
    asked = {
        "Target": machine,
        "DocumentName": document,
        "Parameters": {name: [value] for name, value in parameters.items()},
    }
    try:
        told = ssm.start_session(**asked)
    except ssm.exceptions.TargetNotConnected:
        return None
    secret = json.dumps({name: told[name] for name in ("SessionId", "TokenValue", "StreamUrl")})
    profile = os.environ.get("AWS_PROFILE", "")
    line = [plugin, TOKEN, outputs.region, "StartSession", profile, json.dumps(asked), ssm.meta.endpoint_url]
    return Session(told["SessionId"], machine, line, os.environ | {TOKEN: secret})


def close_session(outputs: Outputs, session: Session) -> None:
    client("ssm", outputs.region).terminate_session(SessionId=session.id)
