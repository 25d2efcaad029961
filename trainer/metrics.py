"""Every number that the project prints about accuracy, as pure functions of probabilities and labels.

WAR is the share of videos named rightly; UAR the mean of that share over
classes, which a majority class cannot flatter.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
)

CALIBRATION_BINS = 15
BOOTSTRAP_DRAWS = 2000

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


def confusion_matrix(predicted: Integers, labels: Integers, classes: int) -> Integers:
    """Counts `(classes, classes)`: rows are the true classes, columns the predicted ones."""
    counts = multiclass_confusion_matrix(torch.as_tensor(predicted), torch.as_tensor(labels), num_classes=classes)
    return counts.numpy()


def recalls(confusion: Integers) -> Floats:
    """Recall of each class `(..., classes)`; NaN where a class has no video. Takes one confusion matrix or a stack."""
    support = confusion.sum(axis=-1)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.divide(right, support, out=np.full(support.shape, np.nan), where=support > 0)


def accuracies(confusion: Integers) -> tuple[Floats, Floats]:
    """(WAR, UAR) of one confusion matrix or of a stack; UAR averages the classes that have videos."""
    right = np.trace(confusion, axis1=-2, axis2=-1)
    return right / confusion.sum(axis=(-2, -1)), np.nanmean(recalls(confusion), axis=-1)


def summarize(probabilities: Floats, labels: Integers) -> dict[str, float]:
    """WAR, UAR and macro-F1 of `(N, classes)` probabilities against `(N,)` labels."""
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    war, uar = accuracies(confusion_matrix(predicted, labels, classes))
    f1 = multiclass_f1_score(torch.as_tensor(predicted), torch.as_tensor(labels), classes, average="macro")
    return {"war": float(war), "uar": float(uar), "macro_f1": float(f1)}


def per_class(confusion: Integers, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class; 0 where a class was never predicted, as is usual."""
    right = np.diagonal(confusion)
    support = confusion.sum(axis=1)
    called = confusion.sum(axis=0)
    precision = right / np.maximum(called, 1)
    recall = right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + called, 1)
    return [
        {"label": name, "clips": int(n), "precision": float(p), "recall": float(r), "f1": float(f)}
        for name, n, p, r, f in zip(names, support, precision, recall, f1, strict=True)
    ]


def actor_intervals(
    predicted: Integers, labels: Integers, actors: NDArray[Any], classes: int, seed: int
) -> dict[str, list[float]]:
    """95 % intervals of WAR and UAR from drawing whole actors with replacement.

    Videos of one actor are alike, so drawing videos one by one would make the interval too narrow.
    """
    names = np.unique(actors)
    per_actor = np.stack([confusion_matrix(predicted[actors == a], labels[actors == a], classes) for a in names])
    draws = np.random.default_rng(seed).integers(len(names), size=(BOOTSTRAP_DRAWS, len(names)))
    war, uar = accuracies(per_actor[draws].sum(axis=1))
    return {
        "war_interval": [float(q) for q in np.quantile(war, (0.025, 0.975))],
        "uar_interval": [float(q) for q in np.quantile(uar, (0.025, 0.975))],
    }


def calibration(probabilities: Floats, labels: Integers) -> dict[str, Any]:
    """Expected calibration error (15 equal bins), negative log likelihood, Brier score, and the bins for a plot."""
    classes = probabilities.shape[1]
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    of_truth = probabilities[np.arange(len(labels)), labels]
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bin_of = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, CALIBRATION_BINS - 1)
    bins = [
        {
            "low": float(edges[b]),
            "high": float(edges[b + 1]),
            "confidence": float(confidence[bin_of == b].mean()),
            "accuracy": float(right[bin_of == b].mean()),
            "clips": int((bin_of == b).sum()),
        }
        for b in np.unique(bin_of)
    ]
    ece = multiclass_calibration_error(
        torch.as_tensor(probabilities), torch.as_tensor(labels), classes, n_bins=CALIBRATION_BINS, norm="l1"
    )
    return {
        "ece": float(ece),
        "nll": float(-np.log(np.clip(of_truth, 1e-12, None)).mean()),
        "brier": float(((probabilities - np.eye(classes)[labels]) ** 2).sum(axis=1).mean()),
        "bins": bins,
    }


def points_above(uar: float, baseline: float) -> float:
    """How many percentage points `uar` lies above `baseline`, both being shares."""
    return (uar - baseline) * 100


def paired_interval(
    first: Integers, second: Integers, labels: Integers, actors: NDArray[Any], classes: int, seed: int
) -> list[float]:
    """95 % interval of UAR(first) - UAR(second) on the same videos, drawing whole actors with replacement."""
    names = np.unique(actors)

    def stack(predicted: Integers) -> Integers:
        return np.stack([confusion_matrix(predicted[actors == a], labels[actors == a], classes) for a in names])

    draws = np.random.default_rng(seed).integers(len(names), size=(BOOTSTRAP_DRAWS, len(names)))
    difference = accuracies(stack(first)[draws].sum(axis=1))[1] - accuracies(stack(second)[draws].sum(axis=1))[1]
    return [float(q) for q in np.quantile(difference, (0.025, 0.975))]
