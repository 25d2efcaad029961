"""How many videos fit into memory at once: found by trying, and said in one sentence when too many are asked for."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from manifests.errors import UserError

# Left free, since fragments and the longest clips ask for a little more than the trial did.
MARGIN = 0.1
SMALLER = "lower data.size, data.frames or data.clips_per_video"


def largest_batch(try_step: Callable[[int], None], start: int, most: int) -> int:
    """The largest batch up to `most` that fits, less a margin of a tenth if memory is what ends it.

    `try_step(batch)` does a whole training step on a copy of the model, optimizer state included. Tries `start`,
    doubles while it fits, then halves the gap. Random generators are left as they were. Raises UserError when not even
    one video fits.
    """
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        fitting, failing = 0, most + 1
        batch = min(start, most)
        while failing - fitting > 1:
            if fits(try_step, batch):
                fitting = batch
            else:
                failing = batch
            unbounded = failing > most
            batch = min(2 * fitting, most) if unbounded else (fitting + failing) // 2
    if fitting == 0:
        raise UserError(f"not even one video at a time fits into memory; {SMALLER}")
    return fitting if fitting == most else max(1, int(fitting * (1 - MARGIN)))


def fits(try_step: Callable[[int], None], batch: int) -> bool:
    """Whether the step ends without running out of memory, which is free again then. Other errors are raised."""
    try:
        try_step(batch)
        return True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return False


@contextmanager
def memory_errors_explained(videos: int, pieces: int, *, auto: bool) -> Iterator[None]:
    """Turn running out of memory in a step on `videos` videos into a UserError that says what to set.

    `auto`: the number of pieces was found by `largest_batch`, and not set.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        told = f"{videos} videos in {pieces} pieces do not fit into memory"
        if pieces >= videos:
            told += f"; {SMALLER}"
        elif auto:
            # A smaller batch would be cut into pieces of the same size.
            told += f", though they did on trial; say optim.accumulate={min(2 * pieces, videos)} in a new run directory"
        else:
            told += "; say optim.accumulate=auto, which finds the number of pieces that do, or lower data.batch"
        raise UserError(told) from None


def is_out_of_memory(error: BaseException) -> bool:
    """torch has a class for GPUs only: on a CPU its allocator, C++ and oneDNN say so in words."""
    text = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "DefaultCPUAllocator" in text
        or "bad_alloc" in text
        # Its "primitive descriptor" is another matter: an operation that oneDNN does not have.
        or text == "could not create a primitive"
    )
