"""The temperature makes a model as sure as it may be, and changes no answer. Run: pytest tests/test_temperature.py"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trainer.temperature import fit_temperature, tempered


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def honest_model(videos, classes=4):
    """(logits, truth) of a model that is right exactly as often as its softmax says."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (videos, classes))
    draws = rng.uniform(size=(videos, 1))
    return logits, (softmax(logits).cumsum(axis=1) < draws).sum(axis=1)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_a_model_that_exaggerates_by_a_factor_gets_that_factor_as_its_temperature(factor):
    logits, truth = honest_model(20_000)
    assert fit_temperature(softmax(logits * factor), truth) == pytest.approx(factor, rel=0.04)


@given(arrays(float, (5, 3), elements=st.floats(1e-6, 1)), st.floats(0.05, 20))
def test_a_temperature_keeps_the_order_of_the_classes_and_the_sum(weights, temperature):
    shares = weights / weights.sum(axis=1, keepdims=True)
    after = tempered(shares, temperature)
    assert np.allclose(after.sum(axis=1), 1)
    for before, now in zip(shares, after, strict=True):
        assert (np.diff(now[np.argsort(before, kind="stable")]) >= 0).all()


def test_one_changes_nothing_and_more_is_less_sure():
    shares = np.array([[0.7, 0.2, 0.1]])
    assert np.allclose(tempered(shares, 1.0), shares)
    assert tempered(shares, 2.0).max() < 0.7 < tempered(shares, 0.5).max()
    assert np.allclose(tempered(np.array([[0.8, 0.2]]), 2.0), [[2 / 3, 1 / 3]])


def test_a_certainty_of_zero_stays_finite():
    assert np.isfinite(tempered(np.array([[1.0, 0.0]]), 0.1)).all()


def test_a_few_videos_that_are_all_read_right_do_not_make_the_model_certain_of_everything():
    shares = np.tile([0.9, 0.1], (20, 1))
    sure = tempered(shares, fit_temperature(shares, np.zeros(20, int)))[0, 0]
    assert 0.9 < sure < 0.99
    # With a hundred times as many the same record vouches for more.
    many = np.tile(shares, (100, 1))
    assert tempered(many, fit_temperature(many, np.zeros(2000, int)))[0, 0] > 0.999


def test_a_model_that_is_always_wrong_is_made_as_unsure_as_may_be():
    shares = np.tile([0.9, 0.1], (50, 1))
    after = tempered(shares, fit_temperature(shares, np.ones(50, int)))
    assert after.max() < 0.56
