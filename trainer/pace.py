"""How fast training goes: clips per second, and the share of the time in which it waited for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FADE = 0.95  # per step: figures are over about the last 20


class Pace:
    """The figures of about the last 20 steps."""

    def __init__(self, clips_per_step: int) -> None:
        self.clips_per_step = clips_per_step
        self.restart()

    def restart(self) -> None:
        """Forget the past, so that a pause for validation does not count as slow training."""
        self.seconds = self.waited = self.steps = 0.0
        self.waited_now = 0.0  # in the step under way
        self.mark = time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What happens in here is waiting for data."""
        asked = time.monotonic()
        yield
        self.waited_now += time.monotonic() - asked

    def step_done(self) -> None:
        now = time.monotonic()
        self.seconds = self.seconds * FADE + now - self.mark
        self.waited = self.waited * FADE + self.waited_now
        self.waited_now = 0.0
        self.steps = self.steps * FADE + 1
        self.mark = now

    @property
    def clips_per_second(self) -> float:
        return self.steps * self.clips_per_step / max(self.seconds, 1e-9)

    @property
    def data_wait(self) -> float:
        return min(self.waited / max(self.seconds, 1e-9), 1.0)

    def figures(self) -> dict[str, Any]:
        """As status.json and metrics.jsonl hold them."""
        return {"clips_per_second": round(self.clips_per_second, 2), "data_wait": round(self.data_wait, 4)}
