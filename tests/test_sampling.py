"""Clips are chosen by time, evenly, and by seed alone. Run: pytest tests/test_sampling.py"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.sampling import (
    ROUNDED,
    TrainingOrder,
    duration_of,
    frames_shown,
    sampling_weights,
    training_frames,
    view_frames,
)


def times_at(fps, seconds):
    return np.arange(round(fps * seconds)) / fps


# Seconds between the frames of any video, and moments in it, before and after it.
gaps = st.lists(st.floats(0.01, 0.5), min_size=1, max_size=60)
moments = st.lists(st.floats(-1, 40), min_size=1, max_size=20)
RATES = (24, 25, 29.97, 30, 60)


@given(gaps, moments)
def test_a_frame_is_shown_from_its_own_time_until_that_of_the_next(gaps, wanted):
    times, wanted = np.cumsum(gaps), np.array(wanted)
    for moment, frame in zip(wanted + ROUNDED, frames_shown(times, wanted), strict=True):
        assert times[frame] <= moment or frame == 0
        assert frame == len(times) - 1 or moment < times[frame + 1]


@pytest.mark.parametrize("decimals", [3, 6, 12])  # FLV and Matroska keep milliseconds
@given(st.integers(4, 64), st.sampled_from(RATES), st.integers(1, 4), st.floats(0, 10))
def test_of_a_video_of_n_times_the_frames_each_nth_is_shown(decimals, frames, rate, times_as_many, start):
    """Uneven steps would be a movement that nobody made."""
    times = np.round(start + np.arange(times_as_many * frames) / rate, decimals)
    shown = view_frames(times, frames, 100.0, 1)[0]
    assert shown.tolist() == list(range(times_as_many // 2, times_as_many * frames, times_as_many))


@given(gaps, st.integers(1, 64), st.floats(0.2, 5), st.integers(1, 5))
def test_views_of_a_video_of_changing_rate_stay_inside_it_and_go_forward(gaps, frames, span, views):
    times = np.cumsum(gaps)
    shown = view_frames(times, frames, span, views)
    assert shown.shape == (views, frames)
    assert shown.min() >= 0
    assert shown.max() < len(times)
    assert (np.diff(shown) >= 0).all()


def test_25_and_30_fps_videos_are_shown_at_the_same_moments():
    slow, fast = times_at(25, 3), times_at(30, 3)
    for views in (1, 3):
        at_25, at_30 = (t[view_frames(t, 16, 2.1, views)] for t in (slow, fast))
        assert np.abs(at_25 - at_30).max() <= 1 / 25 + ROUNDED


def test_a_short_video_is_covered_whole_and_a_long_one_from_start_to_end():
    short = view_frames(times_at(30, 1.0), 16, 2.1, 1)[0]
    assert short[0] <= 1
    assert short[-1] >= 28
    long = view_frames(times_at(30, 10.0), 16, 2.1, 3)
    assert long[0][0] <= 2
    assert long[-1][-1] >= 297


@given(st.integers(2, 200), st.floats(5, 60), st.integers(4, 64), st.floats(0.2, 5), st.integers(0, 2**32))
def test_a_training_clip_stays_inside_the_video_and_goes_forward(frames, fps, wanted, span, seed):
    indices = training_frames(np.arange(frames) / fps, wanted, span, np.random.default_rng(seed))
    assert indices.shape == (wanted,)
    assert indices.min() >= 0
    assert indices.max() < frames
    assert (np.diff(indices) >= 0).all()


def test_a_training_clip_covers_at_least_85_percent_of_its_span():
    times = times_at(30, 5)
    covered = [np.ptp(times[training_frames(times, 32, 2.0, np.random.default_rng(s))]) for s in range(200)]
    assert min(covered) >= 2.0 * 0.85 * 31 / 32 - 1 / 30
    assert max(covered) <= 2.0
    assert np.std(covered) > 0.02


def test_training_clips_start_all_over_a_long_video():
    times = times_at(30, 5)
    starts = [times[training_frames(times, 32, 2.0, np.random.default_rng(s))[0]] for s in range(200)]
    assert min(starts) < 0.4
    assert max(starts) > 2.6


@given(st.integers(4, 50), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
def test_an_epoch_meets_no_video_twice_and_all_but_a_part_of_a_batch(rows, batch, epochs, seed):
    order = list(TrainingOrder(rows, batch, epochs, seed, first_step=0))
    per_epoch = rows // batch
    assert len(order) == epochs * per_epoch
    for epoch in range(epochs):
        met = [key for keys in order[epoch * per_epoch : (epoch + 1) * per_epoch] for key in keys]
        assert {(e, repeat) for e, _, repeat in met} == {(epoch, 0)}
        assert len({row for _, row, _ in met}) == per_epoch * batch


def test_an_unbalanced_order_is_a_permutation_that_never_changes_with_versions():
    first = next(iter(TrainingOrder(17, 4, 3, seed=5, first_step=4)))
    assert first == [(1, row, 0) for row in np.random.default_rng((5, 1)).permutation(17)[:4].tolist()]


powers = st.floats(0, 1)
# Class and corpus of each video; not every corpus has every class.
videos = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["crema", "own", "ravdess"])), min_size=8, max_size=80)


def columns(videos):
    labels, corpora = zip(*videos, strict=True)
    return np.array(labels), np.array(corpora)


def shares(weights, groups):
    return np.array([weights[groups == group].sum() for group in np.unique(groups)])


@given(videos, powers, powers)
def test_a_class_of_n_videos_is_drawn_as_n_to_one_minus_the_power_says(videos, classes, corpora):
    labels, names = columns(videos)
    weights = sampling_weights(labels, names, classes, corpora)
    expected = np.unique(labels, return_counts=True)[1] ** (1 - classes)
    np.testing.assert_allclose(shares(weights, labels), expected / expected.sum(), rtol=1e-6)
    for label in np.unique(labels):
        inside = labels == label
        expected = np.unique(names[inside], return_counts=True)[1] ** (1 - corpora)
        got = shares(weights[inside], names[inside])
        np.testing.assert_allclose(got / got.sum(), expected / expected.sum(), rtol=1e-6)


@given(videos)
def test_without_balancing_the_weights_are_equal_and_the_order_is_the_unbalanced_one(videos):
    labels, corpora = columns(videos)
    weights = sampling_weights(labels, corpora, 0.0, 0.0)
    assert np.ptp(weights) == 0
    assert weights.sum() == pytest.approx(1)
    order = TrainingOrder(len(videos), 3, 2, seed=4, first_step=0)
    assert list(TrainingOrder(len(videos), 3, 2, seed=4, first_step=0, weights=weights)) == list(order)


def test_fully_balanced_every_class_of_every_corpus_comes_up_alike():
    labels = np.repeat([0, 1, 0, 1], [96, 192, 1087, 1271])
    corpora = np.repeat(["ravdess", "crema"], [288, 2358])
    weights = sampling_weights(labels, corpora, 1.0, 1.0)
    np.testing.assert_allclose(shares(weights, 2 * labels + (corpora == "crema")), 0.25)


@given(videos, powers, powers, st.integers(1, 5), st.integers(0, 99))
def test_a_balanced_epoch_meets_each_video_as_often_as_its_weight_says_or_once_more_or_less(
    videos, classes, corpora, batch, seed
):
    labels, names = columns(videos)
    weights = sampling_weights(labels, names, classes, corpora)
    epochs, per_epoch = 6, len(videos) // batch
    order = list(TrainingOrder(len(videos), batch, epochs, seed, 0, weights))
    assert len(order) == epochs * per_epoch
    counts = np.zeros((epochs, len(videos)), int)
    for step, keys in enumerate(order):
        for epoch, row, _ in keys:
            assert epoch == step // per_epoch
            counts[epoch, row] += 1
    expected = weights * per_epoch * batch
    # A deck's share is rounded up or down, and a deck's cards take turns.
    sizes = np.array([(weights == weight).sum() for weight in weights])
    assert (np.abs(counts - expected) < 1 + 1 / sizes + 1e-9).all()
    # Over the whole run turns even out: no video of a deck is ahead of another by more than one.
    total = counts.sum(axis=0)
    balanced = np.ptp(weights) > 0
    assert not balanced or all(np.ptp(total[weights == weight]) <= 1 for weight in np.unique(weights))


def test_what_decks_give_is_their_share_on_average():
    weights = np.repeat([3.0, 1.0], [5, 20])
    drawn = [row for keys in TrainingOrder(25, 6, 400, 1, 0, weights) for _, row, _ in keys]
    assert np.mean(np.array(drawn) < 5) == pytest.approx(15 / 35, abs=0.01)


@given(videos, st.integers(0, 99))
def test_a_video_that_returns_within_an_epoch_returns_as_another_view(videos, seed):
    labels, corpora = columns(videos)
    weights = sampling_weights(labels, corpora, 1.0, 1.0)
    keys = [key for keys in TrainingOrder(len(videos), 2, 3, seed, 0, weights) for key in keys]
    assert len(set(keys)) == len(keys)
    # Returns are counted from 0 without a gap.
    for epoch, row, repeat in keys:
        assert repeat == 0 or (epoch, row, repeat - 1) in keys


WEIGHTS = [None, np.repeat([1.0, 2.0, 9.0], [10, 5, 2])]


@pytest.mark.parametrize("weights", WEIGHTS, ids=["unbalanced", "balanced"])
@pytest.mark.parametrize("first_step", [0, 1, 4, 5, 9, 12])
def test_an_order_taken_up_again_is_the_rest_of_the_first_one(first_step, weights):
    whole = list(TrainingOrder(17, 4, 3, 5, 0, weights))
    rest = TrainingOrder(17, 4, 3, 5, first_step, weights)
    assert list(rest) == whole[first_step:]
    assert len(rest) == len(whole) - first_step


@pytest.mark.parametrize("weights", WEIGHTS, ids=["unbalanced", "balanced"])
@given(world=st.integers(1, 5), batch=st.integers(5, 8), seed=st.integers(0, 99), first_step=st.integers(0, 4))
def test_several_processes_together_see_what_one_sees(weights, world, batch, seed, first_step):
    alone = list(TrainingOrder(17, batch, 3, seed, first_step, weights))
    ranks = [list(TrainingOrder(17, batch, 3, seed, first_step, weights, rank, world)) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {len(alone)}
    for step, keys in enumerate(alone):
        assert all(ranks[place % world][step][place // world] == key for place, key in enumerate(keys))
        assert sum(len(rank[step]) for rank in ranks) == batch


def test_the_seed_changes_a_balanced_order_and_nothing_else_does():
    first, again, other = (list(TrainingOrder(17, 4, 3, seed, 0, WEIGHTS[1])) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_duration_counts_the_last_frame_and_is_0_for_a_still():
    assert duration_of(times_at(25, 2)) == pytest.approx(2.0)
    assert duration_of(np.array([0.0])) == 0.0
