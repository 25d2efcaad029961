"""What long work prints: a live bar on a terminal, a plain line now and then elsewhere; all on stderr."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

PLAIN_LINE_SECONDS = 10.0


def stderr_console() -> Console:
    """A console on stderr; rich colours only terminals and honours NO_COLOR."""
    return Console(stderr=True, highlight=False)


def track(items: Iterable[T], title: str, total: int, unit: str = "files") -> Iterator[T]:
    """Yield `items`, showing how far the work is: `title  37/120 files  0:00:12`."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=stderr_console()) as progress:
            task = progress.add_task(title, total=total)
            for item in items:
                yield item
                progress.advance(task)
        return
    started = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= PLAIN_LINE_SECONDS and done < total:
            left = (now - started) / done * (total - done)
            print(f"{title} {done}/{total} {unit}, about {left:.0f} s left", file=sys.stderr, flush=True)
            last = now
    print(f"{title} {done}/{total} {unit} in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
