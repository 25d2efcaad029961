"""Who trains and who tests. Run: .venv/bin/python -m pytest tests/test_splits.py"""

from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import splits
from manifests.errors import UserError

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad")
SHARES = (0.7, 0.15, 0.15)


def takes_of(actors: list[tuple[str, str, list[int]]]) -> pd.DataFrame:
    """Rows of actors given as (dataset, sex, takes of each emotion)."""
    rows = [
        (f"{dataset}_{number:03d}", dataset, sex, emotion)
        for number, (dataset, sex, counts) in enumerate(actors)
        for emotion, count in zip(EMOTIONS, counts, strict=False)
        for _ in range(count)
    ]
    frame = pd.DataFrame(rows, columns=["actor", "dataset", "sex", "emotion"])
    return frame.assign(clip_id=[f"take_{number:05d}" for number in range(len(frame))])


def ravdess(actors: int = 24) -> list[tuple[str, str, list[int]]]:
    return [("ravdess", "male" if number % 2 else "female", [8, 8, 8, 8, 4, 8]) for number in range(actors)]


def crema(men: int = 48, women: int = 43) -> list[tuple[str, str, list[int]]]:
    return [("crema", sex, [14, 14, 14, 14, 12, 14]) for sex in ["male"] * men + ["female"] * women]


people = st.lists(
    st.tuples(
        st.sampled_from(["ravdess", "crema", "own"]),
        st.sampled_from(["male", "female", ""]),
        st.lists(st.integers(0, 9), min_size=6, max_size=6).filter(any),
    ),
    min_size=3,
    max_size=16,
)
some_shares = st.sampled_from(
    [(0.7, 0.15, 0.15), (0.6, 0.3, 0.1), (1 / 3, 1 / 3, 1 / 3), (0.8, 0.0, 0.2), (0.98, 0.01, 0.01)]
)


@settings(max_examples=40, deadline=None)
@given(people, some_shares, st.integers(0, 2**31))
def test_an_actor_is_never_in_two_splits_and_no_split_is_empty(
    actors: list[tuple[str, str, list[int]]], shares: tuple[float, float, float], seed: int
) -> None:
    rows = takes_of(actors)
    split = pd.Series(splits.split_by_actor(rows, shares, seed))
    assert (split.groupby(rows["actor"]).nunique() == 1).all()
    assert set(split) == {name for name, share in zip(splits.SPLITS, shares, strict=True) if share}


@settings(max_examples=40, deadline=None)
@given(people, some_shares, st.integers(0, 2**31))
def test_shares_are_met_within_what_actors_allow(
    actors: list[tuple[str, str, list[int]]], shares: tuple[float, float, float], seed: int
) -> None:
    rows = takes_of(actors)
    split = pd.Series(splits.split_by_actor(rows, shares, seed))
    biggest = rows["actor"].value_counts().max() / len(rows)
    for name, share in zip(splits.SPLITS, shares, strict=True):
        # Val and test get an actor of every corpus that has enough, however small their shares: train pays for both.
        assert abs((split == name).mean() - share) <= 2 * rows["dataset"].nunique() * biggest + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_with_actors_enough_the_shares_are_met_to_two_actors(seed: int) -> None:
    for actors in (ravdess(10), ravdess(24), crema(), crema(91, 0)):
        rows = takes_of(actors)
        split = splits.split_by_actor(rows, SHARES, seed)
        for name, share in zip(splits.SPLITS, SHARES, strict=True):
            assert abs((split == name).mean() - share) <= 2 / len(actors)


