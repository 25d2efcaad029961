"""The commands that a machine takes from outside, and the session that shows a run live, as SSM documents.

Their scripts stand in infra/box/documents and are tested by themselves. SSM puts a parameter's value into the script
as text, so every parameter is held to a pattern in which no shell finds a meaning.
"""

import json
from pathlib import Path
from typing import Any

import pulumi_aws as aws

SCRIPTS = Path(__file__).parent / "box" / "documents"
RUN_ID = r"^[a-z0-9][a-z0-9-]{2,62}$"
MODE = "^(drain|now)$"
# Each command starts or asks something and returns; none lasts as long as a run does.
TIMEOUT_SECONDS = 300
COMMANDS: dict[str, tuple[str, dict[str, str]]] = {
    "run": ("Start a run, or go on with it", {"run_id": RUN_ID}),
    "stop": (
        "Stop a run after its checkpoint is safe (drain), or at once (now)",
        {"run_id": RUN_ID, "mode": MODE},
    ),
    "status": ("Tell what the machine does, as JSON", {}),
    "clean": ("Remove what a run has left on the machine", {"run_id": RUN_ID}),
}
# These last as long as somebody looks on.
SESSIONS: dict[str, tuple[str, dict[str, str]]] = {
    "attach": ("Show what a run prints, live", {"run_id": RUN_ID}),
}


def make_documents(name: str) -> dict[str, aws.ssm.Document]:
    """The documents by command: run, stop, status, clean and attach."""
    return {
        command: aws.ssm.Document(
            f"{name}-{command}",
            name=f"{name}-{command}",
            document_type="Session" if command in SESSIONS else "Command",
            document_format="JSON",
            target_type=None if command in SESSIONS else "/AWS::EC2::Instance",
            content=json.dumps((session if command in SESSIONS else document)(command, read_script(command))),
        )
        for command in (*COMMANDS, *SESSIONS)
    }


def read_script(command: str) -> str:
    return (SCRIPTS / f"{command}.sh").read_text(encoding="utf-8")


def document(command: str, script: str) -> dict[str, Any]:
    """A command document of schema 2.2 that runs `script`."""
    description, parameters = COMMANDS[command]
    return {
        "schemaVersion": "2.2",
        "description": description,
        "parameters": _declared(parameters),
        "mainSteps": [
            {
                "action": "aws:runShellScript",
                "name": command,
                "precondition": {"StringEquals": ["platformType", "Linux"]},
                "inputs": {"timeoutSeconds": str(TIMEOUT_SECONDS), "runCommand": script.splitlines()},
            }
        ],
    }


def session(command: str, script: str) -> dict[str, Any]:
    """A session document of schema 1.0 that runs `script` on a terminal, as the ordinary ssm-user."""
    description, parameters = SESSIONS[command]
    return {
        "schemaVersion": "1.0",
        "description": description,
        "sessionType": "InteractiveCommands",
        "parameters": _declared(parameters),
        "properties": {"linux": {"commands": script, "runAsElevated": False}},
    }


def _declared(parameters: dict[str, str]) -> dict[str, Any]:
    return {
        name: {"type": "String", "description": name.replace("_", " "), "allowedPattern": pattern}
        for name, pattern in parameters.items()
    }
