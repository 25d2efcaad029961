"""The stack's machines: the Auto Scaling group of 0..N, how it is raised and emptied, and what bears our label."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infra.ops.door import client
from infra.ops.errors import UserError
from infra.outputs import PROJECT, Outputs

LIVE = ["pending", "running", "stopping", "stopped", "shutting-down"]
DEADLINE = "deadline"  # name of the scheduled action that empties the group


@dataclass(frozen=True)
class Machine:
    """An EC2 instance that bears the project's label."""

    id: str
    type: str
    zone: str
    market: str  # spot or on-demand
    state: str  # pending, running, ...
    launched: datetime
    stack: str
    group: str | None  # the Auto Scaling group that it is in


@dataclass(frozen=True)
class Group:
    """The Auto Scaling group as AWS tells it."""

    desired: int
    limit: int
    instances: tuple[str, ...]  # ids, in any state of life
    deadline: datetime | None  # when AWS empties it
    zones: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self.desired == 0 and not self.instances


def find_machines(region: str, stack: str | None = None) -> list[Machine]:
    """Every machine of the project in a region that is not gone, or only those of one stack."""
    filters: list[dict[str, Any]] = [
        {"Name": "instance-state-name", "Values": LIVE},
        {"Name": "tag:project", "Values": [PROJECT]},
    ]
    if stack:
        filters.append({"Name": "tag:stack", "Values": [stack]})
    pages = client("ec2", region).get_paginator("describe_instances").paginate(Filters=filters)
    return [
        _machine(found) for page in pages for reservation in page["Reservations"] for found in reservation["Instances"]
    ]


def _machine(found: dict[str, Any]) -> Machine:
    labels = {tag["Key"]: tag["Value"] for tag in found.get("Tags", ())}
    return Machine(
        id=found["InstanceId"],
        type=found["InstanceType"],
        zone=found["Placement"]["AvailabilityZone"],
        market=found.get("InstanceLifecycle") or "on-demand",
        state=found["State"]["Name"],
        launched=found["LaunchTime"],
        stack=labels.get("stack", ""),
        group=labels.get("aws:autoscaling:groupName"),
    )


def read_group(outputs: Outputs) -> Group:
    """The stack's group; raises UserError if somebody has removed it."""
    autoscaling = client("autoscaling", outputs.region)
    named = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[outputs.asg])["AutoScalingGroups"]
    if not named:
        raise UserError(f"the group {outputs.asg} is not in {outputs.region} any more; `make up` makes it anew")
    found = named[0]
    actions = autoscaling.describe_scheduled_actions(AutoScalingGroupName=outputs.asg)["ScheduledUpdateGroupActions"]
    times = [action["StartTime"] for action in actions if action["ScheduledActionName"] == DEADLINE]
    return Group(
        desired=found["DesiredCapacity"],
        limit=found["MaxSize"],
        instances=tuple(machine["InstanceId"] for machine in found["Instances"]),
        deadline=times[0] if times else None,
        zones=tuple(sorted(found["AvailabilityZones"])),
    )


def set_deadline(outputs: Outputs, when: datetime) -> None:
    """AWS empties the group at `when`, whatever becomes of the machines and of us."""
    client("autoscaling", outputs.region).put_scheduled_update_group_action(
        AutoScalingGroupName=outputs.asg, ScheduledActionName=DEADLINE, StartTime=when, DesiredCapacity=0
    )


def clear_deadline(outputs: Outputs) -> None:
    """Forget the hour at which the group is emptied, for nothing is left in it; forgotten already is as good."""
    autoscaling = client("autoscaling", outputs.region)
    try:
        autoscaling.delete_scheduled_action(AutoScalingGroupName=outputs.asg, ScheduledActionName=DEADLINE)
    except autoscaling.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise


def set_market(outputs: Outputs, market: str) -> None:
    """From which market the group takes its next machines: `spot` or `on-demand`."""
    share = 100 if market == "on-demand" else 0
    client("autoscaling", outputs.region).update_auto_scaling_group(
        AutoScalingGroupName=outputs.asg,
        MixedInstancesPolicy={"InstancesDistribution": {"OnDemandPercentageAboveBaseCapacity": share}},
    )


def set_capacity(outputs: Outputs, machines: int) -> None:
    """Ask for so many machines; 0 ends those there are, saved or not."""
    client("autoscaling", outputs.region).set_desired_capacity(
        AutoScalingGroupName=outputs.asg, DesiredCapacity=machines, HonorCooldown=False
    )


def failures(outputs: Outputs, since: datetime) -> list[str]:
    """Why AWS could not start machines after `since`, newest first, such as that there is no spot capacity."""
    answer = client("autoscaling", outputs.region).describe_scaling_activities(
        AutoScalingGroupName=outputs.asg, MaxRecords=20
    )
    return [
        activity.get("StatusMessage") or activity["StatusCode"]
        for activity in answer["Activities"]
        if activity["StatusCode"] == "Failed" and activity["StartTime"] >= since
    ]
