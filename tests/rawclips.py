"""Does it matter that clips are prepared? The same crop and moments from the video itself, and what a network says."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from manifests.clipfile import PreparedClip
from manifests.faces import Square, crop_square
from manifests.video import read_frames
from trainer.config import CONFIGS, read_config
from trainer.dataset import Clips, TestViews, resize_to, to_tensor
from trainer.networks import create_model, normalisation, place, to_input
from trainer.sampling import view_frames


def raw_views(source: Path, clip: PreparedClip, *, frames: int, span: float, size: int, views: int) -> Tensor:
    """`(views, T, 3, size, size)` uint8, as TestViews gives them, from the video that the clip was prepared from."""
    square = Square(clip.meta["box_x"], clip.meta["box_y"], clip.meta["box_side"])
    pictures = [
        crop_square(picture, square, clip.meta["rule"]["size"])
        for time, picture in read_frames(source)
        if np.abs(clip.times - time).min() < 1e-5
    ]
    assert len(pictures) == len(clip)
    indices = torch.as_tensor(view_frames(clip.times, frames, span, views))
    return resize_to(size)(to_tensor(np.stack(pictures)))[indices]


@dataclass(frozen=True)
class Agreement:
    """How a network judges the same views from prepared clips and from the videos that these were made from."""

    pixels: float  # mean difference of pixels, of 255
    logits: float  # mean difference of logits, as a share of their standard deviation between views
    probability: float  # largest difference of a probability
    same: float  # share of the views with the same most probable class
    views: int


def agreement(clips: Clips, sources: list[Path], *, frames: int, size: int, views: int, steps: int) -> Agreement:
    """Train the demo's SlowFast on prepared clips, each with its label, then let it judge prepared and raw views."""
    how = {"frames": frames, "span": 2.1, "size": size, "views": views}
    dataset = TestViews(clips, **how)
    prepared = torch.cat([dataset[row][0] for row in range(len(clips))])
    videos = zip(sources, map(str, clips.clip_ids), strict=True)
    raw = torch.cat([raw_views(source, clips.store.open(clip_id), **how) for source, clip_id in videos])
    labels = torch.as_tensor(clips.labels).repeat_interleave(views)
    judge = trained_on(prepared, labels, steps)
    with torch.inference_mode():
        first, second = (judge(to_input(pixels, *normalisation("slowfast"))) for pixels in (prepared, raw))
    return Agreement(
        pixels=(prepared.float() - raw.float()).abs().mean().item(),
        logits=((first - second).abs() / second.std(0)).mean().item(),
        probability=(first.softmax(1) - second.softmax(1)).abs().max().item(),
        same=(first.argmax(1) == second.argmax(1)).float().mean().item(),
        views=len(raw),
    )


def trained_on(pixels: Tensor, labels: Tensor, steps: int) -> nn.Module:
    torch.manual_seed(0)
    settings = read_config(CONFIGS / "demo.yaml", ["model.width=8"]).model.model_dump(exclude={"pretrained"})
    model = place(create_model(int(labels.max()) + 1, **settings), torch.device("cpu"))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    inputs = to_input(pixels, *normalisation("slowfast"))
    for _ in range(steps):
        batch = torch.randperm(len(labels))[:8]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[batch]), labels[batch], label_smoothing=0.1).backward()
        optimizer.step()
    return model.eval()
