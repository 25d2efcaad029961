"""The sentences of the evaluation card, from the figures they are made of. Run: pytest tests/test_findings.py"""

from typing import Any

import pytest

from trainer import findings
from trainer.wording import NBSP


def plain(text: str) -> str:
    return text.replace(NBSP, " ")


def test_a_gap_names_both_groups_and_says_when_it_may_be_chance() -> None:
    found = {"better": "female", "worse": "male", "gap": 0.056, "gap_interval": [0.012, 0.1], "groups": 2}
    assert plain(findings.gap(found)) == "Female is read 5.6 points better than male (95 % interval +1.2 to +10.0)."
    assert plain(findings.gap({**found, "gap_interval": [-0.01, 0.1]})).endswith(
        "(95 % interval −1.0 to +10.0), which may be chance with these actors."
    )
    assert plain(findings.gap({**found, "gap_interval": [-0.01, 0.1], "groups": 4})).endswith(
        ", which may be chance with these actors and was picked as the widest, so is likely smaller."
    )


def way(views: int, gain: float, seconds: float | None) -> dict[str, Any]:
    return {"views": views, "gain": gain, "gain_interval": [gain - 0.01, gain + 0.01], "seconds_per_video": seconds}


def test_the_gain_of_views_stands_beside_their_cost() -> None:
    ways = [way(1, 0.0, 0.08), way(3, 0.01, None), way(6, 0.012, 0.42)]
    assert plain(findings.gain(ways)) == (
        "The mean over 6 views instead of one changes UAR by +1.2 points (95 % interval +0.2 to +2.2) and takes "
        "5.2 times as long: 420 ms instead of 80 ms per video."
    )
    assert findings.gain(ways[:1]).startswith("Each video was looked at once")
    same = {**ways[2], "gain": 0.0, "gain_interval": [0.0, 0.0]}
    assert "leaves UAR as it is and takes 5.2 times as long" in plain(findings.gain([ways[0], same]))


@pytest.mark.parametrize(
    ("value", "told"), [(0.0412, "41 ms"), (0.0041, "4.1 ms"), (1.309, "1.31 s"), (None, "–"), (0.9996, "1,000 ms")]
)
def test_seconds_per_video_are_short(value: float | None, told: str) -> None:
    assert plain(findings.seconds(value)) == told


def variant(name: str, lost: float, low: float) -> dict[str, Any]:
    return {"name": name, "severity": "strong", "uar": 0.8 - lost, "lost": lost, "lost_interval": [low, lost + 0.1]}


def test_the_costliest_disturbance_is_named_and_the_certain_ones_are_counted() -> None:
    figures = {"variants": [variant("blur", 0.01, -0.02), variant("noise", 0.3, 0.2), variant("JPEG", 0.1, 0.01)]}
    assert plain(findings.robustness(figures, 1 / 6)) == (
        "Costliest is noise (strong): UAR falls to 50.0 % (−30.0 points, 95 % interval −40.0 to −20.0). Of 3 "
        "disturbances, 2 cost more than the choice of actors could explain."
    )
    assert "(−30.0 points, 95 % interval −40.0 to −20.0), no better than guessing." in plain(
        findings.robustness(figures, 0.5)
    )
    assert findings.robustness({"variants": [variant("blur", 0.0, -0.1)]}, 1 / 6) == "No disturbance costs anything."


@pytest.mark.parametrize(
    ("value", "after", "expected"),
    [(1.6, {"ece": 0.04, "nll": 0.9}, "less sure of itself and changes no answer. On the test actors it takes the ECE "
      "from 9.0 % to 4.0 % and improves the likelihood."),
     (0.7, {"ece": 0.11, "nll": 1.2}, "surer of itself and changes no answer. On the test actors it takes the ECE from "
      "9.0 % to 11.0 % and worsens the likelihood.")],
)  # fmt: skip
def test_the_temperature_says_what_it_did_to_the_test_actors_for_better_or_worse(
    value: float, after: dict[str, float], expected: str
) -> None:
    fitted = {"value": value, "clips": 144, "actors": 4}
    told = plain(findings.temperature(fitted, {"ece": 0.09, "nll": 1.0}, after))
    assert told == (
        f"Dividing by a temperature of {value:.2f}, fitted on 144 videos of 4 actors that only validated, makes the "
        f"model {expected}"
    )


def test_people_stand_beside_the_model_s_score_on_their_own_corpus_with_the_source() -> None:
    human = [
        {"dataset": "crema", "who": "single", "war": 0.574, "source": "votes"},
        {"dataset": "crema", "who": "majority", "war": 0.663, "source": "votes"},
    ]
    rows = [{"name": "crema", "war": 0.72}, {"name": "ravdess", "war": 0.9}]
    told = plain(findings.people(human, rows))
    assert told.startswith("People who see CREMA-D's faces without the sound name the played emotion in 57.4 %")
    assert "their majority is right in 66.3 % of the videos" in told
    assert "The model is right in 72.0 % (WAR)." in told
    assert told.endswith("Sources: votes.")
    assert plain(findings.people([human[0], {**human[1], "source": "paper"}], rows)).endswith("Sources: votes; paper.")


def test_twins_say_how_many_agree_and_by_how_much_they_differ_at_most() -> None:
    told = findings.twins({"compared": 40, "disagreements": [{}], "agreement": 0.975, "largest_difference": 0.131})
    assert plain(told).endswith(
        "From the other file 39 of 40 takes get the same answer (97.5 %); no probability differs by more than "
        "13.1 points."
    )


def test_groups_of_few_actors_are_named_for_what_their_interval_lacks() -> None:
    rows = [
        {"name": "a", "actors": 1, "war_interval": None},
        {"name": "b", "actors": 4, "war_interval": [0, 1]},
        {"name": "c", "actors": 5, "war_interval": [0, 1]},
    ]
    assert findings.few(rows) == (
        "One actor only, so no interval: a. Fewer than 5 actors, so the interval is rough and too narrow: b."
    )
    assert findings.few(rows[2:]) == ""
    assert findings.few(rows, warned=True) == "One actor only, so no interval: a."


def test_every_look_at_the_test_videos_is_owned_up_to() -> None:
    once = {"tta": [1], "robustness": None}
    assert findings.looks(once) == (
        "The scores come from one pass over the test videos, with the final weights. No choice was made by them."
    )
    often = {"tta": [1, 2], "robustness": {"variants": [0] * 18}, "twins": {"compared": 1}}
    assert findings.looks(often).endswith(
        "Extra passes measured one view, 18 disturbances, the takes' other files. No choice was made by them."
    )


def test_a_group_s_score_is_told_with_its_interval_if_it_has_one() -> None:
    assert findings.group_score(0.842, [0.781, 0.903]) == ("84.2", "78–90")
    assert findings.group_score(0.842, None) == ("84.2", "")
