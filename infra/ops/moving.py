"""Files on their way to and from the bucket: many at once, shown while they move, ended at once by Ctrl-C."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from infra.ops import door
from infra.ops.command import say
from infra.ops.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

LINE_EVERY = 10.0  # seconds between two lines where there is no terminal
GLANCE = 0.5  # seconds
MB = 1e6


class Stopped(Exception):
    """Something else has gone wrong, or Ctrl-C was pressed: this thread need not go on."""


class Wire:
    """A line to the bucket, for many threads at once; `check` raises in each of them once `stop` was called.

    The transfers wait for a bucket that is away. Expired credentials and a wrong clock end them: nobody mends these.
    """

    def __init__(self, bucket: str, region: str) -> None:
        from infra.box.transfer import open_bucket

        self.bucket = open_bucket(bucket, region)
        self.bucket.client.meta.events.register("after-call.s3", self._listen)
        self.bucket.client.meta.events.register("after-call-error.s3", self._miss)
        self._over = threading.Event()
        self._refused: str | None = None
        self._is_away = False

    def check(self) -> None:
        if self._refused:
            raise UserError(self._refused)
        if self._over.is_set():
            raise Stopped

    def stop(self) -> None:
        self._over.set()

    def _listen(self, http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
        if parsed.get("Error", {}).get("Code") in door.EXPIRED | door.CLOCK:
            self._refused = door.sentence(self.bucket.client.exceptions.ClientError(parsed, model.name))
        self._note(http_response.status_code >= 500, f"S3 answers {http_response.status_code}")

    def _miss(self, exception: Exception, **_: Any) -> None:
        if not self._over.is_set():
            self._note(True, f"S3 cannot be reached ({type(exception).__name__})")

    def _note(self, away: bool, why: str) -> None:
        if away and not self._is_away:
            say(f"{why}; trying on, Ctrl-C stops")
        self._is_away = away


def side_by_side(
    wire: Wire,
    action: Callable[[T], R],
    items: Iterable[T],
    threads: int,
    each: Callable[[R], None],
    glance: Callable[[], None] | None = None,
) -> None:
    """Do it to all items, several at once, giving what it returns to `each` as it comes; `glance` twice a second.

    The first that fails ends the others. Raises what it raised, or UserError if S3 was away for too long.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="move") as pool:
        under_way: set[Future[R]] = set()
        try:
            while under_way := under_way | {
                pool.submit(action, i) for i in islice(waiting, 2 * threads - len(under_way))
            }:
                done, under_way = wait(under_way, GLANCE, FIRST_COMPLETED)
                for job in done:
                    each(_result(job))
                if glance:
                    glance()
        except BaseException:
            wire.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _result(job: Future[R]) -> R:
    from infra.box.transfer import Damaged, is_passing

    try:
        return job.result()
    except Damaged as error:
        raise UserError(f"{error}, and so each time; what lies in the bucket is damaged") from None
    except Exception as error:
        if not is_passing(error) or door.sentence(error):
            raise
        raise UserError(f"S3 was away for too long ({error}); run the same command again to go on") from None


@contextmanager
def shown(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show rate and time left on stderr; yields a function that is told how many of `total` bytes have moved so far."""
    if not sys.stderr.isatty():
        yield _plain(title, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda moved: progress.update(task, completed=moved)


def _plain(title: str, total: int) -> Callable[[int], None]:
    began = last = time.monotonic()
    first: int | None = None  # what had moved before

    def moved_so_far(moved: int) -> None:
        nonlocal last, first
        first = moved if first is None else first
        now = time.monotonic()
        if now - last >= LINE_EVERY and moved < total:
            last = now
            rate = (moved - first) / (now - began)
            left = f", about {(total - moved) / rate:.0f} s left" if rate else ""
            say(f"{title} {moved / MB:.0f}/{total / MB:.0f} MB, {rate / MB:.1f} MB/s{left}")

    return moved_so_far
