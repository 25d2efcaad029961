"""What costs money for nothing, or should be at work and is not: a pure judgement of what AWS shows, in sentences."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from infra.ops.figures import duration, since
from infra.ops.fleet import Group, Machine

Place = tuple[str, str]  # region, stack


@dataclass(frozen=True)
class Site:
    """A stack in a region. `trouble` says why it could not be looked into; all else is unknown then."""

    region: str
    stack: str
    idle_minutes: int = 0
    group: Group | None = None
    active: str | None = None
    trouble: str | None = None
    exists: bool = True


def find_strays(
    machines: Mapping[str, list[Machine]], sites: Mapping[Place, Site], idle: Mapping[str, float], now: datetime
) -> list[str]:
    """A sentence with its cure for each stray.

    `machines` by region; `idle` are the seconds without work of those machines that could be asked.
    """
    told = [
        word
        for region, found in machines.items()
        for machine in found
        if machine.state != "shutting-down"
        and (
            word := _machine(machine, sites[region, machine.stack], idle.get(machine.id, since(machine.launched, now)))
        )
    ]
    for site in sites.values():
        here = [m for m in machines.get(site.region, []) if m.stack == site.stack and m.group]
        told += _group(site, len(here))
    return told


def _machine(machine: Machine, site: Site, idle: float) -> str | None:
    name = f"machine {machine.id} ({machine.type}, {site.region}, {machine.state})"
    end = f"`aws ec2 terminate-instances --region {site.region} --instance-ids {machine.id}`"
    if not machine.group:
        return f"{name} bears our label and is in no group, so nothing gives it back; {end}"
    if not site.exists:
        return f"{name} is of a stack {site.stack or 'without a name'} that {site.region} does not have; {end}"
    if site.trouble or site.active or idle <= site.idle_minutes * 60:
        return None
    return f"{name} has had no run for {duration(idle)}; `make stop STACK={site.stack}` gives it back"


def _group(site: Site, machines: int) -> list[str]:
    if site.trouble or site.group is None:
        return []
    wanted = site.group.desired
    if site.active and not wanted and not machines:
        return [
            f"run {site.active} has the stack {site.stack}, but no machine, and none is asked for; "
            f"`make resume RUN={site.active}` goes on with it, `make stop` lets it go"
        ]
    if not site.active and wanted > machines:
        return [
            f"the group of the stack {site.stack} asks for {wanted} machine(s) without a run; "
            f"`make stop STACK={site.stack}` empties it"
        ]
    return []
