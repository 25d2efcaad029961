"""Move a painted face: its muscles by facial action units, its head by a pose; one picture per call.

Action units follow the numbering of the Facial Action Coding System (Ekman and Friesen 1978). Brows, eyes, mouth and
folds are drawn anew in every picture, over the portrait that was painted once; one `cv2.remap` turns the head.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from manifests.identity import Identity
from manifests.portrait import BROW_Y, EYE_X, EYE_Y, MOUTH_Y, paint
from manifests.strokes import (
    ORIGIN,
    UNIT,
    Colour,
    Image,
    Point,
    fill,
    mixed,
    scaled,
    smooth,
    stroke,
    to_texture,
)

# Where the points of a lid, a brow (from its inner end) and a lip lie along it; how far lids and lips bend there.
EYE_SPAN, BROW_SPAN, MOUTH_SPAN = np.linspace(-1, 1, 15), np.linspace(0, 1, 12), np.linspace(-1, 1, 21)
EYE_ARCH, MOUTH_ARCH = (1 - EYE_SPAN**2) ** 0.75, 1 - MOUTH_SPAN**2


@dataclass(frozen=True)
class Action:
    """Facial action units, 0 (at rest) to 1 (all this puppet can), `blink` (1 is shut), and `tilt`: -1 to 1, the
    side of the picture on which brow and mouth corner move more."""

    inner_brow_raise: float = 0.0  # AU1
    outer_brow_raise: float = 0.0  # AU2
    brow_lower: float = 0.0  # AU4
    lid_raise: float = 0.0  # AU5
    cheek_raise: float = 0.0  # AU6
    lid_tighten: float = 0.0  # AU7
    nose_wrinkle: float = 0.0  # AU9
    upper_lip_raise: float = 0.0  # AU10
    corner_pull: float = 0.0  # AU12
    corner_depress: float = 0.0  # AU15
    lip_stretch: float = 0.0  # AU20
    lip_press: float = 0.0  # AU24
    jaw_drop: float = 0.0  # AU26
    blink: float = 0.0
    tilt: float = 0.0


@dataclass(frozen=True)
class Pose:
    """Head pose: degrees (positive nods down, turns and leans to the picture's right) and shifts in face units."""

    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0
    right: float = 0.0
    down: float = 0.0
    size: float = 1.0


class Puppet:
    """One person before a camera of width x height pixels.

    A face unit has `unit` pixels there, and the point between eyes and nose is at `centre` (x, y), in pixels.
    """

    def __init__(self, identity: Identity, width: int, height: int, unit: float, centre: Point):
        self.identity, self.unit, self.centre = identity, unit, centre
        self.portrait = paint(identity, width, height, unit, centre)

    def draw(self, action: Action, pose: Pose) -> Image:
        """(height, width, 3) uint8 RGB."""
        face = self.portrait.head.copy()
        _draw_folds(face, self.portrait.bare, action)
        for side in (-1, 1):
            _draw_eye(face, self.identity, action, side)
            _draw_brow(face, self.identity, action, side)
        _draw_mouth(face, self.identity, action)
        if self.identity.glasses:
            _draw_glasses(face)
        return self._place(face, action, pose)

    def _place(self, face: Image, action: Action, pose: Pose) -> Image:
        """Turn the head and lay it over the backdrop."""
        frame, depth = self.portrait.backdrop.copy(), self.portrait.depth
        scale = self.unit * pose.size
        x0, y0 = self.centre[0] + pose.right * self.unit, self.centre[1] + pose.down * self.unit
        left, top = max(0, int(x0 - 1.75 * scale)), max(0, int(y0 - 1.8 * scale))
        right, bottom = min(frame.shape[1], int(x0 + 1.75 * scale)), min(frame.shape[0], int(y0 + 2.15 * scale))
        x = ((np.arange(left, right, dtype=np.float32) - np.float32(x0)) / np.float32(scale))[None, :]
        y = ((np.arange(top, bottom, dtype=np.float32) - np.float32(y0)) / np.float32(scale))[:, None]
        cos, sin = np.float32(np.cos(np.radians(pose.roll))), np.float32(np.sin(np.radians(pose.roll)))
        u, v = cos * x + sin * y, cos * y - sin * x
        # A point at depth z moves by z * sin(angle) when the head turns; the chin follows the jaw.
        near = cv2.remap(depth, to_texture(u, 0), to_texture(v, 1), cv2.INTER_LINEAR)
        chin = np.clip((v - 0.55) / 0.5, 0, 1) * np.float32(0.13 * action.jaw_drop)
        u -= near * np.float32(np.sin(np.radians(pose.yaw)))
        v -= near * np.float32(np.sin(np.radians(pose.pitch))) + chin
        places = cv2.convertMaps(to_texture(u, 0), to_texture(v, 1), cv2.CV_16SC2)
        turned = cv2.remap(face, *places, cv2.INTER_LINEAR)
        behind = cv2.cvtColor(255 - cv2.remap(self.portrait.cover, *places, cv2.INTER_LINEAR), cv2.COLOR_GRAY2RGB)
        region = frame[top:bottom, left:right]
        region[:] = cv2.add(cv2.multiply(region, behind, scale=1 / 255), turned)
        return frame


def _draw_folds(face: Image, bare: Image, action: Action) -> None:
    """Darken the skin where it folds: between the brows, on forehead and nose, beside nose and mouth."""
    rows, columns = slice(75, 265), slice(70, 250)  # texture pixels that any fold can reach
    shade = np.zeros(face.shape[:2], np.uint8)

    def fold(x: list[float], y: list[float], strength: float, thickness: float) -> None:
        if strength > 0.04:
            dark = 150 * min(1.0, strength)
            stroke(shade, *smooth(list(zip(x, y, strict=True)), closed=False), (dark, dark, dark), thickness)

    lift = max(action.corner_pull, action.upper_lip_raise, 0.8 * action.nose_wrinkle)
    wide = 0.06 * action.corner_pull
    for side in (-1, 1):
        fold([side * 0.07, side * 0.08, side * 0.06], [-0.48, -0.40, -0.28], action.brow_lower, 0.03)
        fold([side * 0.06, side * 0.12, side * 0.19], [-0.05, 0.01, 0.08], 0.8 * action.nose_wrinkle, 0.03)
        fold([side * 0.04, side * 0.09, side * 0.13], [-0.15, -0.10, -0.07], 0.8 * action.nose_wrinkle, 0.03)
        sides = [side * 0.20, side * (0.33 + wide), side * (0.40 + wide)]
        fold(sides, [0.26, 0.38, 0.56], 0.15 + 0.75 * lift, 0.04)
        fold([side * 0.22, side * 0.37, side * 0.52], [0.03, 0.08, 0.04], 0.1 + 0.5 * action.cheek_raise, 0.03)
    raised, broad = max(action.inner_brow_raise, action.outer_brow_raise), 0.28 + 0.18 * action.outer_brow_raise
    for y in (-0.74, -0.66):
        fold([-broad, -0.5 * broad, 0.0, 0.5 * broad, broad], [y, y - 0.02, y - 0.04, y - 0.02, y], 0.6 * raised, 0.02)
    soft = cv2.min(cv2.GaussianBlur(shade[rows, columns], (7, 7), 0), bare[rows, columns])
    region = face[rows, columns]
    region[:] = cv2.multiply(region, cv2.cvtColor(255 - soft, cv2.COLOR_GRAY2RGB), scale=1 / 255)


def _draw_eye(face: Image, identity: Identity, action: Action, side: int) -> None:
    s, arch = EYE_SPAN, EYE_ARCH
    narrow = max(action.lid_tighten, 0.8 * action.cheek_raise, 0.7 * action.nose_wrinkle)
    below = 0.062 * (1 - 0.65 * narrow) * identity.eyes
    above = 0.098 * (1 + 0.55 * action.lid_raise - 0.40 * narrow) * identity.eyes
    above = above * (1 - action.blink) - 0.9 * below * action.blink
    x, corner = side * EYE_X + 0.185 * identity.eyes * s, -0.02 * s * side
    upper, lower = EYE_Y + corner - above * arch, EYE_Y + corner + below * arch
    around = np.concatenate([x, x[::-1]])
    fill(face, around, np.concatenate([upper - 0.05 * arch, upper[::-1]]), scaled(identity.skin, 0.78))
    if above + below > 0.02:
        column, row = int((side * EYE_X + ORIGIN[0]) * UNIT), int((EYE_Y + ORIGIN[1]) * UNIT)
        place = slice(row - 24, row + 16), slice(column - 26, column + 27)
        opening = np.zeros(face.shape[:2], np.uint8)
        fill(opening, around, np.concatenate([upper, lower[::-1]]), (255, 255, 255))
        share = opening[place][:, :, None].astype(np.uint16)
        face[place] = (face[place] * (255 - share) + _eyeball(identity) * share) // 255
    stroke(face, x, lower, scaled(identity.skin, 0.62), 0.012)
    stroke(face, x, upper, (34, 24, 22), 0.03)


@lru_cache(maxsize=4)
def _eyeball(identity: Identity) -> Image:
    """(40, 53, 3) texture pixels around the middle of an eye, looking at the camera."""
    ball = np.full((40, 53, 3), (232, 228, 222), np.uint8)
    centre, radius = (26 * 16, 22 * 16 + 8), 9.4 * 16 * identity.eyes  # in sixteenths of a pixel
    rings: tuple[tuple[float, Colour], ...] = (
        (1.0, scaled(identity.iris, 0.6)),
        (0.82, identity.iris),
        (0.45, (14, 12, 12)),
    )
    for share, colour in rings:
        cv2.circle(ball, centre, int(radius * share), colour, -1, cv2.LINE_AA, 4)
    cv2.circle(ball, (centre[0] + 45, centre[1] - 50), 34, (250, 250, 250), -1, cv2.LINE_AA, 4)
    return ball


def _draw_brow(face: Image, identity: Identity, action: Action, side: int) -> None:
    s = BROW_SPAN
    slant = max(0.0, action.inner_brow_raise - action.outer_brow_raise)
    inner = -0.20 * action.inner_brow_raise + 0.16 * action.brow_lower + 0.03 * action.nose_wrinkle
    outer = -0.14 * action.outer_brow_raise + 0.05 * action.brow_lower + 0.08 * slant
    moved = (1 + 0.25 * action.tilt * side) * (inner * (1 - s) ** 1.2 + outer * s**1.2)
    x = 0.15 - 0.05 * action.brow_lower + (0.47 + 0.03 * action.brow_lower) * s
    y = BROW_Y + moved - 0.06 * np.sin(np.pi * np.clip(s * 1.15, 0, 1)) + 0.03 * s
    half = 0.05 * identity.brows * (1 - 0.75 * s**2)
    dark = mixed(identity.hair, (30, 24, 22), 0.45)
    fill(face, side * np.concatenate([x, x[::-1]]), np.concatenate([y - half, (y + half)[::-1]]), dark)


def _draw_mouth(face: Image, identity: Identity, action: Action) -> None:
    s, arch = MOUTH_SPAN, MOUTH_ARCH
    x = (0.33 + 0.12 * action.corner_pull + 0.10 * action.lip_stretch - 0.03 * action.jaw_drop) * s
    corner = (0.17 * action.corner_depress - 0.17 * action.corner_pull) * (1 + 0.25 * action.tilt * s)
    middle = MOUTH_Y + corner * np.abs(s) ** 1.6
    parted = 0.09 * action.corner_pull + 0.05 * action.upper_lip_raise + 0.03 * action.lip_stretch
    upper_in = middle - (0.11 * action.upper_lip_raise + 0.035 * action.corner_pull) * arch
    lower_in = middle + (0.24 * action.jaw_drop + parted) * arch
    full = (1 - 0.7 * action.lip_press) * identity.lips
    upper_out = upper_in - full * (0.075 * arch**0.7 - 0.018 * np.exp(-((s / 0.16) ** 2)))
    lower_out = lower_in + full * 0.10 * arch**0.8
    around = np.concatenate([x, x[::-1]])

    def between(upper: np.ndarray, lower: np.ndarray, colour: Colour) -> None:
        fill(face, around, np.concatenate([upper, lower[::-1]]), colour)

    lips = mixed(identity.skin, (150, 52, 60) if identity.sex == "Female" else (140, 66, 62), 0.62)
    between(upper_out, lower_out, lips)
    between(upper_out, upper_in, scaled(lips, 0.86))
    if float(np.max(lower_in - upper_in)) > 0.02:
        teeth = np.minimum(upper_in + 0.11 * arch**0.5, lower_in)
        between(upper_in, lower_in, (52, 18, 20))
        between(upper_in, teeth, (236, 232, 222))
        between(np.maximum(teeth, lower_in - 0.08 * arch), lower_in, (150, 70, 74))
    else:
        stroke(face, x, middle, scaled(lips, 0.45), 0.018)
    shine = slice(6, 15)
    stroke(face, x[shine], (lower_in + 0.045 * full)[shine], mixed(lips, (255, 235, 230), 0.25), 0.02)


def _draw_glasses(face: Image) -> None:
    frame, angle = (36.0, 34.0, 40.0), np.linspace(0, 2 * np.pi, 33)
    squarish_x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.75
    squarish_y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.75
    for side in (-1, 1):
        stroke(face, side * EYE_X + 0.27 * squarish_x, EYE_Y + 0.03 + 0.20 * squarish_y, frame, 0.025)
        stroke(face, np.array([side * 0.64, side * 0.84]), np.array([EYE_Y - 0.02, EYE_Y - 0.06]), frame, 0.025)
    stroke(face, np.array([-0.10, 0.0, 0.10]), np.array([EYE_Y, EYE_Y - 0.03, EYE_Y]), frame, 0.025)
