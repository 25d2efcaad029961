"""What a run has cost so far: each second of a machine since its boot belongs to one run."""

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.box.meter import dollars, dollars_at_finish, uptime
from infra.box.request import Request


class Ledger:
    """`open` it once it is known what the run has cost before; until then a run costs nothing."""

    def __init__(self, scratch: Path) -> None:
        # Uptime up to which runs of this machine have been charged; a boot starts it anew.
        self._path = scratch / ".charged"
        charged = 0.0
        with suppress(OSError, ValueError):
            charged = float(self._path.read_text())
        self._from = charged if charged <= uptime() else 0.0
        self._price = self._before = 0.0

    def open(self, request: Request, machine_json: bytes | None, run: Path) -> None:
        """Go on from what an earlier start has told of itself, in S3 or here."""
        told = [machine_json] if machine_json else []
        with suppress(OSError):
            told.append((run / "machine.json").read_bytes())
        self._before = max((json.loads(text).get("dollars", 0.0) for text in told), default=0.0)
        self._price = request.price_per_hour

    def dollars(self) -> float:
        return dollars(uptime() - self._from, self._price, self._before)

    def write(self, run: Path, request: Request | None) -> dict[str, Any]:
        """Note how far this machine is charged; return what machine.json tells of money."""
        with suppress(OSError):
            self._path.write_text(f"{uptime():.0f}\n")
        deadline: datetime | None = request.deadline if request else None
        return {
            "price_per_hour": self._price,
            "dollars": round(self.dollars(), 4),
            "dollars_at_finish": self._at_finish(run),
            "cap_dollars": request.cap_dollars if request else None,
            "deadline": deadline and deadline.isoformat(),
        }

    def _at_finish(self, run: Path) -> float | None:
        status: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            status = json.loads((run / "status.json").read_text())
        eta = status.get("eta") if status.get("phase") == "training" else None
        finish = dollars_at_finish(self.dollars(), eta, self._price)
        return None if finish is None else round(finish, 4)
