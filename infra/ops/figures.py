"""How durations, sizes, money and shares are worded, everywhere the same."""

from datetime import UTC, datetime

UNKNOWN = "?"


def duration(seconds: float | None) -> str:
    """`45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    if seconds is None:
        return UNKNOWN
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 99.5:
        return f"{max(seconds, 0):.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{hours // 24} d {hours % 24} h"


def dollars(amount: float | None) -> str:
    return UNKNOWN if amount is None else f"${amount:.2f}"


def percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.0%}"


def share(used: float | None, total: float | None) -> float | None:
    """`used` of `total` as a number from 0 to 1; None where either is not known."""
    return None if used is None or not total else min(max(used / total, 0.0), 1.0)


def gigabytes(used: float | None, total: float | None) -> str:
    """`10.8 of 22.5 GB` from bytes."""
    if used is None or total is None:
        return UNKNOWN
    return f"{used / 1e9:.1f} of {total / 1e9:.1f} GB"


def mebibytes(used: float | None, total: float | None) -> str:
    """The same from what nvidia-smi counts in."""
    return gigabytes(used and used * 2**20, total and total * 2**20)


def clock(time: datetime) -> str:
    """`Sat 2026-01-31 19:45 CET`: the reader's own clock, with its zone."""
    return f"{time.astimezone():%a %Y-%m-%d %H:%M %Z}"


def since(time: datetime, now: datetime | None = None) -> float:
    """Seconds from `time` to now; below zero for a time that comes."""
    return ((now or datetime.now(UTC)) - time).total_seconds()


def parse(time: str | None) -> datetime | None:
    """A time as the machine writes it."""
    return datetime.fromisoformat(time) if time else None
