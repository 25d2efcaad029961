"""Clips are chosen by time, evenly, and by seed alone. Run: pytest tests/test_sampling.py"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.sampling import TrainingOrder, duration_of, nearest_frames, training_frames, view_frames


def times_at(fps, seconds):
    return np.arange(round(fps * seconds)) / fps


@given(st.lists(st.floats(0.01, 0.5), min_size=1, max_size=60), st.lists(st.floats(-1, 40), min_size=1, max_size=20))
def test_the_nearest_frame_is_the_nearest_frame(gaps, wanted):
    times, wanted = np.cumsum(gaps), np.array(wanted)
    chosen = nearest_frames(times, wanted)
    best = np.abs(times[None] - wanted[:, None]).min(axis=1)
    np.testing.assert_allclose(np.abs(times[chosen] - wanted), best, atol=1e-9)


def test_25_and_30_fps_videos_are_shown_at_the_same_moments():
    slow, fast = times_at(25, 3), times_at(30, 3)
    for views in (1, 3):
        at_25, at_30 = (t[view_frames(t, 16, 2.1, views)] for t in (slow, fast))
        assert np.abs(at_25 - at_30).max() <= 0.5 / 25 + 0.5 / 30 + 1e-9


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
        assert {e for e, _ in met} == {epoch}
        assert len({row for _, row in met}) == per_epoch * batch


@pytest.mark.parametrize("first_step", [0, 1, 4, 5, 9, 12])
def test_an_order_taken_up_again_is_the_rest_of_the_first_one(first_step):
    whole = list(TrainingOrder(17, 4, 3, seed=5, first_step=0))
    rest = TrainingOrder(17, 4, 3, seed=5, first_step=first_step)
    assert list(rest) == whole[first_step:]
    assert len(rest) == len(whole) - first_step


def test_duration_counts_the_last_frame_and_is_0_for_a_still():
    assert duration_of(times_at(25, 2)) == pytest.approx(2.0)
    assert duration_of(np.array([0.0])) == 0.0
