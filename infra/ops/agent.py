"""The SSM agent on the machines: the stack's documents sent to it, and what they answer.

SSM shows nothing of a command before its end, and at most 24,000 characters; documents only start or ask something.
"""

import time
from dataclasses import dataclass

from infra.ops.door import client
from infra.ops.errors import UserError
from infra.outputs import Outputs

PATIENCE = 320.0  # seconds; the documents' own limit is 300
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 3.0
GOING = ("Pending", "InProgress", "Delayed", "Cancelling")


@dataclass(frozen=True)
class Answer:
    """How a document ended on one machine. `code` is the script's exit code, -1 if it never ran."""

    instance: str
    status: str  # Success, Failed, TimedOut, Cancelled, ...
    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.status == "Success"


def online(outputs: Outputs, instances: list[str]) -> set[str]:
    """Those of the machines that take commands now."""
    if not instances:
        return set()
    answer = client("ssm", outputs.region).describe_instance_information(
        Filters=[{"Key": "InstanceIds", "Values": instances}]
    )
    return {found["InstanceId"] for found in answer["InstanceInformationList"] if found["PingStatus"] == "Online"}


def send(outputs: Outputs, document: str, instance: str, **parameters: str) -> str:
    """Send a document of the stack to one machine; returns the command's id. Raises UserError if it takes none."""
    ssm = client("ssm", outputs.region)
    try:
        sent = ssm.send_command(
            InstanceIds=[instance],
            DocumentName=document,
            Parameters={name: [value] for name, value in parameters.items()},
            TimeoutSeconds=60,  # until it has begun
        )
    except ssm.exceptions.InvalidInstanceId:
        raise UserError(f"machine {instance} takes no commands (still booting, or gone); `make status` tells") from None
    return str(sent["Command"]["CommandId"])


def answer(outputs: Outputs, instance: str, command: str) -> Answer | None:
    """How a command ended, None while it goes on."""
    ssm = client("ssm", outputs.region)
    try:
        found = ssm.get_command_invocation(CommandId=command, InstanceId=instance)
    except ssm.exceptions.InvocationDoesNotExist:  # known a moment after it was sent
        return None
    if found["Status"] in GOING:
        return None
    said = (found.get("StandardOutputContent", ""), found.get("StandardErrorContent", ""))
    return Answer(instance, found["Status"], found.get("ResponseCode", -1), *said)


def tell(outputs: Outputs, document: str, instance: str, *, patience: float = PATIENCE, **parameters: str) -> Answer:
    """Run one of the stack's documents on one machine and wait for its end, so many seconds at most.

    Raises UserError if the machine takes no commands, or does not answer.
    """
    command = send(outputs, document, instance, **parameters)
    end, pause = time.monotonic() + patience, FIRST_PAUSE
    while time.monotonic() < end:
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)
        if (ended := answer(outputs, instance, command)) is not None:
            return ended
    raise UserError(f"machine {instance} has not answered {document} for {patience:.0f} s; `make status` tells")
