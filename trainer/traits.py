"""What a comparison tells of a model beyond its scores: pure functions from predictions of the same videos."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainer.metrics import calibration, confusion_matrix

APART = 12  # videos


def confusion(predictions: Sequence[pd.DataFrame], labels: Sequence[str]) -> list[list[int]]:
    """Counts, rows as played, of all runs together."""
    return np.sum([confusion_matrix(*codes(frame, labels), len(labels)) for frame in predictions], axis=0).tolist()


def codes(frame: pd.DataFrame, labels: Sequence[str]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """(predicted, played) as class numbers `(N,)`."""
    read, played = (pd.Categorical(frame[c], categories=list(labels)).codes for c in ("predicted", "label"))
    return read.astype(np.int64), played.astype(np.int64)


def by_actor(predictions: Sequence[pd.DataFrame]) -> dict[str, float]:
    """The share of each actor's videos that is read right, the mean over the runs."""
    stacked = pd.concat([frame.assign(right=frame["predicted"] == frame["label"]) for frame in predictions])
    # Every run was tested on the same videos.
    return {str(name): float(share) for name, share in stacked.groupby("actor")["right"].mean().items()}


def confidence(predictions: Sequence[pd.DataFrame], labels: Sequence[str]) -> dict[str, Any]:
    """Calibration over all runs' answers together."""
    stacked = pd.concat(list(predictions))
    return calibration(probabilities(stacked, labels), codes(stacked, labels)[1])


def probabilities(frame: pd.DataFrame, labels: Sequence[str]) -> NDArray[np.floating]:
    return frame[[f"p_{label}" for label in labels]].to_numpy(dtype=np.float64)


def disturbances(robustness: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """UAR of one view, clean and in each disturbance, the mean over the runs; None unless all were disturbed alike."""
    known = [figures for figures in robustness if figures]
    kinds = {tuple((v["name"], v["severity"]) for v in figures["variants"]) for figures in known}
    if len(known) < len(robustness) or len(kinds) != 1:
        return None
    means = np.mean([[v["uar"] for v in figures["variants"]] for figures in known], axis=0)
    return {
        "clean": float(np.mean([figures["clean"]["uar"] for figures in known])),
        "variants": [
            {"name": name, "severity": severity, "uar": float(uar)}
            for (name, severity), uar in zip(kinds.pop(), means, strict=True)
        ],
    }


def gain(ways: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any] | None:
    """UAR and seconds per video of one view and of the most, means over the runs; None where it was not measured."""
    if not all(ways):
        return None
    mean = {
        f"{name}_{which}": float(np.mean([way[place][name] for way in ways]))
        for which, place in (("one", 0), ("most", -1))
        for name in ("uar", "seconds_per_video")
    }
    return {"views": ways[0][-1]["views"], **mean}


def furthest_apart(contenders: Sequence[Sequence[pd.DataFrame]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The videos on which contenders differ most in the probability that they give the emotion played.

    Each with, for each contender, its likeliest emotion and that probability: of the mean over its runs.
    """
    means = np.array([np.mean([probabilities(f, labels) for f in frames], axis=0) for frames in contenders])
    first = contenders[0][0]
    played = codes(first, labels)[1]
    of_played = means[:, np.arange(len(played)), played]  # (contenders, videos)
    order = np.argsort(of_played.min(axis=0) - of_played.max(axis=0), kind="stable")[:APART]
    return [
        {
            "clip_id": str(first.index[video]),
            "actor": str(first["actor"].iloc[video]),
            "played": labels[played[video]],
            "read": [labels[index] for index in means[:, video].argmax(axis=1)],
            "probability": of_played[:, video].tolist(),
        }
        for video in order
    ]
