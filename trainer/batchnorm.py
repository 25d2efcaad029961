"""BatchNorm when batches are small: statistics that are held, shared between processes, or measured anew."""

import warnings
from collections.abc import Iterable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from manifests.errors import UserError

with warnings.catch_warnings():
    # Importing fvcore scripts a function of its own, at which torch warns; nobody here can act on that.
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn.precise_bn import update_bn_stats

Model = TypeVar("Model", bound=nn.Module)


def train_mode(model: nn.Module, held: tuple[str, ...] = ()) -> None:
    """`model.train()`, but BatchNorm layers whose names begin with one of `held` keep and use their statistics.

    `("",)` holds them all: the policy for batches too small to measure by; the prefixes of a frozen backbone keep it
    from drifting. Gains and biases go on learning. Call it before each step, in place of `model.train()`.
    """
    model.train()
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and name.startswith(held):
            module.eval()


def synchronise(model: Model, device: torch.device, processes: int) -> Model:
    """The model with BatchNorm over the batches of all processes; as it is where there is one process.

    Raises UserError on CPUs, for which torch has no such BatchNorm.
    """
    if processes == 1:
        return model
    if device.type != "cuda":
        raise UserError(
            f"optim.batchnorm=sync needs GPUs, and these {processes} processes run on {device.type}; "
            "say optim.batchnorm=precise, or train with one process"
        )
    return cast(Model, nn.SyncBatchNorm.convert_sync_batchnorm(model))


def precise_statistics(model: nn.Module, batches: Iterable[Tensor], count: int) -> None:
    """Replace BatchNorm's running averages by the mean and variance over `count` batches `(B, 3, T, H, W)`.

    Running averages trail behind weights that move, and averaged weights never had any of their own ("Rethinking Batch
    in BatchNorm", arXiv:2105.07576). Nothing else in the model changes; it is left in eval mode.
    """
    model.eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    update_bn_stats(model, batches, count)
    model.eval()
