"""Every number that the project prints about accuracy, as pure functions of probabilities and labels.

WAR is the share of videos named rightly; UAR the mean of that share over
classes, which a majority class cannot flatter.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# torchmetrics is imported where it is used: it takes two seconds, which no first step of a training should wait for.
CALIBRATION_BINS = 15
BOOTSTRAP_DRAWS = 2000

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


def confusion_matrix(predicted: Integers, labels: Integers, classes: int) -> Integers:
    """Counts `(classes, classes)`: rows are the true classes, columns the predicted ones."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

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
    from torchmetrics.functional.classification import multiclass_f1_score

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
    _, actor_of = np.unique(actors, return_inverse=True)
    war, uar = accuracies(redrawn(per_actor(predicted, labels, actor_of, classes), seed))
    return {"war_interval": interval95(war), "uar_interval": interval95(uar)}


def per_actor(predicted: Integers, labels: Integers, actor_of: Integers, classes: int) -> Integers:
    """A confusion matrix for each actor, `(actors, classes, classes)`; `actor_of` `(N,)` counts actors from 0."""
    counts = np.zeros((int(actor_of.max()) + 1, classes, classes), np.int64)
    np.add.at(counts, (actor_of, labels, predicted), 1)
    return counts


def redrawn(confusions: Integers, seed: int) -> Integers:
    """Confusion matrices of as many actors drawn with replacement, `(draws, classes, classes)`.

    The same seed draws the same actors, so that figures of the same people can be held against each other.
    """
    actors = len(confusions)
    draws = np.random.default_rng(seed).integers(actors, size=(BOOTSTRAP_DRAWS, actors))
    times = np.zeros((BOOTSTRAP_DRAWS, actors), np.int64)
    np.add.at(times, (np.arange(BOOTSTRAP_DRAWS)[:, None], draws), 1)
    return np.tensordot(times, confusions, axes=1)


def interval95(values: Floats) -> list[float]:
    """The middle 95 % of the values."""
    return [float(q) for q in np.quantile(values, (0.025, 0.975))]


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
    from torchmetrics.functional.classification import multiclass_calibration_error

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
    _, actor_of = np.unique(actors, return_inverse=True)
    one, two = (redrawn(per_actor(predicted, labels, actor_of, classes), seed) for predicted in (first, second))
    return interval95(accuracies(one)[1] - accuracies(two)[1])


def recall_gap(
    predicted: Integers, labels: Integers, first: NDArray[np.bool_], second: NDArray[np.bool_], actors: NDArray[Any],
    classes: int, seed: int,
) -> tuple[float, list[float]]:  # fmt: skip
    """(gap, 95 % interval): how much better the videos `first` are read than the videos `second`, both `(N,)` masks.

    The mean over the classes that both have of the difference in recall: a class that one group lacks must not pass for
    a difference between the groups. Actors are drawn with replacement.
    """
    _, actor_of = np.unique(actors, return_inverse=True)
    people = int(actor_of.max()) + 1
    sides = [
        np.pad(counts, ((0, people - len(counts)), (0, 0), (0, 0)))
        for counts in (per_actor(predicted[side], labels[side], actor_of[side], classes) for side in (first, second))
    ]

    def gap(one: Integers, two: Integers) -> Floats:
        difference = recalls(one) - recalls(two)
        shared = np.isfinite(difference)
        # Draws in which the groups share no class say nothing.
        some = shared.any(axis=-1)
        return np.where(shared, difference, 0).sum(axis=-1)[some] / shared.sum(axis=-1)[some]

    draws = gap(*(redrawn(side, seed) for side in sides))
    return float(gap(*(side.sum(axis=0, keepdims=True) for side in sides))[0]), interval95(draws)
