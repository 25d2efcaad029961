"""Draw one face, with OpenCV: who it is (identity), what its muscles do (facial action units) and how the head is held.

The face is a drawing and is used for nothing but testing. Its soft parts (skin, light, hair) are painted once per
identity; per frame only brows, eyes, mouth and folds are drawn, and the head is turned by one `cv2.remap`.

Coordinates: 1.0 is about half the width of the face, x to the right of the picture, y down, (0, 0) between the eyes
and the tip of the nose. Action units follow the numbering of the Facial Action Coding System (Ekman and Friesen 1978)
and run from 0 (at rest) to 1 (as strong as this puppet can).
"""

from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.floating]
Colour = tuple[float, float, float]
T = TypeVar("T")

UNIT = 100  # pixels per face unit in the painted texture; a drawn head is smaller, so it is shrunk, not blown up
WIDTH, HEIGHT = 3.2, 3.9  # of the texture, in face units
ORIGIN = (WIDTH / 2, 1.75)  # where (0, 0) lies in the texture, in face units
EYE_X, EYE_Y, BROW_Y, MOUTH_Y = 0.37, -0.12, -0.40, 0.60

SKINS: dict[str, tuple[Colour, ...]] = {
    "Caucasian": ((243, 207, 182), (233, 190, 160), (222, 176, 146), (205, 160, 128)),
    "Asian": ((238, 203, 166), (224, 184, 142)),
    "African American": ((160, 112, 80), (128, 86, 60), (104, 70, 50)),
    "Unknown": ((196, 148, 112), (180, 132, 98)),
}
HAIR_COLOURS: tuple[Colour, ...] = (
    (32, 26, 24),
    (60, 42, 30),
    (92, 62, 40),
    (140, 96, 56),
    (190, 152, 98),
    (120, 116, 114),
)
IRISES: tuple[Colour, ...] = ((74, 50, 34), (98, 72, 44), (70, 96, 70), (78, 110, 140))
CLOTHES: tuple[Colour, ...] = ((40, 44, 52), (112, 34, 42), (46, 74, 110), (88, 96, 84), (196, 190, 180), (72, 54, 92))
BACKGROUNDS: tuple[Colour, ...] = ((224, 224, 220), (196, 204, 208), (150, 172, 150), (176, 160, 148), (120, 132, 150))
HAIR_STYLES = {
    "Male": ("short", "parted", "buzz", "curly", "bald"),
    "Female": ("long", "bob", "tied", "curly", "fringe"),
}


@dataclass(frozen=True)
class Identity:
    """Everything that makes one person look like himself in every take; sizes are factors around 1."""

    sex: str
    age: int
    race: str
    skin: Colour
    hair: Colour
    style: str
    iris: Colour
    clothes: Colour
    background: Colour
    light: float  # -1 from the left of the picture, +1 from the right
    width: float
    jaw: float
    eyes: float
    nose: float
    lips: float
    brows: float
    glasses: bool
    beard: float  # 0 none, 0.5 stubble, 1 full
    seed: int


@dataclass(frozen=True)
class Action:
    """Facial action units, 0 to 1, plus `blink` (1 = shut) and `tilt` (-1 to 1, which side of the face is stronger)."""

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


def draw_identity(rng: np.random.Generator, sex: str, race: str) -> Identity:
    """A person of the given sex and race, everything else by the generator."""

    def pick(options: tuple[T, ...]) -> T:
        return options[int(rng.integers(len(options)))]

    age = int(rng.integers(20, 66))
    dark_haired = race in ("Asian", "African American")
    hair = HAIR_COLOURS[int(rng.integers(2 if dark_haired else 5))] if age < 52 else HAIR_COLOURS[5]
    style = pick(HAIR_STYLES[sex])
    male = sex == "Male"
    return Identity(
        sex=sex,
        age=age,
        race=race,
        skin=_vary(rng, pick(SKINS[race]), 5),
        hair=_vary(rng, hair, 6),
        style=style,
        iris=pick(IRISES[: 2 if dark_haired else 4]),
        clothes=_vary(rng, pick(CLOTHES), 8),
        background=_vary(rng, pick(BACKGROUNDS), 8),
        light=rng.uniform(-1, 1),
        width=rng.uniform(0.94, 1.06),
        jaw=rng.uniform(0.95, 1.08) if male else rng.uniform(0.86, 0.97),
        eyes=rng.uniform(0.94, 1.08),
        nose=rng.uniform(0.88, 1.12),
        lips=rng.uniform(0.85, 1.2),
        brows=rng.uniform(1.0, 1.3) if male else rng.uniform(0.75, 1.0),
        glasses=bool(rng.random() < 0.22),
        beard=pick((0.0, 0.0, 0.5, 1.0)) if male else 0.0,
        seed=int(rng.integers(2**31)),
    )


