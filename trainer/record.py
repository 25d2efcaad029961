"""A run directory as its readers see it: every file of it that is there, read once."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.errors import UserError
from trainer.run import read_json, read_metrics

# Which figures evaluation.json holds: one of another format is made anew before it is used.
EVALUATION_FORMAT = 3


@dataclass(frozen=True)
class Prediction:
    """One video of predictions.csv: what was played in it, what was read, and the probability of each class."""

    clip_id: str
    actor: str
    label: str
    predicted: str
    confidence: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Record:
    """What a run directory holds; None or empty where a file is not there (yet)."""

    facts: Mapping[str, Any]
    status: Mapping[str, Any] | None
    outcome: Mapping[str, Any] | None
    machine: Mapping[str, Any] | None
    evaluation: Mapping[str, Any] | None
    attention: Mapping[str, Any] | None
    steps: Sequence[Mapping[str, Any]]
    validations: Sequence[Mapping[str, Any]]
    predictions: Sequence[Prediction]


def read_record(run: Path) -> Record:
    """Read a run directory; raises UserError if it is none."""
    facts = read_json(run / "run.json")
    if facts is None:
        raise UserError(f"{run} is no run directory (no run.json); train first: python -m trainer fit --help")
    lines = read_metrics(run)
    return Record(
        facts,
        read_json(run / "status.json"),
        read_json(run / "outcome.json"),
        read_json(run / "machine.json"),
        read_json(run / "evaluation.json"),
        read_json(run / "attention.json"),
        [line for line in lines if line["kind"] == "step"],
        [line for line in lines if line["kind"] == "evaluation" and line["split"] == "val"],
        read_predictions(run / "predictions.csv"),
    )


def read_predictions(path: Path) -> list[Prediction]:
    """The rows of predictions.csv; none if the file is not there."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [
            Prediction(
                clip_id=row["clip_id"],
                actor=row["actor"],
                label=row["label"],
                predicted=row["predicted"],
                confidence=float(row["confidence"]),
                probabilities={key.removeprefix("p_"): float(row[key]) for key in row if key.startswith("p_")},
            )
            for row in csv.DictReader(stream)
        ]
