"""Some training steps on drawn noise, alone or in every process of torchrun, and what each of them keeps.

python tests/steps.py /tmp/out 2 optim.batchnorm=train          three steps in 2 pieces -> /tmp/out/0.pt
torchrun --nproc-per-node 2 tests/steps.py /tmp/out 2           -> 0.pt and 1.pt
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel
from toys import TINY

from trainer.config import Config, read_config
from trainer.learner import Learner, create_learner, make_deterministic
from trainer.processes import ALONE, Processes, joined
from trainer.train import learn

CPU = torch.device("cpu")
STEPS = 3
CLASSES = 3
# As much as the recipe asks for at once; dropout is drawn by pieces and by processes.
SETTINGS = [
    *TINY, "model.dropout=0", "data.batch=6", "data.clips_per_video=2", "optim.consistency=0.5", "optim.warmup=0",
]  # fmt: skip


def make_learner(config: Config, total: int = 1000, processes: Processes = ALONE) -> Learner:
    """A learner whose training videos are of classes as rare as these, by which the loss is weighed."""
    clips: Any = SimpleNamespace(labels=np.array([0, 0, 0, 1, 1, 2]))
    make_deterministic(config.seed, "cpu", processes.rank)
    return create_learner(config, clips, CLASSES, total, CPU, processes, None)


def batch(config: Config, step: int) -> tuple[Tensor, Tensor]:
    """Clips of noise, each video in a brightness of its own, and probabilities to learn."""
    data, generator = config.data, torch.Generator().manual_seed(step)
    shape = (data.batch, data.clips_per_video, data.frames, 3, data.size, data.size)
    clips = torch.randint(0, 128, shape, dtype=torch.uint8, generator=generator)
    clips += torch.randint(0, 128, (data.batch, 1, 1, 1, 1, 1), dtype=torch.uint8, generator=generator)
    return clips, torch.randn(data.batch, CLASSES, generator=generator).softmax(1)


def main(words: list[str]) -> None:
    out, pieces, *settings = words
    config = read_config(Path("demo.yaml"), [*SETTINGS, *settings])
    with joined("cpu") as processes:
        learner = make_learner(config, processes=processes)
        exchanges = 0

        def exchange(group: None, bucket: GradBucket) -> Future[Tensor]:
            nonlocal exchanges
            exchanges += 1
            return allreduce_hook(group, bucket)

        if isinstance(learner.forward, DistributedDataParallel):
            learner.forward.register_comm_hook(None, exchange)
        for step in range(STEPS):
            clips, targets = (whole[processes.rank :: processes.world] for whole in batch(config, step))
            learn(config, learner, clips, targets, step, int(pieces))
        kept = {"model": learner.model.state_dict(), "average": learner.average.module.state_dict()}
        torch.save({**kept, "exchanges": exchanges}, Path(out) / f"{processes.rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1:])
