"""One matrix does what torchvision does in steps, and the same to every frame. Run: pytest tests/test_geometry.py"""

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from trainer.geometry import placement, recolour, warp

SIDE = 128


@pytest.fixture(scope="module")
def clip():
    """`(3, SIDE, SIDE, 3)`: soft colours, the same picture three times."""
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    picture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 5), None, 0, 255, cv2.NORM_MINMAX)
    return np.stack([picture] * 3)


def in_torch(frames):
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def in_numpy(frames):
    return frames.permute(0, 2, 3, 1).numpy()


def difference(first, second):
    """Mean difference away from the border, where the two fill in differently."""
    inside = slice(SIDE // 5, -SIDE // 5)
    return np.abs(first.astype(int) - second)[:, inside, inside].mean()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"degrees": 10}, {"angle": 10}),
        ({"shift": (16 / SIDE, -8 / SIDE)}, {"translate": [16, -8]}),
        ({"factor": 1.2}, {"scale": 1.2}),
        ({"shear": 6}, {"shear": [6.0, 0.0]}),
        (
            {"degrees": -7, "factor": 0.9, "shear": 5, "shift": (8 / SIDE, 0)},
            {"angle": -7, "scale": 0.9, "shear": [5.0, 0.0], "translate": [8, 0]},
        ),
    ],
)
def test_one_pass_shows_what_torchvision_shows(clip, ours, theirs):
    still = {"angle": 0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    expected = in_numpy(F.affine(in_torch(clip), **{**still, **theirs}, interpolation=InterpolationMode.BILINEAR))
    got = warp(clip, placement(SIDE, SIDE, **ours), SIDE)
    assert difference(got, expected) < 0.5
    assert difference(got, clip) > 2


def test_a_change_of_size_alone_is_a_resize(clip):
    got = warp(clip, placement(SIDE, 112), 112)
    expected = np.stack([cv2.resize(frame, (112, 112)) for frame in clip])
    assert np.abs(got.astype(int) - expected).max() <= 2


def test_a_mirror_image_is_exact_and_nothing_is_nothing(clip):
    assert np.array_equal(warp(clip, placement(SIDE, SIDE, mirror=True), SIDE), clip[:, :, ::-1])
    assert np.array_equal(warp(clip, placement(SIDE, SIDE), SIDE), clip)


def test_mirroring_comes_before_turning(clip):
    turned = warp(clip[:, :, ::-1].copy(), placement(SIDE, SIDE, degrees=8), SIDE)
    assert difference(warp(clip, placement(SIDE, SIDE, degrees=8, mirror=True), SIDE), turned) < 0.5


def test_every_frame_gets_the_same(clip):
    out = warp(clip, placement(SIDE, 100, degrees=5, shift=(0.2, 0), factor=0.8), 100)
    assert out.shape == (3, 100, 100, 3)
    assert (out == out[:1]).all()


def test_beyond_the_border_it_is_black():
    grey = np.full((2, SIDE, SIDE, 3), 90, np.uint8)
    shifted = warp(grey, placement(SIDE, 64, shift=(0.25, 0)), 64)
    assert (shifted[:, :, :15] == 0).all()
    assert (shifted[:, :, 17:] == 90).all()


def test_colours_go_through_one_matrix(clip):
    swap = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]], float)
    assert np.array_equal(recolour(clip, swap), clip[..., ::-1])
    brighter = np.hstack([1.5 * np.eye(3), np.full((3, 1), -20)])
    expected = np.clip(np.rint(1.5 * clip.astype(float) - 20), 0, 255)
    assert np.abs(recolour(clip, brighter) - expected).max() <= 1
