"""What a trained network does on videos of actors it has never seen: one prediction per video, views averaged.

One pass over the test videos gives every score. Two others look again and choose nothing: one view each, for what the
average over views brings and costs; and, if asked for, disturbed pictures. Validation actors set the temperature.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from manifests.console import track
from manifests.files import replacing, sha256_of, write_json
from trainer.attention import frames_until, grad_cam, maps_at, seconds_of_maps
from trainer.checkpoint import load_weights
from trainer.dataset import Clips, TestViews
from trainer.figures import describe, gain_figures, robustness_figures, temperature_figures, view_figures
from trainer.hardest import hardest, moments_of
from trainer.humans import human_figures
from trainer.metrics import calibration, summarize
from trainer.networks import create_model, normalisation, place, to_input
from trainer.processes import ALONE, Processes, stop_together
from trainer.record import EVALUATION_FORMAT, read_predictions
from trainer.robustness import DisturbedViews
from trainer.run import Run, read_json
from trainer.sampling import view_frames
from trainer.temperature import tempered
from trainer.wanted import ask_one_by_one, want_for_testing


@torch.inference_mode()
def predict_views(
    model: nn.Module,
    views: Dataset[tuple[Tensor, int]],
    device: torch.device,
    *,
    arch: str,
    batch: int,
    workers: int,
    flip: bool,
    loaded: int | None = None,
    each: Callable[[int], None] = lambda videos: None,
    title: str = "",
    processes: Processes = ALONE,
) -> Tensor:
    """Logits of every view of every video, on the CPU: `(videos, views, classes)`; `flip` doubles the views.

    The network sees `batch` views at once; `loaded` videos are brought at once, `batch` unless told otherwise.
    `arch` says which normalisation of pixels the network expects. `each` is called with the number of videos done, at
    first with 0, then after every batch; it may raise to stop. With a `title` people see how far it is. Several
    processes share the videos, each looked at by one; all get the logits of all, and call `each` equally often.
    """
    model.eval()
    total: int = len(views)  # type: ignore[arg-type]
    share = Subset(views, processes.share(total))
    loader = DataLoader(share, batch_size=loaded or batch, num_workers=workers, generator=torch.Generator())
    rounds = -(-total // ((loaded or batch) * processes.world))
    done: list[Tensor] = []
    videos = 0
    each(0)
    for clips, _ in track(loader, title, len(loader), "batches") if title and processes.leader else loader:
        # However many views there are, the network sees `batch` of them at once: more would need more memory, and more
        # time for each.
        for piece in clips.flatten(0, 1).split(batch):
            inputs = to_input(piece.to(device), *normalisation(arch))
            logits = model(inputs)
            if flip:
                logits = torch.stack([logits, model(inputs.flip(-1))], dim=1).flatten(0, 1)
            done.append(logits.float().cpu())
        videos += len(clips)
        each(min(videos * processes.world, total))
    for _ in range(rounds - len(loader)):  # others may have a batch more
        each(total)
    return processes.gather_shares(torch.cat(done).unflatten(0, (videos, -1)) if done else torch.empty(0), total)


def load_model(path: Any, device: str) -> tuple[nn.Module, dict[str, Any]]:
    """(network in eval mode, metadata) from a run's model.safetensors."""
    state, metadata = load_weights(path)
    settings = {key: value for key, value in metadata["model"].items() if key != "pretrained"}
    model = create_model(len(metadata["labels"]), **settings)
    model.load_state_dict(state)
    return place(model, torch.device(device)).eval(), metadata


def look(
    run: Run, model: nn.Module, metadata: dict[str, Any], views: TestViews | DisturbedViews, title: str, *,
    device: str, batch: int, workers: int, flip: bool, loaded: int | None = None,
    processes: Processes = ALONE,
) -> tuple[NDArray[np.floating], float]:  # fmt: skip
    """(probabilities `(videos, views, classes)` of one pass, the seconds it took), reported as the run's progress."""
    videos = len(views)

    def each(done: int) -> None:
        run.report("evaluating", evaluated=done, to_evaluate=videos)
        want_for_testing(run, views.clips, done, batch * processes.world, workers)
        stop_together(run, processes)

    started = time.monotonic()
    logits = predict_views(
        model, views, torch.device(device), arch=metadata["model"]["arch"], batch=batch, workers=workers, flip=flip,
        loaded=loaded, each=each, title=title, processes=processes,
    )  # fmt: skip
    return logits.double().softmax(-1).numpy(), time.monotonic() - started