def _vary(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    red, green, blue = (float(np.clip(c + rng.normal(0, spread), 8, 250)) for c in colour)
    return red, green, blue


class Puppet:
    """One identity before its background: `draw` gives (height, width, 3) uint8 RGB frames.

    `unit` is the length of one face unit in the picture, in pixels; the head stands at `centre` (x, y), in pixels.
    """

    def __init__(self, identity: Identity, width: int, height: int, unit: float, centre: tuple[float, float]):
        self.identity, self.unit, self.centre = identity, unit, centre
        self.depth = _depth(identity)
        self.texture, self.cover = _paint_head(identity, self.depth)
        self.backdrop = _paint_backdrop(identity, width, height, unit, centre)
        self.skin_dark = _scaled(identity.skin, 0.45)

    def draw(self, action: Action, pose: Pose) -> Image:
        face = self.texture.copy()
        _draw_folds(face, action)
        for side in (-1, 1):
            _draw_eye(face, self.identity, action, side)
            _draw_brow(face, self.identity, action, side)
        _draw_mouth(face, self.identity, action)
        if self.identity.glasses:
            _draw_glasses(face)
        return self._place(face, action, pose)

    def _place(self, face: Image, action: Action, pose: Pose) -> Image:
        """Turn the head (premultiplied by its cover) and lay it over the backdrop."""
        frame = self.backdrop.copy()
        scale = self.unit * pose.size
        x0, y0 = self.centre[0] + pose.right * self.unit, self.centre[1] + pose.down * self.unit
        left, top = max(0, int(x0 - 1.75 * scale)), max(0, int(y0 - 1.8 * scale))
        right, bottom = min(frame.shape[1], int(x0 + 1.75 * scale)), min(frame.shape[0], int(y0 + 2.15 * scale))
        x = ((np.arange(left, right, dtype=np.float32) - x0) / scale)[None, :]
        y = ((np.arange(top, bottom, dtype=np.float32) - y0) / scale)[:, None]
        cos, sin = np.float32(np.cos(np.radians(pose.roll))), np.float32(np.sin(np.radians(pose.roll)))
        u, v = cos * x + sin * y, cos * y - sin * x
        depth = cv2.remap(self.depth, _to_px(u, 0), _to_px(v, 1), cv2.INTER_LINEAR)
        # A point at depth z moves by z * sin(angle) when the head turns; the chin follows the jaw.
        chin = np.clip((v - 0.55) / 0.5, 0, 1)
        u -= depth * np.float32(np.sin(np.radians(pose.yaw)))
        v -= depth * np.float32(np.sin(np.radians(pose.pitch))) + np.float32(0.13 * action.jaw_drop) * chin
        places = cv2.convertMaps(_to_px(u, 0), _to_px(v, 1), cv2.CV_16SC2)
        turned = cv2.remap(face, *places, cv2.INTER_LINEAR)
        behind = cv2.cvtColor(255 - cv2.remap(self.cover, *places, cv2.INTER_LINEAR), cv2.COLOR_GRAY2RGB)
        region = frame[top:bottom, left:right]
        region[:] = cv2.add(cv2.multiply(region, behind, scale=1 / 255), turned)
        return frame


def _to_px(values: Floats, axis: int) -> Floats:
    return (values + np.float32(ORIGIN[axis])) * np.float32(UNIT)


def _points(x: Floats, y: Floats) -> NDArray[np.int32]:
    """Face units to the fixed-point pixels (4 fractional bits) that OpenCV's anti-aliased drawing wants."""
    return np.round(np.stack([_to_px(x, 0), _to_px(y, 1)], axis=-1) * 16).astype(np.int32)


def _fill(image: Image, x: Floats, y: Floats, colour: Colour) -> None:
    cv2.fillPoly(image, [_points(x, y)], colour, cv2.LINE_AA, shift=4)


def _line(image: Image, x: Floats, y: Floats, colour: Colour, thickness: float) -> None:
    width = max(1, round(thickness * UNIT))
    cv2.polylines(image, [_points(x, y)], False, colour, width, cv2.LINE_AA, shift=4)


@cache
def _spline_basis(points: int, closed: bool, samples: int = 8) -> Floats:
    """Catmull-Rom weights, (curve points, points): `samples` per stretch, and an open curve's last point."""
    rows = []
    for segment in range(points if closed else points - 1):
        for t in np.arange(samples) / samples:
            weights = 0.5 * np.array(
                [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
            )
            row = np.zeros(points)
            for weight, index in zip(weights, range(segment - 1, segment + 3), strict=True):
                row[index % points if closed else min(max(index, 0), points - 1)] += weight
            rows.append(row)
    if not closed:
        rows.append(np.eye(points)[-1])
    return np.array(rows)


def _smooth(points: list[tuple[float, float]], closed: bool = True) -> tuple[Floats, Floats]:
    curve = _spline_basis(len(points), closed) @ np.array(points)
    return curve[:, 0], curve[:, 1]


def _scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255.0, c * factor) for c in colour)
    return red, green, blue


