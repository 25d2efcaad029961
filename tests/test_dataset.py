"""Samples depend on their seed alone, and augmentation leaves a still film still. Run: pytest tests/test_dataset.py"""

from pathlib import Path

import numpy as np
import pytest
import torch
from toys import SIZE, make_corpus

from manifests.clips import ClipStore
from manifests.table import read_manifest
from trainer.config import CONFIGS, read_config
from trainer.dataset import Clips, TestViews, TrainingClips, training_transform

STILL = {
    "flip": 0.0, "rotate": 0.0, "translate": 0.0, "scale": (1.0, 1.0), "brightness": 0.0, "contrast": 0.0,
    "saturation": 0.0, "hue": 0.0, "grayscale": 0.0, "blur": 0.0, "erase": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    manifest, root = make_corpus(tmp_path_factory.mktemp("toys"), actors=4, takes=2)
    rows = read_manifest(manifest).rows
    return Clips(ClipStore(Path(root)), rows["clip_id"].tolist(), [0] * len(rows))


def photograph():
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 255, (1, 3, 48, 48), dtype=torch.uint8, generator=generator).expand(6, -1, -1, -1).clone()


@pytest.mark.parametrize(
    "change",
    [
        {"flip": 1.0}, {"rotate": 20.0}, {"translate": 0.2}, {"scale": (0.8, 0.9)}, {"brightness": 0.9},
        {"contrast": 0.9}, {"saturation": 0.9}, {"hue": 0.1}, {"grayscale": 1.0}, {"blur": 1.0}, {"erase": 1.0},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_each_augmentation_changes_the_picture_and_leaves_a_still_film_still(change):
    still = photograph()
    torch.manual_seed(5)
    out = training_transform(48, **{**STILL, **change})(still)
    assert out.dtype == torch.uint8
    assert (out == out[:1]).all()
    assert not torch.equal(out, still)


def test_without_augmentation_the_picture_is_untouched():
    assert torch.equal(training_transform(48, **STILL)(photograph()), photograph())


def training(clips, seed=1, clips_per_video=2):
    settings = read_config(CONFIGS / "slowfast_face.yaml", []).augment.model_dump()
    transform = training_transform(32, **settings)
    return TrainingClips(clips, transform, frames=8, span=0.6, clips_per_video=clips_per_video, seed=seed)


def test_a_sample_is_a_function_of_seed_epoch_and_row(clips):
    first, _ = training(clips)[3, 5]
    torch.manual_seed(99)
    again, _ = training(clips)[3, 5]
    assert first.shape == (2, 8, 3, 32, 32)
    assert torch.equal(first, again)
    for other in (training(clips)[4, 5], training(clips)[3, 6], training(clips, seed=2)[3, 5]):
        assert not torch.equal(first, other[0])
    assert not torch.equal(first[0], first[1])


def test_drawing_a_sample_leaves_the_callers_generator_alone(clips):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    training(clips)[0, 0]
    assert torch.equal(torch.rand(3), expected)


def test_test_views_are_the_stored_frames_from_start_to_end(clips):
    views, row = TestViews(clips, frames=4, span=0.5, size=SIZE, views=3)[2]
    stored = clips.store.open(str(clips.clip_ids[2])).frames(range(12))
    assert row == 2
    assert views.shape == (3, 4, 3, SIZE, SIZE)
    assert np.array_equal(views[0, 0].permute(1, 2, 0).numpy(), stored[1])
    assert np.array_equal(views[-1, -1].permute(1, 2, 0).numpy(), stored[11])