def evaluate(
    run: Run, splits: dict[str, Clips], rows: pd.DataFrame, skipped: list[dict[str, str]], *,
    views: int, flip: bool, batch: int, workers: int, device: str, seed: int, robustness: bool,
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
        "views": {"clips": views, "flip": flip},
        "weights_sha256": digest,
        "manifest_sha256": run.facts["manifest"]["sha256"],
    }
    known = read_json(run.path / "evaluation.json")
    same = known is not None and all(known.get(key) == value for key, value in asked.items())
    if known := processes.leader_says(known if same and (known["robustness"] or not robustness) else None):
        return known
    processes.hand_out(weights)
    model, metadata = load_model(weights, device)
    labels, actors = tuple(metadata["labels"]), rows["actor"].to_numpy()

    def see(dataset: TestViews | DisturbedViews, title: str, **how: Any) -> tuple[NDArray[np.floating], float]:
        how = {"flip": flip, **how}
        return look(run, model, metadata, dataset, title, device=device, batch=batch, workers=workers,
                    processes=processes, **how)  # fmt: skip

    tuning, _ = see(test_views(splits["val"], metadata, views), "validation videos")
    per_view, seconds = see(test_views(test, metadata, views), "test videos")
    one_view, seconds_one = per_view, seconds
    if per_view.shape[1] > 1:
        one_view, seconds_one = see(test_views(test, metadata, 1), "test videos, one view", flip=False)
    if robustness:
        # Video by video: in all its disturbances each has many views.
        disturbed, took = see(
            DisturbedViews(test_views(test, metadata, 1)), "test videos, disturbed", loaded=1, flip=False
        )
    if not processes.leader:
        return dict(processes.leader_says(None))
    probabilities = per_view.mean(axis=1)
    temperature = temperature_figures(tuning.mean(axis=1), splits["val"].labels)
    result = {
        **asked,
        "leaky": run.facts["manifest"]["leaky"],
        "labels": list(labels),
        "clips": len(test),
        "actors": len(set(actors)),
        **describe(probabilities, test.labels, rows, labels, seed),
        "temperature": {**temperature, "actors": run.facts["manifest"]["counts"]["val"]["actors"]},
        "calibration_after": calibration(tempered(probabilities, temperature["value"]), test.labels),
        "one_view": summarize(one_view[:, 0], test.labels),
        "per_view": view_figures(per_view, test.labels),
        "tta": gain_figures(
            one_view[:, 0], per_view, test.labels, actors, seed,
            clips=views, flip=flip, seconds_one=seconds_one, seconds_all=seconds,
        ),
        "robustness": None,
        "human": human_figures(rows, labels, synthetic=run.facts["manifest"]["synthetic"]),
        "seconds": round(seconds, 2),
        "clips_per_second": round(per_view.shape[0] * per_view.shape[1] / seconds, 2),
        "skipped": skipped,
    }  # fmt: skip
    if robustness:
        figures = robustness_figures(one_view[:, 0], disturbed, test.labels, actors, seed)
        result["robustness"] = {**figures, "seconds": round(took, 2)}
    write_predictions(run, probabilities, test.labels, rows, labels)
    ask_one_by_one(run, test.store)
    write_json(run.path / "attention.json", watch(run, model, metadata, test, views, device))
    # Last, for it vouches for the others.
    write_json(run.path / "evaluation.json", result)
    return dict(processes.leader_says(result))


def test_views(clips: Clips, metadata: dict[str, Any], views: int) -> TestViews:
    """The views of these clips that a model of this metadata expects."""
    data = metadata["data"]
    return TestViews(clips, frames=data["frames"], span=data["span"], size=data["size"], views=views)


def watch(
    run: Run, model: nn.Module, metadata: dict[str, Any], test: Clips, views: int, device: str
) -> dict[str, Any]:  # fmt: skip
    """What attention.json holds: for each of the hardest videos what spoke for the emotion it was taken for, and when.

    At some moments of the video: a map of where that was, from the view that was nearest in time, and what the network
    would have answered had the video ended there.
    """
    dataset, labels = test_views(test, metadata, views), metadata["labels"]
    mean_and_deviation = normalisation(metadata["model"]["arch"])
    place_of = {clip_id: row for row, clip_id in enumerate(test.clip_ids)}
    clips = {}
    for prediction in hardest(read_predictions(run.path / "predictions.csv")):
        row = place_of[prediction.clip_id]
        video = test.store.open(prediction.clip_id)
        times, moments = video.times, moments_of(video.times)
        seen = times[view_frames(times, dataset.frames, dataset.span, views)]
        inputs = to_input(dataset[row][0].to(device), *mean_and_deviation)
        classes = torch.full((views,), labels.index(prediction.predicted), device=device)
        heat = grad_cam(model, inputs, classes).cpu().numpy()
        endings = dataset.show(video, frames_until(times, dataset.frames, dataset.span, moments))
        with torch.inference_mode():
            answers = torch.cat([model(to_input(few.to(device), *mean_and_deviation)) for few in endings.split(views)])
        clips[prediction.clip_id] = {
            "emotion": prediction.predicted,
            "seconds": np.round(moments - times[0], 3).tolist(),
            "maps": maps_at(moments, seconds_of_maps(seen, heat.shape[1]), heat),
            "probabilities": answers.float().softmax(-1).cpu().double().numpy().round(4).tolist(),
        }
    return {"weights_sha256": sha256_of(run.path / "model.safetensors"), "clips": clips}


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
