"""What learns: the network, its averaged copy, optimizer and schedule, and what a checkpoint holds of them."""

import os
import random
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from manifests.errors import UserError
from trainer.batchnorm import synchronise
from trainer.config import Config
from trainer.dataset import Clips
from trainer.losses import class_weights
from trainer.networks import Network, create_model, load_pretrained, place
from trainer.optimizer import create_optimizer, parameter_groups, rates
from trainer.precision import precision
from trainer.processes import Processes

PARTS = ("model", "average", "optimizer", "schedule", "scaler")


@dataclass
class Learner:
    """All that training changes, and how a step computes."""

    model: Network
    average: AveragedModel
    optimizer: Optimizer
    schedule: LambdaLR
    scaler: GradScaler
    forward: nn.Module  # the model as training calls it: with several processes, wrapped
    autocast: Callable[[], AbstractContextManager[Any]]
    class_weights: Tensor | None
    classes: int
    total_steps: int
    frozen_steps: int  # the first ones, in which the backbone stands still
    device: torch.device
    processes: Processes

    @property
    def backbone(self) -> tuple[str, ...]:
        """The prefixes of everything but the head."""
        return tuple(prefix for stage in self.model.stages[:-1] for prefix in stage)

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in PARTS}

    def load_state(self, state: dict[str, Any]) -> None:
        for name in PARTS:
            # A run that computed in bf16 so far has no scale for a GPU that needs one: it begins with the usual.
            if name != "scaler" or state[name]:
                getattr(self, name).load_state_dict(state[name])


def create_learner(
    config: Config, clips: Clips, classes: int, total_steps: int, device: torch.device,
    processes: Processes, pretrained: Path | None,
) -> Learner:  # fmt: skip
    """A learner at step 0, with the weights of `pretrained` if there are any."""
    optim = config.optim
    model = create_model(classes, **config.model.model_dump(exclude={"pretrained"}))
    if pretrained is not None:
        load_pretrained(model, pretrained)
    if optim.batchnorm == "sync":
        model = synchronise(model, device, processes.world)
    place(model, device)
    forward = processes.wrap(model, device)  # from here on every process has the leader's weights
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(optim.ema), use_buffers=True)
    if optim.compile:
        require_compiler(device)
        model.compile()
    groups = parameter_groups(
        model, model.stages, lr=optim.lr, backbone_lr=optim.backbone_lr, layer_decay=optim.layer_decay,
        weight_decay=optim.weight_decay,
    )  # fmt: skip
    optimizer = create_optimizer(groups, optim.name, optim.momentum)
    frozen_steps = optim.frozen_epochs * (total_steps // optim.epochs)
    autocast, scaler = precision(optim.amp, device)
    return Learner(
        model=model,
        average=average,
        optimizer=optimizer,
        schedule=LambdaLR(optimizer, rates(optimizer, total_steps, optim.warmup, frozen_steps)),
        scaler=scaler,
        forward=forward,
        autocast=autocast,
        class_weights=class_weights(clips.labels, classes).to(device) if optim.class_weights else None,
        classes=classes,
        total_steps=total_steps,
        frozen_steps=frozen_steps,
        device=device,
        processes=processes,
    )


def require_compiler(device: torch.device) -> None:
    """Raise UserError if there is no compiler for what torch.compile writes: C for a GPU, C++ for a CPU."""
    variable, known = ("CC", ("gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++", "clang++"))
    if not any(shutil.which(name) for name in (os.environ.get(variable), *known) if name):
        raise UserError(
            f"optim.compile=true needs {' or '.join(known)}, and neither is here (our image leaves compilers out); "
            "install one, or say optim.compile=false"
        )


def make_deterministic(seed: int, device: str, rank: int) -> torch.device:
    """Seed every generator and ask torch for repeatable kernels. Raises UserError if the GPU asked for is absent.

    Processes of one training begin with other seeds, for they must not drop out the same features of their videos;
    the leader's first weights are everyone's.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device=cuda, but torch sees no GPU here (driver or container?); to train on the CPU say device=cpu"
        )
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed + rank)
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device(device, torch.cuda.current_device()) if device == "cuda" else torch.device(device)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Where this process's generators stand; numpy's and Python's are not drawn from in training."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def set_random_state(states: list[dict[str, Tensor]], rank: int, device: torch.device) -> None:
    """Go on drawing where `random_state` was taken; a process that did not exist then draws as it was seeded."""
    if rank < len(states):
        torch.set_rng_state(states[rank]["cpu"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(states[rank]["cuda"], device)
