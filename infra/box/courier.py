"""Carries one run between S3 and this machine: brings what it needs, trains, mirrors, ends it, gives the machine back.

    python -m infra.box.courier RUN_ID

The stack's STACK, REGION, BUCKET, ASG, INSTANCE and IMAGE come by environment, from /etc/slowfast.env. On the fast disk
each key of the bucket is a path (/scratch/clips/..., /scratch/runs/RUN_ID); recipe and manifest lie in /scratch/inputs.

`active/STACK` in the bucket names the run that machines shall work on. A run is over when that is gone; outcome.json,
written just before, tells how it ended. Where a replacement shall go on it stays: after a spot notice, and after a
SIGTERM while it names the run (the machine is being shut down; `make stop` removes it first).
"""

import argparse
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.box import meter, spot
from infra.box.child import OUTPUT, Cause, Child, command_line, last_lines, outcome_of
from infra.box.inputs import Missing, bring_inputs, bring_run
from infra.box.ledger import Ledger
from infra.box.mirror import Mirror
from infra.box.request import Request, WrongRequest, read_request
from infra.box.station import Station, as_json, find_station, one_line, put_beside
from infra.box.transfer import insist, is_passing

RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,62}")  # as in boot.sh
SECONDS_TO_SAVE = 90.0  # of the 110 between Docker's SIGTERM and SIGKILL, and the 120 of a spot notice
MINUTES_TO_LEAVE = 2.0  # for the last files where the machine is being taken; it will be cut off in the middle
LOOK_EVERY = 0.5  # seconds
ASKED = Cause("interrupted", "asked to stop by SIGTERM", resumes=True)


class Ended(Exception):
    """Something wants the run to end while its trainer does not run; `courier.cause` says what."""


class Courier:
    """One run on one machine. `cause` is set once, by whatever first wants the run to end."""

    def __init__(self, run_id: str, station: Station) -> None:
        self.run_id, self.station, self.bucket = run_id, station, station.bucket
        self.run = station.scratch / "runs" / run_id
        self.prefix = f"runs/{run_id}/"
        self.request: Request | None = None
        self.mirror: Mirror | None = None
        self.ledger = Ledger(station.scratch)
        self.cause: Cause | None = None
        self.asked = threading.Event()  # a SIGTERM has come
        self.over = threading.Event()  # ends the threads that listen and measure
        self.phase = "starting"
        self.metadata = spot.Metadata()
        self.identity: dict[str, Any] = {"instance": station.instance, "image": station.image}
        self.warnings: dict[str, Any] = {"spot_notice": None, "rebalance": None}
        self.threads: list[threading.Thread] = []
        self._ending = threading.Lock()

    def say(self, text: str) -> None:
        """A line for whoever follows the run, among those that the trainer prints."""
        line = f"{datetime.now(UTC).isoformat(timespec='seconds')} courier: {text}"
        print(line, flush=True)
        if self.mirror is not None and not self.over.is_set():
            with suppress(OSError), (self.run / OUTPUT).open("a") as output:
                output.write(line + "\n")

    def end(self, cause: Cause) -> None:
        with self._ending:
            if self.cause is None:
                self.cause = cause
                self.say(f"ending the run: {cause.reason}")

    def check(self) -> None:
        """Raise Ended if anything wants the run to end."""
        self.look_at_limits()
        if self.cause is not None:
            raise Ended

    def look_at_limits(self) -> None:
        if self.asked.is_set():
            self.end(ASKED)
        if (request := self.request) is None:
            return
        if datetime.now(UTC) >= request.deadline:
            self.end(Cause("stopped", f"the deadline has come, {request.deadline.isoformat()}"))
        if (spent := self.ledger.dollars()) >= request.cap_dollars:
            self.end(Cause("stopped", f"the cap of ${request.cap_dollars:.2f} is reached, ${spent:.2f} are spent"))

    def listen(self) -> None:
        """Ask EC2 whether it wants the machine back."""
        if self.warnings["spot_notice"] is None and (notice := self.metadata.notice()):
            self.warnings["spot_notice"] = notice
            self.end(Cause("interrupted", "spot machine taken back", resumes=True))
        if self.warnings["rebalance"] is None and (hint := self.metadata.rebalance()):
            self.warnings["rebalance"] = hint
            self.say("EC2 says that this spot machine is likelier than others to be taken back")

    def identify(self) -> None:
        self.identity["type"] = self.metadata.get("instance-type")
        self.identity["zone"] = self.metadata.get("placement/availability-zone")
        self.identity["market"] = self.metadata.get("instance-life-cycle")

    def tell_machine(self) -> None:
        """Write machine.json."""
        mirror = self.mirror
        self.tell("machine.json", {
            **self.identity,
            **meter.read_machine(self.station.scratch),
            "phase": self.phase,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            **self.ledger.write(self.run, self.request),
            **self.warnings,
            "mirror": mirror and {"bytes_sent": mirror.bytes_sent, "trouble": mirror.trouble and str(mirror.trouble)},
        })  # fmt: skip

    def tell(self, name: str, value: dict[str, Any]) -> None:
        """Put a JSON file into the run, here and in S3; a full disk does not keep it from S3."""
        with suppress(OSError):
            put_beside(self.run / name, as_json(value))
        self.bucket.write(self.prefix + name, as_json(value))


