"""Training says truly how long it waited for data. Run: pytest tests/test_pace.py"""

import pytest

from trainer import pace
from trainer.pace import Pace


class Clock:
    """Stands in for the module `time`: it stands still unless told otherwise."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


@pytest.mark.parametrize("steps", [1, 2, 100])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_waiting_is_what_the_clock_says(clock, steps, share):
    told = Pace(clips_per_step=8)
    for _ in range(steps):
        with told.waiting():
            clock.now += 2 * share
        clock.now += 2 * (1 - share)
        told.step_done()
    assert told.data_wait == pytest.approx(share)
    assert told.clips_per_second == pytest.approx(4)


def test_what_is_long_past_counts_less_and_a_restart_forgets_it(clock):
    told = Pace(clips_per_step=8)
    for _ in range(10):
        with told.waiting():
            clock.now += 1
        told.step_done()
    assert told.data_wait == pytest.approx(1)
    for _ in range(10):
        clock.now += 1
        told.step_done()
    assert 0.3 < told.data_wait < 0.45
    clock.now += 1000
    told.restart()
    clock.now += 1
    told.step_done()
    assert told.data_wait == 0
    assert told.clips_per_second == pytest.approx(8)
