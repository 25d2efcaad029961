"""No protocol puts a person on both sides, and every take is tested once. Run: pytest tests/test_protocols.py"""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import splits
from manifests.build import Request, build
from manifests.corpora import COMMON6, LABEL_SETS
from manifests.errors import UserError
from manifests.table import EMOTIONS, as_table, read_manifest
from trainer.protocols import PROTOCOLS, VALIDATION_SHARE, fold_rows, leaky_rows, plan_folds

RAVDESS_ACTORS = [f"ravdess_{actor:02}" for actor in range(1, 25)]
CREMA_ACTORS = [f"crema_{actor}" for actor in range(1001, 1092)]


def corpus(ravdess=RAVDESS_ACTORS, crema=CREMA_ACTORS, takes=1, **columns):
    """Rows as a manifest of 8 classes has them: RAVDESS acts all, CREMA-D six."""
    rows = [
        {
            "clip_id": f"{actor}_{emotion}_{take}", "path": f"{actor}/{emotion}_{take}.mp4",
            "dataset": actor.partition("_")[0], "emotion": emotion, "acted_emotion": emotion, "split": "train",
            "actor": actor, "sex": ("female", "male")[number % 2], "channel": "speech", **columns,
        }
        for number, actor in enumerate([*ravdess, *crema])
        for emotion in (EMOTIONS if actor in ravdess else COMMON6)
        for take in range(takes)
    ]  # fmt: skip
    return as_table(pd.DataFrame(rows))


def plan(name, rows=None, labels=EMOTIONS, folds=None):
    return plan_folds(name, corpus() if rows is None else rows, labels, folds)


def people(rows):
    return {split: set(part["actor"]) for split, part in rows.groupby("split")}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_actor_is_on_two_sides_and_every_take_is_tested_at_most_once(name):
    made = plan(name)
    tested = []
    for fold in made.folds:
        rows, _ = fold_rows(made, fold)
        sides = people(rows)
        assert set(sides) == {"train", "val", "test"}
        for one, other in itertools.combinations(sides.values(), 2):
            assert not one & other
        assert len(rows) == len(made.rows)
        tested += rows.loc[rows["split"] == "test", "clip_id"].tolist()
    assert len(tested) == len(set(tested))
    if not PROTOCOLS[name].test_on:
        assert sorted(tested) == sorted(made.rows["clip_id"])


