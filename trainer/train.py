"""The story of a training run, from prepared clips to weights: read `fit` from top to bottom, then `learn`.

python -m trainer fit --config demo.yaml --manifest manifest.csv --clips clips/ --run runs/first
"""

import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manifests.errors import UserError
from trainer.batchnorm import train_mode
from trainer.batchsize import largest_batch, memory_errors_explained
from trainer.checkpoint import load_checkpoint, save_checkpoint, save_weights
from trainer.config import Config
from trainer.dataset import Clips
from trainer.finishing import Unfinished, finish
from trainer.learner import Learner, create_learner, make_deterministic, random_state, set_random_state
from trainer.loader import training_loader
from trainer.losses import as_probabilities, video_loss
from trainer.mixing import mix, mixing_active
from trainer.networks import normalisation, to_input
from trainer.pace import Pace
from trainer.processes import ALONE, Processes
from trainer.progress import TrainingProgress
from trainer.run import Interrupted, Run, differences
from trainer.validation import NO_BEST, best_state, track_best, validate
from trainer.wanted import want_for_training
from trainer.weights import fetch_weights

LOG_EVERY = 10  # steps


def fit(config: Config, splits: dict[str, Clips], labels: tuple[str, ...], run: Run, processes: Processes) -> None:
    """Train on `splits["train"]`, watch `splits["val"]`, and leave the averaged weights in model.safetensors.

    Goes on from the last checkpoint. The same config, data, seed and number of processes give the same weights, bit for
    bit on a CPU, however often the run was interrupted.
    """
    # data
    train_clips, val_clips = splits["train"], splits["val"]
    steps_per_epoch = count_steps(len(train_clips), config.data.batch, processes.world)
    total = config.optim.epochs * steps_per_epoch

    # what learns, and what an interrupted run left of it
    device = make_deterministic(config.seed, config.device, processes.rank)
    state = open_checkpoint(run)
    pieces = count_pieces(config, train_clips, len(labels), device, processes, state)
    # Only the leader starts from them: its first weights become everyone's.
    pretrained = find_pretrained(config, run) if state is None and processes.leader else None
    learner = create_learner(config, train_clips, len(labels), total, device, processes, pretrained)
    done, validated, best = resume(run, learner, state)
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
                        validation = validate(config, learner, train_clips, val_clips, run, wanted)
                    validated = True
                    best = track_best(config, learner, epoch - 1, validation["uar"], best, run, metadata)
                    run.record("evaluation", split="val", epoch=epoch - 1, step=done, **validation)
                    run.report("training", force=True, val=validation)
                    run.log(progress.show_evaluation(epoch - 1, losses, validation))
                    save()
                    saved_at = time.monotonic()
                    losses.clear()
                    pace.restart()
                if done == total or best["given_up"]:
                    break

                with pace.waiting(), run.interruptible(processes.world == 1):
                    clips, targets = next(batches)
                with memory_errors_explained(len(targets), pieces, auto=config.optim.accumulate == "auto"):
                    loss = learn(config, learner, clips, targets, done, pieces)
                done, validated = done + 1, False
                wanted = want_for_training(run, train_clips, loader, done)
                pace.step_done()

                overdue = time.monotonic() - saved_at > config.checkpoint_minutes * 60
                everyone = processes.gather(loss, run.signal, overdue)
                losses.append(float(everyone[:, 0].mean()))
                require_finite(losses[-1], done, run)
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
    config: Config, learner: Learner, clips: Tensor | Unfinished, targets: Tensor, step: int, pieces: int
) -> float:  # fmt: skip
    """One optimizer step, the `step`th from 0 on, on this process's videos; return their loss.

    `clips` `(videos, clips, T, 3, H, W)` uint8, or what is to become that; `targets` classes `(videos,)` or
    probabilities `(videos, classes)`. They are computed in `pieces` pieces, whose gradients add up to those of the
    whole.
    """
    optim, mixing, processes = config.optim, config.mixing, learner.processes
    frozen = step < learner.frozen_steps
    train_mode(learner.model, ("",) if optim.batchnorm == "frozen" else learner.backbone if frozen else ())
    finished = finish(clips, config.data.size, learner.device)
    inputs = to_input(finished.flatten(0, 1), *normalisation(config.model.arch))
    targets = as_probabilities(targets.to(learner.device), learner.classes)
    if mixing_active(step, learner.total_steps, mixing.until):
        seed = int(np.random.default_rng((config.seed, step, processes.rank)).integers(2**62))
        inputs, targets = mix(
            inputs, targets, mixup=mixing.mixup, cutmix=mixing.cutmix, probability=mixing.probability, seed=seed
        )

    learner.optimizer.zero_grad()
    whole = torch.zeros((), device=learner.device)
    parts = inputs.unflatten(0, finished.shape[:2]).chunk(pieces)
    for number, (piece, wanted) in enumerate(zip(parts, targets.chunk(pieces), strict=True), 1):
        # Gradients travel once a step, with the last piece.
        with processes.exchanging(learner.forward, number == len(parts)):
            with learner.autocast():
                logits = learner.forward(piece.flatten(0, 1))
            # A video's clips vote by the mean of their logits. Testing averages probabilities.
            loss = video_loss(
                logits.float().unflatten(0, piece.shape[:2]), wanted, class_weights=learner.class_weights,
                label_smoothing=optim.label_smoothing, consistency=optim.consistency,
            ) * (len(wanted) / len(targets))  # fmt: skip
            learner.scaler.scale(loss).backward()
        whole += loss.detach()
    if optim.batchnorm == "train":
        # Each process measured its own videos; validation, checkpoints and the final weights need one answer.
        processes.share_buffers(learner.model)
    learner.scaler.unscale_(learner.optimizer)
    nn.utils.clip_grad_norm_(learner.model.parameters(), optim.clip_norm)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    learner.schedule.step()
    learner.average.update_parameters(learner.model)
    return whole.item()


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


