"""Packed clips on a disk that cannot hold all of them: a run says what it reads next, and waits for what is not there.

Whoever fills the folder of clips (a courier that copies from S3; this project's trainer never does) reads

    RUN/wanted.json     {"in_use": 3, "shards": ["shard-52f0.tar", "shard-9a11.tar", ...]}

and keeps of these shards the first ones, as many as there is room for and `in_use` at least, and none that is not
among them: fetched under another name and renamed when whole, dropped only by the newest list. Shards come in the order
in which they are read. The order is a function of the seed alone, so a run that was killed wants the same again.
"""

import multiprocessing
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from manifests.clips import ClipStore
from manifests.errors import UserError
from trainer.dataset import Clips
from trainer.run import Run
from trainer.sampling import ShardedRows, TrainingOrder

SAID_EVERY = 10.0  # seconds
LOOKED_EVERY = 0.1

Wanted = tuple[list[str], int]  # shards in the order in which they are read, and how many of them are in use


def batches_ahead(workers: int) -> int:
    """How many batches a loader of so many processes is ahead of the step that is computed, that one included."""
    return 2 * workers + 1


def sharded_rows(clips: Clips, window: int) -> ShardedRows:
    """Where the rows lie. Raises UserError when they are not packed."""
    if loose := int((clips.shards < 0).sum()):
        raise UserError(
            f"data.shard_window={window} reads packed clips, and {loose} in {clips.store.root} are not; pack them with "
            f"python -m manifests pack {clips.store.root} --out DIR, or say data.shard_window=null"
        )
    return ShardedRows(clips.shards, window)


def want_for_training(run: Run, clips: Clips, loader: DataLoader[Any], step: int) -> Wanted:
    """Tell what training reads from `step` on, and return it."""
    order = loader.batch_sampler
    assert isinstance(order, TrainingOrder)
    if order.shards is None:
        return [], 0
    numbers, in_use = order.shards_needed(step, batches_ahead(loader.num_workers))
    names = clips.store.shards
    wanted = [names[number] for number in numbers], in_use
    run.want(*wanted)
    return wanted


def want_for_testing(run: Run, clips: Clips, row: int, batch: int, workers: int, training: Wanted = ([], 0)) -> None:
    """Tell what looking at the clips in their order reads from `row` on, and what `training` goes on with after that.

    The loader of training reads ahead meanwhile: what is in use there comes first.
    """
    if clips.store.wait is None:
        return
    names, (later, in_use) = clips.store.shards, training
    at_once = row + batch * batches_ahead(workers)
    now, soon = ([names[n] for n in in_order(part)] for part in (clips.shards[row:at_once], clips.shards[at_once:]))
    first = list(dict.fromkeys([*later[:in_use], *now]))
    run.want(list(dict.fromkeys([*first, *soon, *later])), len(first))


def in_order(numbers: np.ndarray) -> list[int]:
    """Each number once, in the order of first appearance."""
    found, first = np.unique(numbers, return_index=True)
    return [int(number) for number in found[np.argsort(first)]]


def wait_for(shard: Path) -> None:
    """Return when the shard is there. How long that may take is the watchdog's to say."""
    loader = multiprocessing.parent_process()  # none in the main process
    said = time.monotonic()
    while not shard.exists():
        if loader is not None and not loader.is_alive():
            raise SystemExit(1)
        if time.monotonic() - said > SAID_EVERY:
            print(f"waiting for {shard.name}, which is not in {shard.parent} yet", file=sys.stderr, flush=True)
            said = time.monotonic()
        time.sleep(LOOKED_EVERY)


def ask_one_by_one(run: Run, store: ClipStore) -> None:
    """From here on, want whichever shard is missing when a clip is opened: for the few clips that a report shows."""
    if store.wait is not None:
        store.wait = partial(_ask_for, run)


def _ask_for(run: Run, shard: Path) -> None:
    run.want([shard.name], 1)
    wait_for(shard)
