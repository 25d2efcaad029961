"""Grad-CAM shows where the evidence is, on each of the project's networks. Run: pytest tests/test_attention.py"""

import numpy as np
import pytest
import torch
from torch import nn

from trainer.attention import FEWEST_CELLS, frames_until, grad_cam, maps_at, residual_stages, seconds_of_maps
from trainer.networks import create_model
from trainer.sampling import view_frames

SETTINGS = {
    "depth": 18, "width": 8, "alpha": 4, "beta_inv": 4, "se_ratio": 0.0625, "se_place": "residual", "dropout": 0.0,
}  # fmt: skip


class Watcher(nn.Module):
    """A network whose logit 1 is the brightness of one quadrant, and logit 0 its opposite."""

    stages = (("stem.",), ("eye.",), ("head.",))

    def __init__(self, down: int, right: int):
        super().__init__()
        self.eye = nn.AvgPool3d(2)
        self.down, self.right = down, right

    def forward(self, x):
        seen = self.eye(x)
        h, w = (n // 2 for n in seen.shape[3:])
        part = seen[..., self.down * h : (self.down + 1) * h, self.right * w : (self.right + 1) * w]
        part = part.mean(dim=(1, 2, 3, 4))
        return torch.stack([-part, part], dim=1)


@pytest.mark.parametrize("down", [0, 1])
@pytest.mark.parametrize("right", [0, 1])
def test_the_map_lies_where_the_only_evidence_is(down, right):
    # Only that quadrant of the picture is bright, so that the answer depends on it alone and it has something to say.
    clip = torch.rand(1, 3, 8, 16, 16) * 0.05
    clip[..., 8 * down : 8 * (down + 1), 8 * right : 8 * (right + 1)] += 1
    (heat,) = grad_cam(Watcher(down, right), clip, torch.tensor([1]))
    assert heat.shape == (4, 8, 8)
    inside = heat[:, 4 * down : 4 * (down + 1), 4 * right : 4 * (right + 1)].sum()
    assert inside / heat.sum() > 0.85


def test_what_speaks_against_a_class_is_not_shown():
    (heat,) = grad_cam(Watcher(0, 0), torch.rand(1, 3, 8, 16, 16), torch.tensor([0]))
    assert (heat == 0).all()


def test_each_clip_of_a_batch_is_asked_about_its_own_class():
    clip = torch.rand(1, 3, 8, 16, 16)
    both = grad_cam(Watcher(0, 0), clip.repeat(2, 1, 1, 1, 1), torch.tensor([0, 1]))
    assert both[0].sum() == 0
    assert torch.equal(both[1], grad_cam(Watcher(0, 0), clip, torch.tensor([1]))[0])


@pytest.mark.parametrize(("arch", "maps"), [("slowfast", 2), ("r3d18", 1), ("single_frame", 1)])
def test_every_network_gives_maps_of_enough_cells_and_stays_as_it_was(arch, maps):
    torch.manual_seed(0)
    model = create_model(3, arch=arch, **SETTINGS).eval()
    inputs = torch.randn(3, 3, 8, 64, 64)
    before = model(inputs)
    heat = grad_cam(model, inputs, torch.tensor([0, 1, 2]))
    # Of 64 pixels the last stage of SlowFast and of a ResNet keeps two cells a side: the one before it is asked.
    assert heat.shape == (3, maps, FEWEST_CELLS, FEWEST_CELLS)
    assert (heat >= 0).all()
    assert heat.sum() > 0
    assert not heat.requires_grad
    assert torch.equal(model(inputs), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_last_stage_is_asked_where_its_map_is_fine_enough():
    model = create_model(3, arch="single_frame", **SETTINGS).eval()
    assert grad_cam(model, torch.randn(1, 3, 4, 128, 128), torch.tensor([0])).shape == (1, 1, 4, 4)
    assert grad_cam(model, torch.randn(1, 3, 4, 224, 224), torch.tensor([0])).shape == (1, 1, 7, 7)


def test_of_two_pathways_the_slow_one_is_asked():
    model = create_model(3, arch="slowfast", **SETTINGS)
    assert residual_stages(model)[-1] is model.net.blocks[4].multipathway_blocks[0]


def test_each_moment_gets_the_map_that_was_seen_nearest_to_it_in_per_cent_of_the_hottest_shown():
    heat = np.array([[1.0, 2.0], [4.0, 100.0]])[..., None, None] * np.ones((2, 2))
    seconds = np.array([[0.0, 1.0], [1.5, 9.0]])
    assert maps_at(np.array([0.2, 1.1, 1.4]), seconds, heat) == [
        [[25, 25], [25, 25]], [[50, 50], [50, 50]], [[100, 100], [100, 100]],
    ]  # fmt: skip


def test_a_video_is_seen_as_if_it_ended_at_each_moment():
    times = np.arange(40) / 10  # four seconds
    seen = frames_until(times, 4, 2.0, np.array([1.0, 2.0, 4.0]))
    assert seen.shape == (3, 4)
    assert times[seen[0]].tolist() == pytest.approx([0.1, 0.3, 0.6, 0.8]), "shown at 0.125, 0.375, 0.625 and 0.875 s"
    assert times[seen[1]].tolist() == pytest.approx([0.2, 0.7, 1.2, 1.7])
    assert seen[2].tolist() == view_frames(times, 4, 2.0, 2)[-1].tolist(), "the last one is the view at the end"
    short = np.arange(10) / 10
    assert frames_until(short, 4, 2.0, np.array([1.0])).tolist() == view_frames(short, 4, 2.0, 1).tolist()


def test_a_map_of_nothing_is_nothing():
    assert maps_at(np.array([0.0]), np.array([[0.0]]), np.zeros((1, 1, 2, 2))) == [[[0, 0], [0, 0]]]


def test_a_map_stands_for_the_middle_of_its_share_of_the_frames():
    times = np.arange(16).reshape(2, 8) / 10
    assert seconds_of_maps(times, 2).tolist() == [[0.2, 0.6], [1.0, 1.4]]
    assert seconds_of_maps(times, 1).tolist() == [[0.4], [1.2]]
