"""One function over many jobs in worker processes: results as they come; a job that kills its worker is named."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

import cv2

from manifests.workers import start_worker, starting_workers

T = TypeVar("T")
Job = tuple[Any, ...]

AHEAD = 4  # jobs handed over per worker: enough to keep all busy, few enough for a million jobs and a quick stop


def map_in_processes(
    function: Callable[..., T], jobs: Sequence[Job], workers: int, crashed: Callable[[Job], T]
) -> Iterator[T]:
    """Yield one answer for every job, in the order in which they are done; one worker means this very process.

    The answer is `function(*job)`; what that raises is raised here. For a job that ends its worker (a crash in a
    decoder, the memory's end) it is `crashed(job)`. A job that was in flight when a worker died may run twice.
    When the consumer stops early, running jobs are waited for and the rest is dropped.
    """
    if workers <= 1:
        yield from (function(*job) for job in jobs)
        return
    left = deque(jobs)
    while left:
        running: dict[Future[T], Job] = {}
        pool = _pool(workers)
        try:
            while left or running:
                while left and len(running) < workers * AHEAD:
                    # In two steps: a pool that broke while the consumer was busy raises here, and the job stays.
                    with starting_workers():
                        future = pool.submit(function, *left[0])
                    running[future] = left.popleft()
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    result = done.result()
                    del running[done]
                    yield result
        except BrokenProcessPool:
            pass  # A worker died and took the whole pool with it; its job is among those running, if it had one.
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        for future, job in running.items():
            lost = isinstance(future.exception(), BrokenProcessPool)
            yield _alone(function, job, crashed) if lost else future.result()


def _alone(function: Callable[..., T], job: Job, crashed: Callable[[Job], T]) -> T:
    """In a new worker of its own: when that dies too, this job is the culprit."""
    with _pool(1) as pool:
        try:
            with starting_workers():
                future = pool.submit(function, *job)
            return future.result()
        except BrokenProcessPool:
            return crashed(job)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: the libraries have threads, and a fork may copy a lock that nobody will ever open.
    return ProcessPoolExecutor(workers, get_context("spawn"), _begin)


def _begin() -> None:
    start_worker()
    cv2.setNumThreads(1)
