"""Finished runs side by side, judged on the same videos: who reads better, by how much, and how sure that is.

python -m trainer compare runs/r3d18 runs/slowfast

Runs that differ in nothing but their seed are one contender: its figures are means over them. A cross-validation's
folder counts as a run, whose predictions are those of all its folds. Differences are paired: whole actors are drawn
with replacement, the same ones for both sides.
"""

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from manifests.errors import UserError
from trainer import wording
from trainer.metrics import accuracies, interval95, per_actor, recalls, redrawn, summarize
from trainer.run import flatten, read_json, read_metrics
from trainer.traits import by_actor, confidence, confusion, disturbances, furthest_apart, gain

SEED = 0  # of drawing actors
# What run.json says that can make two runs differ; when and where they were made is not among it.
FACTS = ("config", "labels", "manifest.sha256", "clips", "git_revision", "hardware.device", "versions.torch")


@dataclass(frozen=True)
class JudgedRun:
    """A tested run directory, or a pooled cross-validation. `predictions` is in order of clip_id."""

    path: Path
    facts: Mapping[str, Any]
    views: Mapping[str, Any]
    predictions: pd.DataFrame
    seconds: float | None
    clips_per_second: float | None
    robustness: Mapping[str, Any] | None = None
    tta: Sequence[Mapping[str, Any]] = ()
    validations: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Contender:
    """Runs of one recipe, a seed each."""

    name: str
    runs: Sequence[JudgedRun]


def compare(paths: Sequence[Path]) -> dict[str, Any]:
    """All that is to say about these run directories, as plain values; shares are of 1.

    Raises UserError unless there are two or more, all tested, on the same videos and classes.
    """
    if len(paths) < 2:
        raise UserError("one run cannot be compared; name two or more: python -m trainer compare runs/a runs/b")
    runs = [read_run(path) for path in paths]
    for run in runs[1:]:
        refuse_unlike(runs[0], run)
    contenders = group(runs)
    frame, labels = runs[0].predictions, tuple(runs[0].facts["labels"])
    corpora = sorted(frame["dataset"].unique())
    parts: dict[str | None, NDArray[np.bool_]] = {None: np.ones(len(frame), dtype=bool)}
    if len(corpora) > 1:
        parts |= {name: (frame["dataset"] == name).to_numpy() for name in corpora}
    groups = {
        kind: {str(name): (frame[kind] == name).to_numpy() for name in sorted(frame[kind].unique())}
        for kind in ("sex", "intensity")
        if frame[kind].nunique() > 1
    }
    return {
        "labels": list(labels),
        "clips": len(frame),
        "actors": int(frame["actor"].nunique()),
        "synthetic": runs[0].facts["manifest"]["synthetic"],
        "leaky": any(run.facts["manifest"]["leaky"] for run in runs),
        "contenders": [describe(contender, labels, parts, groups) for contender in contenders],
        "pairs": [
            difference(one, other, labels, corpus, chosen)
            for one, other in itertools.combinations(contenders, 2)
            for corpus, chosen in parts.items()
        ],
        "apart": furthest_apart([[run.predictions for run in c.runs] for c in contenders], labels),
        "settings": differing_settings(contenders),
    }


def read_run(path: Path) -> JudgedRun:
    """Read what `compare` needs of a run directory or of a cross-validation. Raises UserError if it is untested."""
    pooled = read_json(path / "crossval.json")
    facts = pooled or read_json(path / "run.json")
    if facts is None:
        raise UserError(f"{path} is no run directory; train first: python -m trainer fit --help")
    evaluation, predictions = pooled or read_json(path / "evaluation.json"), path / "predictions.csv"
    if evaluation is None or not predictions.is_file():
        raise UserError(f"{path} has not been tested yet; finish its training, or: python -m trainer evaluate --help")
    lines = [] if pooled else read_metrics(path)
    speeds = [line["clips_per_second"] for line in lines if line["kind"] == "step"]
    took = pooled or read_json(path / "outcome.json") or {"seconds": None}
    return JudgedRun(
        path,
        facts,
        evaluation["views"],
        read_predictions(predictions),
        took["seconds"],
        pooled["clips_per_second"] if pooled else statistics.median(speeds) if speeds else None,
        # Neither is known of a cross-validation.
        evaluation.get("robustness"),
        evaluation.get("tta", ()),
        [line for line in lines if line["kind"] == "evaluation" and line["split"] == "val"],
    )


