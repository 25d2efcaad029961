"""Training clips as batches, for a whole run, from any step on, in every process its share."""

import signal
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from trainer.augment import ClipTransform
from trainer.config import Config
from trainer.dataset import Clips, TrainingClips, collate
from trainer.processes import Processes
from trainer.sampling import TrainingOrder, sampling_weights
from trainer.wanted import sharded_rows


def training_loader(config: Config, clips: Clips, first_step: int, processes: Processes) -> DataLoader[Any]:
    """One loader for the whole run, so that its workers fetch ahead across the ends of epochs.

    A GPU augments at a fraction of what it costs the few cores beside it, so for a GPU batches come unfinished.
    """
    data, on_gpu = config.data, config.device == "cuda"
    transform = ClipTransform(data.size, **config.augment.model_dump())
    dataset = TrainingClips(
        clips,
        transform,
        frames=data.frames,
        span=data.span,
        clips_per_video=data.clips_per_video,
        seed=config.seed,
        at_least=data.size,
        draw=transform.draw if on_gpu else None,
    )
    order = TrainingOrder(
        len(clips), data.batch, config.optim.epochs, config.seed, first_step,
        weights=sampling_weights(clips.labels, clips.corpora, data.balance_classes, data.balance_corpora),
        rank=processes.rank, world=processes.world,
        shards=sharded_rows(clips, data.shard_window) if data.shard_window else None,
    )  # fmt: skip
    return DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=data.workers,
        pin_memory=on_gpu,
        worker_init_fn=start_worker,
        # The loader draws its workers' base seed from here rather than from the generator that dropout uses.
        generator=torch.Generator().manual_seed(config.seed),
    )


def start_worker(worker: int) -> None:
    """Begin a loader's process, for a DataLoader's `worker_init_fn`: one thread, and deaf to Ctrl-C."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    # Ctrl-C reaches every process of the terminal; the main one decides, and its workers serve until it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