def _mixed(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


# --- painted once per identity ------------------------------------------------------------------------------------


def _grid() -> tuple[Floats, Floats]:
    y, x = np.mgrid[0 : int(HEIGHT * UNIT), 0 : int(WIDTH * UNIT)].astype(np.float32) / UNIT
    return x - np.float32(ORIGIN[0]), y - np.float32(ORIGIN[1])


def _bump(x: Floats, y: Floats, at: tuple[float, float], spread: tuple[float, float]) -> Floats:
    return np.exp(-(((x - at[0]) / spread[0]) ** 2) - ((y - at[1]) / spread[1]) ** 2)


def _bumps(x: Floats, y: Floats, at: tuple[float, float], spread: tuple[float, float]) -> Floats:
    """The same bump on either side of the face."""
    return _bump(x, y, at, spread) + _bump(x, y, (-at[0], at[1]), spread)


def _depth(identity: Identity) -> Floats:
    """How far each point of the texture stands out towards the camera, in face units, (rows, columns) float32."""
    x, y = _grid()
    skull = np.sqrt(np.clip(1.15 - (x / (1.0 * identity.width)) ** 2 - ((y - 0.02) / 1.28) ** 2, 0, None))
    nose = 0.22 * identity.nose * np.exp(-((x / (0.10 + 0.06 * np.clip(y + 0.1, 0, 1))) ** 2))
    nose = nose * np.clip((y + 0.30) / 0.60, 0, 1) * (1 / (1 + np.exp((y - 0.36) / 0.03)))
    face = skull + nose + 0.10 * _bump(x, y, (0, -0.36), (0.6, 0.10)) + 0.07 * _bump(x, y, (0, 0.98), (0.22, 0.13))
    for side in (-1, 1):
        face -= 0.13 * _bump(x, y, (side * EYE_X, EYE_Y), (0.22, 0.13))
        face += 0.06 * _bump(x, y, (side * 0.48, 0.24), (0.24, 0.20))
    return cv2.GaussianBlur(face.astype(np.float32), (0, 0), 0.03 * UNIT)


def _outline(identity: Identity) -> tuple[Floats, Floats]:
    w, j = 0.86 * identity.width, identity.jaw
    right = [(0.30, -1.10), (0.66, -0.88), (w, -0.42), (w, 0.12), (0.76 * j * identity.width, 0.58), (0.46 * j, 0.94)]
    points = [(0.0, -1.16), *right, (0.18 * j, 1.09), (-0.18 * j, 1.09), *[(-x, y) for x, y in reversed(right)]]
    return _smooth(points)


def _paint_head(identity: Identity, depth: Floats) -> tuple[Image, Image]:
    """The head without brows, eyes and mouth: (rows, columns, 3) RGB times its cover, and the (rows, columns) cover."""
    rng = np.random.default_rng(identity.seed)
    cover = np.zeros((int(HEIGHT * UNIT), int(WIDTH * UNIT)), np.uint8)
    layer = np.zeros((*cover.shape, 3), np.uint8)
    skin, x, y = identity.skin, *_grid()

    def fill(outline: tuple[Floats, Floats], colour: Colour) -> None:
        _fill(layer, *outline, colour)
        _fill(cover, *outline, (255, 255, 255))

    for outline in _back_hair(identity):
        fill(outline, _scaled(identity.hair, 0.8))
    for side in (-1, 1):
        ear = [(0.80, -0.22), (0.97, -0.24), (1.0, 0.0), (0.92, 0.26), (0.80, 0.26)]
        fill(_smooth([(side * ex * identity.width, ey) for ex, ey in ear]), _scaled(skin, 0.9))
        inner = [(0.84, -0.12), (0.93, -0.14), (0.93, 0.04), (0.86, 0.14)]
        fill(_smooth([(side * ex * identity.width, ey) for ex, ey in inner]), _scaled(skin, 0.72))
    fill(_outline(identity), skin)
    gy, gx = np.gradient(depth * UNIT)
    normal = np.sqrt(gx**2 + gy**2 + 1)
    lambert = (-gx * 0.45 * identity.light + gy * -0.35 + 0.82) / normal
    light = cv2.GaussianBlur((0.46 + 0.66 * np.clip(lambert, 0, 1)).astype(np.float32), (0, 0), 0.025 * UNIT)
    colour = layer.astype(np.float32) * light[:, :, None]
    rosy = _bumps(x, y, (0.48, 0.26), (0.22, 0.16)) + 0.6 * _bump(x, y, (0, 0.26), (0.14, 0.12))
    colour *= 1 - rosy[:, :, None] * np.array([0.0, 0.10, 0.09], np.float32)
    sockets = _bumps(x, y, (EYE_X, EYE_Y - 0.10), (0.22, 0.10))
    colour *= 1 - 0.22 * sockets[:, :, None]
    nostrils = _bumps(x, y, (0.085 * identity.nose, 0.37), (0.045, 0.025))
    wings = _bumps(x, y, (0.17 * identity.nose, 0.31), (0.025, 0.07))
    colour *= 1 - (0.62 * nostrils + 0.26 * wings + 0.30 * _bump(x, y, (0, 0.405), (0.15, 0.035)))[:, :, None]
    if identity.beard:
        colour += _beard(identity, x, y)[:, :, None] * (np.array(identity.hair, np.float32) * 0.9 - colour)
    grain = cv2.GaussianBlur(rng.normal(0, 1, depth.shape).astype(np.float32), (0, 0), 1.5) * 6
    layer = np.clip(colour + grain[:, :, None], 0, 255).astype(np.uint8)
    for outline in _front_hair(identity, rng):
        fill(outline, identity.hair)
        _comb(layer, outline, identity, rng)
    return (layer * (cover[:, :, None] / 255.0)).astype(np.uint8), cover


def _beard(identity: Identity, x: Floats, y: Floats) -> Floats:
    """How much hair covers the skin, 0 to 1: jaw and upper lip, free around the mouth."""
    jaw = np.clip((y - 0.30 - 0.45 * (1 - np.clip(np.abs(x) / 0.55, 0, 1) ** 2)) / 0.14, 0, 1)
    lip = 1.4 * np.exp(-(((y - 0.475) / 0.05) ** 2) - (x / 0.30) ** 4)
    return np.clip(jaw + lip, 0, 1) * (0.30 if identity.beard < 1 else 0.85)


def _back_hair(identity: Identity) -> list[tuple[Floats, Floats]]:
    w = identity.width
    if identity.style == "long":
        half = [(0.62, -1.22), (1.04, -0.7), (1.10, 0.1), (1.14, 0.9), (1.08, 1.6), (0.6, 1.75)]
    elif identity.style == "bob":
        half = [(0.62, -1.22), (1.06, -0.7), (1.14, 0.0), (1.12, 0.62), (0.8, 0.82)]
    elif identity.style == "fringe":
        half = [(0.62, -1.24), (1.02, -0.7), (1.08, 0.2), (1.02, 1.2), (0.6, 1.3)]
    elif identity.style == "curly":
        reach = 0.5 if identity.sex == "Female" else -0.1
        half = [(0.66, -1.30), (1.14, -0.80), (1.20, -0.2), (1.10, reach)]
    else:
        return []
    half = [(x * w, y) for x, y in half]
    return [_smooth([(0.0, -1.32), *half, *[(-x, y) for x, y in reversed(half)]])]


def _front_hair(identity: Identity, rng: np.random.Generator) -> list[tuple[Floats, Floats]]:
    """The hair over the forehead: outer edge over the skull, inner edge along the hairline."""
    w, style = identity.width, identity.style
    if style == "bald":
        return []
    lift = {"buzz": 0.05, "curly": 0.24, "short": 0.12, "parted": 0.16}.get(style, 0.12)
    side_end = -0.16 if identity.sex == "Male" else 0.1
    outer = [(0.90, -0.42), (0.74, -0.92 - lift / 2), (0.34, -1.16 - lift)]
    line = {"short": -0.80, "buzz": -0.84, "parted": -0.78, "curly": -0.74, "fringe": -0.52}.get(style, -0.80)
    middle = 0.30 if style == "parted" or style == "long" else 0.0
    inner = [
        (0.86, -0.46),
        (0.70, -0.66),
        (0.38, line),
        (-middle, line - 0.10 * (style != "fringe")),
        (-0.38, line + 0.04),
    ]
    points = [(0.88, side_end), *outer, (0.0, -1.20 - lift), *[(-x, y) for x, y in reversed(outer)], (-0.88, side_end)]
    points += [(-0.86, -0.46), (-0.70, -0.66), *reversed([(x, y) for x, y in inner[2:]]), (0.70, -0.66), (0.86, -0.46)]
    x, y = _smooth([(px * w * 1.02, py) for px, py in points])
    if style == "curly":
        wave = 0.03 * np.sin(np.arange(len(x)) * 1.3 + rng.uniform(0, 6))
        x, y = x + wave, y + np.roll(wave, 2)
    shapes = [(x, y)]
    if style == "tied":
        angle = np.linspace(0, 2 * np.pi, 40)
        shapes.insert(0, (0.30 * np.cos(angle), -1.42 + 0.24 * np.sin(angle)))
    return shapes


def _comb(layer: Image, outline: tuple[Floats, Floats], identity: Identity, rng: np.random.Generator) -> None:
    """Strands: thin curves, lighter and darker than the hair, kept within the outline."""
    inside = np.zeros(layer.shape[:2], np.uint8)
    _fill(inside, *outline, (255, 255, 255))
    strands = layer.copy()
    for _ in range(130):
        x0, bend = rng.uniform(-1, 1), rng.uniform(0.75, 1.05)
        t = np.linspace(0, 1, 12)
        sweep = 0.3 * np.sin(t * 9 + x0 * 20) * 0.2 if identity.style == "curly" else 0.0 * t
        shade = _scaled(identity.hair, float(rng.uniform(0.75, 1.45)))
        _line(strands, x0 * bend * (0.35 + 0.7 * t**0.6) + sweep, -1.5 + 1.3 * t**1.4, shade, 0.012)
    np.copyto(layer, strands, where=inside[:, :, None] > 127)


def _paint_backdrop(identity: Identity, width: int, height: int, unit: float, centre: tuple[float, float]) -> Image:
    """Wall, shoulders and neck, (height, width, 3) uint8 RGB."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    fall = 1 - 0.16 * np.hypot(x / width - 0.5 - 0.25 * identity.light, y / height - 0.4)
    wall = np.clip(np.array(identity.background, np.float32) * fall[:, :, None], 0, 255).astype(np.uint8)

    def fill(points: list[tuple[float, float]], colour: Colour) -> None:
        px, py = _smooth(points)
        corners = np.stack([centre[0] + px * unit, centre[1] + py * unit], axis=-1) * 16
        cv2.fillPoly(wall, [np.round(corners).astype(np.int32)], colour, cv2.LINE_AA, shift=4)

    broad = 2.15 if identity.sex == "Male" else 1.8
    half = [(0.45, 1.36), (1.1, 1.56), (broad, 1.95), (broad + 0.25, 2.8), (broad + 0.2, 4.6)]
    fill([*half, *[(-px, py) for px, py in reversed(half)]], identity.clothes)
    neck = 0.50 if identity.sex == "Male" else 0.42
    half = [(neck, 0.5), (neck, 1.2), (neck + 0.12, 1.5), (0.2, 1.86)]
    fill([*half, *[(-px, py) for px, py in reversed(half)]], _scaled(identity.skin, 0.72))
    return cv2.GaussianBlur(wall, (0, 0), 0.8)


# --- drawn in every frame ------------------------------------------------------------------------------------------


def _draw_folds(face: Image, action: Action) -> None:
    """Darken the skin where it folds: between the brows, on forehead and nose, beside nose and mouth."""
    top, bottom, left, right = 75, 265, 70, 250  # texture pixels that any fold can reach
    shade = np.zeros(face.shape[:2], np.uint8)

    def fold(x: list[float], y: list[float], strength: float, thickness: float = 0.035) -> None:
        if strength > 0.04:
            curve = _smooth(list(zip(x, y, strict=True)), closed=False)
            _line(shade, *curve, (140 * min(1.0, strength),) * 3, thickness)

    for side in (-1, 1):
        fold([side * 0.07, side * 0.08, side * 0.06], [-0.50, -0.40, -0.28], action.brow_lower)
        fold([side * 0.05, side * 0.13, side * 0.20], [-0.04, 0.02, 0.09], action.nose_wrinkle)
        fold([side * 0.04, side * 0.11, side * 0.17], [-0.12, -0.07, -0.02], action.nose_wrinkle)
        lift = max(action.corner_pull, action.upper_lip_raise, 0.8 * action.nose_wrinkle)
        wide = 0.06 * action.corner_pull
        fold([side * 0.20, side * (0.33 + wide), side * (0.40 + wide)], [0.26, 0.38, 0.56], 0.25 + 0.75 * lift, 0.04)
        fold([side * 0.22, side * 0.37, side * 0.52], [0.03, 0.09, 0.04], 0.15 + 0.7 * action.cheek_raise, 0.03)
    raised = max(action.inner_brow_raise, action.outer_brow_raise)
    for y in (-0.66, -0.58):
        wide = 0.20 + 0.26 * action.outer_brow_raise
        fold([-wide, 0.0, wide], [y, y - 0.03, y], raised, 0.03)
    region, soft = face[top:bottom, left:right], cv2.GaussianBlur(shade[top:bottom, left:right], (5, 5), 0)
    region[:] = cv2.multiply(region, cv2.cvtColor(255 - soft, cv2.COLOR_GRAY2RGB), scale=1 / 255)


def _draw_eye(face: Image, identity: Identity, action: Action, side: int) -> None:
    s = np.linspace(-1, 1, 15)
    arch = (1 - s**2) ** 0.75
    a = 0.185 * identity.eyes
    narrow = max(action.lid_tighten, 0.8 * action.cheek_raise, 0.7 * action.nose_wrinkle)
    below = 0.062 * (1 - 0.65 * narrow) * identity.eyes
    above = (0.098 * (1 + 0.55 * action.lid_raise - 0.40 * narrow)) * identity.eyes
    above = above * (1 - action.blink) - below * 0.9 * action.blink
    x = side * EYE_X + a * s
    corner = -0.02 * s * side
    upper, lower = EYE_Y + corner - above * arch, EYE_Y + corner + below * arch
    xs, ys = np.concatenate([x, x[::-1]]), np.concatenate([upper, lower[::-1]])
    lid = _scaled(identity.skin, 0.78)
    _fill(face, np.concatenate([x, x[::-1]]), np.concatenate([upper - 0.05 * arch, upper[::-1]]), lid)
    if above + below > 0.02:
        cx, cy = (side * EYE_X + ORIGIN[0]) * UNIT, (EYE_Y + ORIGIN[1]) * UNIT
        y0, y1, x0, x1 = int(cy - 24), int(cy + 16), int(cx - 26), int(cx + 27)
        ball = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        ball[:] = (232, 228, 222)
        centre = (int((cx - x0) * 16), int((cy - 1.5 - y0) * 16))
        radius = int(9.4 * 16 * identity.eyes)
        cv2.circle(ball, centre, radius, _scaled(identity.iris, 0.6), -1, cv2.LINE_AA, 4)
        cv2.circle(ball, centre, int(radius * 0.82), identity.iris, -1, cv2.LINE_AA, 4)
        cv2.circle(ball, centre, int(radius * 0.45), (14, 12, 12), -1, cv2.LINE_AA, 4)
        cv2.circle(ball, (centre[0] + 45, centre[1] - 50), 34, (250, 250, 250), -1, cv2.LINE_AA, 4)
        mask = np.zeros(face.shape[:2], np.uint8)
        _fill(mask, xs, ys, (255, 255, 255))
        alpha = mask[y0:y1, x0:x1, None].astype(np.uint16)
        region = face[y0:y1, x0:x1]
        region[:] = (region * (255 - alpha) + ball * alpha) // 255
    _line(face, x, lower, _scaled(identity.skin, 0.62), 0.012)
    _line(face, x, upper, (34, 24, 22), 0.03)


def _draw_brow(face: Image, identity: Identity, action: Action, side: int) -> None:
    s = np.linspace(0, 1, 12)
    strength = 1 + 0.25 * action.tilt * side
    inner = -0.15 * action.inner_brow_raise + 0.13 * action.brow_lower + 0.04 * action.nose_wrinkle
    slant = max(0.0, action.inner_brow_raise - action.outer_brow_raise)
    outer = -0.13 * action.outer_brow_raise + 0.02 * action.brow_lower + 0.05 * slant
    x = 0.15 - 0.05 * action.brow_lower + (0.47 + 0.03 * action.brow_lower) * s
    arch = 0.06 * np.sin(np.pi * np.clip(s * 1.15, 0, 1))
    y = BROW_Y + strength * (inner * (1 - s) ** 1.2 + outer * s**1.2) - arch + 0.03 * s
    half = 0.042 * identity.brows * (1 - 0.75 * s**2)
    dark = _mixed(identity.hair, (30, 24, 22), 0.45)
    _fill(face, side * np.concatenate([x, x[::-1]]), np.concatenate([y - half, (y + half)[::-1]]), dark)


def _draw_mouth(face: Image, identity: Identity, action: Action) -> None:
    s = np.linspace(-1, 1, 21)
    arch = 1 - s**2
    w = 0.30 + 0.10 * action.corner_pull + 0.10 * action.lip_stretch - 0.03 * action.jaw_drop
    tug = 1 + 0.25 * action.tilt * s
    middle = MOUTH_Y + (-0.15 * action.corner_pull + 0.15 * action.corner_depress) * np.abs(s) ** 1.6 * tug
    lip_colour = _mixed(identity.skin, (150, 52, 60) if identity.sex == "Female" else (140, 66, 62), 0.62)
    thin = (1 - 0.7 * action.lip_press) * identity.lips
    upper_in = middle - (0.075 * action.upper_lip_raise + 0.035 * action.corner_pull) * arch
    parted = 0.05 * action.corner_pull + 0.03 * action.upper_lip_raise + 0.03 * action.lip_stretch
    lower_in = middle + (0.24 * action.jaw_drop + parted) * arch
    cupid = 0.018 * np.exp(-((s / 0.16) ** 2))
    upper_out = upper_in - thin * (0.070 * arch**0.7 - cupid)
    lower_out = lower_in + thin * 0.095 * arch**0.8
    x = w * s
    both = np.concatenate([x, x[::-1]])
    _fill(face, both, np.concatenate([upper_out, lower_out[::-1]]), lip_colour)
    _fill(face, both, np.concatenate([upper_out, upper_in[::-1]]), _scaled(lip_colour, 0.86))
    if float(np.max(lower_in - upper_in)) > 0.02:
        _fill(face, both, np.concatenate([upper_in, lower_in[::-1]]), (52, 18, 20))
        teeth = np.minimum(upper_in + 0.085 * arch**0.5, lower_in)
        _fill(face, both, np.concatenate([upper_in, teeth[::-1]]), (236, 232, 222))
        tongue = np.maximum(teeth, lower_in - 0.08 * arch)
        _fill(face, both, np.concatenate([tongue, lower_in[::-1]]), (150, 70, 74))
    else:
        _line(face, x, middle, _scaled(lip_colour, 0.45), 0.018)
    shine = slice(6, 15)
    _line(face, x[shine], (lower_in + 0.045 * thin)[shine], _mixed(lip_colour, (255, 235, 230), 0.25), 0.02)


def _draw_glasses(face: Image) -> None:
    frame = (36, 34, 40)
    angle = np.linspace(0, 2 * np.pi, 33)
    for side in (-1, 1):
        x = side * EYE_X + 0.27 * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.75
        y = EYE_Y + 0.03 + 0.20 * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.75
        _line(face, x, y, frame, 0.025)
        _line(face, np.array([side * 0.64, side * 0.84]), np.array([EYE_Y - 0.02, EYE_Y - 0.06]), frame, 0.025)
    _line(face, np.array([-0.10, 0.0, 0.10]), np.array([EYE_Y, EYE_Y - 0.03, EYE_Y]), frame, 0.025)
