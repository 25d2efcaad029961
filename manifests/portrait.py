"""What of a drawn person never moves: skull, skin, hair, light, neck, clothes and wall, painted once.

The face is painted into a texture of its own, in the face units of manifests/strokes.py; manifests/puppet.py moves it.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from manifests.identity import Identity
from manifests.strokes import (
    HEIGHT,
    ORIGIN,
    UNIT,
    WIDTH,
    Colour,
    Curve,
    Floats,
    Image,
    Point,
    fill,
    mirrored,
    scaled,
    smooth,
    stroke,
)

EYE_X, EYE_Y, BROW_Y, MOUTH_Y = 0.37, -0.12, -0.40, 0.60

# (how far the style stands off the skull, where its hairline runs on the forehead)
CUTS = {
    "buzz": (0.04, -0.86),
    "short": (0.13, -0.82),
    "parted": (0.16, -0.78),
    "curly": (0.22, -0.78),
    "long": (0.12, -0.84),
    "bob": (0.13, -0.80),
    "tied": (0.08, -0.86),
    "fringe": (0.14, -0.64),
}


def _bump(grid: Curve, at: Point, spread: Point) -> Floats:
    return np.exp(-(((grid[0] - at[0]) / spread[0]) ** 2) - ((grid[1] - at[1]) / spread[1]) ** 2)


def _bumps(grid: Curve, at: Point, spread: Point) -> Floats:
    """The same bump on either side of the face."""
    return _bump(grid, at, spread) + _bump(grid, (-at[0], at[1]), spread)


@dataclass(frozen=True)
class Portrait:
    """One person's unmoving parts; all arrays but `backdrop` are textures of (HEIGHT, WIDTH) * UNIT pixels."""

    head: Image  # (rows, columns, 3) RGB, black where there is no head
    cover: Image  # (rows, columns), 255 where there is head
    bare: Image  # (rows, columns), 255 where no hair hides the skin
    depth: Floats  # (rows, columns) float32, how far it stands out towards the camera, in face units
    backdrop: Image  # (height, width, 3) RGB of the picture: wall, shoulders, neck


def paint(identity: Identity, width: int, height: int, unit: float, centre: Point) -> Portrait:
    """Paint a person for pictures of width x height where a face unit has `unit` pixels and (0, 0) lies at `centre`."""
    rng = np.random.default_rng(identity.seed)
    y, x = np.mgrid[0 : int(HEIGHT * UNIT), 0 : int(WIDTH * UNIT)].astype(np.float32) / UNIT
    grid = (x - np.float32(ORIGIN[0]), y - np.float32(ORIGIN[1]))
    depth = _depth(identity, grid)
    head, cover, bare = np.zeros((*x.shape, 3), np.uint8), np.zeros(x.shape, np.uint8), np.full(x.shape, 255, np.uint8)

    def add(curve: Curve, colour: Colour) -> None:
        fill(head, *curve, colour)
        fill(cover, *curve, (255, 255, 255))

    for curve in _back_hair(identity):
        add(curve, scaled(identity.hair, 0.75))
        _comb(head, curve, scaled(identity.hair, 0.75), identity, rng)
    for side in (-1, 1):
        w = side * identity.width
        add(
            smooth([(0.80 * w, -0.22), (0.97 * w, -0.24), (w, 0.0), (0.92 * w, 0.26), (0.80 * w, 0.26)]),
            scaled(identity.skin, 0.9),
        )
        add(
            smooth([(0.84 * w, -0.12), (0.93 * w, -0.14), (0.93 * w, 0.04), (0.86 * w, 0.14)]),
            scaled(identity.skin, 0.72),
        )
    add(_outline(identity), identity.skin)
    head = _modelled(head, identity, depth, grid, rng)
    for curve in _front_hair(identity, rng):
        add(curve, identity.hair)
        _comb(head, curve, identity.hair, identity, rng)
        fill(bare, *curve, (0, 0, 0))
    head = cv2.multiply(head, cv2.cvtColor(cover, cv2.COLOR_GRAY2RGB), scale=1 / 255)
    return Portrait(np.asarray(head, np.uint8), cover, bare, depth, _backdrop(identity, width, height, unit, centre))


