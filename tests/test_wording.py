"""Wording: every figure and sentence that the report prints, from the numbers it is made of."""

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import wording

# Neighbours on a busy machine make single examples slow; that is no failure.
unhurried = settings(deadline=None)
EVALUATION: dict[str, Any] = {
    "split": "test",
    "labels": ["angry", "happy", "neutral", "sad"],
    "views": {"clips": 3, "flip": True},
    "manifest_sha256": "aa",
    "clips": 1288,
    "actors": 14,
    "overall": {"war": 0.8472, "uar": 0.8417, "war_interval": [0.781, 0.903], "uar_interval": [0.7794, 0.898]},
    "one_view": {"war": 0.8, "uar": 0.79, "macro_f1": 0.78},
}


def plain(text: str) -> str:
    return text.replace(wording.NBSP, " ")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (wording.percent(0.8417), "84.2 %"),
        (wording.percent(0.8417, 0), "84 %"),
        (wording.percent(1), "100.0 %"),
        (wording.percent(None), "–"),
        (wording.percent(math.nan), "–"),
        (wording.in_hundred(0.8417), "84.2"),
        (wording.in_hundred(math.nan), "–"),
        (wording.interval((0.781, 0.903)), "78.1 to 90.3 %"),
        (wording.points(0.232), "23.2 points"),
        (wording.points(-0.232), "23.2 points"),
        (wording.points(0.01), "1.0 point"),
        (wording.signed(0.151), "+15.1"),
        (wording.signed(-0.02), "−2.0"),
        (wording.signed(-0.0004), "+0.0"),
        (wording.number(1.70432), "1.70"),
        (wording.number(-0.5), "−0.50"),
        (wording.number(12480, 0), "12,480"),
        (wording.number(math.inf), "–"),
        (wording.plural(1, "actor"), "1 actor"),
        (wording.plural(1200, "video"), "1,200 videos"),
        (wording.duration(3.21), "3.2 s"),
        (wording.duration(59.97), "1 min 00 s"),
        (wording.duration(154.2), "2 min 34 s"),
        (wording.duration(3599.7), "1 h 00 min"),
        (wording.duration(7512), "2 h 05 min"),
        (wording.millions(33_646_022), "33.6 million"),
        (wording.millions(214_006), "214,006"),
        (wording.moment("2025-11-22T14:21:07+00:00"), "22 November 2025, 14:21 UTC"),
        (wording.moment("2025-11-22T15:21:07+01:00"), "22 November 2025, 14:21 UTC"),
        (wording.model({"arch": "slowfast", "depth": 50, "se_ratio": 0.06}), "SlowFast-R50 with SE"),
        (wording.model({"arch": "slowfast", "depth": 18, "se_ratio": None}), "SlowFast-R18"),
        (wording.model({"arch": "single_frame"}), "single-frame ResNet-18"),
        (wording.model({"arch": "r3d18", "depth": 50, "se_ratio": 0.06}), "R3D-18"),
        (wording.people({"clips": 672, "actors": 1}), "672 videos of 1 actor"),
        (wording.money(None), "no rented machine is known of"),
        (
            wording.money({"type": "g5.xlarge", "market": "on-demand", "dollars": 12.5, "price_per_hour": 1.006}),
            "$12.50: g5.xlarge, on-demand, at $1.01 an hour",
        ),
        (
            wording.score({"uar": 0.5, "uar_sd": 0.02, "uar_interval": [0.4, 0.6]}, "uar"),
            "50.0 % ± 2.0\n40.0 to 60.0 %",
        ),
        (wording.score({"macro_f1": 0.5, "macro_f1_sd": None}, "macro_f1"), "50.0 %"),
    ],
)
def test_figures_read_as_people_write_them(made: str, expected: str) -> None:
    assert plain(made) == expected


@unhurried
@given(st.floats(0, 1e7))
def test_a_duration_never_shows_sixty_seconds_or_minutes(seconds: float) -> None:
    assert not re.search(r"\b60(\.0)? (s|min)\b", plain(wording.duration(seconds)))


def test_views_say_that_scores_are_per_video() -> None:
    assert plain(wording.views(EVALUATION)) == (
        "Scores are per video: the mean over 6 views, 3 in time and each also mirrored. One view "
        "alone scores 80.0 % WAR, 79.0 % UAR."
    )
    same = {**EVALUATION, "one_view": {"war": 0.84718, "uar": 0.84173}}
    assert wording.views(same).endswith("One view alone scores the same.")
    one = {**EVALUATION, "views": {"clips": 1, "flip": False}}
    assert wording.views(one) == "Scores are per video, from one view of each."


def test_the_commonest_mistakes_are_shares_of_what_was_played() -> None:
    confusion = [[8, 2, 0], [1, 9, 0], [10, 0, 90]]
    mistakes = wording.commonest_mistakes(confusion, ["angry", "happy", "sad"])
    assert [(m.true, m.predicted, m.count, m.of) for m in mistakes] == [
        ("angry", "happy", 2, 10),
        ("sad", "angry", 10, 100),
        ("happy", "angry", 1, 10),
    ]
    assert (
        plain(wording.mistakes_sentence(mistakes[:1])) == "Most often confused: angry taken for happy (2 of 10 videos)."
    )
    assert wording.mistakes_sentence([]) == "No video was misread."


