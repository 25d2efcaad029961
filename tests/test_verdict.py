"""The first screen of a report: what it claims of a model and its baseline. Run: pytest tests/test_verdict.py"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from trainer import verdict, wording
from trainer.glossary import link_words
from trainer.metrics import summarize
from trainer.report import page_beside

LABELS = ["angry", "happy", "neutral", "sad"]
EVALUATION: dict[str, Any] = {
    "labels": LABELS,
    "manifest_sha256": "aa",
    "clips": 1288,
    "actors": 14,
    "overall": {"war": 0.8472, "uar": 0.8417, "war_interval": [0.781, 0.903], "uar_interval": [0.7794, 0.898]},
    "robustness": None,
}


def plain(text: str) -> str:
    return text.replace(wording.NBSP, " ")


def told(**changes: Any) -> tuple[str, str]:
    war, uar = verdict.verdict({**EVALUATION, **changes}, leaky=False, synthetic=False)
    return plain(war), plain(uar)


def test_the_verdict_names_videos_actors_counts_scores_intervals_and_chance() -> None:
    assert told() == (
        "Of 1,288 videos of 14 actors never seen in training, the model reads the emotion right in 1,091 (84.7 %).",
        "Its 95 % interval is 78.1 to 90.3 % (WAR). With each of the 4 emotions counted alike it is 84.2 %, 77.9 to "
        "89.8 % (UAR). Guessing gives 25.0 %.",
    )


def test_scores_that_are_alike_are_told_once() -> None:
    overall = {"war": 0.9, "uar": 0.90004, "war_interval": [0.8, 0.95], "uar_interval": [0.8, 0.95]}
    _, uar = told(overall=overall)
    assert uar.startswith(
        "Its 95 % interval is 80.0 to 95.0 % (WAR). With each of the 4 emotions counted alike it is the"
    )
    assert " the same (UAR)." in uar


def test_a_model_whose_interval_reaches_guessing_is_said_to_be_no_better() -> None:
    overall = {"war": 0.3, "uar": 0.29, "war_interval": [0.26, 0.36], "uar_interval": [0.25, 0.36]}
    assert told(overall=overall)[0].endswith("right in 386 (30.0 %): not shown to be better than guessing.")
    above = {**overall, "uar_interval": [0.251, 0.36]}
    assert told(overall=above)[0].endswith("right in 386 (30.0 %).")


def test_intervals_over_few_actors_come_with_a_warning() -> None:
    assert told(actors=4)[1].endswith("With only 4 actors, intervals are rough and tend to be too narrow.")


def test_actors_are_called_unseen_only_where_they_are() -> None:
    for leaky, expected in ((True, ", some of whom the model was trained on"), (False, " never seen in training")):
        war, _ = verdict.verdict(EVALUATION, leaky=leaky, synthetic=True)
        assert f"14 drawn actors{expected}, the model" in plain(war)


def against(uar: float, bounds: tuple[float, float] | None = None, **other: Any) -> str:
    baseline = {**EVALUATION, "overall": {"uar": uar}, **other}
    return plain(verdict.compare(EVALUATION, baseline, "single-frame ResNet-18", bounds))


def test_the_difference_is_in_points_and_says_which_way() -> None:
    theirs = "The baseline (single-frame ResNet-18) reaches "
    assert against(0.61) == theirs + "61.0 % UAR: this model is 23.2 points better."
    assert against(0.9) == theirs + "90.0 % UAR: this model is 5.8 points worse."
    assert against(0.8418) == theirs + "84.2 % UAR: no difference."
    assert against(0.61, (0.151, -0.02)).endswith("better (95 % interval of the difference +15.1 to −2.0).")


def test_scores_of_different_things_are_not_subtracted() -> None:
    assert against(0.61, manifest_sha256="bb", clips=9).endswith(
        "but the two were judged on different manifests and numbers of videos, so the scores cannot be compared."
    )
    assert "has not been evaluated" in verdict.compare(EVALUATION, None, "x", None)


OURS = [[8, 0, 0, 0], [0, 8, 0, 0], [0, 0, 7, 1], [1, 5, 0, 2]]
THEIRS = [[8, 0, 0, 0], [6, 0, 2, 0], [0, 0, 6, 2], [0, 1, 0, 7]]


def test_the_emotions_where_two_models_part_come_with_counts_and_what_the_loser_takes_them_for() -> None:
    assert verdict.parting(OURS, THEIRS, LABELS) == (
        "Where they part, in videos read right: happy, 8 of 8 against 0 (the baseline takes it for angry); "
        "sad, 2 of 8 against 7 (this model takes it for happy)."
    )
    assert verdict.parting(OURS, OURS, LABELS) == ""


def test_the_counts_of_the_parting_are_those_of_the_predictions() -> None:
    rng = np.random.default_rng(3)
    truth = np.repeat(np.arange(4), 10)
    ours, theirs = truth.copy(), rng.integers(0, 4, 40)
    counts = [np.zeros((4, 4), int), np.zeros((4, 4), int)]
    for confusion, said in zip(counts, (ours, theirs), strict=True):
        np.add.at(confusion, (truth, said), 1)
    told = verdict.parting(counts[0].tolist(), counts[1].tolist(), LABELS)
    found = re.findall(r"(\w+), 10 of 10 against (\d+)", told)
    assert len(found) == 3
    for label, right in found:
        assert int(right) == (theirs[truth == LABELS.index(label)] == LABELS.index(label)).sum()


def test_a_single_frame_baseline_is_said_to_be_blind_to_movement_and_its_size_is_told() -> None:
    still = plain(verdict.rival("single_frame", 1_400_000, 11_200_000))
    assert "what differs only in how a face moves looks alike to it" in still
    assert still.endswith("It is the larger network: 11.2 million parameters against 1.4 million.")
    moving = plain(verdict.rival("r3d18", 35_600_000, 33_200_000))
    assert moving == "The baseline has 33.2 million parameters against 35.6 million."


def test_a_model_that_gives_most_videos_one_answer_is_said_to() -> None:
    stuck = [[0, 8, 0, 0], [0, 8, 0, 0], [1, 7, 0, 0], [0, 6, 0, 2]]
    assert plain(verdict.confusions(stuck, LABELS)) == "It names happy for 29 of 32 videos, whatever was played."
    assert verdict.confusions(OURS, LABELS).startswith("Most often confused: sad taken for happy")


def test_a_model_that_names_what_most_videos_are_is_not_said_to_be_stuck() -> None:
    assert verdict.confusions([[90, 2, 0, 0], [1, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 2]], LABELS).startswith(
        "Most often"
    )


def disturbed(**uars: float) -> dict[str, Any]:
    variants = [{"name": name.rstrip("_").replace("_", " "), "uar": uar} for name, uar in uars.items()]
    return {**EVALUATION, "robustness": {"clean": {"uar": 0.85}, "variants": variants}}


def test_what_a_model_breaks_under_stands_in_the_verdict() -> None:
    # Half way between 85 and 25 % is 55 %.
    broken = disturbed(blur=0.84, blur_=0.5, darkness=0.26, box_shifted=0.4, noise=0.6, eyes_covered=0.54)
    assert plain(verdict.fragility(broken)) == (
        "It breaks when the picture gets worse: darkness leaves 26.0 % UAR, box shifted 40.0 %, blur 50.0 %."
    )
    assert verdict.fragility(disturbed(blur=0.8, noise=0.6)).startswith("Of 2 kinds of worse pictures none takes")
    assert verdict.fragility(EVALUATION) == ""


def test_a_model_that_only_guesses_cannot_break() -> None:
    overall = {**EVALUATION["overall"], "uar_interval": [0.2, 0.9]}
    assert verdict.fragility({**disturbed(darkness=0.25), "overall": overall}) == ""


def test_the_count_in_the_headline_is_that_of_the_videos_read_right() -> None:
    truth = np.arange(48) % 4
    said = truth.copy()
    said[5] = (said[5] + 1) % 4
    shares = np.eye(4)[said]
    scores = summarize(shares, truth)
    war, _ = told(clips=48, overall={**EVALUATION["overall"], **scores})
    assert war.endswith("the model reads the emotion right in 47 (97.9 %).")


def test_the_baseline_s_report_is_linked_only_where_it_lies_beside(tmp_path: Path) -> None:
    run, beside, elsewhere = tmp_path / "runs" / "a", tmp_path / "runs" / "b c", tmp_path / "other" / "b"
    for folder in (run, beside, elsewhere):
        folder.mkdir(parents=True)
    assert page_beside(run, None) is None
    assert page_beside(run, beside) is None
    for folder in (beside, elsewhere):
        (folder / "report.html").touch()
    assert page_beside(run, beside) == "../b%20c/report.html"
    assert page_beside(run, elsewhere) is None


PAGE = """<head><style>.view > p</style></head><main><h1>A view</h1><p title="views">Views and 95\u00a0% intervals, WAR
and a view.</p><svg><text>UAR</text></svg><p>UAR, <a href="#x">clip</a> overview clip</p></main>
<section id="words"><dl><dt id="word-view" data-forms="view|Views">View</dt><dt id="word-uar">UAR</dt>
<dt id="word-interval" data-forms="95 % intervals">95 % interval</dt><dt id="word-clip">clip</dt></dl></section>"""


def test_the_first_use_of_each_word_leads_to_the_glossary_and_nothing_else_does() -> None:
    linked = link_words(PAGE)
    assert re.findall(r'<a class="word" href="#([\w-]+)">(.*?)</a>', linked) == [
        ("word-view", "Views"), ("word-interval", "95\u00a0% intervals"), ("word-uar", "UAR"), ("word-clip", "clip"),
    ]  # fmt: skip
    assert "<h1>A view</h1>" in linked
    assert "overview <a" in linked
    assert re.sub(r'<a class="word" [^>]*>(.*?)</a>', r"\1", linked) == PAGE
    assert link_words("<main><p>view</p></main>") == "<main><p>view</p></main>"
