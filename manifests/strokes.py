"""Anti-aliased shapes and curves in a face's own units, and colours: what portrait.py and puppet.py draw with.

Face units: 1.0 is about half the width of the face, x to the right of the picture, y down, (0, 0) between the eyes and
the tip of the nose.
"""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.floating]
Colour = tuple[float, float, float]  # red, green, blue, 0 to 255
Curve = tuple[Floats, Floats]  # x and y, in face units
Point = tuple[float, float]

UNIT = 100  # pixels per face unit in the texture; a drawn head is smaller, so it is shrunk, not blown up
WIDTH, HEIGHT = 3.2, 3.9  # of the texture, in face units
ORIGIN = (WIDTH / 2, 1.75)  # where (0, 0) lies in the texture, in face units


def scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255.0, channel * factor) for channel in colour)
    return red, green, blue


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def to_texture(values: Floats, axis: int) -> Floats:
    """Face units to texture pixels; axis 0 is x."""
    return (values + np.float32(ORIGIN[axis])) * np.float32(UNIT)


def fill(image: Image, x: Floats, y: Floats, colour: Colour) -> None:
    cv2.fillPoly(image, [_fixed_point(x, y)], colour, cv2.LINE_AA, shift=4)


def stroke(image: Image, x: Floats, y: Floats, colour: Colour, thickness: float) -> None:
    """`thickness` is in face units."""
    cv2.polylines(image, [_fixed_point(x, y)], False, colour, max(1, round(thickness * UNIT)), cv2.LINE_AA, shift=4)


def _fixed_point(x: Floats, y: Floats) -> NDArray[np.int32]:
    """Texture pixels with 4 fractional bits, which OpenCV's anti-aliased drawing wants."""
    corners = np.empty((len(x), 2))
    corners[:, 0], corners[:, 1] = x, y
    corners += ORIGIN
    return np.rint(corners * (UNIT * 16)).astype(np.int32)


def smooth(points: list[Point], closed: bool = True) -> Curve:
    """A Catmull-Rom curve through the points."""
    curve = _spline_basis(len(points), closed) @ np.array(points)
    return curve[:, 0], curve[:, 1]


def mirrored(half: list[Point]) -> Curve:
    """A closed curve from its right half, given from top to bottom."""
    return smooth([*half, *[(-x, y) for x, y in reversed(half)]])


@cache
def _spline_basis(points: int, closed: bool, samples: int = 8) -> Floats:
    """Catmull-Rom weights, (curve points, points): `samples` per stretch, and an open curve's last point."""
    rows = []
    for segment in range(points if closed else points - 1):
        for t in np.arange(samples) / samples:
            powers = np.array([1, t, t**2, t**3])
            weights = 0.5 * powers @ np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])
            row = np.zeros(points)
            for weight, index in zip(weights, range(segment - 1, segment + 3), strict=True):
                row[index % points if closed else min(max(index, 0), points - 1)] += weight
            rows.append(row)
    if not closed:
        rows.append(np.eye(points)[-1])
    return np.array(rows)
