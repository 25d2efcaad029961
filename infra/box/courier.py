"""Carries one run between S3 and this machine: brings what it needs, trains, mirrors, ends it, gives the machine back.

    python -m infra.box.courier RUN_ID

The stack's STACK, REGION, BUCKET, ASG, TOPIC, INSTANCE and IMAGE come by environment, from /etc/slowfast.env. On the
fast disk each key of the bucket is a path (/scratch/clips/..., /scratch/runs/RUN_ID); recipe and manifest lie in
/scratch/inputs.

`active/STACK` in the bucket names the run that machines shall work on. A run is over when that is gone; outcome.json,
written just before, tells how it ended. Where a replacement shall go on it stays: after a spot notice, and after a
SIGTERM while it names the run (the machine is being shut down; `make stop` removes it first).
"""

import argparse
import json
import os
import re
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from infra.box import ledger, meter, spot
from infra.box.child import Cause, last_lines
from infra.box.duty import ASKED, BY_HAND, NOTE_EVERY, Duty, Ended
from infra.box.inputs import Missing, bring_run
from infra.box.mirror import Mirror
from infra.box.news import announce
from infra.box.request import Request, WrongRequest, read_request
from infra.box.station import Station, find_station, one_line
from infra.box.tasks import TASKS
from infra.box.team import Team
from infra.box.tending import tend, train_together
from infra.box.transfer import insist

RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,62}")  # as in boot.sh
MINUTES_TO_LEAVE = 2.0  # for the last files where the machine is being taken; it will be cut off in the middle


def carry(run_id: str, station: Station) -> int:
    """The whole story of a run on this machine; the exit code is 0 unless something of the run is not in S3."""
    duty = Duty(run_id, station)
    signal.signal(signal.SIGTERM, lambda *_: duty.asked.set())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a child that inherits it ignored would not hear of it
    try:
        duty.identify()
        duty.every(spot.POLL_SECONDS, duty.listen)
        duty.request = read_request(ask(duty))
        outcome = work(duty, duty.request)
    except Ended:
        outcome = early_end(duty, duty.cause or ASKED)
    except (Missing, WrongRequest) as error:
        outcome = early_end(duty, Cause("failed", str(error)))
    except Exception as error:
        duty.say(traceback.format_exc())
        outcome = early_end(duty, Cause("failed", f"the courier could not go on: {one_line(error)}"))
    return hand_in(duty, outcome)


def ask(duty: Duty) -> bytes:
    key = duty.prefix + "request.json"
    text = insist(lambda: duty.bucket.read(key), duty.check)
    if text is None:
        raise Missing(f"there is no run {duty.run_id}: s3://{duty.bucket.name}/{key} does not exist")
    return text


def work(duty: Duty, request: Request) -> dict[str, Any]:
    """Bring the run, do its task step by step, and say how that ended."""
    duty.phase = "bringing"
    duty.ledger.open(request.price_of(duty.identity), duty.check)
    if request.nodes > 1:
        duty.leads = False
        team = Team(duty, request.nodes)
        team.join()
    else:
        bring_run(duty.bucket, request, duty.run, duty.check)
        duty.mirror = Mirror(duty.bucket, duty.run, duty.prefix, duty.say)
        duty.mirror.start()
    duty.every(meter.READ_EVERY, duty.tell_machine)
    duty.every(ledger.WRITE_EVERY, duty.keep_books)
    if told := end_told_before(duty):
        return told
    duty.every(NOTE_EVERY, duty.look_at_note)
    outcome = {"outcome": "finished", "reason": "nothing to do", "exit_code": 0, "last_lines": []}
    try:
        for step in TASKS[request.task](duty, request):
            duty.check()
            duty.phase = step.phase
            together = step.is_trainer and request.nodes > 1
            outcome = train_together(duty, team, step) if together else tend(duty, step, request.stall_minutes)
            if outcome["outcome"] != "finished":
                break
    except Missing as error:
        outcome = early_end(duty, Cause("failed", str(error)))
    if outcome["outcome"] == "failed" and not duty.leads:
        team.tell(team.round.number, ready=False, why=f"{team.me} cannot take part: {outcome['reason']}")
    return outcome


def end_told_before(duty: Duty) -> dict[str, Any] | None:
    """The outcome of a run that is over already, by a courier that was killed before it gave the machine back."""
    if duty.station.is_active(duty.run_id):
        return None
    told = json.loads(insist(lambda: duty.bucket.read(duty.prefix + "outcome.json"), duty.check) or b"{}")
    if told.get("outcome") in ("finished", "stopped", "failed"):
        return dict(told)
    duty.look_at_note()
    raise Ended


def early_end(duty: Duty, cause: Cause) -> dict[str, Any]:
    """The outcome of a run that ends while no step of it runs."""
    duty.end(cause)
    return {
        "outcome": cause.outcome,
        "reason": cause.reason,
        "exit_code": None,
        "last_lines": last_lines(duty.run),
    }


def hand_in(duty: Duty, outcome: dict[str, Any]) -> int:
    """Everything into S3, outcome.json last; then the run is closed and the machine given back, unless it goes on."""
    station = duty.station
    duty.phase = "handing in"
    interrupted = duty.cause is not None and duty.cause.resumes and outcome["outcome"] == "interrupted"
    try:
        mirrors = [mirror for mirror in (duty.products, duty.mirror) if mirror is not None]
        minutes = [MINUTES_TO_LEAVE] if interrupted else []
        lacking = [mirror for mirror in mirrors if not mirror.finish(*minutes)]
        if interrupted and duty.cause is ASKED and not station.is_active(duty.run_id):
            interrupted, outcome = False, outcome | {"outcome": "stopped", "reason": BY_HAND}
        duty.rest()
        duty.phase = "ended"
        insist(duty.tell_machine)
        insist(lambda: duty.keep_books(outcome["outcome"]))
        if lacking:
            outcome |= {"incomplete": f"S3 lacks a part of the run: {lacking[0].trouble}"}
        insist(lambda: duty.tell("outcome.json", outcome))
        if lacking:
            duty.say("S3 lacks a part of the run, so it stays active and the machine is left to its idle timer")
            return 1
        if interrupted:
            return 0
        if duty.leads:
            station.close(duty.run_id)
            announce(duty, outcome)
        elif station.is_active(duty.run_id):
            return 1  # only this machine has failed; it is started again
    except Exception as error:
        duty.say(f"the run's end could not be told: {one_line(error)}")
        return 1
    try:
        station.give_back()
    except Exception as error:
        duty.say(f"the machine could not be given back, its idle timer will do it: {one_line(error)}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m infra.box.courier",
        description="Carry one run between S3 and this machine, and train it; the entry point of the image.",
        epilog="example:\n  docker run --env-file /etc/slowfast.env --volume /scratch:/scratch IMAGE r50-2026-01-31",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_id", metavar="RUN_ID", help="as in s3://BUCKET/runs/RUN_ID/request.json")
    parser.add_argument("--scratch", type=Path, default=Path("/scratch"), help="the fast disk (%(default)s)")
    arguments = parser.parse_args(argv)
    if not RUN_ID.fullmatch(arguments.run_id):
        parser.error(f"{arguments.run_id!r} is no run id: 3 to 63 of a-z, 0-9 and -, not beginning with -")
    try:
        station = find_station(os.environ, arguments.scratch)
    except KeyError as error:
        parser.error(f"{error.args[0]} is not set; the courier runs with the machine's /etc/slowfast.env")
    return carry(arguments.run_id, station)


if __name__ == "__main__":
    sys.exit(main())
