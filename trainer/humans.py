"""What people read in the same faces: CREMA-D's raters, shown the picture without the sound.

Only where it can be compared: real videos of that corpus, and a model that has the raters' six answers to choose from.
"""

from typing import Any

import numpy as np
import pandas as pd

from manifests.table import VOTES
from trainer.metrics import accuracies

CORPUS = "crema"
ANSWERS = tuple(name.removeprefix("votes_") for name in VOTES)

# All of CREMA-D, for manifests that were built without its table of votes. Single answers: abstract of Cao et al.,
# IEEE Transactions on Affective Computing 5(4), 2014. Majorities: counted from processedResults/tabulatedVotes.csv of
# the corpus (7,442 videos), ties wrong.
PUBLISHED: dict[str, dict[str, float | None]] = {
    "single": {"war": 0.582, "uar": None},
    "majority": {"war": 0.663, "uar": 0.669},
}
SOURCES = {
    "single": "Cao et al. 2014, all of CREMA-D, face only",
    "majority": "CREMA-D tabulatedVotes.csv, all 7,442 videos, face only",
}
COUNTED = "CREMA-D tabulatedVotes.csv, these very videos, face only"


def human_figures(rows: pd.DataFrame, labels: tuple[str, ...], *, synthetic: bool) -> list[dict[str, Any]]:
    """What single raters and their majority read right in the manifest's `rows` of CREMA-D, against the played emotion.

    Counted from the votes where the manifest has them for every one of these videos, else as published for the whole
    corpus. Empty where people and model did not answer the same question.
    """
    mine = rows[rows["dataset"] == CORPUS]
    if synthetic or mine.empty or sorted(labels) != sorted(ANSWERS):
        return []
    clips = len(mine)
    if mine[list(VOTES)].isna().any(axis=None):
        return [{"dataset": CORPUS, "who": who, **PUBLISHED[who], "source": SOURCES[who], "clips": 7442}
                for who in PUBLISHED]  # fmt: skip
    votes = mine[list(VOTES)].to_numpy(np.int64)
    truth = mine["emotion"].map(ANSWERS.index).to_numpy()
    counted = {"single": vote_counts(votes, truth), "majority": majority_counts(votes, truth)}
    return [
        {"dataset": CORPUS, "who": who, **_scores(confusion), "source": COUNTED, "clips": clips}
        for who, confusion in counted.items()
    ]


def vote_counts(votes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Confusion matrix `(6, 6)` of single answers, from `(N, 6)` votes and `(N,)` played emotions."""
    confusion = np.zeros((len(ANSWERS), len(ANSWERS)), np.int64)
    np.add.at(confusion, truth, votes)
    return confusion


def majority_counts(votes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Confusion matrix of what most raters said; a tie counts as wrong, whatever it is between."""
    most = votes.max(axis=1, keepdims=True)
    tied = (votes == most).sum(axis=1) > 1
    said = np.where(tied, (truth + 1) % len(ANSWERS), votes.argmax(axis=1))
    confusion = np.zeros((len(ANSWERS), len(ANSWERS)), np.int64)
    np.add.at(confusion, (truth, said), 1)
    return confusion


def _scores(confusion: np.ndarray) -> dict[str, float]:
    war, uar = accuracies(confusion)
    return {"war": float(war), "uar": float(uar)}
