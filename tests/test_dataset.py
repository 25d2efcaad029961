"""Samples depend on their seed alone, and come in batches as they are. Run: pytest tests/test_dataset.py"""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from toys import SIZE, make_corpus

from manifests.clips import ClipStore
from manifests.table import read_manifest
from trainer.dataset import Clips, TestViews, TrainingClips, collate


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    manifest, root = make_corpus(tmp_path_factory.mktemp("toys"), actors=4, takes=2)
    rows = read_manifest(manifest).rows
    return Clips(ClipStore(Path(root)), rows["clip_id"].tolist(), [0] * len(rows))


def training(clips, seed=1, clips_per_video=2):
    transform = v2.Compose([v2.Resize((32, 32)), v2.RandomHorizontalFlip(), v2.ColorJitter(0.5, 0.5, 0.5, 0.1)])
    return TrainingClips(clips, transform, frames=8, span=0.6, clips_per_video=clips_per_video, seed=seed)


def test_a_sample_is_a_function_of_seed_epoch_row_and_repeat(clips):
    first, _ = training(clips)[3, 5, 0]
    torch.manual_seed(99)
    again, _ = training(clips)[3, 5, 0]
    assert first.shape == (2, 8, 3, 32, 32)
    assert torch.equal(first, again)
    others = training(clips)[4, 5, 0], training(clips)[3, 6, 0], training(clips)[3, 5, 1]
    for other in (*others, training(clips, seed=2)[3, 5, 0]):
        assert not torch.equal(first, other[0])
    assert not torch.equal(first[0], first[1])


def test_drawing_a_sample_leaves_the_callers_generator_alone(clips):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    training(clips)[0, 0, 0]
    assert torch.equal(torch.rand(3), expected)


def test_targets_take_the_place_of_the_class(clips):
    assert training(clips)[0, 2, 0][1] == clips.labels[2]
    shares = np.linspace(0, 1, 2 * len(clips)).reshape(-1, 2)
    softly = Clips(clips.store, clips.clip_ids.tolist(), clips.labels.tolist(), targets=shares)
    sample, target = training(softly)[0, 2, 0]
    assert torch.equal(target, torch.tensor(shares[2], dtype=torch.float32))
    assert torch.equal(sample, training(clips)[0, 2, 0][0])


def test_test_views_are_the_stored_frames_from_start_to_end(clips):
    views, row = TestViews(clips, frames=4, span=0.5, size=SIZE, views=3)[2]
    stored = clips.store.open(str(clips.clip_ids[2])).frames(range(12))
    assert row == 2
    assert views.shape == (3, 4, 3, SIZE, SIZE)
    assert np.array_equal(views[0, 0].permute(1, 2, 0).numpy(), stored[0])
    assert np.array_equal(views[-1, -1].permute(1, 2, 0).numpy(), stored[11])


def test_a_batch_is_the_stack_of_its_samples(clips):
    samples = [training(clips)[0, row, 0] for row in (1, 4)]
    batch, targets = collate(samples)
    assert batch.shape == (2, 2, 8, 3, 32, 32)
    assert torch.equal(batch, torch.stack([sample for sample, _ in samples]))
    assert targets.tolist() == clips.labels[[1, 4]].tolist()
    # Pixels stay as they were decoded: this is what makes it quick.
    assert batch.movedim(-3, -1).is_contiguous()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_any_number_of_workers(clips, workers):
    keys = [[(1, row, 0) for row in rows] for rows in ((0, 5, 2), (7, 1, 3))]
    loader = DataLoader(training(clips), batch_sampler=keys, num_workers=workers, collate_fn=collate)
    for (batch, _), rows in zip(loader, keys, strict=True):
        assert torch.equal(batch, torch.stack([training(clips)[key][0] for key in rows]))


def test_frames_that_several_clips_share_are_decoded_once(clips, monkeypatch):
    decoded = []
    imdecode = cv2.imdecode
    monkeypatch.setattr("manifests.clipfile.cv2.imdecode", lambda *args: decoded.append(1) or imdecode(*args))
    training(clips, clips_per_video=3)[0, 0, 0]
    # 3 clips of 8 moments each, of a film of 12 frames.
    assert len(decoded) <= 12
