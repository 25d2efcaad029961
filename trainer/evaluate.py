"""What a trained network does on videos of actors it has never seen: one prediction per video, views averaged."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from manifests.files import replacing, sha256_of, write_json
from trainer.checkpoint import load_weights
from trainer.dataset import Clips, TestViews
from trainer.metrics import actor_intervals, calibration, confusion_matrix, per_class, summarize
from trainer.run import Run, read_json
from trainer.slowfast import create_model, place, to_input

GROUPS = ("dataset", "actor", "sex", "intensity")


@torch.inference_mode()
def predict_views(
    model: nn.Module,
    views: TestViews,
    device: torch.device,
    *,
    batch: int,
    workers: int,
    flip: bool,
    each: Callable[[int], None] = lambda videos: None,
) -> Tensor:
    """Logits of every view of every video, on the CPU: `(videos, views, classes)`; `flip` doubles the views.

    `each` is called with the number of videos done after every batch; it may raise to stop.
    """
    model.eval()
    loader = DataLoader(views, batch_size=batch, num_workers=workers, generator=torch.Generator())
    done: list[Tensor] = []
    for clips, _ in loader:
        inputs = to_input(clips.to(device).flatten(0, 1))
        logits = model(inputs)
        if flip:
            logits = torch.stack([logits, model(inputs.flip(-1))], dim=1).flatten(0, 1)
        done.append(logits.unflatten(0, (len(clips), -1)).float().cpu())
        each(sum(map(len, done)))
    return torch.cat(done)


def load_model(path: Any, device: str) -> tuple[nn.Module, dict[str, Any]]:
    """(network in eval mode, metadata) from a run's model.safetensors."""
    state, metadata = load_weights(path)
    model = create_model(len(metadata["labels"]), **{**metadata["model"], "pretrained": None})
    model.load_state_dict(state)
    return place(model, torch.device(device)).eval(), metadata


def evaluate(
    run: Run, test: Clips, rows: pd.DataFrame, skipped: list[dict[str, str]], *,
    views: int, flip: bool, batch: int, workers: int, device: str, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Test the run's weights once; write evaluation.json and predictions.csv; return what evaluation.json holds.

    `rows` are the manifest's rows of the test clips, in their order. Does nothing if these weights were tested so.
    """
    weights = run.path / "model.safetensors"
    asked = {
        "split": "test",
        "views": {"clips": views, "flip": flip},
        "weights_sha256": sha256_of(weights),
        "manifest_sha256": run.facts["manifest"]["sha256"],
    }
    known = read_json(run.path / "evaluation.json")
    if known is not None and all(known.get(key) == value for key, value in asked.items()):
        return known
    model, metadata = load_model(weights, device)
    data = metadata["data"]
    labels = tuple(metadata["labels"])
    dataset = TestViews(test, frames=data["frames"], span=data["span"], size=data["size"], views=views)

    def each(videos: int) -> None:
        run.report("evaluating", evaluated=videos, to_evaluate=len(test))
        run.check_stop()

    started = time.monotonic()
    logits = predict_views(model, dataset, torch.device(device), batch=batch, workers=workers, flip=flip, each=each)
    seconds = time.monotonic() - started
    per_view = logits.double().softmax(-1).numpy()
    probabilities = per_view.mean(axis=1)
    result = {
        **asked,
        "labels": list(labels),
        "clips": len(test),
        "actors": int(rows["actor"].nunique()),
        **describe(probabilities, test.labels, rows, labels, seed),
        # The middle view, unmirrored: what one look at a video gives.
        "one_view": summarize(per_view[:, views // 2 * (2 if flip else 1)], test.labels),
        "seconds": round(seconds, 2),
        "clips_per_second": round(logits.shape[0] * logits.shape[1] / seconds, 2),
        "skipped": skipped,
    }
    write_predictions(run, probabilities, test.labels, rows, labels)
    write_json(run.path / "evaluation.json", result)
    return result


def describe(
    probabilities: NDArray[np.floating],
    truth: NDArray[np.integer],
    rows: pd.DataFrame,
    labels: tuple[str, ...],
    seed: int,
) -> dict[str, Any]:
    """The figures of evaluation.json from `(N, classes)` probabilities per video, true classes and manifest rows."""
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(predicted, truth, len(labels))
    intervals = actor_intervals(predicted, truth, rows["actor"].to_numpy(), len(labels), seed)
    return {
        "overall": {**summarize(probabilities, truth), **intervals},
        "confusion": confusion.tolist(),
        "per_class": per_class(confusion, labels),
        "groups": {name: group_figures(probabilities, truth, rows, name) for name in GROUPS},
        "calibration": calibration(probabilities, truth),
    }


def group_figures(
    probabilities: NDArray[np.floating], truth: NDArray[np.integer], rows: pd.DataFrame, column: str
) -> list[dict[str, Any]]:
    """Figures of each group of videos that share a value in a manifest column, in the order of the values."""
    values = rows[column].replace("", "unknown").to_numpy()
    figures = []
    for value in sorted(set(values)):
        chosen = values == value
        figures.append(
            {
                "name": str(value),
                "clips": int(chosen.sum()),
                "actors": int(rows["actor"][chosen].nunique()),
                **summarize(probabilities[chosen], truth[chosen]),
            }
        )
    return figures


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
    return (
        f"UAR {overall['uar']:.1%} (95 % interval {low:.1%} to {high:.1%}), WAR {overall['war']:.1%}, macro-F1 "
        f"{overall['macro_f1']:.1%} per video, on {evaluation['clips']} videos of {evaluation['actors']} unseen actors"
    )