def read_predictions(path: Path) -> pd.DataFrame:
    """predictions.csv in order of clip_id, which is the index."""
    text = dict.fromkeys(("clip_id", "dataset", "actor", "label", "predicted"), "str")
    frame = pd.read_csv(path, dtype=text, keep_default_na=False)
    return frame.set_index("clip_id").sort_index()


def refuse_unlike(one: JudgedRun, other: JudgedRun) -> None:
    """Raise UserError with the first thing that keeps two runs from being judged side by side."""
    advice = "compare runs of one manifest and one set of prepared clips"
    if one.facts["labels"] != other.facts["labels"]:
        named = (f"{run.path} knows the classes {', '.join(run.facts['labels'])}" for run in (one, other))
        raise UserError(f"{' and '.join(named)}; {advice}")
    tested, also = one.predictions.index, other.predictions.index
    for here, there, first, second in ((tested, also, one, other), (also, tested, other, one)):
        only = here.difference(there)
        if len(only):
            raise UserError(
                f"{first.path} was tested on {len(only)} videos that {second.path} was not tested on, the first is "
                f"{only[0]}; {advice}"
            )
    unlike = tested[(one.predictions["label"] != other.predictions["label"]).to_numpy()]
    if len(unlike):
        said = [run.predictions["label"][unlike[0]] for run in (one, other)]
        raise UserError(f"{unlike[0]} is {said[0]} in {one.path} and {said[1]} in {other.path}; {advice}")


def group(runs: Sequence[JudgedRun]) -> list[Contender]:
    """Runs that are alike but for the seed as one contender, in the order given. Raises UserError for a double."""
    alike: dict[str, list[JudgedRun]] = {}
    for run in runs:
        recipe = {
            "config": {key: value for key, value in run.facts["config"].items() if key != "seed"},
            "manifest": run.facts["manifest"]["sha256"],
            "clips": run.facts["clips"],
            "views": run.views,
        }
        members = alike.setdefault(json.dumps(recipe, sort_keys=True), [])
        for member in members:
            if member.facts["config"]["seed"] == run.facts["config"]["seed"]:
                raise UserError(f"{member.path} and {run.path} are one and the same run; name each once")
        members.append(run)
    models = [wording.model(members[0].facts["config"]["model"]) for members in alike.values()]
    return [
        Contender(model if models.count(model) == 1 else f"{model} ({members[0].path.name})", members)
        for model, members in zip(models, alike.values(), strict=True)
    ]


def describe(
    contender: Contender,
    labels: tuple[str, ...],
    parts: Mapping[str | None, NDArray[np.bool_]],
    groups: Mapping[str, Mapping[str, NDArray[np.bool_]]],
) -> dict[str, Any]:
    """The contender's figures: means over its runs, intervals over actors, and the same for each corpus and group."""
    first, frames = contender.runs[0], [run.predictions for run in contender.runs]
    by_run = [recalls(counts(frame, labels).sum(axis=0)) for frame in frames]
    return {
        "name": contender.name,
        "runs": [str(run.path) for run in contender.runs],
        "seeds": [run.facts["config"]["seed"] for run in contender.runs],
        "parameters": first.facts["model"]["parameters"],
        "clips_per_second": mean_known([run.clips_per_second for run in contender.runs]),
        "seconds": mean_known([run.seconds for run in contender.runs]),
        **figures(contender, labels, parts[None]),
        "recalls": dict(zip(labels, map(float, np.mean(by_run, axis=0)), strict=True)),
        "corpora": {str(name): figures(contender, labels, chosen) for name, chosen in parts.items() if name},
        "groups": {
            kind: {name: figures(contender, labels, chosen) for name, chosen in members.items()}
            for kind, members in groups.items()
        },
        "actors_war": by_actor(frames),
        "confusion": confusion(frames, labels),
        "calibration": confidence(frames, labels),
        "robustness": disturbances([run.robustness for run in contender.runs]),
        "gain": gain([run.tta for run in contender.runs]),
        "validation": [[[line["step"], line["uar"]] for line in run.validations] for run in contender.runs],
        "commands": [run.facts["command"] for run in contender.runs if "command" in run.facts],
        "git_revision": first.facts["git_revision"],
        "manifest_sha256": first.facts["manifest"]["sha256"],
    }


