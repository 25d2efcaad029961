"""People's scores stand beside the model's only where both answered one question. Run: pytest tests/test_humans.py"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from manifests.corpora import CREMA_EMOTIONS
from manifests.demographics import join_votes
from manifests.table import VOTES, as_table
from trainer.humans import ANSWERS, PUBLISHED, human_figures, majority_counts, vote_counts

DATA = Path(os.environ.get("SLOWFAST_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def rows(votes, emotions, dataset="crema"):
    counted = {} if votes is None else dict(zip(VOTES, np.transpose(votes), strict=True))
    return as_table(pd.DataFrame({"dataset": dataset, "emotion": emotions, **counted}))


VOTED = [[6, 0, 0, 0, 4, 0], [0, 0, 0, 9, 1, 0], [0, 0, 0, 0, 5, 5]]  # angry, disgust, fear, happy, neutral, sad
PLAYED = ["angry", "happy", "sad"]


def test_single_answers_and_majorities_are_counted_on_the_videos_that_the_model_is_judged_on():
    single, majority = human_figures(rows(VOTED, PLAYED), ANSWERS, synthetic=False)
    assert single["war"] == pytest.approx(20 / 30)
    assert single["uar"] == pytest.approx((0.6 + 0.9 + 0.5) / 3)
    assert majority["war"] == pytest.approx(2 / 3), "a tie is wrong"
    assert single["clips"] == majority["clips"] == 3
    assert "these very videos" in single["source"]


def test_without_votes_the_published_figures_of_the_whole_corpus_are_given_and_named_so():
    single, majority = human_figures(rows(None, PLAYED), ANSWERS, synthetic=False)
    assert (single["war"], majority["war"]) == (0.582, 0.663)
    assert "all of CREMA-D" in single["source"]
    assert single["clips"] == 7442


@pytest.mark.parametrize(
    ("dataset", "labels", "synthetic"),
    [("crema", ANSWERS, True), ("ravdess", ANSWERS, False), ("crema", (*ANSWERS, "surprise"), False),
     ("crema", ANSWERS[:5], False)],
)  # fmt: skip
def test_drawn_faces_other_corpora_and_other_choices_get_no_human_figure(dataset, labels, synthetic):
    assert human_figures(rows(VOTED, PLAYED, dataset), labels, synthetic=synthetic) == []


def test_the_order_of_the_labels_does_not_matter():
    assert human_figures(rows(VOTED, PLAYED), ANSWERS[::-1], synthetic=False)[0]["war"] == pytest.approx(20 / 30)


def test_ties_are_wrong_whatever_was_played():
    for truth in range(6):
        votes = np.eye(6, dtype=int)[[truth]] + np.eye(6, dtype=int)[[(truth + 2) % 6]]
        assert np.trace(majority_counts(votes, np.array([truth]))) == 0
        assert np.trace(vote_counts(votes, np.array([truth]))) == 1


@pytest.mark.skipif(not (DATA / "crema-d").is_dir(), reason="CREMA-D's table of votes is not at hand")
def test_the_published_figures_are_those_of_the_corpus_s_own_table():
    table = (DATA / "crema-d" / "tabulatedVotes.csv").read_bytes()
    names = pd.read_csv(DATA / "crema-d" / "tabulatedVotes.csv")["fileName"].unique()
    takes = pd.DataFrame({
        "clip_id": [f"crema_{name}" for name in names], "dataset": "crema",
        "emotion": [CREMA_EMOTIONS[name.split("_")[2]] for name in names],
    })  # fmt: skip
    single, majority = human_figures(as_table(join_votes(takes, table)), ANSWERS, synthetic=False)
    assert single["clips"] == 7442
    # The paper counts the responses before some were filtered out of the table.
    assert single["war"] == pytest.approx(PUBLISHED["single"]["war"], abs=0.01)
    assert majority["war"] == pytest.approx(PUBLISHED["majority"]["war"], abs=5e-4)
    assert majority["uar"] == pytest.approx(PUBLISHED["majority"]["uar"], abs=5e-4)
