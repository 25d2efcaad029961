"""The free sanity test: RAVDESS stores each take twice, with sound and without. One picture, so one answer.

python -m manifests build --ravdess data/ravdess --twins audio-video --out twins.csv
python -m manifests prepare twins.csv --root data/ravdess --out twins/
python -m trainer evaluate --run runs/first --manifest manifest.csv --clips clips/ --twins twins/
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests.clips import ClipStore
from manifests.errors import UserError
from manifests.files import write_json
from trainer.config import Config
from trainer.dataset import Clips
from trainer.evaluate import look
from trainer.inference import load_model, test_views
from trainer.record import Prediction, read_predictions
from trainer.run import Run, read_json


def compare_twins(run: Run, config: Config, test: Clips, other: ClipStore) -> dict[str, Any]:
    """Judge the test takes' other files as evaluation.json did theirs, and add to it how often the answer is the same.

    Does nothing if these very files were compared already. Raises UserError if `other` holds no other file of a take.
    """
    sources = twin_sources(test, other)
    digest = hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()
    evaluation = read_json(run.path / "evaluation.json")
    if (known := evaluation.get("twins")) is not None and known["sources_sha256"] == digest:
        return dict(known)
    model, metadata = load_model(run.path / "model.safetensors", config.device)
    chosen = np.isin(test.clip_ids, list(sources))
    twins = Clips(other, test.clip_ids[chosen].tolist(), test.labels[chosen].tolist())
    asked = evaluation["views"]
    views = test_views(twins, metadata, asked["clips"])
    per_view, _ = look(run, config, model, metadata, views, "the same takes from their other file", flip=asked["flip"])
    ours = {prediction.clip_id: prediction for prediction in read_predictions(run.path / "predictions.csv")}
    predictions = [ours[clip_id] for clip_id in twins.clip_ids]
    figures = {"sources_sha256": digest, **agreement(predictions, per_view.mean(axis=1), metadata["labels"])}
    write_json(run.path / "evaluation.json", {**evaluation, "twins": figures})
    return figures


def twin_sources(test: Clips, other: ClipStore) -> dict[str, str]:
    """sha256 of the other file of each test take that `other` has one of; the very same file is no twin."""
    if other.rule != test.store.rule:
        raise UserError(
            f"{other.root} was prepared by another rule than {test.store.root}, so another crop would be compared; "
            "prepare it with the same --size and --margin"
        )
    sources = {}
    for clip_id in map(str, test.clip_ids):
        if clip_id in other:
            source = other.open(clip_id).meta["source_sha256"]
            if source != test.store.open(clip_id).meta["source_sha256"]:
                sources[clip_id] = source
    if not sources:
        raise UserError(
            f"{other.root} holds no other file of any test video; build a manifest of the other files with "
            "python -m manifests build --twins audio-video, and prepare that one"
        )
    return sources


def agreement(ours: list[Prediction], theirs: NDArray[np.floating], labels: list[str]) -> dict[str, Any]:
    """How often two files of a take get the same answer, from predictions and `(N, classes)` probabilities."""
    answers = [labels[index] for index in theirs.argmax(axis=1)]
    differing = [
        {"clip_id": one.clip_id, "label": one.label, "predicted": one.predicted, "twin_predicted": other}
        for one, other in zip(ours, answers, strict=True)
        if one.predicted != other
    ]
    shares = np.array([[one.probabilities[label] for label in labels] for one in ours])
    return {
        "compared": len(ours),
        "agreement": 1 - len(differing) / len(ours),
        "largest_difference": float(np.abs(shares - theirs).max()),
        "disagreements": differing,
    }


def twins_line(twins: dict[str, Any]) -> str:
    """One line of the comparison."""
    return (
        f"twins: {twins['compared'] - len(twins['disagreements'])} of {twins['compared']} takes get the same answer "
        f"from their other file ({twins['agreement']:.1%}); probabilities differ by {twins['largest_difference']:.1%} "
        "at most"
    )