@given(
    ravdess=st.sets(st.sampled_from(RAVDESS_ACTORS), min_size=2),
    crema=st.sets(st.sampled_from(CREMA_ACTORS), min_size=2),
    name=st.sampled_from(["joint", "actors", "ravdess->crema", "crema->ravdess"]),
    takes=st.integers(1, 2),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_whoever_is_there_folds_part_people_and_validation_stays_out_of_the_test(ravdess, crema, name, takes, data):
    crossing = "->" in name
    people_there = len(ravdess) + len(crema)
    folds = None if crossing else data.draw(st.integers(2, min(7, people_there - 2)))
    made = plan(name, corpus(sorted(ravdess), sorted(crema), takes), folds=folds)
    assert made.folds == ([1] if crossing else list(range(1, folds + 1)))
    times_tested = pd.Series(0, index=made.rows["clip_id"])
    for fold in made.folds:
        rows, _ = fold_rows(made, fold)
        sides = people(rows)
        assert sides["train"]
        assert sides["val"]
        assert not sides["test"] & (sides["train"] | sides["val"])
        assert not sides["train"] & sides["val"]
        times_tested[rows.loc[rows["split"] == "test", "clip_id"]] += 1
    expected = made.rows["dataset"] == PROTOCOLS[name].test_on if crossing else True
    assert (times_tested.to_numpy() == np.broadcast_to(expected, len(made.rows))).all()


@pytest.mark.parametrize(("name", "sizes"), [("ravdess6", [4] * 6), ("crema5", [18, 18, 18, 18, 19])])
def test_published_folds_test_the_published_actors(name, sizes):
    made = plan(name)
    tested = [people(fold_rows(made, fold)[0])["test"] for fold in made.folds]
    assert [len(actors) for actors in tested] == sizes
    number = splits.published_folds(made.rows, name)
    assert tested == [set(made.rows["actor"][number == fold]) for fold in made.folds]


def test_a_fold_tests_whom_the_builds_own_fold_tests(tmp_path):
    listing = tmp_path / "own.csv"
    rows = corpus(RAVDESS_ACTORS[:7], CREMA_ACTORS[:8])
    rows[rows["emotion"].isin(COMMON6)][["path", "emotion", "actor", "sex"]].to_csv(listing, index=False)
    build(Request(out=tmp_path / "m.csv", csv=listing, folds="3", fold=2, verify=False))
    built = read_manifest(tmp_path / "m.csv")
    made = plan_folds("actors", built.rows, built.labels, 3)
    assert people(fold_rows(made, 2)[0])["test"] == people(built.rows)["test"]


def test_validation_takes_its_share_of_the_other_actors():
    sides = people(fold_rows(plan("crema5"), 5)[0])
    assert len(sides["val"]) == round(VALIDATION_SHARE * (91 - 19))
    assert people(fold_rows(plan("crema5"), 5)[0]) == sides


def test_joint_folds_have_both_corpora_on_every_side():
    made = plan("joint")
    for fold in made.folds:
        rows, _ = fold_rows(made, fold)
        assert rows.groupby("split")["dataset"].nunique().tolist() == [2, 2, 2]


def test_across_corpora_one_trains_and_the_other_is_tested_whole():
    for name, trains, tests in (("ravdess->crema", "ravdess", "crema"), ("crema->ravdess", "crema", "ravdess")):
        rows, rule = fold_rows(plan(name), 1)
        assert set(rows.loc[rows["split"] != "test", "dataset"]) == {trains}
        assert set(rows.loc[rows["split"] == "test", "actor"]) == {
            actor for actor in (*RAVDESS_ACTORS, *CREMA_ACTORS) if actor.startswith(tests)
        }
        assert name in rule


def test_classes_are_the_protocols_and_what_has_no_place_is_counted():
    rows = corpus()
    rows.loc[rows["clip_id"] == "ravdess_01_sad_0", "channel"] = "song"
    assert plan("ravdess6", rows).labels == LABEL_SETS["ravdess8"]
    assert plan("ravdess6", rows).left_out == {"channel song": 1, "corpus crema": 91 * 6}
    joint = plan("joint", rows)
    assert joint.labels == COMMON6
    assert joint.left_out == {"channel song": 1, "emotion calm": 24, "emotion surprise": 24}
    assert set(joint.rows["emotion"]) == set(COMMON6)
    assert plan("actors", rows).left_out == {}


def test_an_incomplete_corpus_and_merged_calm_are_told():
    rows = corpus(takes=2)
    assert plan("ravdess6", rows).notes == ["384 takes, where the complete corpus has 1440"]
    rows.loc[rows["emotion"] == "calm", "emotion"] = "neutral"
    assert plan("joint", rows).notes == ["48 takes acted as calm count as neutral, as the manifest has it"]


@pytest.mark.parametrize(
    ("name", "rows", "folds", "says"),
    [
        ("ravdess7", corpus(), None, "there is no protocol ravdess7; choose one of ravdess6, crema5, joint"),
        ("ravdess6", corpus(RAVDESS_ACTORS[:12]), None, "lacks 12 of them, the first is ravdess_13"),
        ("ravdess6", corpus(crema=[]).query("emotion in @COMMON6"), None, "no take of calm, surprise; build one with"),
        ("joint", corpus(crema=[]), None, "joint needs ravdess and crema, and the manifest has no take of crema"),
        ("crema5", corpus(), 4, "--folds 4 contradicts crema5"),
        ("actors", corpus(RAVDESS_ACTORS[:3], []), None, "only 3 actors"),
    ],
)
def test_what_cannot_be_dealt_is_one_sentence(name, rows, folds, says):
    with pytest.raises(UserError, match=says):
        plan(name, rows, folds=folds)


def test_a_fold_that_is_not_there_is_one_sentence():
    with pytest.raises(UserError, match="--fold 7 is none of the folds 1, 2, 3, 4, 5, 6 of ravdess6"):
        fold_rows(plan("ravdess6"), 7)


def test_the_leaky_probe_lets_actors_cross_and_is_as_large_as_a_fold():
    made = plan("crema5", corpus(takes=5))
    rows, rule = leaky_rows(made)
    honest, _ = fold_rows(made, 1)
    sides = people(rows)
    assert len(sides["test"] & sides["train"]) > 80
    assert rule.startswith("LEAKY")
    for split in ("train", "val", "test"):
        assert (rows["split"] == split).sum() == pytest.approx((honest["split"] == split).sum(), rel=0.12)
    with pytest.raises(UserError, match="--leaky has no meaning in ravdess->crema"):
        leaky_rows(plan("ravdess->crema"))
