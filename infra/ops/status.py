"""make status: machines, GPUs, disk, the run and its price, and whether anything is there that should not be."""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.ops import agent, door, ending, figures
from infra.ops.command import outputs_of, parser, print_json, run, said
from infra.ops.errors import EXIT_MISSING, UserError
from infra.ops.fleet import Group, Machine, failures, find_machines, read_group
from infra.ops.record import Record, active_run, key, read_json, read_record, run_ids
from infra.ops.strays import Place, Site, find_strays
from infra.outputs import Outputs

EXAMPLES = """
make status
make status REGIONS=all STACK=team
python -m infra.ops.status --regions us-east-1,eu-west-1 --json
"""
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
RECENT = 10  # newest runs that are looked at for one that waits to be gone on with
REFUSED_WITHIN = timedelta(hours=1)
PATIENCE = 20.0  # seconds for a machine's answer
THREADS = 8


def main(arguments: list[str] | None = None) -> int:
    options = parser("status", f"{__doc__}\n\nEnds with 1 if anything is stray, in any region asked.", EXAMPLES)
    options.add_argument(
        "--regions", default=said("REGIONS"), help="look for strays there too: all, or a,b (make REGIONS=all)"
    )
    options.add_argument("--json", action="store_true", help="print everything as JSON")
    given = options.parse_args(arguments)
    return run(lambda: status(given.stack, given.regions, given.json))


@dataclass
class Findings:
    """All that `make status` shows."""

    outputs: Outputs
    machines: dict[str, list[Machine]]  # by region
    group: Group | None = None
    online: set[str] = field(default_factory=set)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)  # of machines, by id
    record: Record | None = None
    last: Record | None = None  # the newest run, where none is active
    refusals: list[str] = field(default_factory=list)  # AWS's, of machines that the group waits for, newest first
    waiting: list[str] = field(default_factory=list)
    sites: dict[Place, Site] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)

    @property
    def own(self) -> list[Machine]:
        return [m for m in self.machines[self.outputs.region] if m.stack == self.outputs.stack]


def status(stack: str, regions: str | None, as_json: bool) -> int:
    found = look(outputs_of(stack), regions)
    if as_json:
        print_json(as_tree(found))
    else:
        from infra.ops.statusboard import show

        show(found)
    return EXIT_MISSING if found.strays else 0


def look(outputs: Outputs, regions: str | None) -> Findings:
    """Ask S3, EC2 and the machines, side by side."""
    places = which_regions(outputs, regions)
    # boto3 makes no two clients at the same time, so they are made before the threads are.
    clients = [(name, outputs.region) for name in ("s3", "autoscaling", "ssm")] + [("ec2", place) for place in places]
    for service, region in clients:
        door.client(service, region)
    with ThreadPoolExecutor(THREADS) as pool:
        active = pool.submit(active_run, outputs)
        recent = pool.submit(run_ids, outputs)
        group = pool.submit(read_group, outputs)
        found = Findings(outputs, dict(zip(places, pool.map(find_machines, places), strict=True)))
        running = [m.id for m in found.own if m.state == "running"]
        found.online = agent.online(outputs, running)
        answers = {name: pool.submit(ask, outputs, name) for name in running if name in found.online}
        run_id = active.result()
        others = [name for name in recent.result() if name != run_id][:RECENT]
        waits = pool.map(lambda name: waits_to_go_on(outputs, name), others)
        found.record = read_record(outputs, run_id, run_id) if run_id else None
        found.waiting = [name for name, does in zip(others, waits, strict=True) if does]
        found.answers = {name: answer for name, job in answers.items() if (answer := job.result())}
        found.group = group.result()
    if not run_id and others:
        found.last = read_last(outputs, others[0])
    if found.group.desired > len([m for m in found.own if m.state in ("pending", "running")]):
        found.refusals = failures(outputs, datetime.now(UTC) - REFUSED_WITHIN)
    judge(found)
    return found


