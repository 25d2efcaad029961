"""SSM Run Command for the stand-in machines: what is sent is really run, and told as SSM tells it.

A command's text is the document's script with the parameters put in as text. It is Pending, then InProgress, then
Success, Failed, TimedOut or Cancelled; nothing of its output can be seen before that, and then 24,000 characters of it.
"""

import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

from moto.core.responses import ActionResult
from moto.ssm.exceptions import SSMException
from moto.ssm.responses import SimpleSystemManagerResponse
from standin import Machine

STDOUT, STDERR, DETAIL = 24_000, 8_000, 2_500  # characters that are kept
PENDING = 0.2  # seconds until the agent has fetched a command
ENDED = ("Success", "Failed", "TimedOut", "Cancelled")


@dataclass
class Invocation:
    """A command on one machine."""

    instance: str
    status: str = "Pending"
    code: int = -1
    stdout: str = ""
    stderr: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    cancel: Event = field(default_factory=Event)

    def run(self, machine: Machine, script: str, seconds: int) -> None:
        self.cancel.wait(PENDING)
        self.started, self.status = datetime.now(UTC), "InProgress"
        end = time.monotonic() + seconds
        ended = machine.execute(script, seconds, self.cancel)
        self.code = ended.code if ended.code > 0 else 0 if ended.code == 0 else 137
        failed = f"failed to run commands: exit status {self.code}" if ended.code else ""
        self.stdout, self.stderr = ended.stdout, "\n".join(filter(None, [ended.stderr.rstrip("\n"), failed]))
        self.ended = datetime.now(UTC)
        cut_off = "Cancelled" if self.cancel.is_set() else "TimedOut" if time.monotonic() >= end else "Failed"
        self.status = "Success" if ended.code == 0 else "Failed" if ended.code > 0 else cut_off

    @property
    def is_over(self) -> bool:
        return self.status in ENDED

    def told(self) -> dict[str, Any]:
        """As GetCommandInvocation answers."""
        over = self.is_over
        return {
            "InstanceId": self.instance,
            "PluginName": "aws:runShellScript",
            "Status": self.status,
            "StatusDetails": {"TimedOut": "ExecutionTimedOut"}.get(self.status, self.status),
            "ResponseCode": self.code if over else -1,
            "StandardOutputContent": self.stdout[:STDOUT] if over else "",
            "StandardErrorContent": self.stderr[:STDERR] if over else "",
            "ExecutionStartDateTime": self.started.isoformat() if self.started else "",
            "ExecutionEndDateTime": self.ended.isoformat() if self.ended else "",
        }


@dataclass
class Command:
    document: str
    parameters: dict[str, list[str]]
    comment: str
    invocations: list[Invocation]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    asked: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def status(self) -> str:
        states = {invocation.status for invocation in self.invocations}
        if not states <= set(ENDED):
            return "Pending" if states == {"Pending"} else "InProgress"
        return next((state for state in ("Cancelled", "TimedOut", "Failed") if state in states), "Success")

    def named(self) -> dict[str, Any]:
        return {"CommandId": self.id, "DocumentName": self.document, "Comment": self.comment}

    def told(self) -> dict[str, Any]:
        return {
            **self.named(),
            "Parameters": self.parameters,
            "InstanceIds": [invocation.instance for invocation in self.invocations],
            "Status": self.status,
            "StatusDetails": self.status,
            "RequestedDateTime": self.asked,
            "ExpiresAfter": self.asked + timedelta(hours=1),
            "TargetCount": len(self.invocations),
            "CompletedCount": sum(invocation.is_over for invocation in self.invocations),
        }


def filled(document: dict[str, Any], given: dict[str, list[str]]) -> tuple[str, int]:
    """A document's script with its parameters put in, and its time limit in seconds. Refuses as SSM does."""
    declared = document.get("parameters", {})
    if unknown := sorted(set(given) - set(declared)):
        raise SSMException("InvalidParameters", f"the document does not declare {', '.join(unknown)}")
    (step,) = document["mainSteps"]
    script = "\n".join(step["inputs"]["runCommand"]) + "\n"
    for name, rule in declared.items():
        values = given.get(name) or [rule["default"]] if "default" in rule else given.get(name)
        if not values:
            raise SSMException("InvalidParameters", f"the document needs {name}")
        # Where the pattern's own `$` would let a last newline pass, SSM's whole-string match does not.
        if not re.fullmatch(rule.get("allowedPattern", ".*").removesuffix("$"), values[0]):
            raise SSMException("InvalidParameters", f"{name} does not match its allowedPattern")
        script = re.sub(r"\{\{\s*" + name + r"\s*\}\}", lambda _, value=values[0]: value, script)
    return script, int(step["inputs"].get("timeoutSeconds", 3600))


