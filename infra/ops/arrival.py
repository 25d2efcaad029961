"""From the moment a machine is asked for until the run works on it: a live line, and what can be done if none comes.

The machine starts its run by itself, so whoever waits here may leave at any time.
"""

import argparse
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.ops import agent, door, figures, fleet, lastword, record
from infra.ops.command import Line, print_json, say, uninterrupted
from infra.ops.errors import EXIT_INTERRUPTED
from infra.ops.launch import Terms, as_tree, wake
from infra.ops.prices import TO_SAVE
from infra.outputs import Outputs

LOOK_EVERY = 5.0  # seconds
TELL_EVERY = 20.0  # seconds between two questions to a machine whether it is ready
SPOT_REFUSALS = 3  # failed attempts after which the run goes on demand, where the stack allows it
ENDS = 3  # of a container that never spoke, after which it is not waited for any more; its unit starts it again
SILENT = 2  # machines, for each that the run wants, which may come and go without a word
ON_THE_WAY = ("waiting", "starting", "bringing")  # phases of machine.json before the run's own work
LEAVING = ("handing in", "ended")
WORDS = {
    "waiting": "the machine is up",
    "starting": "the run's container starts",
    "bringing": "the machine brings clips and manifest",
}


class Arrival:
    """One run on its way. `over` is the exit code once there is nothing more to wait for, with `last` saying why."""

    def __init__(self, outputs: Outputs, run_id: str, terms: Terms) -> None:
        self.outputs, self.run_id, self.terms = outputs, run_id, terms
        self.since = datetime.now(UTC) - timedelta(minutes=1)
        self.deadline = terms.deadline(datetime.now(UTC))
        self.over: int | None = None
        self.last = ""
        self._told = -TELL_EVERY
        self._answer = ""
        self._ends: set[tuple[str, datetime]] = set()
        self._came: set[str] = set()  # machines of this go, each asked for by us or by the group

    def look(self) -> str:
        """One look at AWS: what the run waits for now."""
        machines = fleet.find_machines(self.outputs.region, self.outputs.stack)
        coming = [machine for machine in machines if machine.state in ("pending", "running")]
        self._came |= {machine.id for machine in coming if machine.launched >= self.since}
        running = [machine for machine in coming if machine.state == "running"]
        if not running:
            if told := self._over(found := record.read_record(self.outputs, self.run_id), "before its machine came"):
                return told
            if why := self._all_silent(found, {machine.id for machine in coming}):
                return self._give_up(why)
            return f"AWS starts {_named(coming)}" if coming else self._none()
        if not (online := agent.online(self.outputs, [machine.id for machine in running])):
            return f"{_named(running)} boots"
        return self._look_at_run(sorted(online), _named([m for m in running if m.id in online]))

    def _look_at_run(self, online: list[str], named: str) -> str:
        found = record.read_record(self.outputs, self.run_id)
        phase = str((found.machine or {}).get("phase", "waiting"))
        if told := self._over(found, "before it began"):
            return told
        if phase in LEAVING:
            return f"{named} leaves, and another machine takes its place"
        if phase not in ON_THE_WAY:
            return self._end(0, f"run {self.run_id} works on {named}")
        if phase == "waiting" and time.monotonic() - self._told >= TELL_EVERY:
            self._told = time.monotonic()
            if why := self._dead(online):
                return self._give_up(why)
            self._answer = self._ask(online)
        return f"{WORDS[phase]}{self._answer if phase == 'waiting' else ''}"

    def _over(self, found: record.Record, when: str) -> str | None:
        """How a run has ended that no machine works on any more; None if it has not."""
        if found.active:
            return None
        if not found.outcome:
            return self._end(1, f"run {self.run_id} was stopped {when}")
        told = f"run {self.run_id} has {found.state}: {found.outcome['reason']}"
        return self._end(0 if found.state == "finished" else 1, told)

    def _ask(self, online: list[str]) -> str:
        """Tell the machines to start the run. They do so at their boot; one that idled, or missed it, does it now."""
        answers = [
            agent.tell(self.outputs, self.outputs.document_run, instance, run_id=self.run_id) for instance in online
        ]
        told = next((answer for answer in answers if not answer.ok), answers[0])
        said = (told.stdout if told.ok else told.stderr).strip() or told.status
        return f": {said.splitlines()[-1]}"

    def _dead(self, online: list[str]) -> str | None:
        """Why there is no use in waiting: the container has ended again and again before its courier could speak."""
        why = None
        for instance, left in lastword.of_containers(self.outputs, self.run_id, self.since).items():
            if instance in online:
                self._ends.add((instance, left.written))
                why = f"its container ends as soon as it starts: {left.word}"
        return f"{why}; `make image` builds its image anew" if why and len(self._ends) >= ENDS else None

    def _all_silent(self, found: record.Record, here: set[str]) -> str | None:
        """Why no further machine is asked for: those that came have gone again, and the run has not heard of one."""
        gone = sorted(self._came - here)
        if (found.machine or {}).get("phase", "waiting") != "waiting" or len(gone) < SILENT * self.terms.nodes:
            return None
        words = [left.word for left in lastword.of_containers(self.outputs, self.run_id, self.since).values()] or [
            word for instance in gone if (word := lastword.of_boot(self.outputs, instance))
        ]
        said = f"the last said: {words[-1]}" if words else "not even of their boot"
        return f"{len(gone)} machines came and went without a word of the run ({said}); `make doctor` looks for why"

    def _none(self) -> str:
        """No machine is there, nor on its way."""
        group = fleet.read_group(self.outputs)
        if datetime.now(UTC) >= self.deadline:
            return self._give_up(f"no machine came until the deadline, {figures.clock(self.deadline)}")
        if group.desired < self.terms.nodes:
            # A machine that was leaving has taken its place in the group with it.
            fleet.set_capacity(self.outputs, self.terms.nodes)
        refusals = fleet.failures(self.outputs, self.since)
        if len(refusals) >= SPOT_REFUSALS and self.terms.instead:
            self._go_on_demand()
            return f"there is no spot machine; asked for one on demand, ${self.terms.price:.4f} an hour"
        types = " or ".join(dict.fromkeys(offer.type for offer in self.terms.offers))
        why = f"; AWS says: {' '.join(refusals[0].split())}" if refusals else ""
        return f"asked AWS for {self.terms.nodes} x {types}, {self.terms.market}{why}"

    def _go_on_demand(self) -> None:
        """Take machines on demand. No machine has read the request yet, so what stands in it about money is renewed."""
        self.terms, name = self.terms.without_spot(), record.key(self.run_id, "request.json")
        now = datetime.now(UTC)
        self.since, self.deadline = now, min(self.deadline, self.terms.deadline(now))
        request = record.read_json(self.outputs, name) or {}
        told = {**self.terms.request(now), "deadline": (self.deadline - TO_SAVE).isoformat()}
        record.write_json(self.outputs, name, {**request, **told})
        fleet.set_deadline(self.outputs, self.deadline)
        fleet.set_market(self.outputs, self.terms.market)

    def _give_up(self, why: str) -> str:
        with uninterrupted():
            if record.release(self.outputs, self.run_id):
                fleet.set_capacity(self.outputs, 0)
                told: dict[str, Any] = {"outcome": "failed", "reason": why, "exit_code": None, "last_lines": []}
                record.write_json(self.outputs, record.key(self.run_id, "outcome.json"), told)
        return self._end(1, f"run {self.run_id} has failed: {why}")

    def _end(self, code: int, why: str) -> str:
        self.over, self.last = code, why
        return why


