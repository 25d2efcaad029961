"""Prepared clips -> tensors. Samples stay uint8 until they are on the device; each draw has a seed of its own."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from manifests.clips import ClipStore
from trainer.sampling import training_frames, view_frames


class Clips:
    """The rows that a dataset serves, as arrays: forked workers share them instead of copying a list of objects."""

    def __init__(self, store: ClipStore, clip_ids: Sequence[str], labels: Sequence[int]) -> None:
        self.store = store
        self.clip_ids = np.array(clip_ids, dtype=np.str_)
        self.labels = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.clip_ids)


class TrainingClips(Dataset[tuple[Tensor, int]]):
    """Random clips of a video: `(clips_per_video, T, 3, size, size)` uint8 and the class.

    Indexed by (epoch, row). The pair and the seed decide every draw, so that neither the number of workers nor a
    restart changes a sample.
    """

    def __init__(
        self, clips: Clips, transform: v2.Transform, *, frames: int, span: float, clips_per_video: int, seed: int
    ) -> None:
        self.clips, self.transform = clips, transform
        self.frames, self.span, self.clips_per_video, self.seed = frames, span, clips_per_video, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, row = key
        rng = np.random.default_rng((self.seed, epoch, row))
        video = self.clips.store.open(str(self.clips.clip_ids[row]))
        drawn = []
        # torchvision draws from torch's global generator: lend it a seeded one, and give the caller's back.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            for _ in range(self.clips_per_video):
                frames = video.frames(training_frames(video.times, self.frames, self.span, rng))
                drawn.append(self.transform(to_tensor(frames)))
        return torch.stack(drawn), int(self.clips.labels[row])


class TestViews(Dataset[tuple[Tensor, int]]):
    """The fixed views of a video: `(views, T, 3, size, size)` uint8 and its row."""

    # pytest would otherwise take the name for a test class.
    __test__ = False

    def __init__(self, clips: Clips, *, frames: int, span: float, size: int, views: int) -> None:
        self.clips, self.frames, self.span, self.views = clips, frames, span, views
        self.transform = resize_to(size)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        video = self.clips.store.open(str(self.clips.clip_ids[row]))
        indices = view_frames(video.times, self.frames, self.span, self.views)
        # Views overlap: decode each frame once.
        unique, inverse = np.unique(indices, return_inverse=True)
        frames = self.transform(to_tensor(video.frames(unique)))
        return frames[torch.as_tensor(inverse.reshape(indices.shape))], row


def to_tensor(frames: np.ndarray) -> Tensor:
    """`(T, H, W, 3)` uint8 array -> `(T, 3, H, W)` uint8 tensor."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def resize_to(size: int) -> v2.Transform:
    return v2.Resize((size, size), antialias=True)


def training_transform(
    size: int,
    *,
    flip: float,
    rotate: float,
    translate: float,
    scale: tuple[float, float],
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    grayscale: float,
    blur: float,
    erase: float,
) -> v2.Transform:
    """Augmentation of a whole clip `(T, 3, H, W)` uint8; each draw holds for all its frames.

    Left out on purpose: geometry drawn per frame (it fakes motion), time reversal (an onset is not an offset),
    vertical mirrors and strong rotation (faces do not do that).
    """
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(flip),
            v2.RandomAffine(rotate, (translate, translate), scale, interpolation=InterpolationMode.BILINEAR),
            resize_to(size),
            v2.ColorJitter(brightness, contrast, saturation, hue),
            v2.RandomGrayscale(grayscale),
            v2.RandomApply([v2.GaussianBlur(5, (0.3, 1.2))], blur),
            v2.RandomErasing(erase, scale=(0.02, 0.15)),
        ]
    )