@settings(max_examples=20, deadline=None)
@given(people, st.integers(0, 99), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(
    actors: list[tuple[str, str, list[int]]], seed: int, random: st.DataObject
) -> None:
    rows = takes_of(actors)
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = rows.iloc[order].reset_index(drop=True)
    for method in (
        lambda takes: splits.split_by_actor(takes, SHARES, seed),
        lambda takes: splits.split_takes(takes, SHARES, seed),
    ):
        assert dict(zip(rows["clip_id"], method(rows), strict=True)) == dict(
            zip(shuffled["clip_id"], method(shuffled), strict=True)
        )


def test_the_real_corpora_are_split_evenly_by_emotion_corpus_and_sex() -> None:
    rows = takes_of(ravdess() + crema())
    for seed in range(5):
        split = splits.split_by_actor(rows, SHARES, seed)
        for name, share in zip(splits.SPLITS, SHARES, strict=True):
            part = rows[split == name]
            for column in ("emotion", "dataset", "sex"):
                for value, whole in rows[column].value_counts().items():
                    assert (part[column] == value).sum() / whole == pytest.approx(share, abs=0.04), (seed, name, value)
        sexes = rows[(split == "test") & (rows["dataset"] == "ravdess")].drop_duplicates("actor")["sex"]
        assert Counter(sexes) == {"male": 2, "female": 2}


def test_twelve_and_twelve_actors_put_both_corpora_in_every_split() -> None:
    rows = takes_of(ravdess(12) + crema(6, 6))
    for seed in range(20):
        split = splits.split_by_actor(rows, SHARES, seed)
        assert rows.assign(split=split).groupby("split")["dataset"].nunique().eq(2).all()
        assert Counter(rows.assign(split=split).drop_duplicates("actor")["split"]) == {"train": 16, "val": 4, "test": 4}


def test_another_seed_deals_other_actors_and_the_same_seed_the_same() -> None:
    rows = takes_of(ravdess())
    dealt = {tuple(splits.split_by_actor(rows, SHARES, seed)) for seed in range(6)}
    assert len(dealt) > 1
    assert tuple(splits.split_by_actor(rows, SHARES, 3)) == tuple(splits.split_by_actor(rows, SHARES, 3))


def test_the_dealing_is_fixed_for_all_machines() -> None:
    rows = takes_of(ravdess())
    split = pd.Series(splits.split_by_actor(rows, SHARES, 0), index=rows["actor"])
    assert sorted(set(split.index[split == "test"])) == PINNED_TEST_ACTORS


PINNED_TEST_ACTORS = ["ravdess_004", "ravdess_007", "ravdess_011", "ravdess_022"]


def test_too_few_actors_are_named() -> None:
    with pytest.raises(
        UserError, match=r"^only 1 actor \(ravdess_000\): a split into train, val, test by actor needs 3"
    ):
        splits.split_by_actor(takes_of(ravdess(1)), SHARES, 0)
    with pytest.raises(UserError, match=r"^only 2 actors .*: --folds 5 by actor needs 5"):
        splits.fold_by_actor(takes_of(ravdess(2)), 5, 0)


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("70/15/15", (0.7, 0.15, 0.15)),
        ("0.6/0.3/0.1", (0.6, 0.3, 0.1)),  # 0.6 + 0.3 + 0.1 is not 1.0 in binary
        ("0.1/0.2/0.7", (0.1, 0.2, 0.7)),
        ("33.3/33.3/33.4", (0.333, 0.333, 0.334)),
        ("100/0/0", (1.0, 0.0, 0.0)),
    ],
)
def test_shares_are_read_exactly(text: str, shares: tuple[float, float, float]) -> None:
    assert splits.parse_shares(text) == shares


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("70/20/20", "sum to 110, not to 100"),
        ("0.7/0.2/0.2", "sum to 1.1, not to 100"),
        ("80/20", "is not three shares"),
        ("a/b/c", "is not three shares"),
        ("120/-10/-10", "is not three shares"),
        ("nan/1/1", "is not three shares"),
        ("inf/0/0", "is not three shares"),
    ],
)
def test_wrong_shares_are_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        splits.parse_shares(text)


@settings(max_examples=30, deadline=None)
@given(people, st.integers(2, 6), st.integers(0, 2**31))
def test_every_actor_is_tested_in_exactly_one_of_k_folds(
    actors: list[tuple[str, str, list[int]]], folds: int, seed: int
) -> None:
    rows = takes_of(actors)
    if rows["actor"].nunique() < folds:
        with pytest.raises(UserError, match=r"^only "):
            splits.fold_by_actor(rows, folds, seed)
        return
    number = pd.Series(splits.fold_by_actor(rows, folds, seed))
    assert (number.groupby(rows["actor"]).nunique() == 1).all()
    assert set(number) == set(range(1, folds + 1))


def unevenness(rows: pd.DataFrame, number: np.ndarray, folds: int) -> list[float]:
    """Root mean square of each fold's share of every emotion, corpus, sex and of all takes, away from an even one."""
    shares = []
    for column in ("emotion", "dataset", "sex", None):
        values = rows[column] if column else pd.Series("all", index=rows.index)
        shares.append((pd.crosstab(values, number, normalize="index") * folds - 1).pow(2).mean().mean() ** 0.5)
    return shares


def test_k_folds_are_as_even_as_those_of_scikit_learn() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    random = np.random.default_rng(0)
    skewed = [("own", sex, list(random.choice([0, 1, 2, 5, 20], 6))) for sex in ["male", "female"] * 40]
    for actors in (ravdess(), crema(), ravdess() + crema(), skewed):
        rows = takes_of([actor for actor in actors if any(actor[2])])
        classes = rows["dataset"] + rows["sex"] + rows["emotion"]
        for folds in (5, 6):
            theirs = np.zeros(len(rows), dtype=int)
            splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
            for fold, (_, test) in enumerate(splitter.split(classes, classes, rows["actor"])):
                theirs[test] = fold
            ours = unevenness(rows, splits.fold_by_actor(rows, folds, 0), folds)
            assert sum(ours) <= sum(unevenness(rows, theirs, folds)) + 0.02, (len(actors), folds)


