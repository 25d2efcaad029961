"""Whole clips through one matrix: of places (`warp`) or of colours (`recolour`), each in one pass over the pixels.

A turn, a shift, a zoom, a mirror image and the change of size are one affine map, drawn once per clip. Done at once
they cost a tenth of what they cost one after the other, and blur the picture once. So it is with colours.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def placement(
    source: int,
    size: int,
    *,
    degrees: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    factor: float = 1.0,
    shear: float = 0.0,
    mirror: bool = False,
) -> NDArray[np.float64]:
    """The map `(2, 3)` from a pixel (x, y) of a square of `size` to the place in a square of `source` that it shows.

    What is shown is mirrored first, then sheared (degrees, as torchvision has it), zoomed by `factor` and turned
    clockwise, all about the middle, and then shifted right and down by shares of the side. Without all these it is a
    plain change of size.
    """
    turn, slant = np.deg2rad(degrees), np.tan(np.deg2rad(shear))
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shown = factor * turned @ np.array([[1.0, -slant], [0.0, 1.0]]) @ np.diag([-1.0 if mirror else 1.0, 1.0])
    # In shares of the side from the middle: place = back @ (pixel - shift). A pixel's own middle is half a pixel in.
    back = np.linalg.inv(shown)
    offset = source * (back @ (0.5 / size - 0.5 - np.array(shift)) + 0.5) - 0.5
    return np.column_stack([back * source / size, offset])


def warp(frames: Pixels, matrix: NDArray[np.float64], size: int) -> Pixels:
    """`(T, H, W, 3)` -> `(T, size, size, 3)`: each pixel from where `matrix` (see `placement`) says, bilinear.

    Black beyond the border. Free of aliasing down to about half the size; what is to become smaller is read smaller
    (`PreparedClip.frames`).
    """
    out = np.empty((len(frames), size, size, 3), np.uint8)
    for frame, target in zip(frames, out, strict=True):
        cv2.warpAffine(
            frame, matrix, (size, size), target, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_CONSTANT
        )
    return out


def recolour(frames: Pixels, matrix: NDArray[np.floating]) -> Pixels:
    """`(T, H, W, 3)` with each colour (r, g, b) replaced by `matrix` `(3, 4)` times (r, g, b, 1), rounded to 0..255."""
    rows = frames.reshape(-1, frames.shape[2], 3)
    return np.asarray(cv2.transform(rows, np.asarray(matrix, np.float32)), np.uint8).reshape(frames.shape)
