"""What learns at which rate: parameter groups graded from input to head, the optimizer, and its schedule.

The schedule is a function of the step alone, so that a run which was stopped goes on exactly where it was.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

Stages = Sequence[tuple[str, ...]]


def parameter_groups(
    model: nn.Module, stages: Stages, *, lr: float, backbone_lr: float, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Optimizer groups: `params`, `lr`, `weight_decay`, and `backbone`, true for what may be frozen at first.

    `stages` are the prefixes of the parameters' names from the input to the head. The head and the SE gates, new and
    not pretrained, learn at `lr`; the last stage before the head at `backbone_lr`, and each one nearer to the input at
    `layer_decay` times the rate of the next, as ULMFiT (arXiv:1801.06146) and BEiT (arXiv:2106.08254) grade theirs.
    BatchNorm, biases and SE gates do not decay. Raises ValueError for a parameter that is in no stage.
    """
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    last = len(stages) - 2
    for name, parameter in model.named_parameters():
        stage = next((index for index, prefixes in enumerate(stages) if name.startswith(prefixes)), None)
        if stage is None:
            raise ValueError(f"parameter {name} is in no stage of {stages}")
        backbone = stage <= last and ".se." not in name
        rate = backbone_lr * layer_decay ** (last - stage) if backbone else lr
        decay = weight_decay if parameter.ndim > 1 and ".se." not in name else 0.0
        groups.setdefault((rate, decay, backbone), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay, "backbone": backbone}
        for (rate, decay, backbone), parameters in groups.items()
    ]


def create_optimizer(groups: list[dict[str, Any]], name: Literal["adamw", "sgd"], momentum: float) -> Optimizer:
    """AdamW, or SGD with Nesterov momentum as PySlowFast trains; one fused kernel per device instead of many small."""
    if name == "adamw":
        return AdamW(groups, fused=True)
    return SGD(groups, momentum=momentum, nesterov=momentum > 0, fused=True)


def rate_at(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate: a straight rise over the first `warmup` of the steps, then a cosine to 0."""
    rising = warmup * total
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))


def backbone_rate_at(step: int, total: int, warmup: float, frozen: int) -> float:
    """The same for the backbone: 0 for `frozen` steps, then a rise as slow as the head's was, up to the head's share.

    A rate of 0 holds weights still, bit for bit (AdamW's decay is a multiple of the rate); their gradients are computed
    all the same, since the SE gates of the first stage need most of that way back, and since torch's
    DistributedDataParallel does not allow a parameter to begin to learn later. BatchNorm statistics are held by
    `trainer.batchnorm.train_mode`.
    """
    if step < frozen:
        return 0.0
    return min(rate_at(step, total, warmup), (step - frozen + 1) / (warmup * total + 1))


def rates(optimizer: Optimizer, total: int, warmup: float, frozen: int) -> list[Callable[[int], float]]:
    """A function of the step for each group of `parameter_groups`, as LambdaLR takes them."""

    def backbone(step: int) -> float:
        return backbone_rate_at(step, total, warmup, frozen)

    def fresh(step: int) -> float:
        return rate_at(step, total, warmup)

    return [backbone if group["backbone"] else fresh for group in optimizer.param_groups]
