"""make stop: save the run, end it, give its machine back; says what is still billed. Run it as often as you like."""

import argparse
import json
import sys
import time
from dataclasses import replace
from typing import Any

from infra.ops import agent, fleet, record, storage
from infra.ops.command import Line, is_yes, outputs_of, parser, print_json, run, said, say
from infra.ops.errors import UserError
from infra.outputs import Outputs

EXAMPLES = """
make stop
make stop RUN=2026-01-31-184502-slowfast-face
make stop NOW=1
python -m infra.ops.stop --json
"""
LOOK_EVERY = 3.0  # seconds
DRAIN_SECONDS = 330.0  # the document's own limit is 300
WORD_SECONDS = 150.0  # that a machine which takes no commands has for its last word while AWS ends it
GIVE_BACK_SECONDS = 60.0  # that the courier has to give its machine back after its last word


def main(arguments: list[str] | None = None) -> int:
    made = parser("stop", __doc__, EXAMPLES)
    made.add_argument("--run", default=said("RUN"), help="which run (RUN=; default: the one that machines work on)")
    made.add_argument(
        "--now",
        action="store_true",
        default=is_yes("NOW"),
        help="do not save: what S3 has by now is what there is (NOW=1)",
    )
    made.add_argument("--json", action="store_true", help="print how it ended as JSON")
    given = made.parse_args(arguments)
    return run(lambda: stop(outputs_of(given.stack), given))


def stop(outputs: Outputs, given: argparse.Namespace) -> int:
    wanted, active = given.run and record.check_run_id(given.run), record.active_run(outputs)
    if wanted and active and wanted != active:
        raise UserError(f"run {wanted} is not active, {active} is; `make stop RUN={active}` stops that one")
    if wanted and not active:
        record.read_record(outputs, wanted, active="")  # that there is such a run
    machines = [m.id for m in fleet.find_machines(outputs.region, outputs.stack) if m.state == "running"]
    online = sorted(agent.online(outputs, machines))
    run_id = wanted or active or at_work(outputs, online)
    if active:
        # From here on no machine takes the run up again, and the courier knows that it is the operator who ends it.
        record.release(outputs, active)
    line = Line()
    try:
        if run_id and not drain(outputs, run_id, online, given.now, line):
            raise UserError(
                f"the machine holds what S3 lacks of run {run_id}, so it is kept; `make stop RUN={run_id}` tries "
                "again, and with NOW=1 gives it up"
            )
        give_back(outputs, machines, online, line)
        found = look(outputs, run_id) if run_id else None
        if found and machines and not online:
            found = wait_for_word(outputs, found, line)
    finally:
        line.close()
    if found and not is_told(found):
        found = write_end(outputs, found, given.now)
    tell_end(outputs, found, given.json)
    return 0


def at_work(outputs: Outputs, online: list[str]) -> str | None:
    """The run that a machine works on though none is active, as after a stop that was cut off half-way."""
    for machine in online:
        answer = agent.tell(outputs, outputs.document_status, machine)
        for container in json.loads(answer.stdout)["containers"] if answer.ok else ():
            if container["state"] == "running":
                return str(container["run_id"])
    return None


def drain(outputs: Outputs, run_id: str, online: list[str], now: bool, line: Line) -> bool:
    """Have the run saved and ended on the machines that take commands; whether all that it has made is in S3."""
    line.show(f"stopping run {run_id}")
    left = {name: sent for name in online if (sent := ask_to_stop(outputs, run_id, name, now))}
    end = time.monotonic() + DRAIN_SECONDS
    while left and time.monotonic() < end:
        left = {name: sent for name, sent in left.items() if agent.answer(outputs, name, sent) is None}
        if left:
            machine = record.read_json(outputs, record.key(run_id, "machine.json")) or {}
            line.show(f"run {run_id} is being saved: {', '.join(left)} is {machine.get('phase', 'starting')}")
            line.wait(LOOK_EVERY)
    if now or not online or (found := look(outputs, run_id)) is None or is_told(found) or not has_begun(found):
        return True
    # It was cut off before all was uploaded. The document `clean` uploads what lies on the disk, and looks for it.
    line.show("uploading what the machine still holds")
    answers = [agent.tell(outputs, outputs.document_clean, name, run_id=run_id) for name in online]
    for answer in answers:
        if not answer.ok:
            say(f"machine {answer.instance}: {answer.stderr.strip() or answer.status}")
    return all(answer.ok for answer in answers)


