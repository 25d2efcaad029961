"""Runs held against each other: the same videos, the same actors drawn. Run: pytest tests/test_compare.py"""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import OVERLAPPING, violations
from toys import TINY, make_corpus

from manifests.errors import UserError
from manifests.files import write_json
from manifests.table import read_manifest
from trainer.__main__ import main
from trainer.compare import Contender, JudgedRun, compare, deviation, difference, differing_settings, draws, figures
from trainer.config import read_config
from trainer.metrics import actor_intervals, paired_interval
from trainer.run import read_json
from trainer.standings import comparison_page, faced, pair_sentence
from trainer.tables import Page, Table, print_page, write_page
from trainer.traits import by_actor, confusion, disturbances, furthest_apart, gain
from trainer.wording import UNDEFINED

LABELS = ("x", "y", "z")
CLIPS, ACTORS = 60, 12
LOOKS = [{"views": 1, "uar": 0.5, "seconds_per_video": 0.02}, {"views": 4, "uar": 0.55, "seconds_per_video": 0.07}]


def predictions(skill, seed=0, clips=CLIPS, dataset=lambda actor: "crema"):
    """Videos of 12 actors, each read right with the probability `skill`."""
    rng, people = np.random.default_rng(seed), np.arange(clips) % ACTORS
    truth = np.arange(clips) // ACTORS % 3
    said = np.where(rng.random(clips) < skill, truth, rng.integers(0, 3, clips))
    return pd.DataFrame({
        "clip_id": [f"clip_{n:03}" for n in range(clips)], "dataset": [dataset(p) for p in people],
        "actor": [f"actor_{p:02}" for p in people], "sex": "female", "intensity": "normal",
        "label": np.array(LABELS)[truth], "predicted": np.array(LABELS)[said],
        **{f"p_{label}": np.where(said == n, 0.8, 0.1) for n, label in enumerate(LABELS)},
    })  # fmt: skip


