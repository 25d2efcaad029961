"""One number that makes a model as sure as it may be, found on actors that neither trained nor judge it.

Temperature scaling (Guo et al., arXiv:1706.04599), on the mean over a video's views: the order of the classes stays,
so that no score but those of confidence can change.
"""

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

COLDEST, HOTTEST = 0.05, 20.0
SMALLEST = 1e-12


def tempered(probabilities: Floats, temperature: float) -> Floats:
    """`(N, classes)` probabilities to the power of 1 / temperature, summing to 1: above 1 less sure, below 1 more."""
    logits = np.log(np.clip(probabilities, SMALLEST, None)) / temperature
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def fit_temperature(probabilities: Floats, labels: Integers) -> float:
    """The temperature that gives `(N,)` true classes the largest likelihood, between COLDEST and HOTTEST.

    As in Platt's scaling, one more video is imagined to be misread: N videos that are all read right must not make the
    model certain of everything.
    """
    logits = torch.as_tensor(probabilities, dtype=torch.float64).clamp_min(SMALLEST).log()
    truth = torch.as_tensor(labels, dtype=torch.int64)
    doubt = 1 / (len(truth) + 2)
    # In 1 / temperature the loss is convex; its logarithm keeps it positive.
    log_inverse = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_inverse], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits * log_inverse.exp(), truth, label_smoothing=doubt)
        loss.backward()
        return loss

    optimizer.step(closure)
    return float(np.clip(np.exp(-log_inverse.item()), COLDEST, HOTTEST))