def ask_to_stop(outputs: Outputs, run_id: str, machine: str, now: bool) -> str | None:
    """The id of the command, None if the machine has gone at this moment."""
    try:
        return agent.send(outputs, outputs.document_stop, machine, run_id=run_id, mode="now" if now else "drain")
    except UserError:
        return None


def look(outputs: Outputs, run_id: str) -> record.Record | None:
    """The run as it stands; None if the stack was claimed for it, and no more than that."""
    try:
        return record.read_record(outputs, run_id, active="")
    except UserError:
        return None


def has_begun(found: record.Record) -> bool:
    """Whether a machine has worked on this go of the run."""
    return (found.machine or {}).get("phase", "waiting") != "waiting"


def is_told(found: record.Record) -> bool:
    """Whether the run's last word is in S3, and with it all that it has made."""
    return found.outcome is not None and "incomplete" not in found.outcome


def give_back(outputs: Outputs, machines: list[str], online: list[str], line: Line) -> None:
    """See the group empty, by the courier or else by us; unless another operator has begun a run meanwhile."""
    end = time.monotonic() + GIVE_BACK_SECONDS * bool(online)
    while (group := fleet.read_group(outputs)).desired and time.monotonic() < end:
        line.show(f"machine {', '.join(machines)} is being given back")
        line.wait(LOOK_EVERY)
    if record.active_run(outputs):
        return
    if group.desired:
        fleet.set_capacity(outputs, 0)
    if group.deadline:
        fleet.clear_deadline(outputs)


def wait_for_word(outputs: Outputs, found: record.Record, line: Line) -> record.Record:
    """A machine that takes no commands saves its run when AWS ends it, if it worked on it."""
    end = time.monotonic() + WORD_SECONDS
    while has_begun(found) and not is_told(found) and time.monotonic() < end:
        line.show(f"AWS ends the machine; waiting for the last word of run {found.run_id}")
        line.wait(LOOK_EVERY)
        found = record.read_record(outputs, found.run_id, active="")
    return found


def write_end(outputs: Outputs, found: record.Record, now: bool) -> record.Record:
    """The last word of a run that could not say it, or said that S3 lacked something which it now has."""
    why = "at once, without saving" if now else "" if has_begun(found) else "before a machine worked on it"
    told: dict[str, Any] = {
        "outcome": "stopped",
        "reason": f"stopped by the operator {why}".rstrip(),
        "exit_code": None,
        "last_lines": [],
    }
    if found.outcome:
        told = {name: value for name, value in found.outcome.items() if name != "incomplete"}
    record.write_json(outputs, record.key(found.run_id, "outcome.json"), told)
    return replace(found, outcome=told)


def tell_end(outputs: Outputs, found: record.Record | None, as_json: bool) -> None:
    """How the run ended, what it has cost, and what is still billed."""
    outcome = (found and found.outcome) or {}
    dollars = float(((found and found.machine) or {}).get("dollars") or 0.0)
    stored, whole = storage.measure(outputs.bucket, outputs.region)
    if as_json:
        told = {"run": found and found.run_id, "outcome": outcome.get("outcome"), "reason": outcome.get("reason")}
        month = storage.monthly_dollars(stored)
        return print_json({**told, "dollars": dollars, "bucket": outputs.bucket, "bucket_dollars_a_month": month})
    if found:
        say(f"run {found.run_id} has {outcome['outcome']}: {outcome['reason']}; it has cost ${dollars:.2f}")
        say(f"next: make {'download' if outcome['outcome'] == 'finished' else 'resume'} RUN={found.run_id}")
    else:
        say("no run is active, and no machine is kept")
    say(f"still billed: s3://{outputs.bucket}, {storage.describe(stored, whole)}; nothing by the hour")


if __name__ == "__main__":
    sys.exit(main())
