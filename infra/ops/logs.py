"""make logs: what the run prints, line by line, while its machine boots, trains, and after it is gone.

Lines go to stdout, news about the machine to stderr. Ctrl-C ends the watching, never the run.
"""

import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from infra.ops import door, ending, lastword
from infra.ops.command import is_yes, outputs_of, parser, run, said, say
from infra.ops.errors import EXIT_INTERRUPTED
from infra.ops.fleet import find_machines
from infra.ops.record import Record, choose_run, fetch, key, read_record
from infra.ops.tail import Tail
from infra.outputs import Outputs

EXAMPLES = """
make logs
make logs RUN=2026-01-31-184502-slowfast-face ALL=1 > output.txt
python -m infra.ops.logs --lines 1000 --no-follow
"""
LOOK_EVERY = 1.0  # seconds
QUIET = 3.0  # seconds without a line after which, and between which, it is asked whether the run is over
STILL_BOOTING = 60.0  # seconds of silence after which a machine may be another, which boots
LAST_LINES = 40  # of a container that has ended before it could write output.txt

T = TypeVar("T")


def main(arguments: list[str] | None = None) -> int:
    options = parser("logs", f"{__doc__}\n{ending.IN_WORDS}.", EXAMPLES)
    options.add_argument("--run", default=said("RUN"), help="which run (RUN=; default: the active or newest)")
    options.add_argument("--lines", type=int, default=200, metavar="N", help="begin N lines back (default: 200)")
    options.add_argument(
        "--all", action="store_true", default=is_yes("ALL"), help="begin with the first line (make logs ALL=1)"
    )
    options.add_argument("--no-follow", action="store_true", help="print what is there and leave")
    given = options.parse_args(arguments)
    lines = None if given.all else max(0, given.lines)
    return run(lambda: logs(given.stack, given.run, lines, not given.no_follow))


def logs(stack: str, wanted: str | None, lines: int | None, follow: bool) -> int:
    try:
        outputs = outputs_of(stack)
        run_id = patiently(lambda: choose_run(outputs, wanted))
        tail = Tail(outputs, key(run_id, "output.txt"))
        if lines is not None:
            patiently(lambda: tail.start(lines))
        if follow:
            record = stream(outputs, run_id, tail)
        else:
            record = read_record(outputs, run_id)
            finish(tail, Ends(outputs, run_id))
            if not ending.is_over(record):
                return 0
    except KeyboardInterrupt:
        say("\nno longer watching; the run goes on (`make stop` would end it)")
        return EXIT_INTERRUPTED
    say(ending.sentence(record))
    return ending.exit_code(record)


def stream(outputs: Outputs, run_id: str, tail: Tail) -> Record:
    """Print until the run is over; returns how it stands then."""
    boot, ends = Boot(outputs), Ends(outputs, run_id)
    over, heard = False, 0.0  # when there was last a line, or the question whether it is over
    pour(tail)
    record = patiently(lambda: read_record(outputs, run_id))
    if ending.is_over(record):
        finish(tail, ends)
        return record
    while True:
        if pour(tail):
            heard, over = time.monotonic(), False
        elif time.monotonic() - heard >= QUIET:
            record, heard = patiently(lambda: read_record(outputs, run_id)), time.monotonic()
            if record.active and ending.silence(record.machine) > STILL_BOOTING:
                patiently(boot.tell)
                patiently(ends.tell)
            # Twice, for outcome.json comes a moment after the machine's last word.
            if over and ending.is_over(record):
                finish(tail, ends)
                return record
            over = ending.is_over(record)
        time.sleep(LOOK_EVERY)


def pour(tail: Tail, *, final: bool = False) -> bool:
    """Print all that is new; returns whether there was anything."""
    any_new = False
    while fresh := patiently(lambda: tail.look(final=final)):
        any_new = True
        sys.stdout.buffer.write(fresh)
        sys.stdout.buffer.flush()
    return any_new


def finish(tail: Tail, ends: "Ends") -> None:
    """Print the rest; of a run that never wrote a line, what its containers have said."""
    pour(tail, final=True)
    if not tail.there:
        patiently(ends.tell)


def patiently(call: Callable[[], T]) -> T:
    """Call until AWS answers; a watcher outlives an AWS that is away for a while."""
    told = False
    while True:
        try:
            return call()
        except Exception as error:
            if not door.is_passing(error):
                raise
            if not told:
                say(f"{door.sentence(error)}; trying on")
            told = True
        time.sleep(LOOK_EVERY)


class Boot:
    """What the stack's machines say while they boot, from the log group; each line once."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs
        self.told: set[tuple[str, int, str]] = set()
        self.machines: dict[str, str] | None = None  # as last told

    def tell(self) -> None:
        found = find_machines(self.outputs.region, self.outputs.stack)
        machines = {m.id: f"{m.type}, {m.market}, {m.zone}" for m in found if m.state in ("pending", "running")}
        if machines != self.machines:
            words = [f"machine {name} ({what}) boots" for name, what in machines.items()]
            say("; ".join(words) or "no machine yet; AWS has been asked for one (`make status` tells more)")
            self.machines = machines
        if machines:
            self._tell_lines(machines, min(m.launched for m in found))

    def _tell_lines(self, machines: dict[str, str], since: datetime) -> None:
        logs = door.client("logs", self.outputs.region)
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=self.outputs.log_group,
            logStreamNamePrefix="boot-",
            startTime=int(since.timestamp() * 1000),
        )
        for event in (event for page in pages for event in page["events"]):
            line = event["logStreamName"], event["timestamp"], event["message"]
            if line[0].removeprefix("boot-") in machines and line not in self.told:
                self.told.add(line)
                print(event["message"], flush=True)


class Ends:
    """What containers have said that ended before they could write output.txt; each end once, none of an earlier go."""

    def __init__(self, outputs: Outputs, run_id: str) -> None:
        self.outputs, self.run_id = outputs, run_id
        self.told: set[tuple[str, datetime]] = set()

    def tell(self) -> None:
        request = fetch(self.outputs, key(self.run_id, "request.json"))
        for machine, left in (
            lastword.of_containers(self.outputs, self.run_id, request.written).items() if request else ()
        ):
            if (machine, left.written) not in self.told:
                self.told.add((machine, left.written))
                say(f"machine {machine}: its container has ended; its last words:")
                print(*left.text.splitlines()[-LAST_LINES:], sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
