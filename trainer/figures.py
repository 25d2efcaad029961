"""The figures of an evaluation: pure functions from probabilities per video (or view), true classes and manifest rows.

Shares are fractions; a difference of two shares (`gain`, `lost`, `gap`) is one too. Intervals are 95 %, from drawing
whole actors.
"""

import itertools
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainer.metrics import (
    actor_intervals,
    calibration,
    confusion_matrix,
    paired_interval,
    per_class,
    recall_gap,
    summarize,
)
from trainer.robustness import DISTURBANCES
from trainer.temperature import fit_temperature, tempered

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

GROUPS = ("dataset", "actor", "sex", "age", "race", "intensity")
# Where a gap is one between kinds of people or of recordings. Intensities are not: each corpus has its own, and plays
# other emotions and sentences at each.
COMPARED = ("dataset", "sex", "age", "race")
UNKNOWN = "unknown"
OLDEST_BAND = 60
# One actor cannot be drawn in other ways; a gap between groups of a few is a gap between persons.
FEWEST_FOR_INTERVAL = 2
FEWEST_FOR_GAP = 5


def describe(
    probabilities: Floats, truth: Integers, rows: pd.DataFrame, labels: tuple[str, ...], seed: int
) -> dict[str, Any]:
    """Scores, confusion, groups and calibration from `(N, classes)` probabilities per video and true classes."""
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(predicted, truth, len(labels))
    intervals = actor_intervals(predicted, truth, rows["actor"].to_numpy(), len(labels), seed)
    return {
        "overall": {**summarize(probabilities, truth), **intervals},
        "confusion": confusion.tolist(),
        "per_class": per_class(confusion, labels),
        "groups": {name: group_figures(probabilities, truth, rows, name, seed) for name in GROUPS},
        "gaps": group_gaps(probabilities, truth, rows, seed),
        "calibration": calibration(probabilities, truth),
    }


def group_of(rows: pd.DataFrame, column: str) -> NDArray[Any]:
    """The name of each row's group, `(N,)`: the column's value, for age a band of ten years, `unknown` where empty."""
    if column == "age":
        return np.array([age_band(None if pd.isna(age) else int(age)) for age in rows["age"]])
    return rows[column].replace("", UNKNOWN).to_numpy(dtype=str)


def age_band(years: int | None) -> str:
    """34 -> `30 to 39`, 71 -> `60 or older`, None -> `unknown`."""
    if years is None:
        return UNKNOWN
    decade = years // 10 * 10
    return f"{OLDEST_BAND} or older" if decade >= OLDEST_BAND else f"{decade} to {decade + 9}"


def group_figures(
    probabilities: Floats, truth: Integers, rows: pd.DataFrame, column: str, seed: int
) -> list[dict[str, Any]]:
    """Figures of each group of videos, in the order of their names; a group of one actor has no interval (None)."""
    groups, actors, classes = group_of(rows, column), rows["actor"].to_numpy(), probabilities.shape[1]
    figures = []
    for name in sorted(set(groups)):
        chosen = groups == name
        people = len(set(actors[chosen]))
        bounds: dict[str, Any] = {"war_interval": None, "uar_interval": None}
        if people >= FEWEST_FOR_INTERVAL:
            predicted = probabilities[chosen].argmax(axis=1)
            bounds = actor_intervals(predicted, truth[chosen], actors[chosen], classes, seed)
        figures.append({
            "name": str(name), "clips": int(chosen.sum()), "actors": people,
            **summarize(probabilities[chosen], truth[chosen]), **bounds,
        })  # fmt: skip
    return figures


