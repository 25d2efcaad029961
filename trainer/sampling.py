"""Which moments of a video a clip shows, and in which order videos are met: all a function of seeds, never of workers.

Moments are chosen by time, not by frame number, so that 25, 29.97 and 30 fps videos look alike to the network.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


def nearest_frames(times: Floats, wanted: Floats) -> Integers:
    """Index of the frame shown at each wanted second: `(T,)` from frame times `(N,)`, ascending."""
    midpoints = (times[1:] + times[:-1]) / 2
    return np.searchsorted(midpoints, wanted)


def duration_of(times: Floats) -> float:
    """Seconds from the first frame to the end of the last one, which lasts as long as the frames do on average."""
    if len(times) < 2:
        return 0.0
    return float(times[-1] - times[0]) * len(times) / (len(times) - 1)


def training_frames(times: Floats, frames: int, span: float, rng: np.random.Generator) -> Integers:
    """`(frames,)` indices of one training clip: a window of about `span` seconds at a random place and phase.

    A video shorter than the span is covered nearly whole (at least 85 % of it), so that its time course is seen.
    """
    length = duration_of(times)
    window = min(span, length) * rng.uniform(0.85, 1.0)
    start = times[0] + rng.uniform(0, max(length - window, 0.0))
    return nearest_frames(times, start + (np.arange(frames) + rng.uniform()) * window / frames)


def view_frames(times: Floats, frames: int, span: float, views: int) -> Integers:
    """`(views, frames)` indices of fixed test views, spread evenly from the video's start to its end."""
    length = duration_of(times)
    window = min(span, length)
    slack = length - window
    starts = times[0] + (np.linspace(0, slack, views) if views > 1 else np.array([slack / 2]))
    offsets = (np.arange(frames) + 0.5) * window / frames
    return nearest_frames(times, starts[:, None] + offsets)


class TrainingOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, row) for a whole run, from any step on: a fresh permutation of all rows in each epoch.

    The rows that do not fill a batch wait for another epoch's permutation; a batch of one would break BatchNorm.
    """

    def __init__(self, rows: int, batch: int, epochs: int, seed: int, first_step: int) -> None:
        self.rows, self.batch, self.epochs, self.seed, self.first_step = rows, batch, epochs, seed, first_step
        self.steps_per_epoch = rows // batch

    def __len__(self) -> int:
        return self.epochs * self.steps_per_epoch - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, skip = divmod(self.first_step, self.steps_per_epoch)
        while epoch < self.epochs:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.rows)
            for step in range(skip, self.steps_per_epoch):
                yield [(epoch, int(row)) for row in order[step * self.batch : (step + 1) * self.batch]]
            epoch, skip = epoch + 1, 0
