"""What the report shows of an evaluation, row by row. Run: pytest tests/test_judgement.py"""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from trainer import judgement
from trainer.hardest import card
from trainer.record import Prediction, Record
from trainer.report import curves

OVERALL = {"war": 0.9, "uar": 0.9, "macro_f1": 0.88, "war_interval": [0.8, 0.95], "uar_interval": [0.8, 0.95]}
EVALUATION: dict[str, Any] = {
    "labels": ["angry", "happy", "sad"], "overall": OVERALL, "one_view": {"uar": 0.85}, "human": [], "gaps": {},
}  # fmt: skip


def test_scores_that_are_printed_alike_share_a_row() -> None:
    names = [row["name"] for row in judgement.scores(EVALUATION, None)]
    assert names == ["UAR and WAR", "Macro-F1", "UAR of one view", "Guessing"]
    other = {**EVALUATION, "overall": {**OVERALL, "war_interval": [0.79, 0.95]}, "one_view": {"uar": 0.88004}}
    names = [row["name"] for row in judgement.scores(other, None)]
    assert names == ["UAR", "WAR", "Macro-F1 and UAR of one view", "Guessing"]


def test_a_change_of_nothing_is_a_word_and_what_was_not_timed_says_so() -> None:
    ways = [
        {"clips": 1, "flip": False, "views": 1, "gain": 0.0, "gain_interval": [0.0, 0.0], "seconds_per_video": 0.07},
        {"clips": 2, "flip": False, "views": 2, "gain": 0.0, "gain_interval": [0.0, 0.0], "seconds_per_video": None},
        {"clips": 2, "flip": True, "views": 4, "gain": 0.0, "gain_interval": [-0.01, 0.02], "seconds_per_video": 0.2},
    ]
    one, two, four = judgement.way_rows(ways)
    assert (one["change"], two["change"], two["interval"], two["seconds"]) == ("", "none", "", "not timed")
    assert (four["change"], four["interval"]) == ("+0.0", "−1.0 to +2.0")
    assert four["name"].replace("\u00a0", " ") == "2 moments, each mirrored too"


def test_what_a_disturbance_costs_has_the_sign_of_a_change() -> None:
    variants = [
        {"name": "noise", "severity": "4 %", "uar": 0.9, "lost": 0.0, "lost_interval": [0.0, 0.0]},
        {"name": "noise", "severity": "10 %", "uar": 0.7, "lost": 0.2, "lost_interval": [0.1, 0.25]},
    ]
    shown = judgement.robustness({"clean": {"uar": 0.9}, "variants": variants, "seconds": 1.0}, 1 / 3)
    (kind,) = shown["kinds"]
    assert [(row["change"], row["interval"]) for row in kind["rows"]] == [("none", ""), ("−20.0", "−25.0 to −10.0")]
    assert "−20.0\u00a0points, 95\u00a0% interval −25.0 to −10.0" in shown["sentence"]


def group(name: str) -> dict[str, Any]:
    return {"name": name, "clips": 9, "actors": 2, "war": 0.9, "uar": 0.9, "war_interval": None, "uar_interval": None}


@pytest.mark.parametrize(
    ("kind", "synthetic", "named"),
    [("dataset", True, "crema (drawn)"), ("dataset", False, "crema"), ("sex", True, "crema")],
)
def test_a_drawn_corpus_is_called_drawn(kind: str, synthetic: bool, named: str) -> None:
    told = judgement.group_table(kind, [group("crema")], EVALUATION, synthetic=synthetic)
    assert [row["name"] for row in told["rows"]] == [named]


def test_a_video_s_line_of_time_ends_in_a_mark_of_its_own_at_the_answer_that_counts() -> None:
    shares = {"angry": 0.1, "happy": 0.65, "sad": 0.25}
    prediction = Prediction("clip", "actor", "sad", "happy", 0.65, shares)
    seen = {"seconds": [1.0, 2.0, 3.0], "maps": [[[0]]] * 3, "probabilities": [[0.2, 0.5, 0.3], [0, 0, 1], [0, 1, 0]]}
    shown = card(prediction, None, seen)
    assert shown["told"]["shares"] == [[0.2, 0.5, 0.3], [0, 0, 1], [0.1, 0.65, 0.25]]
    happy = next(row for row in shown["rows"] if row["label"] == "happy")
    lines = re.findall(r'class="(area[^"]*)" d="([^"]+)"', happy["drawing"])
    assert lines == [("area", "M33.3 10L33.3 5L66.7 10L66.7 10Z"), ("area lone", "M96 10L96 3.5L100 3.5L100 10Z")]


def record(*scores: tuple[float, float]) -> Record:
    lines = [{"step": 24 * n, "loss": 1.0, "uar": u, "war": w, "epoch": n} for n, (u, w) in enumerate(scores, 1)]
    return Record({"labels": ["a", "b"]}, None, None, None, None, None, [], lines, [])


def test_uar_and_war_are_one_line_where_they_are_the_same() -> None:
    def legend(drawn: Record) -> list[str | None]:
        chart = dict(curves(drawn))["Validation score, %"]
        return [text.text for text in ElementTree.fromstring(chart).iter("text")][:3]

    assert legend(record((0.2, 0.2), (0.9, 0.9)))[0] == "UAR = WAR"
    assert legend(record((0.2, 0.2), (0.9, 0.91)))[:2] == ["UAR", "WAR"]
