"""Ends a run that makes no progress any more, and says where it stood: a machine that waits forever costs forever."""

import faulthandler
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from trainer.run import Run

# The first step is slow: kernels are chosen or compiled, weights fetched, caches cold.
PATIENCE_AT_START = 3


@contextmanager
def watching(run: Run, minutes: float) -> Iterator[None]:
    """While this lasts, a run that reports no progress for `minutes` ends as failed, with exit code 1.

    Until its first report it has PATIENCE_AT_START times as long. The stacks of all threads go to log.txt.
    """
    over = threading.Event()
    started = run.progressed

    def watch() -> None:
        while not over.wait(min(minutes * 6, 5.0)):  # seconds: a tenth of the time, for short ones
            patience = minutes * 60 * (PATIENCE_AT_START if run.progressed == started else 1)
            if time.monotonic() - run.progressed > patience:
                _end(run, patience / 60)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _end(run: Run, minutes: float) -> None:
    phase = run.status.get("phase", "starting")
    with (run.path / "log.txt").open("a", encoding="utf-8") as log:
        log.write("no progress; where every thread stands:\n")
        log.flush()
        faulthandler.dump_traceback(log, all_threads=True)
    run.end("failed", f"stalled: no progress for {minutes:g} minutes while {phase}", 1)
    # The main thread hangs in something that no exception reaches.
    os._exit(1)
