"""What a trained network does on videos of actors it has never seen: one prediction per video, views averaged.

One pass over the test videos gives every score. Two others look again and choose nothing: one view each, for what the
average over views brings and costs; and, if asked for, disturbed pictures. Validation actors set the temperature.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from manifests.files import replacing, sha256_of, write_json
from trainer.attention import watch
from trainer.config import Config
from trainer.dataset import Clips, TestViews
from trainer.figures import describe, gain_figures, robustness_figures, temperature_figures, view_figures
from trainer.humans import human_figures
from trainer.inference import load_model, predict_views, test_views
from trainer.metrics import calibration, summarize
from trainer.processes import ALONE, Processes, stop_together
from trainer.record import EVALUATION_FORMAT
from trainer.robustness import DisturbedViews
from trainer.run import Run, read_json
from trainer.temperature import tempered
from trainer.wanted import ask_one_by_one, want_for_testing

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Seen:
    """What the network answered: probabilities `(videos, views, classes)`, and the seconds that looking took."""

    tuning: Floats  # validation videos, all views
    per_view: Floats  # test videos, all views
    seconds: float
    one_view: Floats  # test videos, the middle view alone
    seconds_one: float
    disturbed: Floats | None  # test videos, the middle view in each disturbance; None if it was not asked for
    seconds_disturbed: float


def evaluate(
    run: Run, config: Config, splits: dict[str, Clips], rows: pd.DataFrame, skipped: list[dict[str, str]],
    processes: Processes = ALONE,
) -> dict[str, Any]:  # fmt: skip
    """Judge the run's weights; write evaluation.json and its companions; return what evaluation.json holds.

    `splits` has the clips of `val`, which set the temperature, and of `test`; `rows` are the manifest's rows of the
    test clips, in their order. Does nothing if these weights were judged so before; disturbances that were not asked
    for then are no reason to do it again, those that are now asked for and were not then are. Several processes look
    together; the leader judges and writes.
    """
    weights, test = run.path / "model.safetensors", splits["test"]
    # The others learn of the weights when they are on disk.
    digest = processes.leader_says(sha256_of(weights) if processes.leader else None)
    asked = {
        "format": EVALUATION_FORMAT,
        "split": "test",
        "views": {"clips": config.evaluation.clips, "flip": config.evaluation.flip},
        "weights_sha256": digest,
        "manifest_sha256": run.facts["manifest"]["sha256"],
    }
    known = read_json(run.path / "evaluation.json")
    same = known is not None and all(known.get(key) == value for key, value in asked.items())
    enough = same and (known["robustness"] or not config.evaluation.robustness)
    if known := processes.leader_says(known if enough else None):
        return known
    processes.hand_out(weights)
    model, metadata = load_model(weights, config.device)
    seen = look_at_all(run, config, model, metadata, splits, processes)
    if not processes.leader:
        return dict(processes.leader_says(None))
    labels = tuple(metadata["labels"])
    result = {**asked, **judge(run, config, seen, splits, rows, labels), "skipped": skipped}
    write_predictions(run, seen.per_view.mean(axis=1), test.labels, rows, labels)
    ask_one_by_one(run, test.store)
    attention = watch(run.path, model, metadata, test, config.evaluation.clips, config.device)
    write_json(run.path / "attention.json", attention)
    # Last, for it vouches for the others.
    write_json(run.path / "evaluation.json", result)
    return dict(processes.leader_says(result))


def look_at_all(
    run: Run, config: Config, model: nn.Module, metadata: dict[str, Any], splits: dict[str, Clips], processes: Processes
) -> Seen:  # fmt: skip
    """Every pass over the videos that judging takes."""
    val, test = splits["val"], splits["test"]
    clips, flip = config.evaluation.clips, config.evaluation.flip

    def see(dataset: TestViews | DisturbedViews, title: str, **how: Any) -> tuple[Floats, float]:
        return look(run, config, model, metadata, dataset, title, processes=processes, **how)

    tuning, _ = see(test_views(val, metadata, clips), "validation videos", flip=flip)
    per_view, seconds = see(test_views(test, metadata, clips), "test videos", flip=flip)
    one_view, seconds_one = per_view, seconds
    if per_view.shape[1] > 1:
        one_view, seconds_one = see(test_views(test, metadata, 1), "test videos, one view", flip=False)
    disturbed, seconds_disturbed = None, 0.0
    if config.evaluation.robustness:
        # Video by video: in all its disturbances each has many views.
        views = DisturbedViews(test_views(test, metadata, 1))
        disturbed, seconds_disturbed = see(views, "test videos, disturbed", flip=False, loaded=1)
    return Seen(tuning, per_view, seconds, one_view, seconds_one, disturbed, seconds_disturbed)


def look(
    run: Run, config: Config, model: nn.Module, metadata: dict[str, Any], views: TestViews | DisturbedViews,
    title: str, *, flip: bool, loaded: int | None = None, processes: Processes = ALONE,
) -> tuple[Floats, float]:  # fmt: skip
    """(probabilities `(videos, views, classes)` of one pass, the seconds it took), reported as the run's progress."""
    batch, workers, videos = config.data.batch, config.data.workers, len(views)

    def each(done: int) -> None:
        run.report("evaluating", evaluated=done, to_evaluate=videos)
        want_for_testing(run, views.clips, done, batch * processes.world, workers)
        stop_together(run, processes)

    started = time.monotonic()
    logits = predict_views(
        model, views, torch.device(config.device), arch=metadata["model"]["arch"], batch=batch, workers=workers,
        flip=flip, loaded=loaded, each=each, title=title, processes=processes,
    )  # fmt: skip
    return logits.double().softmax(-1).numpy(), time.monotonic() - started


