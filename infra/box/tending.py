"""A step from its start to its end on this machine, or round after round on several; and what its end means."""

import json
import math
import time
from typing import Any

from infra.box import meter
from infra.box.child import Cause, Child, Step, last_lines, outcome_of
from infra.box.duty import Duty
from infra.box.team import LOOK_EVERY as LOOK_AT_TEAM_EVERY
from infra.box.team import ROUNDS_IN_VAIN, Team

SECONDS_TO_SAVE = 90.0  # of the 110 between Docker's SIGTERM and SIGKILL, and the 120 of a spot notice
LOOK_EVERY = 0.5  # seconds


def tend(duty: Duty, step: Step, stall_minutes: float) -> dict[str, Any]:
    """Run a step to its end, or to the end that something wants; return what outcome.json says."""
    killed_before = meter.kills_for_memory()
    child = Child(step, duty.run)
    asked: float | None = None
    try:
        while child.process.poll() is None:
            duty.look_at_limits()
            if step.over and step.over():
                break
            if child.silence() > stall_minutes * 60:
                duty.end(Cause("failed", f"{step.who} gave no sign of life for {stall_minutes:g} minutes"))
            if child.age() > step.minutes * 60:
                duty.end(Cause("failed", f"{step.who} did not end within {step.minutes:g} minutes"))
            if duty.cause and asked is None:
                asked = time.monotonic()
                child.ask()
            if asked is not None and time.monotonic() - asked > SECONDS_TO_SAVE:
                break
            time.sleep(LOOK_EVERY)
    finally:
        child.kill()
    lines, starved = last_lines(duty.run), meter.kills_for_memory() > killed_before
    return outcome_of(child.own_outcome(), child.process.returncode, duty.cause, lines, starved, step.who)


def train_together(duty: Duty, team: Team, step: Step) -> dict[str, Any]:
    """Train with other machines, round after round, until the leader's trainer has a word of its own on its end.

    A follower has none: it goes on with the next round, or ends when the run is over.
    """
    assert duty.request
    duty.every(LOOK_AT_TEAM_EVERY, team.look)
    last, in_vain = team.round.number, 0
    while True:
        now = team.next_round(last)
        before, last = steps_done(duty), now.number
        outcome = tend(duty, team.step(step, now), duty.request.stall_minutes if duty.leads else math.inf)
        if duty.cause is not None:
            return outcome
        if duty.leads:
            if outcome["outcome"] == "finished" or outcome["exit_code"] == 2:  # done, or a mistake that stays one
                return outcome
            duty.say(f"round {now.number} is over: {'; '.join(team.complaints()) or outcome['reason']}")
            in_vain = in_vain + 1 if steps_done(duty) == before and set(now.members) <= set(team.members) else 0
            if in_vain == ROUNDS_IN_VAIN:
                return outcome | {"reason": "; ".join([outcome["reason"], *team.complaints()])}
        elif outcome["exit_code"] != 0:
            team.tell(now.number, ready=False, why=f"on {team.me} {outcome['reason']}")


def steps_done(duty: Duty) -> int:
    path = duty.run / "status.json"
    return int(json.loads(path.read_text()).get("step", 0)) if path.exists() else 0
