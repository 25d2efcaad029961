"""Following the face that stays: looks of the detector in strides, tracks through them, a box for every frame.

One detection costs as much as decoding five frames, and a face moves little in half a second, so the detector looks
only that often.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from manifests.faces import FaceDetector

STRIDE_SECONDS = 0.5  # boxes in between agree with every-frame detection to a median IoU of 0.96 and more
# A frame that comes so little before the stride is over is looked at: with timestamps in whole milliseconds, or a clock
# that runs a little fast, every look would slip by a whole frame otherwise.
EARLY_SECONDS = 0.005
STEADY_SHARE = 0.25  # seen in fewer of the looks between its first and last sighting, it is no face but false alarms


@dataclass(frozen=True)
class FaceTrack:
    """One face through a video: a box for every frame, interpolated between the frames the detector saw it in."""

    times: np.ndarray  # (N,) seconds
    boxes: np.ndarray  # (N, 4) float x, y, w, h in pixels; all zero when the face was never found
    looked: np.ndarray  # (N,) bool, frames that the detector was run on
    detected: np.ndarray  # (N,) bool, frames in which it saw this face
    scores: np.ndarray  # (N,) float32, the detector's score where detected, else 0
    rolls: np.ndarray  # (N,) float32, degrees that the head leans clockwise where detected, else 0

    @property
    def found(self) -> bool:
        return bool(self.detected.any())

    @property
    def miss_rate(self) -> float:
        """Share of the looks that did not show this face."""
        return 1.0 - float(self.detected.sum()) / max(1, int(self.looked.sum()))

    @property
    def mean_score(self) -> float:
        return float(self.scores[self.detected].mean()) if self.found else 0.0


@dataclass
class _Track:
    """One face over the looks: parallel lists."""

    frames: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    faces: list[np.ndarray] = field(default_factory=list)  # x, y, w, h, score, roll
    weight: float = 0.0  # grows with every look by how large and central the face is there


class FaceFollower:
    """Follows every face through a stream of pictures; `due` says which pictures it wants to see.

    With `roll` it looks twice at each face, to know its tilt well.
    """

    def __init__(
        self, detector: FaceDetector | None = None, stride: float = STRIDE_SECONDS, roll: bool = False
    ) -> None:
        self._detector = detector or FaceDetector()
        self._roll = roll
        self._stride = stride
        self._next_look = -np.inf
        self._times: list[float] = []
        self._looked: list[bool] = []
        self._tracks: list[_Track] = []

    def due(self, time: float) -> bool:
        return time >= self._next_look

    def skip(self, time: float) -> None:
        """A frame that is not looked at still gets a box in the end."""
        self._times.append(time)
        self._looked.append(False)

    def look(self, time: float, picture: np.ndarray) -> None:
        """Detect in one (H, W, 3) uint8 RGB picture and add what is there to the tracks."""
        self._next_look = time + self._stride - EARLY_SECONDS
        self._times.append(time)
        self._looked.append(True)
        frame = len(self._times) - 1
        faces = self._detector.detect(picture)
        for track, face in self._matched(faces, time):
            if self._roll:
                face[5] = self._detector.roll(picture, face)
            track.frames.append(frame)
            track.times.append(time)
            track.faces.append(face)
            track.weight += _prominence(face, picture.shape[0], picture.shape[1])

    def track(self) -> FaceTrack:
        """The face that stays: seen longest, largest, most central. Without one, nothing is `detected`."""
        times = np.array(self._times)
        looked = np.array(self._looked, bool)
        boxes = np.zeros((len(times), 4))
        detected = np.zeros(len(times), bool)
        scores, rolls = np.zeros((2, len(times)), np.float32)
        best = max((t for t in self._tracks if _is_steady(t, looked)), key=lambda t: t.weight, default=None)
        if best is not None:
            faces = np.stack(best.faces)
            detected[best.frames] = True
            scores[best.frames], rolls[best.frames] = faces[:, 4], faces[:, 5]
            for column in range(4):
                boxes[:, column] = np.interp(times, best.times, faces[:, column])
        return FaceTrack(times, boxes, looked, detected, scores, rolls)

    def _matched(self, faces: np.ndarray, time: float) -> list[tuple[_Track, np.ndarray]]:
        """Give each face to the track it continues, nearest pairs first; a face that continues none starts a track."""
        pairs = sorted(
            (distance, number, track)
            for number, face in enumerate(faces)
            for track, distance in ((t, _distance(self._tracks[t], face, time)) for t in range(len(self._tracks)))
            if distance < 1.0
        )
        track_of: dict[int, int] = {}
        for _, number, track in pairs:
            if number not in track_of and track not in track_of.values():
                track_of[number] = track
        for number in range(len(faces)):
            if number not in track_of:
                self._tracks.append(_Track())
                track_of[number] = len(self._tracks) - 1
        return [(self._tracks[track], faces[number]) for number, track in track_of.items()]


def follow_face(
    frames: Iterable[tuple[float, np.ndarray]], detector: FaceDetector | None = None, roll: bool = False
) -> FaceTrack:
    """Consume (seconds, (H, W, 3) uint8 RGB) frames, keep only boxes, and return the track of the face that stays."""
    follower = FaceFollower(detector, roll=roll)
    for time, picture in frames:
        if follower.due(time):
            follower.look(time, picture)
        else:
            follower.skip(time)
    return follower.track()


def _is_steady(track: _Track, looked: np.ndarray) -> bool:
    seen = len(track.frames)
    looks = looked[track.frames[0] : track.frames[-1] + 1].sum()
    return seen >= min(2, looked.sum()) and seen >= STEADY_SHARE * looks


def _distance(track: _Track, face: np.ndarray, time: float) -> float:
    """How far a face is from where a track was last seen, as a share of how far it may have moved: below 1 it fits."""
    last = track.faces[-1]
    sizes = (float(last[2] * last[3]) ** 0.5, float(face[2] * face[3]) ** 0.5)
    if max(sizes) > 2 * min(sizes):
        return np.inf
    apart = np.hypot(*(last[:2] + last[2:4] / 2 - face[:2] - face[2:4] / 2))
    # Half a face at once, and half a face more for each second since: a head turns, a hand hides it for a while.
    reach = max(sizes) * (0.5 + 0.5 * min(time - track.times[-1], 2.0))
    return float(apart / reach)


def _prominence(face: np.ndarray, height: int, width: int) -> float:
    """Weight of one sighting: the face's size against the picture's, halved towards the border."""
    x, y, w, h = face[:4]
    off_centre = max(abs(x + w / 2 - width / 2) / width, abs(y + h / 2 - height / 2) / height) * 2
    return float((w * h) ** 0.5 / min(height, width) * (1.0 - 0.5 * min(off_centre, 1.0)))
