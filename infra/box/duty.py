"""A courier's duty, one run on one machine: what wants the run to end, and what is told of it meanwhile."""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from infra.box import meter, spot
from infra.box.child import OUTPUT, Cause
from infra.box.ledger import Ledger
from infra.box.mirror import Mirror
from infra.box.request import Request
from infra.box.station import Station, as_json, one_line, put_beside
from infra.box.transfer import is_passing

NOTE_EVERY = 15.0  # seconds
ASKED = Cause("interrupted", "asked to stop by SIGTERM", resumes=True)
BY_HAND = "stopped by the operator"


class Ended(Exception):
    """Something wants the run to end while nothing of it runs; `duty.cause` says what."""


class Duty:
    """`cause` is set once, by whatever first wants the run to end."""

    def __init__(self, run_id: str, station: Station) -> None:
        self.run_id, self.station, self.bucket = run_id, station, station.bucket
        self.run = station.scratch / "runs" / run_id
        self.prefix = f"runs/{run_id}/"
        self.request: Request | None = None
        self.mirror: Mirror | None = None  # of the run directory
        self.products: Mirror | None = None  # of what a task makes besides: a manifest, clips
        self.ledger = Ledger(station, run_id)
        self.leads = True  # of several machines one does
        self.cause: Cause | None = None
        self.asked = threading.Event()  # a SIGTERM has come
        self.over = threading.Event()  # ends the threads that listen and measure
        self.phase = "starting"
        self.metadata = spot.Metadata()
        self.identity: dict[str, Any] = {"instance": station.instance, "image": station.image}
        self.warnings: dict[str, Any] = {"spot_notice": None, "rebalance": None}
        self._threads: list[threading.Thread] = []
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
        if (request := self.request) is None or not self.leads:
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

    def look_at_note(self) -> None:
        """A run is over when `active/STACK` does not name it any more, whoever took that away."""
        if not self.station.is_active(self.run_id):
            self.end(Cause("stopped", BY_HAND if self.leads else "the run is over"))

    def identify(self) -> None:
        self.identity["type"] = self.metadata.get("instance-type")
        self.identity["zone"] = self.metadata.get("placement/availability-zone")
        self.identity["market"] = self.metadata.get("instance-life-cycle")

    def keep_books(self, outcome: str | None = None) -> None:
        """Write this machine's page of the ledger; of several machines, read those of the others."""
        self.ledger.write(self.identity, outcome)
        if self.request and self.request.nodes > 1:
            self.ledger.look_at_others()

    def tell_machine(self) -> None:
        """Write machine.json."""
        mirror = self.mirror
        self.tell("machine.json", {
            **self.identity,
            **meter.read_machine(self.station.scratch),
            "phase": self.phase,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            **self.ledger.figures(self.run, self.request),
            **self.warnings,
            "mirror": mirror and {"bytes_sent": mirror.bytes_sent, "trouble": mirror.trouble and str(mirror.trouble)},
        })  # fmt: skip

    def tell(self, name: str, value: dict[str, Any]) -> None:
        """Put a JSON file into the run, here and in S3; a full disk does not keep it from S3."""
        with suppress(OSError):
            put_beside(self.run / name, as_json(value))
        self.bucket.write(self.prefix + name, as_json(value))

    def every(self, seconds: float, action: Callable[[], None]) -> None:
        """Do it now and then in a thread, until `rest`; what fails is done again the next time."""

        def keep_on() -> None:
            while True:
                try:
                    action()
                except Ended:
                    pass
                except Exception as error:
                    if not is_passing(error):
                        self.say(f"{action.__name__} failed: {one_line(error)}")
                if self.over.wait(seconds):
                    return

        thread = threading.Thread(target=keep_on, name=action.__name__, daemon=True)
        self._threads.append(thread)
        thread.start()

    def rest(self) -> None:
        """End the threads; or their word about the machine could come after the last."""
        self.over.set()
        for thread in self._threads:
            thread.join(30)
