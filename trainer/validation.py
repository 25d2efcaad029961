"""What training asks the validation actors after each epoch: how good the averaged weights are, and which were best."""

from typing import Any

import torch
from torch import Tensor

from trainer.batchnorm import precise_statistics
from trainer.checkpoint import load_weights, save_weights
from trainer.config import Config
from trainer.dataset import Clips, TestViews
from trainer.finishing import finish
from trainer.inference import predict_views
from trainer.learner import Learner
from trainer.loader import training_loader
from trainer.losses import as_probabilities, video_loss
from trainer.metrics import summarize
from trainer.networks import normalisation, to_input
from trainer.processes import ALONE, stop_together
from trainer.run import Run
from trainer.wanted import Wanted, want_for_testing

PRECISE_BATCHES = 50
NO_BEST = {"uar": -1.0, "epoch": -1, "given_up": False}


def validate(
    config: Config, learner: Learner, train: Clips, clips: Clips, run: Run, wanted: Wanted
) -> dict[str, float]:  # fmt: skip
    """Loss, WAR, UAR and macro-F1 of the averaged weights, one view per video of the validation actors.

    `wanted` are the shards with which training goes on.
    """
    data, arch, average, processes = config.data, config.model.arch, learner.average.module, learner.processes
    if config.optim.batchnorm == "precise":
        # Each process measures on the same batches, so that all have the same statistics.
        batches = (
            to_input(finish(drawn, data.size, learner.device).flatten(0, 1), *normalisation(arch))
            for drawn, _ in training_loader(config, train, 0, ALONE)
        )
        precise_statistics(average, batches, min(PRECISE_BATCHES, len(train) // data.batch))

    def each(done: int) -> None:
        run.report("validating", evaluated=done, to_evaluate=len(clips))
        want_for_testing(run, clips, done, data.batch * processes.world, data.workers, wanted)
        stop_together(run, processes)

    views = TestViews(clips, frames=data.frames, span=data.span, size=data.size, views=1)
    logits = predict_views(
        average, views, learner.device, arch=arch, batch=data.batch, workers=data.workers, flip=False,
        each=each, processes=processes,
    )[:, 0]  # fmt: skip
    loss = video_loss(
        logits[:, None], as_probabilities(torch.as_tensor(clips.labels), learner.classes),
        class_weights=None if learner.class_weights is None else learner.class_weights.cpu(),
        label_smoothing=config.optim.label_smoothing, consistency=0,
    )  # fmt: skip
    # The leader's figures, to the last bit: all have to agree on what is best and when to give up.
    figures = {"loss": loss.item(), **summarize(logits.softmax(1).numpy(), clips.labels)}
    return dict(processes.leader_says(figures))


def track_best(
    config: Config, learner: Learner, epoch: int, uar: float, best: dict[str, Any], run: Run, metadata: dict[str, Any]
) -> dict[str, Any]:
    """The best epoch so far, whose weights are kept, and whether to give up; without patience nothing is chosen."""
    if config.optim.patience is None:
        return best
    if uar > best["uar"]:
        if run.leader:
            save_weights(run.path / "checkpoints" / "best.safetensors", learner.average.module.state_dict(), metadata)
        return {"uar": uar, "epoch": epoch, "given_up": False}
    return best | {"given_up": epoch - best["epoch"] >= config.optim.patience}


def best_state(run: Run) -> dict[str, Tensor]:
    """The weights of the best epoch."""
    return load_weights(run.path / "checkpoints" / "best.safetensors")[0]