def figures(contender: Contender, labels: tuple[str, ...], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """WAR, UAR and macro-F1 of the chosen videos: mean and SD over the runs (None for one), 95 % intervals."""
    frames = [run.predictions[chosen] for run in contender.runs]
    scores = [summarize(np.eye(len(labels))[codes(f["predicted"], labels)], codes(f["label"], labels)) for f in frames]
    drawn = draws(contender, labels, chosen)
    told: dict[str, Any] = {"clips": len(frames[0]), "actors": int(frames[0]["actor"].nunique())}
    for name in ("war", "uar", "macro_f1"):
        told[name] = statistics.fmean(score[name] for score in scores)
        told[f"{name}_sd"] = deviation([score[name] for score in scores])
    return {**told, "war_interval": interval95(drawn[0]), "uar_interval": interval95(drawn[1])}


def difference(
    one: Contender, other: Contender, labels: tuple[str, ...], corpus: str | None, chosen: NDArray[np.bool_]
) -> dict[str, Any]:
    """UAR of `one` minus that of `other` on the chosen videos, its 95 % interval, and how many draws have `one` ahead.

    A draw in which both are alike counts half, so that two equal models are ahead of each other in 50 %.
    """
    gaps = draws(one, labels, chosen)[1] - draws(other, labels, chosen)[1]
    scores = [figures(side, labels, chosen)["uar"] for side in (one, other)]
    return {
        "first": one.name,
        "second": other.name,
        "corpus": corpus,
        "uar": scores[0] - scores[1],
        "uar_interval": interval95(gaps),
        "ahead": float((gaps > 0).mean() + (gaps == 0).mean() / 2),
    }


def draws(
    contender: Contender, labels: tuple[str, ...], chosen: NDArray[np.bool_]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """(WAR, UAR) in each draw of actors, `(draws,)`, the mean over the contender's runs; the same actors for all."""
    scores = [accuracies(redrawn(counts(run.predictions[chosen], labels), SEED)) for run in contender.runs]
    war, uar = np.mean(scores, axis=0)
    return war, uar


def counts(predictions: pd.DataFrame, labels: tuple[str, ...]) -> NDArray[np.integer]:
    """A confusion matrix for each actor, in order of their names."""
    actor_of = pd.factorize(predictions["actor"], sort=True)[0]
    predicted, truth = (codes(predictions[column], labels) for column in ("predicted", "label"))
    return per_actor(predicted, truth, actor_of, len(labels))


def codes(names: pd.Series, labels: tuple[str, ...]) -> NDArray[np.integer]:
    """Class numbers `(N,)` of class names."""
    return pd.Categorical(names, categories=list(labels)).codes.astype(np.int64)


def differing_settings(contenders: Sequence[Contender]) -> list[dict[str, Any]]:
    """Each setting, input or surrounding in which contenders differ, and its values: one for each contender.

    Seeds that each contender ran alike are no difference between them.
    """
    known = [[facts_of(run) for run in contender.runs] for contender in contenders]
    keys = dict.fromkeys(key for runs in known for facts in runs for key in facts)
    told = []
    for key in keys:
        values = [list(dict.fromkeys(facts.get(key, "") for facts in runs)) for runs in known]
        if any(sorted(value) != sorted(values[0]) for value in values):
            told.append({"setting": key, "values": [", ".join(value) for value in values]})
    return told


def facts_of(run: JudgedRun) -> dict[str, str]:
    """Dotted names and JSON values of what makes a run what it is."""
    told = flatten({**run.facts, "views": run.views})
    told = {key: value for key, value in told.items() if key.startswith((*FACTS, "views"))}
    return {key.removeprefix("config."): json.dumps(value) for key, value in told.items() if key != "config.device"}


def mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation between runs or folds (with n - 1), None for one."""
    return statistics.stdev(values) if len(values) > 1 else None