def test_as_many_folds_as_actors_leave_none_empty() -> None:
    # scikit-learn's StratifiedGroupKFold leaves one of six folds empty for these six actors.
    counts = [[2, 0, 0, 9, 2, 0], [1, 0, 0, 2, 9, 2], [0, 2, 9, 0, 9, 0], [0, 0, 0, 9, 0, 0], [9, 0, 0, 9, 0, 0]]
    corpora = ["own", "crema", "crema", "crema", "ravdess", "ravdess"]
    rows = takes_of([(corpus, "", takes) for corpus, takes in zip(corpora, [*counts, [2, 0, 9, 1, 0, 0]], strict=True)])
    assert sorted(set(splits.fold_by_actor(rows, 6, 0))) == [1, 2, 3, 4, 5, 6]


def test_the_published_folds_are_these() -> None:
    rows = takes_of([])
    four = {
        number: [f"ravdess_{actor:02d}" for actor in range(4 * number - 3, 4 * number + 1)] for number in range(1, 7)
    }
    starts = [1001, 1019, 1037, 1055, 1073, 1092]
    eighteen = {
        number: [f"crema_{actor}" for actor in range(start, stop)]
        for number, (start, stop) in enumerate(pairwise(starts), start=1)
    }
    for name, published in (("ravdess6", four), ("crema5", eighteen)):
        actors = [actor for fold in published.values() for actor in fold]
        rows = pd.DataFrame({"actor": actors})
        number = splits.published_folds(rows, name)
        assert {fold: [a for a, n in zip(actors, number, strict=True) if n == fold] for fold in published} == published
    assert set(splits.named_folds()) == {"crema5", "ravdess5", "ravdess6"}


def test_named_folds_list_each_actor_of_their_corpus_once() -> None:
    for name, count in (("ravdess5", 24), ("ravdess6", 24), ("crema5", 91)):
        listed = pd.read_csv(splits.named_folds()[name])["actor"]
        assert (len(listed), listed.nunique()) == (count, count)


def test_named_folds_refuse_an_actor_that_they_do_not_list() -> None:
    with pytest.raises(UserError, match="do not list crema_1001: build from that corpus alone"):
        splits.published_folds(pd.DataFrame({"actor": ["ravdess_01", "crema_1001"]}), "ravdess6")


def test_the_fold_after_the_tested_one_validates_and_the_first_follows_the_last() -> None:
    number = np.array([1, 2, 3, 4, 5, 6])
    assert list(splits.split_of_fold(number, 1, True)) == ["test", "val", "train", "train", "train", "train"]
    assert list(splits.split_of_fold(number, 6, True)) == ["val", "train", "train", "train", "train", "test"]
    assert list(splits.split_of_fold(number, 2, False)) == ["train", "test", "train", "train", "train", "train"]


def test_a_fold_out_of_range_is_a_sentence() -> None:
    with pytest.raises(UserError, match="--fold 7 is not among the folds 1 to 6"):
        splits.split_of_fold(np.arange(1, 7), 7, True)
    with pytest.raises(UserError, match="two folds leave no actors to validate on"):
        splits.split_of_fold(np.array([1, 2]), 1, True)
    with pytest.raises(UserError, match="--folds 1 is no division"):
        splits.fold_by_actor(takes_of(ravdess()), 1, 0)


def test_training_on_one_corpus_tests_on_all_of_the_other() -> None:
    rows = takes_of(ravdess() + crema())
    split = pd.Series(splits.split_by_dataset(rows, "crema", SHARES, 0))
    assert set(split[rows["dataset"] == "crema"]) == {"test"}
    assert set(split[rows["dataset"] == "ravdess"]) == {"train", "val"}
    assert (split.groupby(rows["actor"]).nunique() == 1).all()
    with pytest.raises(UserError, match="needs takes of that corpus and of another"):
        splits.split_by_dataset(rows, "own", SHARES, 0)


def test_the_leaky_split_leaks_and_still_meets_its_shares_in_every_emotion() -> None:
    rows = takes_of(ravdess() + crema())
    split = pd.Series(splits.split_takes(rows, SHARES, 0))
    assert (split.groupby(rows["actor"]).nunique() > 1).mean() > 0.9
    for _, part in split.groupby([rows["dataset"], rows["emotion"]]):
        for name, share in zip(splits.SPLITS, SHARES, strict=True):
            assert abs((part == name).sum() - share * len(part)) <= 1
