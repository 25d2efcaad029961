"""Holding a head upright: one smooth angle over a clip, from what the detector's looks show of its tilt.

A head tilts slowly and landmarks jitter at once, so looks that leap are left out and the rest is smoothed over about
half a second: what a frame is turned by never shows the network a motion that was not there.
"""

from dataclasses import dataclass

import numpy as np

from manifests.following import FaceTrack

LARGEST = 30.0  # degrees; past that the landmarks err more than the tilt matters
LEAP = 15.0  # degrees from the median of the looks around: no head, but a landmark that slipped
AROUND_SECONDS = 1.0
SMOOTH_SECONDS = 0.25  # standard deviation: half of the weight lies within a third of a second
GRID_SECONDS = 0.02


@dataclass(frozen=True)
class RollTrack:
    """The tilt of a head in every frame of a video, smooth."""

    angles: np.ndarray  # (N,) degrees, clockwise positive; all zero when the head is not straightened
    straightened: bool  # False: tilted past LARGEST, or too wildly to tell, in most looks; the picture stays as it is
    left_out: int  # looks whose angle was not believed

    def facts(self) -> dict[str, float | bool]:
        """What a prepared clip keeps of it: the angle's mean and range, to a hundredth of a degree."""
        measured = {"mean": self.angles.mean(), "least": self.angles.min(), "most": self.angles.max()}
        rounded = {name: round(float(value), 2) for name, value in measured.items()}
        return {**rounded, "straightened": self.straightened, "looks_left_out": self.left_out}


def track_roll(face: FaceTrack) -> RollTrack:
    """The smooth tilt over a face's track, interpolated between the looks that are believed."""
    seconds, tilts = face.times[face.detected], face.rolls[face.detected]
    believed = np.abs(tilts) <= LARGEST
    around = [np.median(tilts[np.abs(seconds - second) <= AROUND_SECONDS]) for second in seconds]
    believed &= np.abs(tilts - around) <= LEAP
    left_out = int((~believed).sum())
    if believed.sum() <= left_out:
        return RollTrack(np.zeros(len(face.times)), False, left_out)
    angles = _smooth(face.times, np.interp(face.times, seconds[believed], tilts[believed]))
    return RollTrack(np.clip(angles, -LARGEST, LARGEST), True, left_out)


def _smooth(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(N,) values at rising times, under a Gaussian of SMOOTH_SECONDS; at the ends a slope goes on as it was."""
    grid = np.arange(times[0], times[-1] + 2 * GRID_SECONDS, GRID_SECONDS)
    reach = round(3 * SMOOTH_SECONDS / GRID_SECONDS)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) * GRID_SECONDS / SMOOTH_SECONDS) ** 2)
    around = np.pad(np.interp(grid, times, values), reach, mode="reflect", reflect_type="odd")
    return np.interp(times, grid, np.convolve(around, weights / weights.sum(), mode="valid"))
