"""One function over many jobs in worker processes: results as they come; a job that kills its worker is named."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import Any, TypeVar

import cv2

from manifests.workers import start_worker

T = TypeVar("T")
Job = tuple[Any, ...]

AHEAD = 4  # jobs handed over per worker: enough to keep all busy, few enough for a million jobs and a quick stop


def map_in_processes(
    function: Callable[..., T], jobs: Sequence[Job], workers: int, crashed: Callable[[Job], T]
) -> Iterator[T]:
    """Yield `function(*job)` for every job as it is done, in any order; one worker means this very process.

    What the function raises is raised here. For a job that ends its worker (a crash in a decoder, the memory's end)
    `crashed(job)` is yielded. When the consumer stops early, running jobs are waited for and the rest is dropped.
    """
    if workers <= 1:
        yield from (function(*job) for job in jobs)
        return
    left = iter(jobs)
    suspects: list[Job] = []
    while True:
        running: dict[Future[T], Job] = {}
        pool = _pool(workers)
        try:
            while True:
                for job in islice(left, workers * AHEAD - len(running)):
                    running[pool.submit(function, *job)] = job
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    result = done.result()
                    del running[done]
                    yield result
        except BrokenProcessPool:
            # One of those in flight took the whole pool down; which one shows when each is tried by itself.
            suspects = list(running.values())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        yield from _one_at_a_time(function, suspects, crashed)


def _one_at_a_time(function: Callable[..., T], jobs: list[Job], crashed: Callable[[Job], T]) -> Iterator[T]:
    """With one job in flight, whoever ends the worker is the culprit; the rest goes on in a new one."""
    left = list(jobs)
    while left:
        with _pool(1) as pool:
            try:
                while left:
                    result = pool.submit(function, *left[0]).result()
                    del left[0]
                    yield result
            except BrokenProcessPool:
                yield crashed(left.pop(0))


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: the libraries have threads, and a fork may copy a lock that nobody will ever open.
    return ProcessPoolExecutor(workers, get_context("spawn"), _begin)


def _begin() -> None:
    start_worker()
    cv2.setNumThreads(1)