def group_gaps(probabilities: Floats, truth: Integers, rows: pd.DataFrame, seed: int) -> dict[str, Any]:
    """The two groups of each kind that are read most unlike, by mean recall of the classes that both have.

    Groups of a few actors and the unknown are not compared; a kind with fewer than two others is left out. The interval
    knows nothing of the two having been picked from `groups` for their distance.
    """
    predicted, actors = probabilities.argmax(axis=1), rows["actor"].to_numpy()
    gaps = {}
    for column in COMPARED:
        groups = group_of(rows, column)
        names = [n for n in sorted(set(groups) - {UNKNOWN}) if len(set(actors[groups == n])) >= FEWEST_FOR_GAP]
        found: list[dict[str, Any]] = []
        for one, two in itertools.permutations(names, 2):
            if set(truth[groups == one]) & set(truth[groups == two]):
                sides = (groups == one, groups == two)
                gap, bounds = recall_gap(predicted, truth, *sides, actors, probabilities.shape[1], seed)
                found.append({"better": str(one), "worse": str(two), "gap": gap, "gap_interval": bounds})
        if found:
            gaps[column] = {**max(found, key=lambda pair: pair["gap"]), "groups": len(names)}
    return gaps


def view_figures(per_view: Floats, truth: Integers) -> dict[str, Any]:
    """Scores of single views, each counted by itself, from `(N, views, classes)`."""
    videos, views, classes = per_view.shape
    return {"views": videos * views, **summarize(per_view.reshape(-1, classes), np.repeat(truth, views))}


def gain_figures(
    one_view: Floats, per_view: Floats, truth: Integers, actors: NDArray[Any], seed: int,
    *, clips: int, flip: bool, seconds_one: float, seconds_all: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """What more views of a video bring, and cost: one, all clips as they are, and all of them mirrored too.

    `one_view` `(N, classes)` and `per_view` `(N, views, classes)` were made by two passes of so many seconds; how long
    the clips without their mirror images would take was not measured (None).
    """
    ways: list[tuple[int, bool, Floats, float | None]] = [(1, False, one_view, seconds_one)]
    if flip and clips > 1:
        ways.append((clips, False, per_view[:, ::2].mean(axis=1), None))
    if clips > 1 or flip:
        ways.append((clips, flip, per_view.mean(axis=1), seconds_all))
    videos, classes = one_view.shape
    return [
        {
            "clips": count, "flip": mirrored, "views": count * (2 if mirrored else 1),
            **(scores := summarize(probabilities, truth)),
            "gain": scores["uar"] - summarize(one_view, truth)["uar"],
            "gain_interval": paired_interval(
                probabilities.argmax(axis=1), one_view.argmax(axis=1), truth, actors, classes, seed
            ),
            "seconds_per_video": None if seconds is None else seconds / videos,
        }
        for count, mirrored, probabilities, seconds in ways
    ]  # fmt: skip


def robustness_figures(
    clean: Floats, disturbed: Floats, truth: Integers, actors: NDArray[Any], seed: int
) -> dict[str, Any]:
    """What each disturbance costs: `(N, classes)` probabilities of one clean view, `(N, disturbances, classes)`."""
    undisturbed = summarize(clean, truth)
    variants = []
    for number, disturbance in enumerate(DISTURBANCES):
        probabilities = disturbed[:, number]
        scores = summarize(probabilities, truth)
        bounds = paired_interval(
            clean.argmax(axis=1), probabilities.argmax(axis=1), truth, actors, clean.shape[1], seed
        )
        variants.append({
            "name": disturbance.name, "severity": disturbance.severity, **scores,
            "lost": undisturbed["uar"] - scores["uar"], "lost_interval": bounds,
        })  # fmt: skip
    return {"clean": undisturbed, "variants": variants}


def temperature_figures(probabilities: Floats, truth: Integers) -> dict[str, Any]:
    """The temperature that fits validation videos `(N, classes)` best, and what it does to their likelihood."""
    value = fit_temperature(probabilities, truth)
    before, after = (calibration(shares, truth)["nll"] for shares in (probabilities, tempered(probabilities, value)))
    return {"value": value, "split": "val", "clips": len(truth), "nll_before": before, "nll_after": after}
