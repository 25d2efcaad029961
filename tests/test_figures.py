"""The sections of evaluation.json, against arithmetic done by hand. Run: pytest tests/test_figures.py"""

import numpy as np
import pandas as pd
import pytest

from manifests.table import as_table
from trainer.figures import (
    age_band,
    describe,
    gain_figures,
    group_figures,
    group_gaps,
    robustness_figures,
    temperature_figures,
    view_figures,
)
from trainer.robustness import DISTURBANCES


def certain(predicted, classes=2):
    return np.eye(classes)[np.array(predicted)]


ROWS = as_table(pd.DataFrame({
    "actor": list("aabb"), "dataset": ["crema"] * 2 + ["ravdess"] * 2, "sex": ["male", "male", "", "female"],
    "age": [34, 34, 71, 71], "intensity": ["normal"] * 4,
}))  # fmt: skip
SHARES = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
TRUTH = np.array([0, 1, 1, 0])


def test_groups_are_judged_on_their_own_videos():
    figures = describe(SHARES, TRUTH, ROWS, ("x", "y"), seed=0)
    assert figures["overall"]["war"] == 0.75
    assert [(g["name"], g["war"]) for g in figures["groups"]["dataset"]] == [("crema", 1.0), ("ravdess", 0.5)]
    assert [g["name"] for g in figures["groups"]["sex"]] == ["female", "male", "unknown"]
    assert [(g["name"], g["clips"]) for g in figures["groups"]["age"]] == [("30 to 39", 2), ("60 or older", 2)]
    assert [g["name"] for g in figures["groups"]["race"]] == ["unknown"]
    assert figures["confusion"] == [[2, 0], [1, 1]]


def test_a_group_of_one_actor_has_no_interval_and_one_of_two_has():
    (one, _), (both,) = (group_figures(SHARES, TRUTH, ROWS, column, seed=0) for column in ("dataset", "intensity"))
    assert (one["actors"], one["war_interval"], one["uar_interval"]) == (1, None, None)
    assert both["actors"] == 2
    assert both["war_interval"] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("years", "band"), [(20, "20 to 29"), (29, "20 to 29"), (30, "30 to 39"), (60, "60 or older"), (74, "60 or older"),
                        (8, "0 to 9"), (None, "unknown")],
)  # fmt: skip
def test_ages_fall_into_bands_of_ten_years(years, band):
    assert age_band(years) == band


def people(races):
    """Two videos of each actor, one per class; the actor's race is given, the sex is everybody's the same."""
    names = [f"actor_{number}" for number in range(len(races))]
    rows = [{"actor": a, "race": race, "sex": "female", "dataset": "crema"}
            for a, race in zip(names, races, strict=True) for _ in range(2)]  # fmt: skip
    return as_table(pd.DataFrame(rows)), np.tile([0, 1], len(races))


def test_the_largest_gap_is_named_with_its_groups_and_interval():
    rows, truth = people([*"AAAAA", *"BBBBB", *"CCCCC"])
    predicted = truth.copy()
    predicted[[10, 12, 14, 16, 18]] = 1  # class 0 of all of B
    predicted[[20]] = 1  # and of one of C
    gaps = group_gaps(certain(predicted), truth, rows, seed=0)
    assert set(gaps) == {"race"}
    assert (gaps["race"]["better"], gaps["race"]["worse"], gaps["race"]["groups"]) == ("A", "B", 3)
    assert gaps["race"]["gap"] == pytest.approx(0.5)
    assert gaps["race"]["gap_interval"] == [0.5, 0.5]


def test_a_few_actors_and_the_unknown_are_no_group_to_compare():
    rows, truth = people([*"AAAAA", *"BBBB", *[""] * 5])
    assert group_gaps(certain(1 - truth), truth, rows, seed=0) == {}


def test_views_are_counted_one_by_one_and_the_mean_over_them_is_not():
    # One view in three is right, but it is so sure that it carries the mean.
    per_view = np.array([[[0.99, 0.01], [0.45, 0.55], [0.45, 0.55]]] * 4)
    truth = np.zeros(4, int)
    figures = view_figures(per_view, truth)
    assert figures["views"] == 12
    assert figures["war"] == pytest.approx(1 / 3)
    assert (per_view.mean(axis=1).argmax(axis=1) == truth).all()


def test_the_gain_of_more_views_is_measured_against_one_and_their_cost_per_video():
    truth = np.array([0, 1, 0, 1])
    one = certain([1, 1, 0, 0])
    # Views in pairs, plain and mirrored: the plain ones alone read three of four right, all together four.
    plain, mirrored = certain([0, 1, 0, 0]) * 0.9 + 0.05, certain([0, 1, 0, 1])
    per_view = np.stack([plain, mirrored, plain, mirrored], axis=1)
    ways = gain_figures(
        one, per_view, truth, np.array(list("aabb")), 0, clips=2, flip=True, seconds_one=2.0, seconds_all=6.0
    )
    assert [way["views"] for way in ways] == [1, 2, 4]
    assert [way["uar"] for way in ways] == [0.5, 0.75, 1.0]
    assert [way["gain"] for way in ways] == [0.0, 0.25, 0.5]
    assert [way["seconds_per_video"] for way in ways] == [0.5, None, 1.5]
    assert ways[0]["gain_interval"] == [0.0, 0.0]
    assert ways[2]["gain_interval"][1] > 0


@pytest.mark.parametrize(("clips", "flip", "views"), [(1, False, [1]), (1, True, [1, 2]), (2, False, [1, 2])])
def test_only_the_ways_that_there_are_are_told(clips, flip, views):
    truth = np.array([0, 1])
    per_view = np.repeat(certain(truth)[:, None], views[-1], axis=1)
    ways = gain_figures(
        per_view[:, 0], per_view, truth, np.array(["a", "b"]), 0, clips=clips, flip=flip, seconds_one=1, seconds_all=2
    )
    assert [way["views"] for way in ways] == views
    assert all(way["seconds_per_video"] is not None for way in ways)


def test_what_a_disturbance_costs_is_the_difference_to_the_undisturbed_view():
    truth = np.tile([0, 1], 4)
    clean = certain(truth)
    disturbed = np.repeat(clean[:, None], len(DISTURBANCES), axis=1)
    disturbed[:4, 2] = certain(1 - truth)[:4]
    figures = robustness_figures(clean, disturbed, truth, np.repeat(list("abcd"), 2), seed=0)
    assert figures["clean"]["uar"] == 1
    assert [v["lost"] for v in figures["variants"]] == [0.5 if n == 2 else 0.0 for n in range(len(DISTURBANCES))]
    assert [v["name"] for v in figures["variants"]] == [d.name for d in DISTURBANCES]
    low, high = figures["variants"][2]["lost_interval"]
    assert 0 <= low < 0.5 < high <= 1


def test_the_temperature_never_makes_the_videos_that_set_it_less_likely():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    shares = 0.98 * certain(np.where(rng.uniform(size=200) < 0.6, truth, rng.integers(0, 3, 200)), 3) + 0.02 / 3
    figures = temperature_figures(shares, truth)
    assert figures["value"] > 1.5
    assert figures["nll_after"] < figures["nll_before"]
    assert (figures["split"], figures["clips"]) == ("val", 200)