def judge(found: Findings) -> None:
    """Find the strays, in the light of every stack whose machines were met."""
    outputs = found.outputs
    run_id = found.record.run_id if found.record else None
    own = Site(outputs.region, outputs.stack, outputs.idle_minutes, found.group, run_id)
    met = {(region, m.stack) for region, there in found.machines.items() for m in there}
    others = [look_into(place) for place in sorted(met - {(outputs.region, outputs.stack)})]
    found.sites = {(site.region, site.stack): site for site in (own, *others)}
    idle = {
        name: float(seconds)
        for name, answer in found.answers.items()
        if (seconds := (answer.get("idle") or {}).get("idle_seconds")) is not None
    }
    found.strays = find_strays(found.machines, found.sites, idle, datetime.now(UTC))


def which_regions(outputs: Outputs, asked: str | None) -> list[str]:
    """The stack's own region first, then those asked for. Raises UserError for what is no region's name."""
    if asked == "all":
        names = door.client("ec2", outputs.region).describe_regions()["Regions"]
        others = sorted(found["RegionName"] for found in names)
    else:
        others = [name.strip() for name in (asked or "").split(",") if name.strip()]
    for name in others:
        if not REGION.fullmatch(name):
            raise UserError(f"{name!r} is no AWS region; say REGIONS=all, or REGIONS=us-east-1,eu-west-1")
    return list(dict.fromkeys([outputs.region, *others]))


def look_into(place: Place) -> Site:
    """Another stack whose machines were met: whether it exists, and what its machines should be doing."""
    region, stack = place
    try:
        outputs = door.stack_outputs(stack, region)
        return Site(region, stack, outputs.idle_minutes, read_group(outputs), active_run(outputs))
    except UserError as error:
        return Site(region, stack, trouble=str(error), exists=False)
    except Exception as error:
        if (told := door.sentence(error)) is None:
            raise
        return Site(region, stack, trouble=told)


def read_last(outputs: Outputs, run_id: str) -> Record | None:
    try:
        return read_record(outputs, run_id, active="")
    except UserError:  # a folder, and no run
        return None


def waits_to_go_on(outputs: Outputs, run_id: str) -> bool:
    """Whether a run that nobody works on has not come to its end."""
    outcome = read_json(outputs, key(run_id, "outcome.json"))
    return outcome is None or outcome["outcome"] == "interrupted"


def ask(outputs: Outputs, instance: str) -> dict[str, Any] | None:
    """What a machine says of itself; None if it does not answer."""
    try:
        answer = agent.tell(outputs, outputs.document_status, instance, patience=PATIENCE)
        return json.loads(answer.stdout) if answer.ok else None
    except (UserError, ValueError):
        return None


def as_tree(found: Findings) -> dict[str, Any]:
    """Findings for a program: plain values, times as ISO text."""
    now = datetime.now(UTC)
    record, group = found.record, found.group
    return {
        "stack": found.outputs.stack,
        "region": found.outputs.region,
        "machines": [
            {
                **asdict(machine),
                "launched": machine.launched.isoformat(),
                "region": region,
                "age_seconds": round(figures.since(machine.launched, now)),
                "ssm_online": machine.id in found.online if machine in found.own else None,
                "answer": found.answers.get(machine.id),
            }
            for region, machines in found.machines.items()
            for machine in machines
        ],
        "group": group
        and {
            "desired": group.desired,
            "limit": group.limit,
            "instances": list(group.instances),
            "deadline": group.deadline and group.deadline.isoformat(),
        },
        "run": record
        and {"id": record.run_id, "state": record.state, "over": ending.is_over(record)}
        | {name: getattr(record, name) for name in ("request", "status", "machine", "outcome")},
        "last": found.last and {"id": found.last.run_id, "state": found.last.state, "outcome": found.last.outcome},
        "refusals": found.refusals,
        "waiting": found.waiting,
        "strays": found.strays,
        "not_looked_into": [f"{s.stack} in {s.region}: {s.trouble}" for s in found.sites.values() if s.trouble],
    }


if __name__ == "__main__":
    sys.exit(main())
