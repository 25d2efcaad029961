"""Prepared clips -> tensors. Samples stay uint8 until they are on the device; each draw has a seed of its own."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.transforms import v2

from manifests.clipfile import PreparedClip
from manifests.clips import ClipStore
from trainer.augment import Draw
from trainer.finishing import Unfinished
from trainer.sampling import Key, training_frames, view_frames

Transform = Callable[[Tensor], Tensor]  # (T, 3, H, W) -> (T, 3, size, size), both uint8


class Clips:
    """The rows that a dataset serves, as arrays: forked workers share them instead of copying a list of objects.

    `corpora` names each row's corpus, for a balanced order; `targets` `(N, classes)` are probabilities to learn
    instead of the label, which stays the truth that is measured against.
    """

    def __init__(
        self,
        store: ClipStore,
        clip_ids: Sequence[str],
        labels: Sequence[int],
        corpora: Sequence[str] | None = None,
        targets: NDArray[np.floating] | None = None,
    ) -> None:
        self.store = store
        self.clip_ids = np.array(clip_ids, dtype=np.str_)
        self.labels = np.array(labels, dtype=np.int64)
        self.corpora = np.array(["" for _ in clip_ids] if corpora is None else corpora, dtype=np.str_)
        self.targets = None if targets is None else np.array(targets, dtype=np.float32)
        self.shards = store.shard_numbers(self.clip_ids)

    def __len__(self) -> int:
        return len(self.clip_ids)


class TrainingClips(Dataset[tuple[Tensor | Unfinished, int | Tensor]]):
    """Random clips of a video: `(clips_per_video, T, 3, size, size)` uint8 and what to learn.

    What to learn is the class, or `(classes,)` float32 probabilities where the clips have targets. With `draw`, frames
    stay as they were decoded, and what it says of each clip goes along with them, for the device. Indexed by (epoch,
    row, repeat): the key and the seed decide every draw, so that neither the number of workers nor a restart changes a
    sample.
    """

    def __init__(
        self, clips: Clips, transform: Transform, *, frames: int, span: float, clips_per_video: int, seed: int,
        at_least: int | None = None, draw: Callable[[], Draw] | None = None,
    ) -> None:  # fmt: skip
        """`at_least`: pixels a side that the transform needs; frames of less detail are quicker to decode."""
        self.clips, self.transform, self.at_least, self.draw = clips, transform, at_least, draw
        self.frames, self.span, self.clips_per_video, self.seed = frames, span, clips_per_video, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Key) -> tuple[Tensor | Unfinished, int | Tensor]:
        row = key[1]
        rng = np.random.default_rng((self.seed, *key))
        video = self.clips.store.open(str(self.clips.clip_ids[row]))
        # The transform draws from torch's global generator: lend it a seeded one, and give the caller's back. That of
        # a GPU, from which dropout draws, is left alone.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(rng.integers(2**62)))
            moments = [training_frames(video.times, self.frames, self.span, rng) for _ in range(self.clips_per_video)]
            # Clips of a video overlap: asked for at once, each frame is decoded once.
            frames = to_tensor(video.frames(np.concatenate(moments), self.at_least))
            clips = self._finish(frames.unflatten(0, (self.clips_per_video, -1)))
        targets = self.clips.targets
        return clips, int(self.clips.labels[row]) if targets is None else torch.from_numpy(targets[row])

    def _finish(self, clips: Tensor) -> Tensor | Unfinished:
        if self.draw:
            return Unfinished(clips, [self.draw() for _ in clips])
        return colours_first(torch.stack([colours_last(self.transform(clip)) for clip in clips]))


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
        return self.show(video, view_frames(video.times, self.frames, self.span, self.views)), row

    def show(self, video: PreparedClip, indices: NDArray[np.integer]) -> Tensor:
        """The views `(views, T, 3, size, size)` of these `(views, T)` frames of a video."""
        # Views overlap: decode each frame once.
        unique, inverse = np.unique(indices, return_inverse=True)
        pixels = colours_last(self.transform(to_tensor(video.frames(unique))))
        return colours_first(pixels.index_select(0, torch.from_numpy(inverse.ravel())).unflatten(0, indices.shape))


def collate(samples: Sequence[tuple[Tensor | Unfinished, int | Tensor]]) -> tuple[Tensor | Unfinished, Tensor]:
    """A batch of samples, for a DataLoader's `collate_fn`: the same as by default, without sorting pixels by colour.

    That would cost as much as half the decoding; the device does it when it makes floats of them.
    """
    clips, targets = zip(*samples, strict=True)
    draws = [drawn for clip in clips if isinstance(clip, Unfinished) for drawn in clip.draws]
    frames = [colours_last(clip.frames if isinstance(clip, Unfinished) else clip) for clip in clips]
    batch = colours_first(default_collate(frames))
    return Unfinished(batch, draws) if draws else batch, default_collate(list(targets))


def colours_last(pixels: Tensor) -> Tensor:
    """`(..., 3, H, W)` -> `(..., H, W, 3)`, the order in which decoded pixels are in memory; only a view."""
    return pixels.movedim(-3, -1)


def colours_first(pixels: Tensor) -> Tensor:
    """`(..., H, W, 3)` -> `(..., 3, H, W)`; only a view."""
    return pixels.movedim(-1, -3)


def to_tensor(frames: np.ndarray) -> Tensor:
    """`(T, H, W, 3)` uint8 array -> `(T, 3, H, W)` uint8 tensor."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def resize_to(size: int) -> v2.Transform:
    return v2.Resize((size, size), antialias=True)
