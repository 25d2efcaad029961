"""What a run has cost so far, and the book of it that outlives the stack, `ledger/RUN_ID/INSTANCE.json` in the bucket:

    {"run", "instance", "type", "zone", "market", "price_per_hour", "from", "to", "hours", "dollars", "outcome"}

Each second of a machine since its boot belongs to one run. A run's dollars are the sum of its pages.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from infra.box.meter import dollars_at_finish, uptime
from infra.box.request import Request
from infra.box.station import Station, as_json
from infra.box.transfer import insist, nothing

WRITE_EVERY = 60.0  # seconds


class Ledger:
    """`open` it once it is known what the run has cost before; until then a run costs nothing."""

    def __init__(self, station: Station, run_id: str) -> None:
        self._bucket, self._run_id, self._instance = station.bucket, run_id, station.instance
        # Uptime up to which runs of this machine have been charged; a boot starts it anew.
        self._path = station.scratch / ".charged"
        charged = 0.0
        with suppress(OSError, ValueError):
            charged = float(self._path.read_text())
        self._from = charged if charged <= uptime() else 0.0
        self._price = self._hours_before = self._others = 0.0
        self._begun = datetime.now(UTC) - timedelta(seconds=uptime() - self._from)

    @property
    def key(self) -> str:
        return f"ledger/{self._run_id}/{self._instance}.json"

    def open(self, price_per_hour: float, check: Callable[[], None] = nothing) -> None:
        """Go on from what this machine has written before, and other machines of the run."""
        self._price = price_per_hour
        pages = self._pages(check)
        if (own := pages.pop(self.key, None)) is not None:
            self._hours_before = own["hours"]
            self._begun = datetime.fromisoformat(own["from"])
        self._others = sum(page["dollars"] for page in pages.values())

    def look_at_others(self) -> None:
        """Learn what the run's other machines have cost meanwhile."""
        self._others = sum(page["dollars"] for key, page in self._pages().items() if key != self.key)

    def _pages(self, check: Callable[[], None] = nothing) -> dict[str, dict[str, Any]]:
        bucket = self._bucket
        found = insist(lambda: bucket.list(f"ledger/{self._run_id}/"), check)
        read = {remote.key: insist(lambda key=remote.key: bucket.read(key), check) for remote in found}  # type: ignore[misc]
        return {key: json.loads(text) for key, text in read.items() if text}

    @property
    def hours(self) -> float:
        """Of this machine."""
        return self._hours_before + (uptime() - self._from) / 3600

    def dollars(self) -> float:
        """Of the run, on all of its machines."""
        return self._others + self.hours * self._price if self._price else 0.0

    def write(self, identity: dict[str, Any], outcome: str | None) -> None:
        """Write this machine's page; `outcome` at the end."""
        page = {
            "run": self._run_id,
            **{name: identity.get(name) for name in ("instance", "type", "zone", "market")},
            "price_per_hour": self._price,
            "from": self._begun.isoformat(timespec="seconds"),
            "to": datetime.now(UTC).isoformat(timespec="seconds"),
            "hours": round(self.hours, 5),
            "dollars": round(self.hours * self._price, 4),
            "outcome": outcome,
        }
        self._bucket.write(self.key, as_json(page))
        with suppress(OSError):  # charged to this run, so to no other and not twice
            self._path.write_text(f"{uptime():.0f}\n")

    def figures(self, run: Path, request: Request | None) -> dict[str, Any]:
        """What machine.json tells of money."""
        deadline: datetime | None = request.deadline if request else None
        return {
            "price_per_hour": self._price,
            "dollars": round(self.dollars(), 4),
            "dollars_at_finish": self._at_finish(run, request.nodes if request else 1),
            "cap_dollars": request.cap_dollars if request else None,
            "deadline": deadline and deadline.isoformat(),
        }

    def _at_finish(self, run: Path, nodes: int) -> float | None:
        status: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            status = json.loads((run / "status.json").read_text())
        eta = status.get("eta") if status.get("phase") == "training" else None
        finish = dollars_at_finish(self.dollars(), eta, self._price * nodes)
        return None if finish is None else round(finish, 4)
