"""Augmentation of whole clips of faces: every draw is made once per clip and holds for all its frames.

Left out on purpose: geometry drawn per frame (it fakes motion), time reversal (an onset is not an offset), vertical
mirrors and strong rotation (faces do not do that), posterising, solarising and inversion (skin and shading carry the
expression), equalisation and auto-contrast (a curve per frame flickers).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from trainer.geometry import Pixels, placement, recolour, warp

JPEG_QUALITY = (30, 90)
ERASED = (0.02, 0.15)  # share of the picture
BLUR = (0.3, 1.2)  # pixels, standard deviation

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as JPEG and both corpora's codecs have it
GREY = np.tile(LUMA, (3, 1))  # takes the chroma away
# Red, green and blue -> luma and two coordinates of chroma (the YIQ of analogue television).
YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
# Turns the chroma by 90 degrees and leaves the luma, from red, green and blue to the same.
QUARTER_TURN = np.linalg.inv(YIQ) @ np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]]) @ YIQ


@dataclass
class Draw:
    """What happens to one clip: where it is seen from, in which light, by which camera; as it stands, nothing."""

    degrees: float = 0.0
    right: float = 0.0  # share of the side
    down: float = 0.0
    factor: float = 1.0
    shear: float = 0.0  # degrees
    mirror: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0  # share of the circle
    warmth: float = 0.0  # share that red gains and blue loses: another camera's white balance
    gamma: float = 1.0
    sharpness: float = 1.0
    detail: float = 1.0  # share of the pixels a side that was left when the face was small in its picture
    blur: float = 0.0  # pixels, standard deviation
    quality: int | None = None  # of JPEG
    erased: tuple[int, int, int, int] | None = None  # pixels: top, left, height and width of a black rectangle

    def place(self, source: int, size: int) -> NDArray[np.float64]:
        """Where each pixel of the outcome is in the source: see `placement`."""
        return placement(
            source, size, degrees=self.degrees, shift=(self.right, self.down), factor=self.factor, shear=self.shear,
            mirror=self.mirror,
        )  # fmt: skip


# RandAugment's operations (arXiv:1909.13719): what a strength of -1..1 makes of a value. At 1 a face is still one that
# a camera could have seen. Light and cameras differ between corpora, so most are about these; geometry is bounded, for
# it comes on top of `rotate` and the others.
FACE_SAFE: dict[str, Callable[[float, float], float]] = {
    "degrees": lambda value, strength: value + 10 * strength,
    "right": lambda value, strength: value + 0.08 * strength,
    "down": lambda value, strength: value + 0.08 * strength,
    "factor": lambda value, strength: value * (1 + 0.15 * strength),
    "shear": lambda value, strength: value + 6 * strength,
    "brightness": lambda value, strength: value * (1 + 0.5 * strength),
    "contrast": lambda value, strength: value * (1 + 0.5 * strength),
    "saturation": lambda value, strength: value * (1 + 0.8 * strength),
    "warmth": lambda value, strength: value + 0.2 * strength,
    "gamma": lambda value, strength: value * 2**strength,
    "sharpness": lambda value, strength: value + 0.9 * strength,
    "detail": lambda value, strength: value * (1 - abs(strength) / 2),
}


@dataclass(frozen=True)
class ClipTransform:
    """A function from `(T, 3, S, S)` uint8 to `(T, 3, size, size)` uint8 that draws from torch's global generator.

    `rotate` is in degrees either way, `translate` a share of the side, `scale` the range of factors; brightness,
    contrast and saturation are multiplied by 1 +- their value, hue is turned by +- its share of the circle. `flip`,
    `grayscale`, `blur`, `jpeg` and `erase` are probabilities. `rand_ops` of FACE_SAFE come on top, at `rand_magnitude`
    one way or the other. Whatever was drawn, all geometry comes to one resampling, and all light and colours but gamma
    to one matrix; gamma, lost detail, sharpness, blur and JPEG follow where they were drawn.
    """

    size: int
    flip: float
    rotate: float
    translate: float
    scale: tuple[float, float]
    brightness: float
    contrast: float
    saturation: float
    hue: float
    grayscale: float
    blur: float
    jpeg: float
    erase: float
    rand_ops: int
    rand_magnitude: float

    def __call__(self, frames: Tensor) -> Tensor:
        seen = look(frames.permute(0, 2, 3, 1).numpy(), self.size, self.draw())
        return torch.from_numpy(seen).permute(0, 3, 1, 2)

    def draw(self) -> Draw:
        drawn = Draw(
            degrees=between(-self.rotate, self.rotate),
            right=between(-self.translate, self.translate),
            down=between(-self.translate, self.translate),
            factor=between(*self.scale),
            mirror=happens(self.flip),
            brightness=between(1 - self.brightness, 1 + self.brightness),
            contrast=between(1 - self.contrast, 1 + self.contrast),
            saturation=0.0 if happens(self.grayscale) else between(1 - self.saturation, 1 + self.saturation),
            hue=between(-self.hue, self.hue),
            blur=between(*BLUR) if happens(self.blur) else 0.0,
            quality=round(between(*JPEG_QUALITY)) if happens(self.jpeg) else None,
        )
        names = list(FACE_SAFE)
        for _ in range(self.rand_ops):
            name = names[int(torch.randint(len(names), ()))]
            strength = self.rand_magnitude if happens(0.5) else -self.rand_magnitude
            setattr(drawn, name, FACE_SAFE[name](getattr(drawn, name), strength))
        if happens(self.erase):
            drawn.erased = rectangle(self.size)
        return drawn


def between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def happens(probability: float) -> bool:
    return float(torch.rand(())) < probability


def rectangle(size: int) -> tuple[int, int, int, int] | None:
    """What torchvision would erase of a square; None where it finds no rectangle that fits."""
    found = v2.RandomErasing(scale=ERASED).make_params([torch.empty(3, size, size)])
    return None if found["v"] is None else (found["i"], found["j"], found["h"], found["w"])


def look(frames: Pixels, size: int, drawn: Draw) -> Pixels:
    """`(T, S, S, 3)` -> `(T, size, size, 3)`, each frame treated as `drawn` says."""
    seen = warp(frames, drawn.place(frames.shape[1], size), size)
    tall = (-1, size, 3)  # all frames as one picture, which OpenCV reads several times faster than numpy
    seen = recolour(seen, colour_matrix(np.array(cv2.mean(seen.reshape(tall))[:3]), drawn))
    if drawn.gamma != 1:
        curve = np.rint(255 * np.linspace(0, 1, 256) ** drawn.gamma).astype(np.uint8)
        seen = np.asarray(cv2.LUT(seen.reshape(tall), curve), np.uint8).reshape(seen.shape)
    if drawn.detail < 1:
        few = round(size * drawn.detail)
        seen = each(seen, lambda frame: cv2.resize(frame, (few, few), interpolation=cv2.INTER_AREA))
        seen = each(seen, lambda frame: cv2.resize(frame, (size, size)))
    if drawn.sharpness != 1:
        kernel = sharpening(drawn.sharpness)
        seen = each(seen, lambda frame: cv2.filter2D(frame, -1, kernel))
    if drawn.blur:
        seen = each(seen, lambda frame: cv2.GaussianBlur(frame, (5, 5), drawn.blur))
    if drawn.quality is not None:
        quality = drawn.quality
        seen = each(seen, lambda frame: compress(frame, quality))
    if drawn.erased is not None:
        top, left, height, width = drawn.erased
        seen[:, top : top + height, left : left + width] = 0
    return seen


def colour_matrix(mean: NDArray[np.floating], drawn: Draw) -> NDArray[np.float64]:
    """The `(3, 4)` map of (r, g, b, 1) that brightness, contrast, saturation, hue and warmth come to.

    Contrast is the distance from the `mean` colour's grey. torchvision takes that mean frame by frame, which changes
    the light as a face moves; taken over the clip, equal colours stay equal.
    """
    turn = 2 * math.pi * drawn.hue
    chroma = math.cos(turn) * (np.eye(3) - GREY) + math.sin(turn) * QUARTER_TURN
    gains = drawn.brightness * np.array([1 + drawn.warmth, 1, 1 - drawn.warmth])
    stretched = drawn.contrast * (GREY + drawn.saturation * chroma)
    return gains[:, None] * np.column_stack([stretched, np.full(3, (1 - drawn.contrast) * LUMA @ mean)])


def sharpening(sharpness: float) -> NDArray[np.float64]:
    """The `(3, 3)` kernel that weighs a frame and a slight blur of it as PIL and torchvision do."""
    kernel = (1 - sharpness) * np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    kernel[1, 1] += sharpness
    return kernel


def compress(frame: Pixels, quality: int) -> Pixels:
    """`(H, W, 3)` as it comes back from a JPEG file; OpenCV takes the first colour for blue."""
    _, file = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]


def each(frames: Pixels, change: Callable[[Pixels], Any]) -> Pixels:
    return np.stack([change(frame) for frame in frames])