def after(outputs: Outputs, run_id: str, terms: Terms, group: fleet.Group, given: argparse.Namespace) -> int:
    """What a verb does once its run has begun: tell the run's id, and wait for the machine unless it shall not."""
    if given.json:
        print_json(as_tree(run_id, terms))
    else:
        print(run_id)
    sys.stdout.flush()
    if not given.no_wait:
        return follow(outputs, run_id, terms)
    if group.instances:
        wake(outputs, run_id, group)
    say(f"run {run_id} is on its way; {next_words(run_id)}{spot_words(run_id, terms)}")
    return 0


def follow(outputs: Outputs, run_id: str, terms: Terms) -> int:
    """Wait until the run works on its machine; the exit code. What passes at AWS is waited for."""
    arrival, line = Arrival(outputs, run_id, terms), Line()
    try:
        while True:
            try:
                phase = arrival.look()
            except Exception as error:
                if not door.is_passing(error):
                    raise
                phase = "AWS does not answer; asking again"
            if arrival.over is not None:
                break
            line.show(phase)
            line.wait(LOOK_EVERY)
    except KeyboardInterrupt:
        line.close()
        told = next_words(run_id) + spot_words(run_id, arrival.terms)
        say(f"left run {run_id} alone: its machine starts it by itself. {told}")
        return EXIT_INTERRUPTED
    except Exception:
        line.close()
        say(f"run {run_id} goes on without us: its machine starts it by itself. {next_words(run_id)}")
        raise
    line.close()
    say(arrival.last)
    if arrival.over == 0:
        say(next_words(run_id))
    return arrival.over


def next_words(run_id: str) -> str:
    return f"`make monitor` and `make logs` show it, `make stop RUN={run_id}` saves and ends it"


def spot_words(run_id: str, terms: Terms) -> str:
    """What nobody does who does not wait: go on demand where there is no spot machine."""
    if not terms.instead:
        return ""
    return (
        f"; only spot machines are asked for from here on: `make status` says whether AWS refuses them, "
        f"`make stop` and `make resume RUN={run_id} SPOT=0` take one on demand"
    )


def _named(machines: list[fleet.Machine]) -> str:
    return ", ".join(f"{machine.type} {machine.id} ({machine.market}, {machine.zone})" for machine in machines)
