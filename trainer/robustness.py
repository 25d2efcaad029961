"""What may happen to a picture on its way: pure functions on a clip `(T, 3, H, W)` uint8 that give the same shape.

Sizes are shares of the picture's side, so that a network that looks at 64 pixels meets what one at 224 does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from manifests.clipfile import encode_frame
from trainer.dataset import TestViews

# (top, bottom, left, right) as shares of the crop. In prepared clips of real and of drawn faces the detector finds the
# eyes at 0.37 to 0.47 of the height and the corners of the mouth at 0.62 to 0.75 (margin 0.3, faces that look ahead).
EYES = (0.31, 0.53, 0.18, 0.82)
MOUTH = (0.57, 0.84, 0.24, 0.76)
GREY = 128


def blur(clip: Tensor, rng: torch.Generator, *, sigma: float) -> Tensor:
    """Out of focus: a Gaussian of this standard deviation."""
    pixels = sigma * clip.shape[-1]
    return functional.gaussian_blur(clip, 2 * max(round(3 * pixels), 1) + 1, pixels)


def jpeg(clip: Tensor, rng: torch.Generator, *, quality: int) -> Tensor:
    """Each frame stored as a JPEG of this quality, its colours at half resolution as is usual."""
    stored = [np.frombuffer(encode_frame(frame.permute(1, 2, 0).numpy(), quality), np.uint8) for frame in clip]
    frames = [torch.from_numpy(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)) for data in stored]
    return torch.stack(frames).permute(0, 3, 1, 2)


def noise(clip: Tensor, rng: torch.Generator, *, sigma: float) -> Tensor:
    """A grainy sensor: to each pixel of each frame a random value of its own is added, `sigma` of full white."""
    grain = torch.randn(clip.shape, generator=rng)
    return (clip + 255 * sigma * grain).round().clamp(0, 255).to(torch.uint8)


def darken(clip: Tensor, rng: torch.Generator, *, light: float) -> Tensor:
    """Only this share of the light."""
    return (clip * light).round().to(torch.uint8)


def shrink(clip: Tensor, rng: torch.Generator, *, side: float) -> Tensor:
    """A face that has only this share of the pixels on each side, blown up again."""
    height, width = clip.shape[-2:]
    small = functional.resize(clip, [max(round(side * height), 1), max(round(side * width), 1)], antialias=True)
    return functional.resize(small, [height, width], antialias=True)


def lose_frames(clip: Tensor, rng: torch.Generator, *, share: float) -> Tensor:
    """This share of the frames never arrives: the last one that did stays on. The first always does."""
    arrives = torch.ones(len(clip), dtype=torch.bool)
    arrives[1 + torch.randperm(len(clip) - 1, generator=rng)[: round(share * len(clip))]] = False
    return clip[torch.where(arrives, torch.arange(len(clip)), 0).cummax(0).values]


def hold_frames(clip: Tensor, rng: torch.Generator, *, each: int) -> Tensor:
    """A lower frame rate: one frame in `each` is shown, for as long as those that are left out."""
    return clip[torch.arange(len(clip)) // each * each]


def shift(clip: Tensor, rng: torch.Generator, *, share: float) -> Tensor:
    """The box sits this share of its side too far right and down (less than 0: left and up): edges are repeated."""
    height, width = clip.shape[-2:]
    rows = (torch.arange(height) + round(share * height)).clamp(0, height - 1)
    columns = (torch.arange(width) + round(share * width)).clamp(0, width - 1)
    return clip[..., rows[:, None], columns]


def cover(clip: Tensor, rng: torch.Generator, *, place: tuple[float, float, float, float]) -> Tensor:
    """A grey rectangle (top, bottom, left, right) over the same place of all frames."""
    height, width = clip.shape[-2:]
    top, bottom, left, right = (round(edge * n) for edge, n in zip(place, (height, height, width, width), strict=True))
    covered = clip.clone()
    covered[..., top:bottom, left:right] = GREY
    return covered


@dataclass(frozen=True)
class Disturbance:
    """What happens to the picture, how much of it (for people to read), and the function that does it."""

    name: str
    severity: str
    apply: Callable[[Tensor, torch.Generator], Tensor]


DISTURBANCES = (
    Disturbance("blur", "by 0.9 % of the side", partial(blur, sigma=2 / 224)),
    Disturbance("blur", "by 1.8 % of the side", partial(blur, sigma=4 / 224)),
    Disturbance("JPEG", "quality 30", partial(jpeg, quality=30)),
    Disturbance("JPEG", "quality 10", partial(jpeg, quality=10)),
    Disturbance("noise", "4 % of white", partial(noise, sigma=0.04)),
    Disturbance("noise", "10 % of white", partial(noise, sigma=0.10)),
    Disturbance("darkness", "half the light", partial(darken, light=0.5)),
    Disturbance("darkness", "a fifth of the light", partial(darken, light=0.2)),
    Disturbance("low resolution", "3/8 of the pixels a side", partial(shrink, side=84 / 224)),
    Disturbance("low resolution", "1/4 of the pixels a side", partial(shrink, side=56 / 224)),
    Disturbance("frames lost", "a quarter", partial(lose_frames, share=0.25)),
    Disturbance("frames lost", "half", partial(lose_frames, share=0.5)),
    Disturbance("lower frame rate", "a half", partial(hold_frames, each=2)),
    Disturbance("lower frame rate", "a quarter", partial(hold_frames, each=4)),
    Disturbance("box shifted", "10 % right and down", partial(shift, share=0.1)),
    Disturbance("box shifted", "10 % left and up", partial(shift, share=-0.1)),
    Disturbance("eyes covered", "grey bar", partial(cover, place=EYES)),
    Disturbance("mouth covered", "grey bar", partial(cover, place=MOUTH)),
)


class DisturbedViews(Dataset[tuple[Tensor, int]]):
    """One view of each video in every disturbance: `(disturbances, T, 3, size, size)` uint8 and its row.

    The video is decoded once. What is random is drawn from its row, so that every pass meets the same.
    """

    def __init__(self, views: TestViews) -> None:
        self.views, self.clips = views, views.clips

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        (clip,), _ = self.views[row]
        return torch.stack([d.apply(clip, torch.Generator().manual_seed(row)) for d in DISTURBANCES]), row
