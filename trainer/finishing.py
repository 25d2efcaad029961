"""What augmentation makes of a clip (`augment.look`), done by the device: for GPUs, whose workers only decode.

The draws come from the worker, with the frames. Whichever side carries them out, the picture is the same up to rounding
(tests/test_finishing.py); OpenCV is the quicker one on a CPU's core, torch on a GPU.
"""

import io
import math
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainer.augment import LUMA, Draw, colour_matrix, sharpening

# JFIF: red, green, blue -> luma and two differences of colour, to which 128 is added.
YCC = np.array([LUMA, [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
BLOCK = 8


class Unfinished(NamedTuple):
    """Clips as they were decoded, and what is to be done to each."""

    frames: Tensor  # (videos, clips, T, 3, S, S) uint8, colours innermost in memory
    draws: list[Draw]  # one per clip, video by video


def finish(clips: Tensor | Unfinished, size: int, device: torch.device) -> Tensor:
    """`(videos, clips, T, 3, size, size)` uint8 on the device; clips that the worker has finished are only moved."""
    if isinstance(clips, Tensor):
        return clips.to(device, non_blocking=True)
    frames = clips.frames.to(device, non_blocking=True)
    done = frames.new_empty((*frames.shape[:3], size, size, 3)).movedim(-1, -3)
    # Clip by clip: as floats, all of them would take the memory that the network needs.
    for clip, target, drawn in zip(frames.flatten(0, 1), done.flatten(0, 1), clips.draws, strict=True):
        target.copy_(develop(clip, size, drawn))
    return done


def develop(frames: Tensor, size: int, drawn: Draw) -> Tensor:
    """`(T, 3, S, S)` uint8 -> `(T, 3, size, size)` floats that are whole numbers, 0 to 255: see `augment.look`."""
    seen = recolour(warp(frames.float(), drawn.place(frames.shape[-1], size), size), drawn)
    if drawn.gamma != 1:
        seen = seen.div_(255).pow_(drawn.gamma).mul_(255)
    if drawn.detail < 1:
        coarse = like(coarseness(size, round(size * drawn.detail)), seen)
        seen = coarse @ seen @ coarse.T
    if drawn.sharpness != 1:
        seen = filtered(seen, sharpening(drawn.sharpness)).clamp_(0, 255)
    if drawn.blur:
        row = cv2.getGaussianKernel(5, drawn.blur)
        seen = filtered(seen, row @ row.T)
    seen = seen.round_()
    if drawn.quality is not None:
        seen = compress(seen, drawn.quality)
    if drawn.erased is not None:
        top, left, height, width = drawn.erased
        seen[..., top : top + height, left : left + width] = 0
    return seen


def warp(frames: Tensor, matrix: NDArray[np.float64], size: int) -> Tensor:
    """`(T, 3, S, S)` -> `(T, 3, size, size)`, both floats: each pixel from where `matrix` says, black beyond."""
    across, down, shift = like(matrix.T, frames)
    axis = torch.arange(size, device=frames.device)
    places = axis[None, :, None] * across + axis[:, None, None] * down + shift  # (size, size, 2), in pixels
    grid = (2 * places + 1) / frames.shape[-1] - 1  # -1 and 1 are the outer edges
    return F.grid_sample(frames, grid.expand(len(frames), -1, -1, -1), align_corners=False)


def recolour(frames: Tensor, drawn: Draw) -> Tensor:
    """`(T, 3, H, W)` floats in other colours, 0 to 255, by `augment.colour_matrix` of the clip's own mean."""
    # The mean stays on the device: what it adds is in proportion to its grey.
    matrix = like(colour_matrix(np.ones(3), drawn), frames)
    grey = like(LUMA, frames) @ frames.mean((0, 2, 3))
    return (matrix[:, :3] @ frames.flatten(2)).add_(matrix[:, 3:] * grey).clamp_(0, 255).view_as(frames)


@cache
def coarseness(size: int, few: int) -> NDArray[np.float32]:
    """The `(size, size)` map of a row of pixels to itself after a stay at `few` pixels, as OpenCV resizes it."""
    shrunk = cv2.resize(np.eye(size, dtype=np.float32), (size, few), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (size, size)), np.float32)


def filtered(frames: Tensor, kernel: NDArray[np.floating]) -> Tensor:
    """`(T, 3, H, W)` with each colour convolved; the border is a mirror, as OpenCV has it."""
    margin = len(kernel) // 2
    padded = F.pad(frames, [margin] * 4, mode="reflect")
    return F.conv2d(padded, like(kernel, frames).expand(3, 1, -1, -1), groups=3)


def compress(frames: Tensor, quality: int) -> Tensor:
    """`(T, 3, H, W)` whole numbers as they come back from a JPEG file: colour halved, blocks in coarse steps.

    libjpeg's way, but for its integer arithmetic.
    """
    height, width = frames.shape[-2:]
    to_ycc = like(YCC, frames)
    centre = frames.new_tensor([0, 128, 128])[:, None]
    ycc = (to_ycc @ frames.flatten(2) + centre).round_().view_as(frames)
    ycc = F.pad(ycc, [0, -width % (2 * BLOCK), 0, -height % (2 * BLOCK)], mode="replicate")
    luma, chroma = (like(steps, frames) for steps in quantisation(quality))
    light = quantised(ycc[:, :1], luma)
    # A half is rounded down in one column and up in the next.
    bias = frames.new_tensor([0.25, 0.5]).repeat(ycc.shape[-1] // 4)
    colour = quantised((F.avg_pool2d(ycc[:, 1:], 2) + bias).floor_(), chroma)
    ycc = torch.cat([light, F.interpolate(colour, scale_factor=2, mode="bilinear").round_()], 1)[..., :height, :width]
    return (to_ycc.inverse() @ (ycc.flatten(2) - centre)).round_().clamp_(0, 255).view_as(frames)


def quantised(planes: Tensor, steps: Tensor) -> Tensor:
    """`(T, C, H, W)` after the cosine transform of its blocks was rounded to multiples of `steps` `(8, 8)`."""
    row = np.arange(BLOCK)
    cosines = np.cos(math.pi / BLOCK * np.outer(row, row + 0.5)) * math.sqrt(2 / BLOCK)
    cosines[0] /= math.sqrt(2)
    cosine = like(cosines, planes)
    blocks = planes.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK)).transpose(-3, -2) - 128
    coarse = (cosine @ blocks @ cosine.T).div_(steps).round_().mul_(steps)
    back = (cosine.T @ coarse @ cosine).add_(128).round_().clamp_(0, 255)
    return back.transpose(-3, -2).flatten(-2).flatten(-3, -2)


@cache
def quantisation(quality: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The steps `(8, 8)` that OpenCV rounds to at this quality, of luma and of chroma: read from a file of its own."""
    _, file = cv2.imencode(".jpg", np.zeros((BLOCK, BLOCK, 3), np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
    tables = Image.open(io.BytesIO(file.tobytes())).quantization  # type: ignore[attr-defined]
    luma, chroma = (np.array(tables[number], np.float32).reshape(BLOCK, BLOCK) for number in (0, 1))
    return luma, chroma


def like(values: NDArray[np.floating], frames: Tensor) -> Tensor:
    """A small array as a tensor of the frames' kind, on their device."""
    return torch.as_tensor(np.ascontiguousarray(values), dtype=frames.dtype).to(frames.device, non_blocking=True)
