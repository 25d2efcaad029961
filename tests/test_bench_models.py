"""The trials' own figures: pairs told apart by their probabilities, claims held to intervals. Run: pytest FILE"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bench_models import NETWORKS, claims_table, judge, pair_counts, pair_shares, pairs_table
from hypothesis import given
from hypothesis import strategies as st

from manifests.acting import MANNERS, PAIRS
from trainer.config import read_config

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad")


def predictions(knows, seed=0, actors=4, takes=2):
    """Predictions of a network that is right within a pair with the probability `knows`; happy wins over all."""
    rng, rows = np.random.default_rng(seed), []
    for actor in range(actors):
        for emotion in EMOTIONS:
            for take in range(takes):
                shares = dict.fromkeys(EMOTIONS, 0.1) | {"happy": 0.5}
                for pair in PAIRS:
                    if emotion in pair:
                        other = pair[1 - pair.index(emotion)]
                        shares[emotion if rng.random() < knows else other] += 0.05
                rows.append({
                    "clip_id": f"{actor}{emotion}{take}", "actor": f"actor_{actor}", "label": emotion,
                    **{f"p_{name}": share for name, share in shares.items()},
                })  # fmt: skip
    return pd.DataFrame(rows)


def test_the_pairs_differ_in_rhythm_alone():
    for one, other in PAIRS:
        assert MANNERS[one][0] == MANNERS[other][0]
        assert MANNERS[one][1] != MANNERS[other][1]


def test_a_pair_is_told_apart_by_the_two_probabilities_whatever_else_is_likelier():
    found = pair_shares([predictions(1.0)])
    assert {name: each["share"] for name, each in found.items()} == {
        "both pairs": 1.0, "angry or disgust": 1.0, "fear or sad": 1.0,
    }  # fmt: skip
    assert found["both pairs"]["interval"] == [1.0, 1.0]
    assert pair_shares([predictions(0.0)])["fear or sad"]["share"] == 0.0


@given(st.floats(0, 1), st.integers(0, 99))
def test_pair_accuracy_is_the_share_counted_by_hand(knows, seed):
    frame = predictions(knows, seed)
    right = total = 0
    for row in frame.to_dict("records"):
        for pair in PAIRS:
            if row["label"] in pair:
                total += 1
                right += max(pair, key=lambda name: row[f"p_{name}"]) == row["label"]
    assert pair_shares([frame])["both pairs"]["share"] == pytest.approx(right / total)
    assert sum(pair_counts(frame, pair).sum() for pair in PAIRS) == total


def test_an_actor_without_videos_of_a_pair_keeps_the_others_in_their_place():
    frame = predictions(1.0, actors=3)
    frame = frame[(frame["actor"] == "actor_1") | ~frame["label"].isin(PAIRS[0])]
    assert pair_counts(frame, PAIRS[0]).sum(axis=(1, 2)).tolist() == [0, 4, 0]


def test_seeds_are_averaged_and_their_deviation_told():
    found = pair_shares([predictions(1.0), predictions(0.0)])["both pairs"]
    assert found["share"] == 0.5
    assert found["sd"] == pytest.approx(np.sqrt(0.5))
    assert found["interval"] == [0.5, 0.5]


def told(gap, low, high):
    pair = {"first": "SE", "second": "R3D", "corpus": None, "uar": gap, "uar_interval": [low, high], "ahead": 0.9}
    return {"contenders": [{"name": "SE"}, {"name": "R3D"}], "pairs": [pair, pair | {"corpus": "crema"}]}


def shares(ours, frame):
    def of(share, low, high):
        return {"both pairs": {"share": share, "sd": None, "interval": [low, high]}}

    return {"slowfast-se": of(*ours), "single-frame": of(*frame)}


def test_a_claim_holds_only_if_its_interval_says_so():
    good = judge(told(0.1, 0.01, 0.2), shares((0.95, 0.9, 1.0), (0.52, 0.4, 0.6)))
    assert [holds for _, holds, _ in good] == [True, True, True]
    bad = judge(told(0.1, -0.01, 0.2), shares((0.89, 0.8, 0.95), (0.6, 0.55, 0.7)))
    assert [holds for _, holds, _ in bad] == [False, False, False]
    assert [row[1] for row in claims_table([good[0], bad[0]]).rows] == ["holds", "NOT shown"]
    assert good[0][0] == "SE above R3D in UAR"
    assert good[0][2] == "+10.0 points, +1.0 to +20.0"


def test_the_tables_columns_are_the_pairs():
    table = pairs_table({"slowfast": pair_shares([predictions(0.5)])})
    assert table.columns == ["network", "both pairs", "angry or disgust", "fear or sad"]
    assert len(table.rows[0]) == 4


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_differ_in_the_network_alone(name):
    plain, changed = (read_config(Path("demo.yaml"), settings).model_dump() for settings in ([], NETWORKS[name]))
    assert {key for key in plain if plain[key] != changed[key]} <= {"model"}
