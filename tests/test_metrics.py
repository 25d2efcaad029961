"""Every printed number, against arithmetic done by hand. Run: pytest tests/test_metrics.py"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from trainer.metrics import (
    accuracies,
    actor_intervals,
    calibration,
    confusion_matrix,
    paired_interval,
    per_actor,
    per_class,
    points_above,
    recall_gap,
    redrawn,
    summarize,
)

LABELS = np.array([0, 0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 0, 2])


def certain(predicted, classes=3):
    return np.eye(classes)[predicted]


def test_war_counts_videos_and_uar_counts_classes():
    figures = summarize(certain(PREDICTED), LABELS)
    assert figures["war"] == pytest.approx(5 / 7)
    assert figures["uar"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)


def test_a_class_without_videos_does_not_count_in_uar():
    assert summarize(certain(PREDICTED[:6]), LABELS[:6])["uar"] == pytest.approx((3 / 4 + 1 / 2) / 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
@pytest.mark.filterwarnings("ignore:y_pred contains classes", "ignore:A single label was found")
def test_uar_is_what_scikit_learn_calls_balanced_accuracy(pairs):
    labels, predicted = (np.array(side) for side in zip(*pairs, strict=True))
    _, uar = accuracies(confusion_matrix(predicted, labels, 4))
    assert uar == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_rows_of_the_confusion_matrix_are_the_true_classes():
    assert confusion_matrix(PREDICTED, LABELS, 3).tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_per_class_figures_are_precision_recall_and_f1():
    rows = per_class(np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]]), ("a", "b", "c"))
    assert rows[0] == {"label": "a", "clips": 4, "precision": 0.75, "recall": 0.75, "f1": 0.75}
    assert rows[1]["recall"] == 0.5
    assert rows[2] == {"label": "c", "clips": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_the_interval_is_drawn_over_actors_not_over_videos():
    # Two actors: all right and all wrong. However many videos they have, the interval must span 0 to 1.
    labels = np.zeros(200, int)
    predicted = np.repeat([0, 1], 100)
    actors = np.repeat(["a", "b"], 100)
    assert actor_intervals(predicted, labels, actors, 2, seed=0)["war_interval"] == [0.0, 1.0]
    mixed = np.tile([0, 1], 100)
    low, high = actor_intervals(mixed, labels, actors, 2, seed=0)["war_interval"]
    assert low == high == 0.5


def test_calibration_of_a_model_that_is_as_right_as_it_says_has_no_error():
    probabilities = np.tile([0.75, 0.25], (4, 1))
    figures = calibration(probabilities, np.array([0, 0, 0, 1]))
    assert figures["ece"] == pytest.approx(0, abs=1e-6)
    assert figures["nll"] == pytest.approx(-(3 * np.log(0.75) + np.log(0.25)) / 4)
    assert figures["brier"] == pytest.approx((3 * 2 * 0.25**2 + 2 * 0.75**2) / 4)
    assert figures["bins"] == [
        {
            "low": pytest.approx(11 / 15),
            "high": pytest.approx(12 / 15),
            "confidence": 0.75,
            "accuracy": 0.75,
            "clips": 4,
        }
    ]


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    probabilities = np.tile([0.9, 0.1], (10, 1))
    labels = np.array([0] * 5 + [1] * 5)
    assert calibration(probabilities, labels)["ece"] == pytest.approx(0.4, abs=1e-6)


@given(st.integers(1, 60), st.integers(2, 6), st.floats(0.1, 8), st.integers(0, 2**32))
def test_the_calibration_error_is_that_of_the_bins_that_are_printed(videos, classes, sharpness, seed):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 1 / sharpness), videos)
    figures = calibration(probabilities, rng.integers(0, classes, videos))
    assert sum(b["clips"] for b in figures["bins"]) == videos
    assert all(b["low"] <= b["confidence"] <= b["high"] + 1e-12 for b in figures["bins"])
    gaps = [b["clips"] / videos * abs(b["accuracy"] - b["confidence"]) for b in figures["bins"]]
    assert figures["ece"] == pytest.approx(sum(gaps), abs=1e-6)


def test_points_are_percentage_points():
    assert points_above(0.83, 0.61) == pytest.approx(22.0)


def test_a_paired_interval_of_a_model_with_itself_is_zero_and_of_a_better_one_is_above_zero():
    labels = np.tile([0, 1], 30)
    actors = np.repeat(list("abcdef"), 10)
    worse = labels.copy()
    worse[::5] = 1 - worse[::5]
    assert paired_interval(labels, labels, labels, actors, 2, seed=0) == [0.0, 0.0]
    assert paired_interval(labels, worse, labels, actors, 2, seed=0)[0] > 0


def test_each_actor_s_confusion_matrix_is_that_of_his_videos():
    rng = np.random.default_rng(1)
    labels, predicted, actor_of = rng.integers(0, 3, 60), rng.integers(0, 3, 60), rng.integers(0, 5, 60)
    for actor, counts in enumerate(per_actor(predicted, labels, actor_of, 3)):
        mine = actor_of == actor
        assert np.array_equal(counts, confusion_matrix(predicted[mine], labels[mine], 3))


def test_a_redrawn_sample_has_as_many_actors_each_whole():
    # Actor k has 10 ** k videos, so a sum tells how often each was drawn.
    confusions = np.array([[[10**k]] for k in range(4)])
    totals = redrawn(confusions, seed=0)[:, 0, 0]
    assert all(sum(map(int, str(total))) == 4 for total in totals)
    assert len(set(totals.tolist())) > 20


def test_a_gap_is_the_mean_difference_in_recall_over_the_classes_that_both_groups_have():
    # Women: class 0 all right, class 1 half right. Men: class 0 half right, and no class 1 but a class 2, all wrong.
    labels = np.array([0, 0, 1, 1, 0, 0, 2, 2])
    predicted = np.array([0, 0, 1, 0, 0, 1, 0, 0])
    women = np.arange(8) < 4
    actors = np.array(list("aabbccdd"))
    gap, _ = recall_gap(predicted, labels, women, ~women, actors, 3, seed=0)
    assert gap == pytest.approx(0.5)
    back, _ = recall_gap(predicted, labels, ~women, women, actors, 3, seed=0)
    assert back == pytest.approx(-0.5)


def test_the_interval_of_a_gap_is_drawn_over_actors():
    labels = np.zeros(80, int)
    actors = np.repeat(list("abcdefgh"), 10)
    women = actors < "e"
    # All women alike, of the men one all wrong: the gap hangs on whether that man is drawn.
    predicted = np.where(actors == "e", 1, 0)
    gap, (low, high) = recall_gap(predicted, labels, women, ~women, actors, 2, seed=0)
    assert gap == pytest.approx(0.25)
    assert low == 0
    assert high > 0.5
