"""The story of a training run, from a manifest and prepared clips to weights: read `fit` from top to bottom.

python -m trainer fit --config demo.yaml --manifest manifest.csv --clips clips/ --run runs/first
"""

import math
import random
import signal
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from manifests.errors import UserError
from trainer.checkpoint import load_checkpoint, save_checkpoint, save_weights
from trainer.config import Config
from trainer.dataset import Clips, TestViews, TrainingClips, training_transform
from trainer.evaluate import predict_views
from trainer.metrics import summarize
from trainer.progress import TrainingProgress
from trainer.run import Run
from trainer.sampling import TrainingOrder
from trainer.slowfast import create_model, parameter_groups, place, to_input

LOG_EVERY = 10


def fit(config: Config, splits: dict[str, Clips], labels: tuple[str, ...], run: Run) -> None:
    """Train on `splits["train"]`, watch `splits["val"]`, and leave the averaged weights in model.safetensors.

    Goes on from the last checkpoint. The same config, data and seed give the same weights, bit for bit on a CPU,
    however often the run was interrupted.
    """
    # data
    train_clips, val_clips = splits["train"], splits["val"]
    if len(train_clips) < config.data.batch:
        raise UserError(
            f"a batch of {config.data.batch} needs more than {len(train_clips)} training videos; lower data.batch"
        )
    steps_per_epoch = len(train_clips) // config.data.batch
    total_steps = config.optim.epochs * steps_per_epoch

    # model, optimizer, schedule
    device = make_deterministic(config.seed, config.device)
    model = place(create_model(len(labels), **config.model.model_dump()), device)
    run.tell(model={"name": config.model.arch, "parameters": sum(p.numel() for p in model.parameters())})
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.optim.ema), use_buffers=True)
    optimizer = AdamW(
        parameter_groups(model, config.optim.lr, config.optim.backbone_lr, config.optim.weight_decay), fused=True
    )
    schedule = LambdaLR(optimizer, lambda step: rate_at(step, total_steps, config.optim.warmup))
    criterion = nn.CrossEntropyLoss(
        weight=class_weights(train_clips.labels, len(labels)).to(device) if config.optim.class_weights else None,
        label_smoothing=config.optim.label_smoothing,
    )

    # what an interrupted run left
    learned = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}
    first_step = restore(run, learned)
    loader = training_loader(config, train_clips, first_step)
    epoch_losses: list[float] = []
    saved_at = time.monotonic()
    pace = Pace(config.data.batch * config.data.clips_per_video)

    # train
    with TrainingProgress(config.model.arch, config.optim.epochs, steps_per_epoch, first_step) as progress:
        for step, (clips, targets) in enumerate(pace.waiting_for(loader), start=first_step + 1):
            epoch = (step - 1) // steps_per_epoch
            model.train()
            with torch.autocast(device.type, torch.bfloat16, enabled=config.optim.amp and device.type == "cuda"):
                logits = model(to_input(clips.to(device, non_blocking=True).flatten(0, 1)))
                # A video's clips vote: the loss sees the mean of their logits, as testing does.
                loss = criterion(logits.float().unflatten(0, clips.shape[:2]).mean(1), targets.to(device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
            optimizer.step()
            schedule.step()
            average.update_parameters(model)

            epoch_losses.append(loss.item())
            pace.step_done()
            if not math.isfinite(epoch_losses[-1]):
                raise UserError(
                    f"the loss became {epoch_losses[-1]} at step {step}; lower optim.lr and optim.backbone_lr, "
                    f"the last checkpoint in {run.path} is from before"
                )
            progress.show_step(step, epoch_losses[-1], pace.clips_per_second, pace.data_wait)
            run.report(
                "training", epoch=epoch + 1, epochs=config.optim.epochs, step=step, steps=total_steps,
                loss=epoch_losses[-1], clips_per_second=round(pace.clips_per_second, 2),
                data_wait=round(pace.data_wait, 4), eta=round(progress.eta(step)),
            )  # fmt: skip
            if step % LOG_EVERY == 0:
                run.record(
                    "step", epoch=epoch, step=step, loss=epoch_losses[-1], lr=schedule.get_last_lr()[0],
                    clips_per_second=round(pace.clips_per_second, 2), data_wait=round(pace.data_wait, 4),
                )  # fmt: skip

            epoch_ends = step % steps_per_epoch == 0
            if epoch_ends:
                validation = validate(config, average, val_clips, criterion, device)
                run.record("evaluation", split="val", epoch=epoch, step=step, **validation)
                run.report("training", force=True, val=validation)
                progress.show_evaluation(epoch, float(np.mean(epoch_losses)), validation)
                epoch_losses.clear()
                pace.restart()
            if epoch_ends or run.stop_requested or time.monotonic() - saved_at > config.checkpoint_minutes * 60:
                save_checkpoint(run.path / "checkpoints", step, snapshot(step, learned))
                saved_at = time.monotonic()
            run.check_stop()

    metadata = {
        "model": config.model.model_dump(),
        "data": config.data.model_dump(),
        "labels": list(labels),
        "clips": run.facts["clips"],
        "synthetic": run.facts["manifest"]["synthetic"],
    }
    save_weights(run.path / "model.safetensors", average.module.state_dict(), metadata)


def rate_at(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate: a straight rise over the first `warmup` of the steps, then a cosine to 0."""
    rising = warmup * total
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))


def class_weights(labels: np.ndarray, classes: int) -> Tensor:
    """1 / sqrt(videos of the class), scaled to a mean of 1 over the videos; `(classes,)`."""
    counts = np.bincount(labels, minlength=classes)
    weights = 1 / np.sqrt(counts)
    return torch.as_tensor(weights / weights[labels].mean(), dtype=torch.float32)


def make_deterministic(seed: int, device: str) -> torch.device:
    """Seed every generator and ask torch for repeatable kernels. Raises UserError if the GPU asked for is absent."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device=cuda, but torch sees no GPU here (driver or container?); to train on the CPU say device=cpu"
        )
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device(device)


def training_loader(config: Config, clips: Clips, first_step: int) -> DataLoader[Any]:
    """One loader for the whole run, so that its workers fetch ahead across the ends of epochs."""
    transform = training_transform(config.data.size, **config.augment.model_dump())
    dataset = TrainingClips(
        clips,
        transform,
        frames=config.data.frames,
        span=config.data.span,
        clips_per_video=config.data.clips_per_video,
        seed=config.seed,
    )
    order = TrainingOrder(len(clips), config.data.batch, config.optim.epochs, config.seed, first_step)
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=config.data.workers,
        pin_memory=config.device == "cuda",
        worker_init_fn=_start_worker,
        # The loader draws its workers' base seed from here rather than from the generator that dropout uses.
        generator=torch.Generator().manual_seed(config.seed),
    )


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C reaches every process of the terminal; the main one decides, and its workers serve until it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def validate(
    config: Config, model: nn.Module, clips: Clips, criterion: nn.Module, device: torch.device
) -> dict[str, float]:
    """Loss, WAR, UAR and macro-F1 of one view per video of the validation actors."""
    views = TestViews(clips, frames=config.data.frames, span=config.data.span, size=config.data.size, views=1)
    logits = predict_views(model, views, device, batch=config.data.batch, workers=config.data.workers, flip=False)[:, 0]
    loss = criterion(logits.to(device), torch.as_tensor(clips.labels, device=device)).item()
    return {"loss": loss, **summarize(logits.softmax(1).numpy(), clips.labels)}


def snapshot(step: int, learned: dict[str, Any]) -> dict[str, Any]:
    """All that the next start needs to go on as if there had been no stop."""
    return {
        "step": step,
        "rng": {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()},
        **{name: part.state_dict() for name, part in learned.items()},
    }


def restore(run: Run, learned: dict[str, Any]) -> int:
    """Load the last checkpoint into the parts; return the step it was made after, 0 for a fresh start."""
    state = load_checkpoint(run.path / "checkpoints")
    if state is None:
        run.forget_after(0)
        return 0
    for name, part in learned.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["rng"]["torch"])
    torch.cuda.set_rng_state_all(state["rng"]["cuda"])
    run.forget_after(state["step"])
    run.log(f"going on after step {state['step']}")
    return int(state["step"])


class Pace:
    """Clips per second and the share of time spent waiting for data, over about the last 20 steps."""

    def __init__(self, clips_per_step: int) -> None:
        self.clips_per_step = clips_per_step
        self.restart()

    def restart(self) -> None:
        """Forget the past, so that a pause for validation does not count as slow training."""
        self.seconds = self.waited = self.steps = 0.0
        self.mark = time.monotonic()

    def waiting_for(self, loader: Any) -> Any:
        batches = iter(loader)
        while True:
            asked = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.monotonic() - asked
            yield batch

    def step_done(self) -> None:
        fade = 0.95
        now = time.monotonic()
        self.seconds = self.seconds * fade + now - self.mark
        self.waited *= fade
        self.steps = self.steps * fade + 1
        self.mark = now

    @property
    def clips_per_second(self) -> float:
        return self.steps * self.clips_per_step / max(self.seconds, 1e-9)

    @property
    def data_wait(self) -> float:
        return min(self.waited / max(self.seconds, 1e-9), 1.0)
