"""The arithmetic behind `make bench`'s figures of training. Run: pytest tests/test_bench_train.py"""

import pytest
from bench_train import epoch_seconds, speedup, take_turns, training_flops

from trainer.config import change_config


def test_the_slower_of_loading_and_computing_decides_over_an_epoch():
    assert epoch_seconds(100, loading=0.4, computing=0.05, cores=4) == pytest.approx(10)
    assert epoch_seconds(100, loading=0.1, computing=0.05, cores=4) == pytest.approx(5)


def test_a_speedup_is_the_median_over_rounds_that_share_their_noise():
    assert speedup([2.0, 20.0, 2.2], [1.0, 10.0, 1.1]) == pytest.approx(2)


def test_every_work_has_its_turn_in_every_round_and_the_first_round_does_not_count():
    order = []
    costs = take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert [len(cost.wall) for cost in costs.values()] == [2, 2]


def test_the_arithmetic_of_an_r50_at_224_px_is_the_known_one():
    """50.6 G multiply-adds forward (counted with fvcore), two operations each, and twice as much going back."""
    config = change_config({"model": {"arch": "slowfast", "se_ratio": None}}, [])
    assert training_flops(config) == pytest.approx(50.6e9 * 2 * 3, rel=0.02)
