"""What a video's clips are blamed for: the mean of their logits, and how far they disagree."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def video_loss(
    logits: Tensor, targets: Tensor, *, class_weights: Tensor | None, label_smoothing: float, consistency: float
) -> Tensor:
    """Loss of `(videos, clips, classes)` float32 logits, a scalar: cross-entropy + `consistency` * disagreement.

    The cross-entropy is that of the mean logits of a video's clips; testing averages probabilities. `targets` are
    classes `(videos,)` int64 or probabilities `(videos, classes)`. With classes, torch divides by the sum of the
    weights of the batch; with probabilities by the number of videos.
    """
    loss = F.cross_entropy(logits.mean(1), targets, weight=class_weights, label_smoothing=label_smoothing)
    return loss + consistency * disagreement(logits) if consistency else loss


def disagreement(logits: Tensor) -> Tensor:
    """Mean over videos of the Jensen-Shannon divergence of their clips, in nats: 0 to log(clips), 0 for one clip.

    That is the mean Kullback-Leibler divergence from each clip's distribution to their mean, as AugMix
    (arXiv:1912.02781) uses it. To detach the mean would change nothing: no gradient passes through it.
    """
    logs = logits.log_softmax(-1)
    mean = logs.logsumexp(1, keepdim=True) - np.log(logits.shape[1])
    return (logs.exp() * (logs - mean)).sum(-1).mean()


def as_probabilities(targets: Tensor, classes: int) -> Tensor:
    """`(videos, classes)` float32 from classes `(videos,)`; what is probabilities already stays as it is.

    With probabilities torch divides the loss by the number of videos; with classes by the sum of their weights, and the
    pieces of a batch, on one device or on many, would not add up to the whole.
    """
    return F.one_hot(targets, classes).float() if targets.ndim == 1 else targets


def class_weights(labels: NDArray[np.integer], classes: int) -> Tensor:
    """1 / sqrt(videos of the class), scaled to a mean of 1 over the videos, 0 for a class without any; `(classes,)`."""
    counts = np.bincount(labels, minlength=classes)
    weights = np.where(counts > 0, 1 / np.sqrt(np.maximum(counts, 1)), 0.0)
    return torch.as_tensor(weights / weights[labels].mean(), dtype=torch.float32)
