"""The start of a run, whatever its task: what it may cost, the operator's yes, the claim on the stack, and machines.

Nothing half-started stays. The deadline is set before a machine is asked for, and machines come last; what fails in
between is undone, and were we killed there, only a note is left that `make stop` removes.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from infra.costs import disk_and_address_hour
from infra.ops import agent, checks, figures, fleet, prices, pushed, record
from infra.ops.command import agrees, print_json, said, say, uninterrupted, whole
from infra.ops.errors import UserError
from infra.ops.prices import Offer, Terms
from infra.outputs import Outputs, to_set

SHORTEST_HOURS = 0.5  # of a run: a machine takes ten minutes until it trains, and ten are kept for saving


def add_options(made: argparse.ArgumentParser, *, nodes: str = "1", cap: str = "the stack's") -> None:
    """The options of every verb that starts a run. `make` passes their values by environment.

    `nodes` and `cap` are what holds by default, in words; without `nodes` it is no option.
    """
    made.set_defaults(nodes=said("NODES"))
    if nodes:
        made.add_argument(
            "--nodes", default=said("NODES"), help=f"machines that work on it together (NODES=; default: {nodes})"
        )
    made.add_argument(
        "--spot", default=said("SPOT"), help="1: spot machines only, 0: none (SPOT=; default: the stack's)"
    )
    made.add_argument("--cap", default=said("CAP"), help=f"dollars that it may cost (CAP=; default: {cap})")
    made.add_argument("--hours", default=said("HOURS"), help="hours that it may last (HOURS=; default: the stack's)")
    made.add_argument("--yes", action="store_true", help="do not ask (YES=1)")
    made.add_argument("--dry-run", action="store_true", help="check, and only print what it may cost (DRY=1)")
    made.add_argument(
        "--no-wait", action="store_true", default=said("WAIT") == "0", help="do not wait for the machine (WAIT=0)"
    )
    made.add_argument("--json", action="store_true", help="print the run and its terms as JSON")


def check(given: argparse.Namespace) -> None:
    """Raise UserError for numbers that cannot be, before AWS is asked for anything."""
    for name in ("NODES", "CAP", "HOURS"):
        if text := getattr(given, name.lower()):
            _number(text, name, whole=name == "NODES")
    if given.spot not in (None, "0", "1"):
        raise UserError(f"SPOT is {given.spot!r}; say SPOT=1 for spot machines only, or SPOT=0 for none")


def require_free(outputs: Outputs) -> pushed.Pushed:
    """The image in which a run can start now. Raises UserError if there is none, or another run has the stack."""
    image = pushed.look(outputs)
    if busy := record.active_run(outputs):
        raise UserError(record.taken(outputs, busy))
    return image


def settle(
    outputs: Outputs, given: argparse.Namespace, cap: float | None = None, spent: float = 0.0
) -> tuple[Terms, fleet.Group]:
    """The terms that the options ask for, at today's prices, and the group as it is.

    `cap` is what holds where the options say nothing. Raises UserError for terms that cannot be.
    """
    nodes = _number(given.nodes or "1", "NODES", whole=True)
    if nodes > outputs.nodes:
        raise UserError(
            f"NODES={nodes:g} is more than the {outputs.nodes} that the stack may have; "
            f"`{to_set(outputs.stack, f'nodes={nodes:g}')}` and `make up` allow them"
        )
    market = {None: outputs.market, "1": "spot", "0": "on-demand"}[given.spot]
    limit = _number(given.hours, "HOURS") if given.hours else float(outputs.deadline_hours)
    dollars = _number(given.cap, "CAP") if given.cap else cap or float(outputs.cap_dollars)
    if dollars <= spent:
        raise UserError(f"the run has cost ${spent:.2f}, and its cap is ${dollars:.2f}; allow more with CAP=")
    group = fleet.read_group(outputs)
    checks.require_room(outputs, market, int(nodes))
    types, where = outputs.instance_types, outputs.region
    listed = _whole(outputs, prices.on_demand(types, where)) if market != "spot" else []
    today = _whole(outputs, prices.spot(types, where, group.zones)) if market != "on-demand" else []
    if not (today or listed):
        raise UserError("no type of the stack is on the spot market here; SPOT=0 takes machines on demand")
    terms = Terms(int(nodes), tuple(today or listed), tuple(listed if today else ()), dollars, spent, limit)
    for first in (terms, terms.without_spot()) if terms.instead else (terms,):
        if first.hours < SHORTEST_HOURS:
            raise UserError(
                f"${dollars - spent:.2f} are {first.hours * 60:.0f} minutes of {first.nodes} x ${first.price:.2f} an "
                f"hour ({first.market}), and starting and saving take twenty; allow more with CAP= or HOURS="
            )
    return terms, group


def _whole(outputs: Outputs, offers: Iterable[Offer]) -> list[Offer]:
    """Offers with what every machine has besides itself, disk and address, in their price."""
    besides = disk_and_address_hour(outputs.volume_gb, public=not outputs.private_subnets)
    return [replace(offer, price=round(offer.price + besides, 4)) for offer in offers]


Rows = tuple[tuple[str, str], ...]  # of the terms, name and text


def described(run_id: str, what: str, terms: Terms, rows: Rows = ()) -> str:
    """The terms in words, a line each; `rows` are the verb's own."""
    types = dict.fromkeys(offer.type for offer in terms.offers)
    zones = sorted({offer.zone for offer in terms.offers if offer.zone})
    low, high = min(offer.price for offer in terms.offers), terms.price
    span = f"${high:.4f}" if low == high else f"${low:.4f} to ${high:.4f}"
    best = min(terms.offers, key=lambda offer: offer.price)
    where = f" in {best.zone}" if best.zone else ""
    then = terms.without_spot() if terms.instead else None
    most = f"${terms.most:.2f}"
    if then:
        most += f" on spot, ${then.most:.2f} on demand (then {then.hours:.1f} hours)"
    source, listed = (
        next((f" ({offer.source})" for offer in offers if offer.source), "") for offers in (terms.offers, terms.instead)
    )
    until = terms.deadline(datetime.now(UTC))
    reason = "CAP" if terms.hours < terms.limit else "HOURS"
    lines = [
        ("run", f"{run_id}: {what}"),
        *rows,
        (
            "machine",
            f"{terms.nodes} x {' or '.join(types)}, {terms.market}" + (f", in {', '.join(zones)}" * bool(zones)),
        ),
        ("price", f"{span} an hour each, machine, disk and address; lowest for {best.type}{where}{source}"),
        *([("or else", f"on demand at up to ${then.price:.4f}, if there is no spot machine{listed}")] if then else []),
        ("at most", f"{most} if it lasts until its deadline" + _spent(terms)),
        ("deadline", f"{figures.clock(until)}, in {terms.hours:.1f} hours, which is where {reason} ends it"),
    ]
    return "\n".join(f"{name:<9} {text}" for name, text in lines)