def _depth(identity: Identity, grid: Curve) -> Floats:
    x, y = grid
    skull = np.sqrt(np.clip(1.15 - (x / identity.width) ** 2 - ((y - 0.02) / 1.28) ** 2, 0, None))
    ridge = 0.22 * identity.nose * np.exp(-((x / (0.10 + 0.06 * np.clip(y + 0.1, 0, 1))) ** 2))
    nose = ridge * np.clip((y + 0.30) / 0.60, 0, 1) / (1 + np.exp((y - 0.36) / 0.03))
    face = skull + nose + 0.10 * _bump(grid, (0, -0.36), (0.6, 0.10)) + 0.07 * _bump(grid, (0, 0.98), (0.22, 0.13))
    face += 0.06 * _bumps(grid, (0.48, 0.24), (0.24, 0.20)) - 0.13 * _bumps(grid, (EYE_X, EYE_Y), (0.22, 0.13))
    return np.asarray(cv2.GaussianBlur(face.astype(np.float32), (0, 0), 0.03 * UNIT))


def _outline(identity: Identity) -> Curve:
    w, j = 0.86 * identity.width, identity.jaw
    cheek = (0.76 * j * identity.width, 0.58)
    return mirrored([(0.30, -1.10), (0.66, -0.88), (w, -0.42), (w, 0.12), cheek, (0.46 * j, 0.94), (0.18 * j, 1.09)])


def _modelled(head: Image, identity: Identity, depth: Floats, grid: Curve, rng: np.random.Generator) -> Image:
    """Light and shade by the slope of the face (Lambert), rosy cheeks, eye sockets, nose, beard and skin grain."""
    slope_y, slope_x = np.gradient(depth * UNIT)
    lambert = (-0.45 * identity.light * slope_x - 0.35 * slope_y + 0.82) / np.sqrt(slope_x**2 + slope_y**2 + 1)
    light = cv2.GaussianBlur((0.46 + 0.66 * np.clip(lambert, 0, 1)).astype(np.float32), (0, 0), 0.025 * UNIT)
    rosy = _bumps(grid, (0.48, 0.26), (0.22, 0.16)) + 0.6 * _bump(grid, (0, 0.26), (0.14, 0.12))
    shade = 0.22 * _bumps(grid, (EYE_X, EYE_Y - 0.10), (0.22, 0.10)) + 0.30 * _bump(grid, (0, 0.405), (0.15, 0.035))
    shade += 0.62 * _bumps(grid, (0.085 * identity.nose, 0.37), (0.045, 0.025))
    shade += 0.26 * _bumps(grid, (0.17 * identity.nose, 0.31), (0.025, 0.07))
    colour = head * (np.asarray(light) * (1 - np.clip(shade, 0, 0.8)))[:, :, None]
    colour *= 1 - rosy[:, :, None] * np.array([0.0, 0.10, 0.09], np.float32)
    if identity.beard:
        hairs = np.array(scaled(identity.hair, 0.9), np.float32)
        colour += _beard(identity, grid)[:, :, None] * (hairs - colour)
    grain = cv2.GaussianBlur(rng.normal(0, 1, depth.shape).astype(np.float32), (0, 0), 1.5) * 6
    return np.clip(colour + np.asarray(grain)[:, :, None], 0, 255).astype(np.uint8)


def _beard(identity: Identity, grid: Curve) -> Floats:
    """How much hair covers the skin, 0 to 1: on jaw and upper lip, free around the mouth."""
    x, y = grid
    jaw = np.clip((y - 0.30 - 0.45 * (1 - np.clip(np.abs(x) / 0.55, 0, 1) ** 2)) / 0.14, 0, 1)
    lip = 1.4 * np.exp(-(((y - 0.475) / 0.05) ** 2) - (x / 0.30) ** 4)
    return np.clip(jaw + lip, 0, 1) * identity.beard


def _back_hair(identity: Identity) -> list[Curve]:
    halves: dict[str, list[Point]] = {
        "long": [(0.05, -1.33), (0.62, -1.20), (1.02, -0.7), (1.08, 0.1), (1.12, 0.9), (1.06, 1.6), (0.6, 1.75)],
        "bob": [(0.05, -1.33), (0.62, -1.20), (1.04, -0.7), (1.12, 0.0), (1.10, 0.62), (0.8, 0.82)],
        "fringe": [(0.05, -1.34), (0.62, -1.22), (1.00, -0.7), (1.06, 0.2), (1.02, 1.2), (0.6, 1.3)],
        "curly": [(0.05, -1.42), (0.66, -1.30), (1.12, -0.80), (1.18, -0.2), (1.16, 0.5), (0.7, 0.7)],
    }
    if identity.style not in halves or (identity.style == "curly" and identity.sex == "Male"):
        return []
    return [mirrored([(x * identity.width, y) for x, y in halves[identity.style]])]