def test_a_class_without_videos_makes_no_mistakes() -> None:
    assert wording.commonest_mistakes([[0, 0], [0, 5]], ["angry", "sad"]) == []


def test_the_hardest_actor_is_named() -> None:
    actors = [{"name": "a", "clips": 24, "war": 22 / 24}, {"name": "b", "clips": 24, "war": 8 / 24}]
    assert plain(wording.actors_sentence(actors)) == (
        "Hardest to read is b: 8 of 24 videos right (33.3 %). Easiest is a (91.7 %), 58.3 points apart."
    )
    assert wording.actors_sentence(actors[:1]).startswith("Only one actor was judged")
    assert plain(wording.actors_sentence([actors[0]] * 3)) == "All 3 actors are read equally well: 91.7 %."


@pytest.mark.parametrize(
    ("confidence", "judgement"),
    [(0.9, "15.0 points too sure"), (0.6, "15.0 points too modest"), (0.751, "about as sure as it may be")],
)
def test_confidence_is_weighed_against_accuracy(confidence: float, judgement: str) -> None:
    bins = [
        {"confidence": confidence, "accuracy": 0.8, "clips": 30},
        {"confidence": confidence, "accuracy": 0.6, "clips": 10},
    ]
    sentence = plain(wording.confidence_sentence({"ece": 0.1, "bins": bins}))
    assert sentence == (
        f"On average the model is {100 * confidence:.1f} % sure and right in 75.0 %: {judgement}. "
        "Bin by bin the two are 10.0 points apart (ECE): there, too sure and too modest do not cancel out."
    )


def test_the_best_epoch_is_counted_from_one() -> None:
    lines = [
        {"epoch": 0, "step": 20, "uar": 0.4},
        {"epoch": 1, "step": 40, "uar": 0.6},
        {"epoch": 2, "step": 60, "uar": 0.5},
    ]
    assert plain(wording.best_validation(lines)) == "Validation UAR peaked at 60.0 % in epoch 2, step 40."
    assert wording.best_validation([]) == "No validation score has been logged yet."


def test_the_end_of_a_run_is_told_as_it_was() -> None:
    alive = {"heartbeat": "2025-11-22T14:21:07+00:00"}
    done = {"outcome": "finished", "reason": "all stages are done"}
    stopped = {"outcome": "interrupted", "reason": "stopped by SIGTERM"}
    failed = {"outcome": "failed", "reason": "the loss became nan"}
    told = [plain(wording.ending(*case)) for case in (
        (12, 12, alive, done), (12, 12, alive, None), (5, 12, alive, done), (5, 12, alive, stopped),
        (5, 12, alive, failed), (5, 12, alive, None), (0, 12, None, None),
    )]  # fmt: skip
    assert told == [
        "Training went through all of its 12 epochs.",
        "Training went through all of its 12 epochs.",
        "Training went through 5 of its 12 epochs.",
        "The run was interrupted after 5 of 12 epochs: stopped by SIGTERM.",
        "The run failed after 5 of 12 epochs: the loss became nan.",
        "The run has not ended: 5 of 12 epochs done, last sign of life 22 November 2025, 14:21 UTC.",
        "The run has not begun.",
    ]


def test_the_speed_is_the_median_and_names_the_waiting() -> None:
    lines = [{"clips_per_second": c, "data_wait": w} for c, w in ((10, 0.5), (40, 0.1), (42, 0.0))]
    assert wording.speed(lines) == "40.0 clips/s, 20\u00a0% of the time waiting for data"


def test_the_machine_is_named_once() -> None:
    box = {"device": "cpu", "cpu": "Xeon", "cores": 2, "memory_gb": 8.0}
    assert plain(wording.machine(box)) == "Xeon, 2 cores, 8 GB"
    assert plain(wording.machine({**box, "device": "NVIDIA L4"})) == "NVIDIA L4; Xeon, 2 cores, 8 GB"


def test_a_single_frame_model_is_not_said_to_see_a_clip() -> None:
    data = {"frames": 32, "span": 2.1, "size": 224}
    frames, single = ({"model": {"arch": arch}, "data": data} for arch in ("slowfast", "single_frame"))
    assert plain(wording.model_input(frames)) == "32 frames of 2.1 s, 224 × 224 pixels"
    assert plain(wording.model_input(single)) == "1 frame, the middle one of 2.1 s, 224 × 224 pixels"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"arch": "slowfast", "depth": 50, "se_ratio": 0.06}, ("two pathways", "R50: as deep as", "SE: gates")),
        ({"arch": "r3d18", "depth": 50, "se_ratio": 0.06}, ("reach over time",)),
        ({"arch": "single_frame"}, ("It cannot see movement",)),
    ],
)
def test_the_name_of_a_network_is_explained(settings: dict[str, Any], says: tuple[str, ...]) -> None:
    told = wording.network(settings)
    assert all(each in told for each in says)
    assert ("SE:" in told) == ("SE: gates" in says)


def test_pictures_carry_their_licence_unless_they_are_drawn() -> None:
    people = wording.pictures(["crema", "ravdess"], synthetic=False, at_hand=True)
    assert "CREMA-D (ODbL 1.0) and RAVDESS (CC BY-NC-SA 4.0)" in people
    assert "licen" not in wording.pictures(["crema"], synthetic=True, at_hand=True)
    assert "CREMA" not in wording.pictures(["crema"], synthetic=True, at_hand=True)