def run_commands(online: Callable[[], dict[str, Machine]]) -> None:
    """Have moto's SSM send commands to the machines that `online` knows by their instances' ids."""
    commands: dict[str, Command] = {}

    def send(self: Any) -> ActionResult:
        name, given = self._get_param("DocumentName"), self._get_param("Parameters", {}) or {}
        document = json.loads(self.ssm_backend.get_document(name, None, None, "JSON")["Content"])
        script, seconds = filled(document, given)
        machines, wanted = online(), self._get_param("InstanceIds", []) or []
        if not wanted or (absent := [instance for instance in wanted if instance not in machines]):
            raise SSMException("InvalidInstanceId", f"Instances {wanted and absent} not in a valid state for account")
        command = Command(name, given, self._get_param("Comment", ""), [Invocation(instance) for instance in wanted])
        answer = command.told()
        commands[command.id] = command
        for invocation in command.invocations:
            work = (machines[invocation.instance], script, seconds)
            threading.Thread(target=invocation.run, args=work, daemon=True).start()
        return ActionResult({"Command": answer})

    def chosen(self: Any) -> list[tuple[Command, Invocation]]:
        number, instance = self._get_param("CommandId"), self._get_param("InstanceId")
        return [
            (command, invocation)
            for command in reversed(commands.values())
            for invocation in command.invocations
            if number in (None, command.id) and instance in (None, invocation.instance)
        ]

    def get_invocation(self: Any) -> ActionResult:
        for command, invocation in chosen(self):
            return ActionResult({**command.named(), **invocation.told()})
        raise SSMException("InvocationDoesNotExist", "there is no such command on this machine")

    def list_invocations(self: Any) -> ActionResult:
        rows = []
        for command, invocation in chosen(self):
            told = invocation.told()
            plugin = {"Name": "run", "Status": told["Status"], "ResponseCode": told["ResponseCode"]}
            plugin["Output"] = (told["StandardOutputContent"] + told["StandardErrorContent"])[:DETAIL]
            row = {**command.named(), "InstanceId": invocation.instance, "Status": told["Status"]}
            row |= {"StatusDetails": told["StatusDetails"], "RequestedDateTime": command.asked}
            rows.append(row | {"CommandPlugins": [plugin] if self._get_param("Details") else []})
        return ActionResult({"CommandInvocations": rows})

    def list_all(self: Any) -> ActionResult:
        found = {command.id: command.told() for command, _ in chosen(self)}
        return ActionResult({"Commands": list(found.values())})

    def cancel(self: Any) -> ActionResult:
        if not (command := commands.get(self._get_param("CommandId"))):
            raise SSMException("InvalidCommandId", "there is no such command")
        for invocation in command.invocations:
            if invocation.instance in (self._get_param("InstanceIds") or [invocation.instance]):
                invocation.cancel.set()
        return ActionResult({})

    def describe(self: Any) -> ActionResult:
        filters = [*(self._get_param("Filters") or []), *(self._get_param("InstanceInformationFilterList") or [])]
        rows = [
            {
                "InstanceId": instance,
                "PingStatus": "Online",
                "LastPingDateTime": datetime.now(UTC),
                "PlatformType": "Linux",
                "ResourceType": "EC2Instance",
            }
            for instance in online()
            if all(instance in (filter.get("Values") or filter["valueSet"]) for filter in filters)
        ]
        return ActionResult({"InstanceInformationList": rows})

    def connection(self: Any) -> ActionResult:
        target = self._get_param("Target")
        return ActionResult({"Target": target, "Status": "connected" if target in online() else "notconnected"})

    actions = {"send_command": send, "get_command_invocation": get_invocation, "list_commands": list_all}
    actions |= {"list_command_invocations": list_invocations, "cancel_command": cancel}
    actions |= {"describe_instance_information": describe, "get_connection_status": connection}
    for name, action in actions.items():
        setattr(SimpleSystemManagerResponse, name, action)