def count_pieces(
    config: Config, clips: Clips, classes: int, device: torch.device, processes: Processes, state: dict[str, Any] | None
) -> int:
    """In how many pieces a batch is computed: as set, or as few as fit into the memory of the smallest device.

    Pieces decide in which order gradients are added up, and what BatchNorm measures by unless it is frozen. So a run
    that goes on, from the checkpoint `state`, keeps its number, on a CPU bit for bit the same run; but the next spot
    machine may have a smaller GPU, for which it has to be higher, and fewer processes have more videos each.
    Raises UserError when not even one video fits.
    """
    videos = config.data.batch // processes.world
    if config.optim.accumulate != "auto":
        return min(config.optim.accumulate, videos)
    # A checkpoint holds a state of the random generator for each process.
    before = state["pieces"] if state and len(state["rng"]) == processes.world else 0
    if before and device.type == "cpu":
        return int(before)

    def try_step(count: int) -> None:
        trial = create_learner(config, clips, classes, config.optim.epochs, device, ALONE, None)
        data = config.data
        shape = (count, data.clips_per_video, data.frames, 3, data.size, data.size)
        zeros = torch.zeros(shape, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64)
        learn(config, trial, *zeros, trial.frozen_steps, 1)

    pieces = math.ceil(videos / largest_batch(try_step, videos, videos))
    make_deterministic(config.seed, config.device, processes.rank)
    return max(before, int(processes.gather(pieces).max()))


def require_finite(loss: float, step: int, run: Run) -> None:
    """Raise UserError when the loss is no number any more."""
    if not math.isfinite(loss):
        raise UserError(
            f"the loss became {loss} at step {step}; lower optim.lr and optim.backbone_lr, "
            f"the last checkpoint in {run.path} is from before"
        )


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
    if state and (difference := differences(state["of"], run.facts)):
        raise UserError(
            f"the checkpoints in {run.path} are those of another run: {difference}; give another --run, or delete "
            f"{run.path / 'checkpoints'} to start over"
        )
    return state


def resume(run: Run, learner: Learner, state: dict[str, Any] | None) -> tuple[int, bool, dict[str, Any]]:
    """Load a checkpoint into the learner; return (steps done, whether validated since, the best epoch)."""
    if state is None:
        run.forget_after(0)
        return 0, True, NO_BEST
    learner.load_state(state)
    set_random_state(state["rng"], learner.processes.rank, learner.device)
    run.forget_after(state["step"], validated=state["validated"])
    run.log(f"going on after step {state['step']}")
    return state["step"], state["validated"], state["best"]