def judge(
    run: Run, config: Config, seen: Seen, splits: dict[str, Clips], rows: pd.DataFrame, labels: tuple[str, ...]
) -> dict[str, Any]:  # fmt: skip
    """The figures of evaluation.json: what these answers are worth."""
    facts, truth, actors = run.facts["manifest"], splits["test"].labels, rows["actor"].to_numpy()
    probabilities, one_view = seen.per_view.mean(axis=1), seen.one_view[:, 0]
    temperature = temperature_figures(seen.tuning.mean(axis=1), splits["val"].labels)
    robustness = None
    if seen.disturbed is not None:
        figures = robustness_figures(one_view, seen.disturbed, truth, actors, config.seed)
        robustness = {**figures, "seconds": round(seen.seconds_disturbed, 2)}
    return {
        "leaky": facts["leaky"],
        "labels": list(labels),
        "clips": len(truth),
        "actors": len(set(actors)),
        **describe(probabilities, truth, rows, labels, config.seed),
        "temperature": {**temperature, "actors": facts["counts"]["val"]["actors"]},
        "calibration_after": calibration(tempered(probabilities, temperature["value"]), truth),
        "one_view": summarize(one_view, truth),
        "per_view": view_figures(seen.per_view, truth),
        "tta": gain_figures(
            one_view, seen.per_view, truth, actors, config.seed, clips=config.evaluation.clips,
            flip=config.evaluation.flip, seconds_one=seen.seconds_one, seconds_all=seen.seconds,
        ),
        "robustness": robustness,
        "human": human_figures(rows, labels, synthetic=facts["synthetic"]),
        "seconds": round(seen.seconds, 2),
        "clips_per_second": round(seen.per_view.shape[0] * seen.per_view.shape[1] / seen.seconds, 2),
    }  # fmt: skip


def write_predictions(
    run: Run,
    probabilities: NDArray[np.floating],
    truth: NDArray[np.integer],
    rows: pd.DataFrame,
    labels: tuple[str, ...],
) -> None:
    table = rows[["clip_id", "dataset", "actor", "sex", "intensity"]].copy()
    table["label"] = [labels[index] for index in truth]
    table["predicted"] = [labels[index] for index in probabilities.argmax(axis=1)]
    table["confidence"] = probabilities.max(axis=1)
    for index, label in enumerate(labels):
        table[f"p_{label}"] = probabilities[:, index]
    with replacing(run.path / "predictions.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")


def result_line(evaluation: dict[str, Any]) -> str:
    """One line of results: what is measured, on whom, and how sure it is."""
    overall = evaluation["overall"]
    low, high = overall["uar_interval"]
    people = "actors, SOME OF THEM SEEN IN TRAINING (leaky split)" if evaluation["leaky"] else "unseen actors"
    return (
        f"UAR {overall['uar']:.1%} (95 % interval {low:.1%} to {high:.1%}), WAR {overall['war']:.1%}, macro-F1 "
        f"{overall['macro_f1']:.1%} per video, on {evaluation['clips']} videos of {evaluation['actors']} {people}"
    )