def make_run(path, frame, *settings, sha="a" * 64, labels=LABELS, leaky=False, steps=(40.0, 50.0, 90.0)):
    """A tested run directory, as far as `compare` reads it."""
    config = read_config(Path("demo.yaml"), list(settings)).model_dump(mode="json")
    facts = {
        "config": config, "labels": list(labels), "seed": config["seed"], "git_revision": "c" * 40,
        "manifest": {"sha256": sha, "leaky": leaky, "synthetic": True}, "clips": {"size": 96},
        "command": f"python -m trainer fit --run {path.name}",
        "hardware": {"device": "cpu"}, "versions": {"torch": "2.14.1"}, "model": {"parameters": 1_234_567},
    }  # fmt: skip
    write_json(path / "run.json", facts)
    variants = [{"name": "blur", "severity": f"{n} px", "uar": 0.5 - n / 10} for n in (1, 2)]
    disturbed = {"clean": {"uar": 0.5}, "variants": variants}
    write_json(path / "evaluation.json", {"views": {"clips": 2, "flip": True}, "robustness": disturbed, "tta": LOOKS})
    write_json(path / "outcome.json", {"outcome": "finished", "seconds": 61.0})
    lines = [{"kind": "step", "step": n, "clips_per_second": speed} for n, speed in enumerate(steps)]
    lines += [{"kind": "evaluation", "split": "val", "step": 10 * n, "uar": n / 4} for n in (1, 2, 3)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    frame.to_csv(path / "predictions.csv", index=False)
    return path


@pytest.fixture
def pair(tmp_path):
    better = make_run(tmp_path / "slow", predictions(0.9, 1))
    worse = make_run(tmp_path / "frame", predictions(0.3, 2), "model.arch=single_frame")
    return [better, worse]


def contender(*frames):
    return Contender("it", [JudgedRun(None, {}, {}, f.set_index("clip_id"), None, None) for f in frames])


def numbers(frame, column):
    return frame[column].map(LABELS.index).to_numpy()


def test_one_run_alone_gets_the_figures_and_the_interval_of_its_own_evaluation():
    frame = predictions(0.6)
    told = figures(contender(frame), LABELS, np.ones(CLIPS, dtype=bool))
    expected = actor_intervals(numbers(frame, "predicted"), numbers(frame, "label"), frame["actor"].to_numpy(), 3, 0)
    assert {name: told[name] for name in expected} == expected
    assert told["war"] == pytest.approx((frame["label"] == frame["predicted"]).mean())
    assert told["uar_sd"] is None
    assert (told["clips"], told["actors"]) == (CLIPS, ACTORS)


def test_the_difference_is_the_paired_one():
    one, other = predictions(0.8, 1), predictions(0.4, 2)
    told = difference(contender(one), contender(other), LABELS, None, np.ones(CLIPS, dtype=bool))
    sides = [numbers(frame, "predicted") for frame in (one, other)]
    expected = paired_interval(*sides, numbers(one, "label"), one["actor"].to_numpy(), 3, 0)
    assert told["uar_interval"] == pytest.approx(expected)
    assert told["uar_interval"][0] < told["uar"] < told["uar_interval"][1]
    assert told["ahead"] > 0.97


@given(st.integers(0, 1000), st.integers(0, 1000), st.floats(0.2, 0.9), st.floats(0.2, 0.9))
@settings(max_examples=15, deadline=None)
def test_a_difference_turned_round_changes_its_sign_and_nothing_else(first, second, skill, other_skill):
    one, other = contender(predictions(skill, first)), contender(predictions(other_skill, second))
    everything = np.ones(CLIPS, dtype=bool)
    there, back = (difference(*sides, LABELS, None, everything) for sides in ((one, other), (other, one)))
    assert there["uar"] == pytest.approx(-back["uar"])
    assert there["uar_interval"] == pytest.approx([-bound for bound in reversed(back["uar_interval"])])
    assert there["ahead"] == pytest.approx(1 - back["ahead"])


def test_a_model_is_not_ahead_of_itself():
    told = difference(*[contender(predictions(0.5))] * 2, LABELS, None, np.ones(CLIPS, dtype=bool))
    assert (told["uar"], told["uar_interval"], told["ahead"]) == (0.0, [0.0, 0.0], 0.5)


def test_seeds_of_one_recipe_are_one_contender_with_their_mean_and_spread(tmp_path):
    skills = (0.5, 0.7, 0.9)
    seeds = [make_run(tmp_path / f"s{n}", predictions(s, n), f"seed={n}") for n, s in enumerate(skills, 1)]
    other = make_run(tmp_path / "other", predictions(0.2, 9), "seed=1", "optim.lr=0.5")
    told = compare([seeds[0], other, *seeds[1:]])
    assert [c["seeds"] for c in told["contenders"]] == [[1, 2, 3], [1]]
    assert [c["name"] for c in told["contenders"]] == ["SlowFast-R18 with SE (s1)", "SlowFast-R18 with SE (other)"]
    alone = [compare([path, other])["contenders"][0]["uar"] for path in seeds]
    assert told["contenders"][0]["uar"] == pytest.approx(np.mean(alone))
    assert told["contenders"][0]["uar_sd"] == pytest.approx(np.std(alone, ddof=1))
    drawn = [
        draws(contender(predictions(s, n)), LABELS, np.ones(CLIPS, dtype=bool))[1] for n, s in enumerate(skills, 1)
    ]
    low, high = np.quantile(np.mean(drawn, axis=0), (0.025, 0.975))
    assert told["contenders"][0]["uar_interval"] == pytest.approx([low, high])
    assert {s["setting"]: s["values"] for s in told["settings"]} == {
        "seed": ["1, 2, 3", "1"], "optim.lr": ["0.002", "0.5"],
    }  # fmt: skip


def test_what_differs_between_runs_is_named_and_nothing_else(pair):
    told = compare(pair)
    assert told["settings"] == [{"setting": "model.arch", "values": ['"slowfast"', '"single_frame"']}]
    assert [c["parameters"] for c in told["contenders"]] == [1_234_567, 1_234_567]
    assert told["contenders"][0]["clips_per_second"] == 50.0
    assert told["contenders"][0]["seconds"] == 61.0


def test_each_corpus_is_judged_by_itself(tmp_path):
    def corpus(actor):
        return "crema" if actor < 8 else "ravdess"

    paths = [
        make_run(tmp_path / name, predictions(skill, 3, dataset=corpus), f"model.arch={name}")
        for name, skill in (("slowfast", 0.8), ("single_frame", 0.3))
    ]
    told = compare(paths)
    assert [pair["corpus"] for pair in told["pairs"]] == [None, "crema", "ravdess"]
    corpora = told["contenders"][0]["corpora"]
    assert {name: (part["clips"], part["actors"]) for name, part in corpora.items()} == {
        "crema": (40, 8), "ravdess": (20, 4),
    }  # fmt: skip
    frame = pd.read_csv(paths[0] / "predictions.csv").query("dataset == 'ravdess'")
    assert corpora["ravdess"]["war"] == pytest.approx((frame["label"] == frame["predicted"]).mean())


def relabelled(frame):
    return frame.assign(label=["z", *frame["label"][1:]])


@pytest.mark.parametrize(
    ("other", "options", "says"),
    [
        (predictions(0.5, clips=48), {}, r"slow was tested on 12 videos that .*other was not tested on.*clip_048"),
        (predictions(0.5, clips=72), {}, r"other was tested on 12 videos that .*slow was not tested on.*clip_060"),
        (relabelled(predictions(0.5)), {}, r"clip_000 is x in .*slow and z in .*other"),
        (predictions(0.5), {"labels": ("x", "z", "y")}, r"slow knows the classes x, y, z and .*other .* x, z, y"),
    ],
)
def test_runs_that_were_not_judged_alike_are_refused_in_one_sentence(tmp_path, other, options, says):
    one = make_run(tmp_path / "slow", predictions(0.9))
    with pytest.raises(UserError, match=says):
        compare([one, make_run(tmp_path / "other", other, "optim.lr=0.1", **options)])


def test_one_run_no_run_an_untested_run_and_a_run_twice_are_one_sentence(pair, tmp_path, capsys):
    assert main(["compare", str(pair[0])]) == 2
    assert "one run cannot be compared" in capsys.readouterr().err
    assert main(["compare", str(pair[0]), str(tmp_path / "no")]) == 2
    assert "is no run directory; train first" in capsys.readouterr().err
    assert main(["compare", str(pair[0]), str(pair[0])]) == 2
    assert "are one and the same run" in capsys.readouterr().err
    (pair[1] / "evaluation.json").unlink()
    assert main(["compare", *map(str, pair)]) == 2
    assert "has not been tested yet" in capsys.readouterr().err


def test_the_manifest_counts_as_a_difference_and_a_leaky_one_is_shouted(tmp_path, capsys):
    one = make_run(tmp_path / "a", predictions(0.9, 1))
    other = make_run(tmp_path / "b", predictions(0.5, 2), sha="b" * 64, leaky=True)
    assert main(["compare", str(one), str(other)]) == 0
    said = capsys.readouterr().out
    assert "Leaky split: do not quote these scores." in said
    assert "manifest.sha256" in said


def test_the_terminal_gets_the_table_a_program_the_json_and_a_browser_the_page(pair, tmp_path, capsys):
    page = tmp_path / "compare.html"
    assert main(["compare", *map(str, pair), "--out", str(page)]) == 0
    said = capsys.readouterr().out
    told = compare(pair)
    assert f"{100 * told['contenders'][0]['uar']:.1f}" in said
    assert "SlowFast-R18 with SE minus single-frame ResNet-18" in said
    assert "Drawn faces, not people." in said
    assert "2 models on the same 60 videos of 12 actors" in said.replace("\u00a0", " ")
    assert "<svg" not in said
    assert main(["compare", *map(str, pair), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(told))
    before = page.read_bytes()
    write_page(page, comparison_page(told))
    assert page.read_bytes() == before


def test_the_page_asks_for_nothing_and_fits_a_phone(pair, tmp_path, browser):
    page = tmp_path / "compare.html"
    write_page(page, comparison_page(compare(pair)))
    browser.open(page, 360)
    assert browser.evaluate("document.documentElement.scrollWidth") == 360
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.evaluate(OVERLAPPING) == []
    assert violations(browser) == []
    titles = browser.evaluate("[...document.querySelectorAll('h2')].map(h => h.innerText)")
    assert titles == [
        "Is the difference real?", "How training went", "What they confuse", "Person by person",
        "Can their confidence be trusted?", "One view or several", "Worse pictures",
        "Where they part", "What differs between them",
        "How to make it again", "What the words mean",
    ]  # fmt: skip
    assert browser.evaluate("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")


def test_a_page_escapes_what_it_is_given(tmp_path):
    table = Table("<b>", ("model", "n", ""), [["<i>\nnote", "1", ""]])
    write_page(tmp_path / "page.html", Page("<k>", "<h>", ["<l>"], [table], banners=[("<s>", "<f>")], notes=["<n>"]))
    text = (tmp_path / "page.html").read_text()
    for raw in ("<k>", "<i>", "<l>", "<s>", "<n>"):
        assert raw not in text
    assert "&lt;i&gt;<small>note</small>" in text


def test_brackets_in_names_reach_the_terminal_as_they_are(capsys):
    print_page(Page("k", "[red]h", [], [Table("c", ("model",), [["run [a]"]])]))
    assert "[red]h" in (said := capsys.readouterr().out)
    assert "run [a]" in said


def told_pair(uar, low, high, ahead):
    return {"first": "A", "second": "B", "uar": uar, "uar_interval": [low, high], "ahead": ahead}


def test_the_sentence_names_the_better_one_first_and_says_when_nobody_can_tell():
    above = pair_sentence(told_pair(0.1, 0.02, 0.18, 0.99)).replace("\u00a0", " ")
    assert above == (
        "A is 10.0 points of UAR above B (95 % interval +2.0 to +18.0), ahead in 99.0 % of the resamplings of actors."
    )
    below = pair_sentence(told_pair(-0.1, -0.18, 0.02, 0.2)).replace("\u00a0", " ")
    assert below.startswith("B is 10.0 points of UAR above A (95 % interval −2.0 to +18.0), ahead in 80.0 %")
    assert below.endswith("These actors do not tell the two apart.")
    assert pair_sentence(told_pair(0.0, 0.0, 0.0, 0.5)).startswith("A and B read equally well")


def test_table_and_sentence_tell_a_difference_from_the_same_side(pair):
    pairs = [
        {**told_pair(-0.3, -0.4, -0.2, 0.0), "corpus": None},
        {**told_pair(0.1, -0.2, 0.3, 0.6), "corpus": "crema"},
    ]
    assert faced(pairs) == [
        {"first": "B", "second": "A", "corpus": None, "uar": 0.3, "uar_interval": [0.2, 0.4], "ahead": 1.0},
        {"first": "B", "second": "A", "corpus": "crema", "uar": -0.1, "uar_interval": [-0.3, 0.2], "ahead": 0.4},
    ]
    page = comparison_page(compare(pair[::-1]))
    (sentence,), (row,) = page.leads, page.sections[0].tables[0].rows
    assert row[0] == "SlowFast-R18 with SE minus single-frame ResNet-18"
    assert row[2] == f"+{re.search(r'is ([0-9.]+)', sentence).group(1)}"
    assert row[3] in sentence
    assert page.heading.startswith("SlowFast-R18 with SE reads best: ")


def test_drawn_corpora_are_called_drawn(tmp_path):
    frames = [predictions(skill, 3, dataset=lambda actor: "crema" if actor < 8 else "ravdess") for skill in (0.8, 0.3)]
    paths = [make_run(tmp_path / str(n), frame, f"optim.lr=0.{n}") for n, frame in enumerate(frames, 1)]
    page = comparison_page(compare(paths))
    assert [row[1] for row in page.sections[0].tables[0].rows] == ["all", "crema (drawn)", "ravdess (drawn)"]
    (groups,) = (section for section in page.sections if section.id == "groups")
    assert {row[0] for row in groups.tables[0].rows} == {"crema (drawn)", "ravdess (drawn)"}


def test_the_spread_of_one_is_not_zero_but_unknown():
    assert deviation([0.5]) is None
    assert deviation([0.4, 0.6]) == pytest.approx(np.sqrt(0.02))


def test_seeds_that_all_contenders_share_are_no_difference(tmp_path):
    facts = [{"config": {"seed": seed, "lr": lr}} for lr in (1, 2) for seed in (1, 2)]
    runs = [JudgedRun(tmp_path, fact, {}, pd.DataFrame(), None, None) for fact in facts]
    assert differing_settings([Contender("a", runs[:2]), Contender("b", runs[2:])]) == [
        {"setting": "lr", "values": ["1", "2"]}
    ]


def test_real_runs_of_two_networks_are_compared_on_the_videos_of_the_test_split(tmp_path, capsys):
    manifest, clips = make_corpus(tmp_path)
    for arch in ("slowfast", "single_frame"):
        words = ["fit", "--config", "demo.yaml", "--manifest", manifest, "--clips", clips, "--run", tmp_path / arch]
        assert main([str(word) for word in (*words, *TINY, "optim.epochs=1", f"model.arch={arch}")]) == 0
    told = compare([tmp_path / "slowfast", tmp_path / "single_frame"])
    assert told["clips"] == (read_manifest(manifest).rows["split"] == "test").sum()
    for contender_, arch in zip(told["contenders"], ("slowfast", "single_frame"), strict=True):
        overall = read_json(tmp_path / arch / "evaluation.json")["overall"]
        for name in ("war", "uar", "macro_f1"):
            assert contender_[name] == pytest.approx(overall[name])
    print_page(comparison_page(told))
    assert UNDEFINED in capsys.readouterr().out  # one epoch is too short for a logged speed


def test_counts_of_all_runs_of_a_contender_are_added_and_actors_averaged():
    frames = [predictions(0.8, seed).set_index("clip_id") for seed in (1, 2)]
    added = np.array(confusion(frames, LABELS))
    assert added.sum() == 2 * CLIPS
    right = np.mean([(frame["predicted"] == frame["label"]).mean() for frame in frames])
    assert np.trace(added) / added.sum() == pytest.approx(right)
    shares = by_actor(frames)
    one = [frame[frame["actor"] == "actor_03"] for frame in frames]
    assert shares["actor_03"] == pytest.approx(np.mean([(f["predicted"] == f["label"]).mean() for f in one]))


def test_the_videos_furthest_apart_come_first_with_what_each_read():
    one = predictions(1.0).set_index("clip_id")
    other = one.copy()
    wrong = "y" if one["label"].iloc[7] != "y" else "z"
    other.loc["clip_007", ["predicted", *(f"p_{label}" for label in LABELS)]] = [
        wrong, *(0.9 if label == wrong else 0.05 for label in LABELS)
    ]  # fmt: skip
    first, *others = furthest_apart([[one], [other]], LABELS)
    assert (first["clip_id"], first["played"], first["read"]) == (
        "clip_007",
        one["label"].iloc[7],
        [one["label"].iloc[7], wrong],
    )
    assert first["probability"] == pytest.approx([0.8, 0.05])
    assert all(video["read"][0] == video["read"][1] for video in others)


def test_disturbances_are_compared_only_where_all_were_disturbed_alike():
    def figures_(clean, *uars):
        variants = [{"name": "blur", "severity": str(n), "uar": uar} for n, uar in enumerate(uars)]
        return {"clean": {"uar": clean}, "variants": variants}

    told = disturbances([figures_(0.8, 0.6, 0.4), figures_(0.6, 0.4, 0.2)])
    assert told["clean"] == pytest.approx(0.7)
    assert [variant["uar"] for variant in told["variants"]] == pytest.approx([0.5, 0.3])
    assert disturbances([figures_(0.8, 0.6), None]) is None
    assert disturbances([figures_(0.8, 0.6), figures_(0.8, 0.6, 0.5)]) is None


def test_what_more_looks_bring_is_the_mean_over_runs():
    more = [LOOKS[0] | {"uar": 0.7}, LOOKS[1] | {"uar": 0.65}]
    told = gain([LOOKS, more])
    assert told["views"] == 4
    assert (told["uar_one"], told["uar_most"]) == pytest.approx((0.6, 0.6))
    assert told["seconds_per_video_most"] == pytest.approx(0.07)
    assert gain([LOOKS, []]) is None


def test_what_runs_do_not_have_is_no_section_and_what_is_long_is_not_printed(pair, capsys):
    for path in pair:
        write_json(path / "evaluation.json", {"views": {"clips": 2, "flip": True}, "robustness": None, "tta": []})
        (path / "metrics.jsonl").write_text("")
    page = comparison_page(compare(pair))
    assert {"curves", "gain", "robustness", "groups"}.isdisjoint(section.id for section in page.sections)
    print_page(page)
    said = capsys.readouterr().out
    assert "actor_03" not in said
    assert "Share of each emotion" in said