def carry(run_id: str, station: Station) -> int:
    """The whole story of a run on this machine; the exit code is 0 unless something of the run is not in S3."""
    courier = Courier(run_id, station)
    signal.signal(signal.SIGTERM, lambda *_: courier.asked.set())
    try:
        courier.identify()
        every(spot.POLL_SECONDS, courier.listen, courier)
        courier.request = read_request(ask(courier))
        outcome = work(courier, courier.request)
    except Ended:
        outcome = early_end(courier, courier.cause or ASKED)
    except (Missing, WrongRequest) as error:
        outcome = early_end(courier, Cause("failed", str(error)))
    except Exception as error:
        courier.say(traceback.format_exc())
        outcome = early_end(courier, Cause("failed", f"the courier could not go on: {one_line(error)}"))
    return hand_in(courier, outcome)


def ask(courier: Courier) -> bytes:
    key = courier.prefix + "request.json"
    text = insist(lambda: courier.bucket.read(key), courier.check)
    if text is None:
        raise Missing(f"there is no run {courier.run_id}: s3://{courier.bucket.name}/{key} does not exist")
    return text


def work(courier: Courier, request: Request) -> dict[str, Any]:
    """Bring, train, and say how that ended. What stands ready on the machine is checked in between."""
    courier.phase = "bringing"
    bring_run(courier.bucket, request, courier.run, courier.check)
    known = insist(lambda: courier.bucket.read(courier.prefix + "machine.json"), courier.check)
    courier.ledger.open(request, known, courier.run)
    courier.mirror = Mirror(courier.bucket, courier.run, courier.prefix, courier.say)
    courier.mirror.start()
    every(meter.READ_EVERY, courier.tell_machine, courier)
    words = bring_inputs(courier.bucket, request, courier.station.scratch, courier.check, courier.say)
    processes = request.processes or len(meter.read_gpus())
    if not processes:
        raise Missing("the run asks for GPUs and nvidia-smi shows none: wrong type, or the driver does not answer")
    courier.check()
    courier.phase = "training"
    return train(courier, request, command_line([*words, "--run", str(courier.run), *request.settings], processes))


def train(courier: Courier, request: Request, command: list[str]) -> dict[str, Any]:
    """Run the trainer to its end, or to the end that something wants; return what outcome.json says."""
    killed_before = meter.kills_for_memory()
    child = Child(command, courier.run)
    asked: float | None = None
    try:
        while child.process.poll() is None:
            courier.look_at_limits()
            if child.silence() > request.stall_minutes * 60:
                courier.end(Cause("failed", f"the trainer gave no sign of life for {request.stall_minutes:g} minutes"))
            if courier.cause and asked is None:
                asked = time.monotonic()
                child.ask()
            if asked is not None and time.monotonic() - asked > SECONDS_TO_SAVE:
                break
            time.sleep(LOOK_EVERY)
    finally:
        child.kill()
    lines, starved = last_lines(courier.run), meter.kills_for_memory() > killed_before
    return outcome_of(child.own_outcome(), child.process.returncode, courier.cause, lines, starved)


def early_end(courier: Courier, cause: Cause) -> dict[str, Any]:
    """The outcome of a run that ends outside of its training."""
    courier.end(cause)
    return {
        "outcome": cause.outcome,
        "reason": cause.reason,
        "exit_code": None,
        "last_lines": last_lines(courier.run),
    }


def hand_in(courier: Courier, outcome: dict[str, Any]) -> int:
    """Everything into S3, outcome.json last; then the run is closed and the machine given back, unless it goes on."""
    station, mirror = courier.station, courier.mirror
    courier.phase = "handing in"
    interrupted = courier.cause is not None and courier.cause.resumes and outcome["outcome"] == "interrupted"
    try:
        complete = mirror is None or mirror.finish(*([MINUTES_TO_LEAVE] if interrupted else []))
        if interrupted and courier.cause is ASKED and not station.is_active(courier.run_id):
            interrupted, outcome = False, outcome | {"outcome": "stopped", "reason": "stopped by the operator"}
        courier.over.set()
        for thread in courier.threads:
            thread.join(30)  # or its word about the machine could come after the last
        courier.phase = "ended"
        insist(courier.tell_machine)
        if not complete:
            outcome |= {"incomplete": f"S3 lacks a part of the run: {mirror and mirror.trouble}"}
        insist(lambda: courier.tell("outcome.json", outcome))
        if not complete:
            courier.say("S3 lacks a part of the run, so it stays active and the machine is left to its idle timer")
            return 1
        if interrupted:
            return 0
        station.close(courier.run_id)
    except Exception as error:
        courier.say(f"the run's end could not be told: {one_line(error)}")
        return 1
    try:
        station.give_back()
    except Exception as error:
        courier.say(f"the machine could not be given back, its idle timer will do it: {one_line(error)}")
    return 0


def every(seconds: float, action: Callable[[], None], courier: Courier) -> None:
    """Do it now and then in a thread, until the courier is over; what fails is done again the next time."""

    def keep_on() -> None:
        while True:
            try:
                action()
            except Exception as error:
                if not is_passing(error):
                    courier.say(f"{action.__name__} failed: {one_line(error)}")
            if courier.over.wait(seconds):
                return

    thread = threading.Thread(target=keep_on, name=action.__name__, daemon=True)
    courier.threads.append(thread)
    thread.start()


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
