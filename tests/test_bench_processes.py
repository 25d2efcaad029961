"""The arithmetic behind `make bench`'s figures of several machines. Run: pytest tests/test_bench_processes.py"""

import pytest
from bench_processes import scaling


def test_a_ring_sends_nearly_twice_the_gradients_and_hides_them_behind_the_backward_pass():
    told = scaling(flops=3e12, peak=1e13, gradient_bytes=1e8, members=4, bytes_per_second=1e9)
    assert told.computing == pytest.approx(0.3)
    assert told.exchanging == pytest.approx(0.15)
    assert told.efficiency == pytest.approx(1)  # 0.15 s fit into the 0.2 s of going back
    assert told.efficiency_at_worst == pytest.approx(0.3 / 0.45)


def test_a_slow_network_costs_what_does_not_fit_behind_the_backward_pass():
    told = scaling(flops=3e12, peak=1e13, gradient_bytes=1e8, members=2, bytes_per_second=2e8)
    assert told.exchanging == pytest.approx(0.5)
    assert told.efficiency == pytest.approx(0.3 / (0.3 + 0.5 - 0.2))


def test_one_member_alone_exchanges_nothing():
    assert scaling(1e12, 1e12, 1e9, 1, 1.0) == (1.0, 0.0, 1.0, 1.0)
