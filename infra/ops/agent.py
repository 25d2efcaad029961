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


def tell(outputs: Outputs, document: str, instance: str, **parameters: str) -> Answer:
    """Run one of the stack's documents on one machine and wait for its end.

    Raises UserError if the machine takes no commands.
    """
    ssm = client("ssm", outputs.region)
    try:
        sent = ssm.send_command(
            InstanceIds=[instance],
            DocumentName=document,
            Parameters={name: [value] for name, value in parameters.items()},
            TimeoutSeconds=60,  # until it has begun
        )["Command"]["CommandId"]
    except ssm.exceptions.InvalidInstanceId:
        raise UserError(f"machine {instance} takes no commands (still booting, or gone); `make status` tells") from None
    end, pause = time.monotonic() + PATIENCE, FIRST_PAUSE
    while True:
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)
        try:
            found = ssm.get_command_invocation(CommandId=sent, InstanceId=instance)
        except ssm.exceptions.InvocationDoesNotExist:  # known a moment after it was sent
            found = {"Status": "Pending"}
        if found["Status"] not in GOING:
            return Answer(
                instance,
                found["Status"],
                found.get("ResponseCode", -1),
                found.get("StandardOutputContent", ""),
                found.get("StandardErrorContent", ""),
            )
        if time.monotonic() > end:
            raise UserError(
                f"machine {instance} has not answered {document} for {PATIENCE / 60:.0f} minutes; `make status` tells"
            )
