"""Two videos in one: mixup (arXiv:1710.09412) and cutmix (arXiv:1905.04899) of whole clips, before pathways part.

A video is mixed with the one before it in the batch, clip by clip; what was drawn holds for all their clips and frames.
"""

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


def mix(
    inputs: Tensor, targets: Tensor, *, mixup: float, cutmix: float, probability: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Mixed `(videos * clips, 3, T, H, W)` float inputs, channels innermost, and `(videos, classes)` targets.

    `mixup` and `cutmix` are the alphas of their Beta(alpha, alpha), 0 leaves one out; with both, each has half of the
    batches. Batches are mixed with `probability`, all draws come from `seed`, and neither argument is changed.
    """
    choices = [method(alpha=alpha) for method, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if alpha]
    if not choices or len(targets) < 2:
        return inputs, targets
    # torchvision draws from torch's global generator: lend it a seeded one, and leave that of the GPU alone.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if torch.rand(()) >= probability:
            return inputs, targets
        # The frames of all clips of a video as one film, the same memory seen otherwise.
        films = inputs.unflatten(0, (len(targets), -1)).transpose(2, 3).flatten(1, 2)
        films, targets = v2.RandomChoice(choices)(tv_tensors.Video(films), targets)
    clips = films.as_subclass(Tensor).unflatten(1, (-1, inputs.shape[2])).flatten(0, 1).transpose(1, 2)
    return clips.contiguous(memory_format=torch.channels_last_3d), targets


def mixing_active(step: int, total: int, until: float) -> bool:
    """Whether step 0 <= `step` < `total` mixes: the last `1 - until` of the training sees videos as they are."""
    return step < until * total
