"""The four commands that a machine takes from outside, as SSM documents.

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
        {"run_id": RUN_ID, "mode": "^(drain|now)$"},
    ),
    "status": ("Tell what the machine does, as JSON", {}),
    "clean": ("Remove what a run has left on the machine", {"run_id": RUN_ID}),
}


def make_documents(name: str) -> dict[str, aws.ssm.Document]:
    """The documents by command: run, stop, status and clean."""
    return {
        command: aws.ssm.Document(
            f"{name}-{command}",
            name=f"{name}-{command}",
            document_type="Command",
            document_format="JSON",
            target_type="/AWS::EC2::Instance",
            content=json.dumps(document(command, (SCRIPTS / f"{command}.sh").read_text(encoding="utf-8"))),
        )
        for command in COMMANDS
    }


def document(command: str, script: str) -> dict[str, Any]:
    """A command document of schema 2.2 that runs `script`."""
    description, parameters = COMMANDS[command]
    return {
        "schemaVersion": "2.2",
        "description": description,
        "parameters": {
            name: {"type": "String", "description": name.replace("_", " "), "allowedPattern": pattern}
            for name, pattern in parameters.items()
        },
        "mainSteps": [
            {
                "action": "aws:runShellScript",
                "name": command,
                "precondition": {"StringEquals": ["platformType", "Linux"]},
                "inputs": {"timeoutSeconds": str(TIMEOUT_SECONDS), "runCommand": script.splitlines()},
            }
        ],
    }
