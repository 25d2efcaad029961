"""The machines of the stand-in cloud: each instance that EC2 has becomes a machine, and goes when EC2 has it no more.

This looks at EC2 and its groups several times a second, as any client does, over HTTP. What EC2's owner does and moto
does not is done here: machines take a while to boot, one that shuts itself down is terminated, a spot machine is given
notice and taken, scheduled actions of groups are acted on when their time has come.
"""

import base64
import json
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from standin import Instance, Machine

LOOK_EVERY = 0.3  # seconds
GRACE = 5.0  # seconds that a terminated machine's containers have


@dataclass
class Life:
    """A machine in the cloud. It is online, which is when SSM knows it, once it has started; `boot` runs after that."""

    machine: Machine
    online: bool = False
    taken_at: datetime | None = None


class Machines:
    def __init__(
        self, folder: Path, client: Callable[[str], Any], endpoint: str, boot_seconds: float, image: str = ""
    ) -> None:
        self.folder, self.endpoint, self.boot_seconds, self.image = folder, endpoint, boot_seconds, image
        self.ec2, self.groups = client("ec2"), client("autoscaling")
        self.lives: dict[str, Life] = {}
        self.over = threading.Event()
        self.threads: list[threading.Thread] = []
        (folder / "notices").mkdir(parents=True, exist_ok=True)

    def online(self) -> dict[str, Machine]:
        return {name: life.machine for name, life in list(self.lives.items()) if life.online}

    def watch(self) -> None:
        """Look until `close`, in a thread of its own."""
        self._start(self._keep_looking)

    def _keep_looking(self) -> None:
        while not self.over.wait(LOOK_EVERY):
            try:
                self.look()
            except Exception:
                traceback.print_exc()  # into the cloud's log; the next look may go better

    def look(self) -> None:
        self._act_on_schedules()
        known = {
            row["InstanceId"]: row
            for page in self.ec2.get_paginator("describe_instances").paginate()
            for reservation in page["Reservations"]
            for row in reservation["Instances"]
            if row["State"]["Name"] in ("pending", "running")
        }
        for name in known.keys() - self.lives.keys():
            self._begin(known[name])
        for name in self.lives.keys() - known.keys():
            self._start(self._end, self.lives.pop(name), GRACE)
        for name, life in list(self.lives.items()):
            self._give_notice(name, life)
            if life.online and life.machine.wants_off():
                self.ec2.terminate_instances(InstanceIds=[name])

    def _begin(self, row: dict[str, Any]) -> None:
        asked = self.ec2.describe_instance_attribute(InstanceId=row["InstanceId"], Attribute="userData")
        instance = Instance(
            id=row["InstanceId"],
            type=row["InstanceType"],
            zone=row["Placement"]["AvailabilityZone"],
            market=row.get("InstanceLifecycle", "on-demand"),
            user_data=decoded(asked.get("UserData", {}).get("Value", "")),
        )
        life = Life(Machine(self.folder / instance.id, instance, self.endpoint, self.image))
        self.lives[instance.id] = life
        self._start(self._live, life)

    def _live(self, life: Life) -> None:
        if life.machine.ended.wait(self.boot_seconds) or self.over.is_set():
            return
        life.machine.power_on()
        life.online = True
        self._start(life.machine.keep_time)
        life.machine.boot()

    def _end(self, life: Life, grace: float) -> None:
        life.online = False
        life.machine.power_off(grace)

    def _give_notice(self, name: str, life: Life) -> None:
        """Tell a machine of the notice that a test has written for it, and take the machine when its time is up."""
        notice = self.folder / "notices" / name
        if life.taken_at is None and notice.exists():
            life.taken_at = datetime.now(UTC) + timedelta(seconds=json.loads(notice.read_text()))
            life.machine.metadata.take(life.taken_at)
        if life.taken_at and datetime.now(UTC) >= life.taken_at:
            # No grace: what it has not saved by now is lost.
            self._end(self.lives.pop(name), grace=0)
            self.ec2.terminate_instances(InstanceIds=[name])

    def _act_on_schedules(self) -> None:
        for action in self.groups.describe_scheduled_actions()["ScheduledUpdateGroupActions"]:
            if action["StartTime"] > datetime.now(UTC):
                continue
            group = action["AutoScalingGroupName"]
            # Out of the schedule first: AWS acts once, and forgets it then.
            self.groups.delete_scheduled_action(
                AutoScalingGroupName=group, ScheduledActionName=action["ScheduledActionName"]
            )
            sizes = {key: action[key] for key in ("MinSize", "MaxSize", "DesiredCapacity") if key in action}
            self.groups.update_auto_scaling_group(AutoScalingGroupName=group, **sizes)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Pull every power cord."""
        self.over.set()
        end = time.monotonic() + 30
        for life in self.lives.values():
            self._end(life, grace=0)
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))


def decoded(user_data: str) -> str:
    """User data as text; what came encoded is encoded once more by moto."""
    while user_data and not user_data.startswith("#!"):
        user_data = base64.b64decode(user_data, validate=True).decode()
    return user_data
