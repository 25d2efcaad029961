"""The story of a training run, from prepared clips to weights: read `fit` from top to bottom, then `learn`.

python -m trainer fit --config demo.yaml --manifest manifest.csv --clips clips/ --run runs/first
"""

import math
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manifests.errors import UserError
from trainer.batchnorm import precise_statistics, train_mode
from trainer.batchsize import largest_batch, memory_errors_explained
from trainer.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights
from trainer.config import Config
from trainer.dataset import Clips, TestViews
from trainer.evaluate import predict_views
from trainer.finishing import Unfinished, finish
from trainer.learner import Learner, create_learner, make_deterministic, random_state, set_random_state
from trainer.loader import training_loader
from trainer.losses import video_loss
from trainer.metrics import summarize
from trainer.mixing import mix, mixing_active
from trainer.networks import normalisation, to_input
from trainer.pace import Pace
from trainer.processes import Processes, stop_together
from trainer.progress import TrainingProgress
from trainer.run import Interrupted, Run, first_difference
from trainer.wanted import Wanted, want_for_testing, want_for_training
from trainer.weights import fetch_weights

LOG_EVERY = 10  # steps
PRECISE_BATCHES = 50
NO_BEST = {"uar": -1.0, "epoch": -1, "given_up": False}


def fit(config: Config, splits: dict[str, Clips], labels: tuple[str, ...], run: Run, processes: Processes) -> None:
    """Train on `splits["train"]`, watch `splits["val"]`, and leave the averaged weights in model.safetensors.

    Goes on from the last checkpoint. The same config, data and seed give the same weights, bit for bit on a CPU,
    however often the run was interrupted.
    """
    # data
    train_clips, val_clips = splits["train"], splits["val"]
    steps_per_epoch = count_steps(len(train_clips), config.data.batch, processes.world)
    total = config.optim.epochs * steps_per_epoch

    # what learns, and what an interrupted run left of it
    device = make_deterministic(config.seed, config.device, processes.rank)
    state = open_checkpoint(run)
    pieces = state["pieces"] if state else count_pieces(config, train_clips, len(labels), device, processes)
    # Only the leader starts from them: its first weights become everyone's.
    pretrained = find_pretrained(config, run) if state is None and processes.leader else None
    learner = create_learner(config, train_clips, len(labels), total, device, processes, pretrained)
    done, validated, best = restore(run, learner, state, processes)
    metadata = describe_model(config, labels, run)
    run.tell(model=count_parameters(config, learner), pieces=pieces, processes=processes.world)

    def save() -> None:
        rng = processes.gather_objects(random_state(device))
        if processes.leader:
            position = {
                "step": done,
                "validated": validated,
                "best": best,
                "pieces": pieces,
                "rng": rng,
                "of": run.facts,
            }
            name = f"step-{done:08d}" if validated else f"step-{done:08d}-unvalidated"
            save_checkpoint(run.path / "checkpoints", name, position | learner.state())

    # train
    losses: list[float] = []
    saved_at = time.monotonic()
    pace = Pace(config.data.batch * config.data.clips_per_video)
    loader = training_loader(config, train_clips, done, processes)
    wanted = want_for_training(run, train_clips, loader, done)
    batches = iter(loader)
    with TrainingProgress(config.model.arch, config.optim.epochs, steps_per_epoch, done, processes.leader) as progress:
        try:
            while True:
                epoch, within = divmod(done, steps_per_epoch)
                if within == 0 and not validated:
                    with run.interruptible(processes.world == 1):
                        validation = validate(config, learner, train_clips, val_clips, run, processes, wanted)
                    validated = True
                    best = watch(config, learner, epoch - 1, validation["uar"], best, run, metadata)
                    run.record("evaluation", split="val", epoch=epoch - 1, step=done, **validation)
                    run.report("training", force=True, val=validation)
                    progress.show_evaluation(epoch - 1, losses, validation)
                    save()
                    saved_at = time.monotonic()
                    losses.clear()
                    pace.restart()
                if done == total or best["given_up"]:
                    break

                with pace.waiting(), run.interruptible(processes.world == 1):
                    clips, targets = next(batches)
                with memory_errors_explained(len(targets), pieces):
                    loss = learn(config, learner, clips, targets, done, total, pieces, processes.rank)
                done, validated = done + 1, False
                wanted = want_for_training(run, train_clips, loader, done)
                pace.step_done()

                overdue = time.monotonic() - saved_at > config.checkpoint_minutes * 60
                everyone = processes.gather(loss, run.signal, overdue)
                losses.append(finite(float(everyone[:, 0].mean()), done, run))
                progress.show_step(done, losses[-1], pace.clips_per_second, pace.data_wait)
                facts = {"step": done, "loss": losses[-1], **pace.figures()}
                run.report("training", epoch=epoch + 1, epochs=config.optim.epochs, steps=total,
                           eta=round(progress.eta(done)), **facts)  # fmt: skip
                if done % LOG_EVERY == 0:
                    run.record("step", epoch=epoch, lr=learner.schedule.get_last_lr()[0], **facts)
                if everyone[:, 2].any():
                    save()
                    saved_at = time.monotonic()
                if signum := int(everyone[:, 1].max()):
                    raise Interrupted(signum)
        except Interrupted:
            save()
            raise

    if run.leader:
        weights = best_state(run) if config.optim.patience else learner.average.module.state_dict()
        save_weights(run.path / "model.safetensors", weights, metadata)