def agreed(run_id: str, what: str, terms: Terms, given: argparse.Namespace, rows: Rows = ()) -> bool:
    """Show the terms and ask; False for a dry run, or after a no. Raises UserError where nobody can be asked."""
    if given.dry_run:
        if given.json:
            print_json(as_tree(run_id, terms))
        else:
            print(described(run_id, what, terms, rows))
        return False
    say(described(run_id, what, terms, rows))
    if given.yes:
        return True
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask on; say YES=1, or DRY=1 to see the price only")
    if agrees("start it?"):
        return True
    say("nothing is started")
    return False


def as_tree(run_id: str, terms: Terms) -> dict[str, Any]:
    return {
        "run": run_id,
        "market": terms.market,
        "types": list(dict.fromkeys(offer.type for offer in terms.offers)),
        **terms.request(datetime.now(UTC)),
        "deadline": terms.deadline(datetime.now(UTC)).isoformat(),
        "hours": round(terms.hours, 2),
        "most_dollars": round(terms.most, 2),
        "spent_dollars": round(terms.spent, 2),
    }


def begin(
    outputs: Outputs,
    run_id: str,
    request: dict[str, Any],
    terms: Terms,
    group: fleet.Group,
    recipe: bytes | None = None,
) -> None:
    """Claim the stack for a run, and ask for its machines; all of it or, if it fails, none.

    `request` lacks only what the terms say. Raises UserError if another run has the stack.
    """
    mark, outcome = record.new_mark(), record.key(run_id, "outcome.json")
    before = record.read(outputs, outcome)
    done: list[str] = []
    try:
        whole(record.claim, outputs, run_id, mark)
        now = datetime.now(UTC)
        whole(fleet.set_deadline, outputs, terms.deadline(now))
        whole(fleet.set_market, outputs, terms.market)
        done.append("request")
        image = f"{outputs.repository_url}@{outputs.image_digest}"
        asked = {**request, "image": image, **terms.request(now)}
        whole(record.write_json, outputs, record.key(run_id, "request.json"), asked)
        if recipe is not None:
            whole(record.write, outputs, request["config"], recipe)
        if group.desired < terms.nodes:
            done.append("capacity")
            whole(fleet.set_capacity, outputs, terms.nodes)
    except BaseException as error:
        with uninterrupted():
            _undo(outputs, run_id, mark, group, done, before or _never(error))
        raise


def _undo(outputs: Outputs, run_id: str, mark: str, group: fleet.Group, done: list[str], outcome: bytes) -> None:
    """Leave nothing of a start that failed; what AWS does not let us take back is told."""
    try:
        if not record.release(outputs, run_id, mark):
            return  # another run has the stack: nothing was begun
        if "request" in done and record.read(outputs, record.key(run_id, "request.json")):
            record.write(outputs, record.key(run_id, "outcome.json"), outcome)
        if "capacity" in done and fleet.read_group(outputs).desired != group.desired:
            fleet.set_capacity(outputs, group.desired)
        if group.is_empty:
            fleet.clear_deadline(outputs)
    except Exception:
        say(
            f"AWS does not take back what was begun of {run_id}: say `make stop RUN={run_id}` as soon as it answers "
            "(no machine outlives the deadline in any case)"
        )


def _never(error: BaseException) -> bytes:
    why = " ".join(str(error).split()) or "interrupted by the operator"
    tree: dict[str, Any] = {
        "outcome": "failed",
        "reason": f"no machine was started: {why}",
        "exit_code": None,
        "last_lines": [],
    }
    return (json.dumps(tree, indent=2) + "\n").encode()


def wake(outputs: Outputs, run_id: str, group: fleet.Group) -> None:
    """Hand the run to machines that idle in the group; one that boots takes it up by itself."""
    for instance in sorted(agent.online(outputs, list(group.instances))):
        answer = agent.tell(outputs, outputs.document_run, instance, run_id=run_id)
        told = (answer.stdout if answer.ok else answer.stderr).strip() or answer.status
        say(f"machine {instance}: {told}")


def _spent(terms: Terms) -> str:
    return f", besides ${terms.spent:.2f} spent before; the cap is ${terms.cap:.2f}" if terms.spent else ""


def _number(text: str, name: str, whole: bool = False) -> float:
    """A positive number that the operator gave. Raises UserError."""
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e6:  # nan too
        raise UserError(f"{name} is {text!r}, not a {'whole ' * whole}number above zero; for example {name}=4")
    return value
