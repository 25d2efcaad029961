"""Whether a run is over, how it ended in one sentence, and as the exit code of whoever watches it."""

from datetime import UTC, datetime
from typing import Any

from infra.ops.record import Record

# 2 and 130 are for mistakes and Ctrl-C, as in every verb.
EXITS = {"finished": 0, "failed": 1, "stopped": 3, "interrupted": 4}
IN_WORDS = "the exit code tells the outcome: 0 finished, 1 failed, 3 stopped, 4 interrupted (make itself ends with 2)"
SILENCE = 180.0  # seconds after which a machine that says nothing has gone; a stop may take 110 to save
NEXT = {
    "finished": "make download RUN={}",
    "failed": "make resume RUN={}",
    "stopped": "make resume RUN={}",
    "interrupted": "make resume RUN={}",
}


def silence(machine: dict[str, Any] | None, now: datetime | None = None) -> float:
    """Seconds since the machine last wrote machine.json; infinite if it never has."""
    told = (machine or {}).get("time")
    return ((now or datetime.now(UTC)) - datetime.fromisoformat(told)).total_seconds() if told else float("inf")


def is_over(record: Record, now: datetime | None = None) -> bool:
    """Whether nothing more will come. A run that is being stopped is no longer active, but saves and uploads still."""
    if record.active:
        return False
    return (record.machine or {}).get("phase") in (None, "ended") or silence(record.machine, now) > SILENCE


def sentence(record: Record) -> str:
    """`run r50 failed: the machine had no memory left; `make logs RUN=r50`` for a run that is over."""
    outcome = record.outcome or {}
    reason = outcome.get("reason") or "no machine works on it, and none has said why"
    return f"run {record.run_id} {record.state}: {reason}; `{NEXT[record.state].format(record.run_id)}`"


def exit_code(record: Record) -> int:
    return EXITS[record.state]
