"""Raters' votes soften the labels of the takes that have any, and of no others. Run: pytest tests/test_votes.py"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.demographics import join_votes
from manifests.errors import UserError
from manifests.table import VOTES, as_table
from trainer.votes import soft_targets

SHARED = Path(os.environ.get("SLOWFAST_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
COMMON6 = ("angry", "disgust", "fear", "happy", "neutral", "sad")


def rows(*takes):
    """A manifest's training rows from (emotion, votes by emotion or None for a take that nobody rated)."""
    table = []
    for number, (emotion, votes) in enumerate(takes):
        cast = {} if votes is None else {name: votes.get(name.removeprefix("votes_"), 0) for name in VOTES}
        table.append({"clip_id": f"take_{number}", "emotion": emotion, "split": "train", **cast})
    return as_table(pd.DataFrame(table))


def test_a_share_of_the_target_goes_where_the_votes_went():
    soft = soft_targets(rows(("sad", {"sad": 3, "neutral": 4, "fear": 1}), ("happy", {"happy": 10})), COMMON6, 0.2)
    np.testing.assert_allclose(soft.targets[0], [0, 0, 0.2 / 8, 0, 0.1, 0.8 + 0.2 * 3 / 8], rtol=1e-6)
    np.testing.assert_allclose(soft.targets[1], [0, 0, 0, 1, 0, 0], rtol=1e-6)
    assert soft.targets.dtype == np.float32
    assert (soft.softened, soft.dropped) == (2, 0)


def test_a_take_that_nobody_rated_keeps_the_intended_emotion_whole():
    soft = soft_targets(rows(("sad", None), ("sad", {"neutral": 5}), ("surprise", None)), (*COMMON6, "surprise"), 0.5)
    assert soft.targets[0].tolist() == [0, 0, 0, 0, 0, 1, 0]
    assert soft.targets[1].tolist() == [0, 0, 0, 0, 0.5, 0.5, 0]
    assert soft.targets[2].tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert soft.softened == 1


def test_votes_for_emotions_that_are_not_learned_are_dropped_and_counted_and_the_others_fill_their_place():
    labels = ("happy", "sad")
    soft = soft_targets(rows(("sad", {"sad": 1, "happy": 1, "neutral": 6}), ("happy", {"angry": 7})), labels, 0.4)
    np.testing.assert_allclose(soft.targets, [[0.2, 0.8], [1, 0]], rtol=1e-6)
    assert (soft.softened, soft.dropped) == (1, 13)


def test_without_a_share_the_labels_are_hard_and_need_no_votes():
    hard = soft_targets(rows(("sad", None), ("angry", None)), COMMON6, 0.0)
    assert hard.targets.tolist() == np.eye(6)[[5, 0]].tolist()


def test_votes_that_are_not_in_the_manifest_are_asked_for_by_the_name_of_their_file():
    with pytest.raises(UserError, match=r"human_votes=0\.2 .* tabulatedVotes\.csv .*python -m manifests build"):
        soft_targets(rows(("sad", None), ("angry", {})), COMMON6, 0.2)


takes = st.lists(
    st.tuples(st.sampled_from(COMMON6[:4]), st.none() | st.dictionaries(st.sampled_from(COMMON6), st.integers(0, 12))),
    min_size=1,
    max_size=12,
)


@given(takes, st.floats(0, 1), st.permutations(COMMON6[:4]))
def test_targets_are_probabilities_that_leave_the_intended_emotion_its_share(takes, share, labels):
    intended = [labels.index(emotion) for emotion, _ in takes]
    table = rows(*takes)
    try:
        soft = soft_targets(table, labels, share)
    except UserError:
        assert not table[list(VOTES[:4])].fillna(0).to_numpy().any()
        return
    np.testing.assert_allclose(soft.targets.sum(axis=1), 1, rtol=1e-5)
    assert (soft.targets >= 0).all()
    assert (soft.targets[np.arange(len(takes)), intended] >= 1 - share - 1e-6).all()
    cast = sum(sum(votes.values()) for _, votes in takes if votes)
    heard = sum(votes.get(name, 0) for _, votes in takes if votes for name in labels)
    assert soft.dropped == cast - heard


def test_the_raters_of_crema_d_were_right_as_often_as_its_authors_say():
    table = SHARED / "crema-d" / "tabulatedVotes.csv"
    if not table.is_file():
        pytest.skip(f"no {table}")
    names = pd.read_csv(table, usecols=["fileName"])["fileName"].unique()
    code = {"ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
    takes = pd.DataFrame({"clip_id": "crema_" + names, "emotion": [code[name.split("_")[2]] for name in names]})
    soft = soft_targets(as_table(join_votes(takes, table.read_bytes())), COMMON6, 1.0)
    intended = [COMMON6.index(emotion) for emotion in takes["emotion"]]
    assert soft.softened == len(names) == 7442
    # 57.4 % of the single answers to the face alone are the intended emotion.
    assert soft.targets[np.arange(len(names)), intended].mean() == pytest.approx(0.574, abs=0.005)