def _front_hair(identity: Identity, rng: np.random.Generator) -> list[Curve]:
    """The hair over the forehead: outer edge over the skull, inner edge along the hairline."""
    if identity.style == "bald":
        return []
    (lift, line), w = CUTS[identity.style], identity.width
    side = -0.12 if identity.sex == "Male" else 0.12
    outer = [(0.87, side), (0.90 + 0.3 * lift, -0.45), (0.74 + 0.5 * lift, -0.90 - 0.5 * lift), (0.36, -1.16 - lift)]
    inner = [(0.80, side), (0.80, -0.48), (0.66, -0.68), (0.36, line)]
    part = {"parted": 0.30, "long": 0.10}.get(identity.style, 0.0)
    points = [
        *[(-x, y) for x, y in outer],
        *reversed(outer),
        *inner,
        (part, line - 0.06),
        *[(-x, y) for x, y in reversed(inner)],
    ]
    x, y = smooth([(px * w, py) for px, py in points])
    if identity.style == "curly":
        wave = 0.025 * np.sin(np.arange(len(x)) * 1.3 + rng.uniform(0, 6))
        x, y = x + wave, y + np.roll(wave, 2)
    angle = np.linspace(0, 2 * np.pi, 40)
    bun = (0.32 * np.cos(angle), -1.42 + 0.22 * np.sin(angle))
    return [bun, (x, y)] if identity.style == "tied" else [(x, y)]


def _comb(head: Image, curve: Curve, hair: Colour, identity: Identity, rng: np.random.Generator) -> None:
    """Strands: thin curves down from the crown, lighter and darker than the hair, kept within the outline."""
    inside, strands = np.zeros(head.shape[:2], np.uint8), head.copy()
    fill(inside, *curve, (255, 255, 255))
    t = np.linspace(0, 1, 14)
    for across in rng.uniform(-1.25, 1.25, 150):
        curl = 0.06 * np.sin(t * 22 + across * 20) if identity.style == "curly" else 0.02 * np.sin(t * 4 + across * 9)
        shade = scaled(hair, float(rng.uniform(0.7, 1.4)))
        stroke(strands, across * (0.35 + 0.65 * t**0.5) + curl, -1.55 + 3.3 * t**1.5, shade, 0.012)
    np.copyto(head, strands, where=inside[:, :, None] > 127)


def _backdrop(identity: Identity, width: int, height: int, unit: float, centre: Point) -> Image:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    fall = 1 - 0.16 * np.hypot(x / width - 0.5 - 0.25 * identity.light, y / height - 0.4)
    wall = np.clip(np.array(identity.wall, np.float32) * fall[:, :, None], 0, 255).astype(np.uint8)

    def add(half: list[Point], colour: Colour) -> None:
        corners = np.stack(mirrored(half), axis=-1) * unit + centre
        cv2.fillPoly(wall, [np.rint(corners * 16).astype(np.int32)], colour, cv2.LINE_AA, shift=4)

    broad = 2.15 if identity.sex == "Male" else 1.8
    neck = 0.50 if identity.sex == "Male" else 0.42
    add([(0.45, 1.36), (1.1, 1.56), (broad, 1.95), (broad + 0.25, 2.8), (broad + 0.2, 4.6)], identity.clothes)
    add([(neck + 0.18, 1.40), (neck + 0.16, 1.5), (0.2, 1.92)], scaled(identity.clothes, 0.72))
    add([(neck, 0.5), (neck, 1.2), (neck + 0.12, 1.5), (0.2, 1.86)], scaled(identity.skin, 0.78))
    add([(neck, 0.5), (neck, 1.10), (0.3, 1.30)], scaled(identity.skin, 0.60))
    return np.asarray(cv2.GaussianBlur(wall, (0, 0), 0.012 * unit + 0.3), np.uint8)