def learn(
    config: Config, learner: Learner, clips: Tensor | Unfinished, targets: Tensor, step: int, total: int, pieces: int,
    rank: int,
) -> float:  # fmt: skip
    """One optimizer step on this process's videos; return their loss. `step` counts from 0 to `total` - 1.

    `clips` `(videos, clips, T, 3, H, W)` uint8, or what is to become that; `targets` classes `(videos,)` or
    probabilities `(videos, classes)`. They are computed in `pieces` pieces, whose gradients add up to those of the
    whole.
    """
    optim, mixing = config.optim, config.mixing
    frozen = step < optim.frozen_epochs * (total // optim.epochs)
    train_mode(learner.model, ("",) if optim.batchnorm == "frozen" else learner.backbone if frozen else ())
    finished = finish(clips, config.data.size, learner.device)
    inputs = to_input(finished.flatten(0, 1), *normalisation(config.model.arch))
    targets = as_probabilities(targets.to(learner.device), learner.classes)
    if mixing_active(step, total, mixing.until):
        seed = int(np.random.default_rng((config.seed, step, rank)).integers(2**62))
        inputs, targets = mix(
            inputs, targets, mixup=mixing.mixup, cutmix=mixing.cutmix, probability=mixing.probability, seed=seed
        )

    learner.optimizer.zero_grad()
    whole = torch.zeros((), device=learner.device)
    for piece, wanted in zip(inputs.unflatten(0, finished.shape[:2]).chunk(pieces), targets.chunk(pieces), strict=True):
        with learner.autocast():
            logits = learner.forward(piece.flatten(0, 1))
        # A video's clips vote: the loss sees the mean of their logits, as testing does.
        loss = video_loss(
            logits.float().unflatten(0, piece.shape[:2]), wanted, class_weights=learner.class_weights,
            label_smoothing=optim.label_smoothing, consistency=optim.consistency,
        ) * (len(wanted) / len(targets))  # fmt: skip
        learner.scaler.scale(loss).backward()
        whole += loss.detach()
    learner.scaler.unscale_(learner.optimizer)
    nn.utils.clip_grad_norm_(learner.model.parameters(), optim.clip_norm)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    learner.schedule.step()
    learner.average.update_parameters(learner.model)
    return whole.item()


def as_probabilities(targets: Tensor, classes: int) -> Tensor:
    """`(videos, classes)` float32 from classes `(videos,)`; what is probabilities already stays as it is.

    With probabilities torch divides the loss by the number of videos; with classes by the sum of their weights, and the
    pieces of a batch, on one device or on many, would not add up to the whole.
    """
    return F.one_hot(targets, classes).float() if targets.ndim == 1 else targets


def count_steps(videos: int, batch: int, processes: int) -> int:
    """Steps per epoch. Raises UserError where the batch does not suit the videos or the processes."""
    if videos < batch:
        raise UserError(f"a batch of {batch} needs more than {videos} training videos; lower data.batch")
    if batch % processes:
        raise UserError(
            f"data.batch={batch} cannot be shared evenly by {processes} processes; "
            f"say data.batch={math.ceil(batch / processes) * processes}"
        )
    return videos // batch


def count_pieces(config: Config, clips: Clips, classes: int, device: torch.device, processes: Processes) -> int:
    """In how many pieces a batch is computed: as set, or as few as fit into the memory of the smallest device.

    Raises UserError when the setting does not fit, or nothing does.
    """
    videos = config.data.batch // processes.world
    asked = config.optim.accumulate

    def try_step(count: int) -> None:
        trial = create_learner(config, clips, classes, config.optim.epochs, device, Processes(), None)
        data = config.data
        shape = (count, data.clips_per_video, data.frames, 3, data.size, data.size)
        learn(config, trial, torch.zeros(shape, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64), 0, 1, 1, 0)

    if asked != "auto":
        return min(asked, videos)
    pieces = math.ceil(videos / largest_batch(try_step, videos, videos))
    make_deterministic(config.seed, config.device, processes.rank)
    return int(processes.gather(pieces).max())


def finite(loss: float, step: int, run: Run) -> float:
    """The loss itself. Raises UserError when it is no number any more."""
    if not math.isfinite(loss):
        raise UserError(
            f"the loss became {loss} at step {step}; lower optim.lr and optim.backbone_lr, "
            f"the last checkpoint in {run.path} is from before"
        )
    return loss


def count_parameters(config: Config, learner: Learner) -> dict[str, Any]:
    return {"name": config.model.arch, "parameters": sum(p.numel() for p in learner.model.parameters())}


def find_pretrained(config: Config, run: Run) -> Any:
    """The file of the weights to start from, noted in run.json; None to start from scratch."""
    model = config.model
    if model.pretrained is None:
        return None
    with run.interruptible(True):
        path, sha256 = fetch_weights(model.pretrained, model.arch, model.depth)
    run.tell(pretrained={"source": model.pretrained, "sha256": sha256})
    return path


def validate(
    config: Config, learner: Learner, train: Clips, clips: Clips, run: Run, processes: Processes, wanted: Wanted
) -> dict[str, float]:
    """Loss, WAR, UAR and macro-F1 of the averaged weights, one view per video of the validation actors.

    `wanted` are the shards with which training goes on.
    """
    data, arch, average = config.data, config.model.arch, learner.average.module
    if config.optim.batchnorm == "precise":
        # Each process measures on the same batches, so that all have the same statistics.
        batches = (
            to_input(finish(drawn, data.size, learner.device).flatten(0, 1), *normalisation(arch))
            for drawn, _ in training_loader(config, train, 0, Processes())
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


def watch(
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
    return load_weights(run.path / "checkpoints" / "best.safetensors")[0]


def describe_model(config: Config, labels: tuple[str, ...], run: Run) -> dict[str, Any]:
    """What whoever uses the weights has to know, besides the weights."""
    return {
        "model": config.model.model_dump(),
        "data": config.data.model_dump(),
        "labels": list(labels),
        "clips": run.facts["clips"],
        "synthetic": run.facts["manifest"]["synthetic"],
    }


def open_checkpoint(run: Run) -> dict[str, Any] | None:
    """The newest whole checkpoint of this run; None before the first. Raises UserError for one of another run."""
    state = load_checkpoint(run.path / "checkpoints")
    if state and (difference := first_difference(state["of"], run.facts)):
        raise UserError(
            f"the checkpoints in {run.path} are those of another run: {difference}; give another --run, or delete "
            f"{run.path / 'checkpoints'} to start over"
        )
    return state


def restore(
    run: Run, learner: Learner, state: dict[str, Any] | None, processes: Processes
) -> tuple[int, bool, dict[str, Any]]:
    """Load a checkpoint into the learner; return (steps done, whether validated since, the best epoch)."""
    if state is None:
        run.forget_after(0)
        return 0, True, NO_BEST
    learner.load_state(state)
    set_random_state(state["rng"], processes.rank, learner.device)
    run.forget_after(state["step"], validated=state["validated"])
    run.log(f"going on after step {state['step']}")
    return state["step"], state["validated"], state["best"]
