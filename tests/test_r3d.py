"""R3D-18 is torchvision's, at any width. Run: pytest tests/test_r3d.py"""

import pytest
import torch
from torch import nn
from torchvision.models.video import R3D_18_Weights, r3d_18

from manifests.errors import UserError
from trainer.networks import NORMALISATION, load_pretrained
from trainer.r3d import R3D18


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """(file in the layout of torchvision's Kinetics weights, the network it was saved from)."""
    torch.manual_seed(0)
    model = r3d_18(weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.2)
            nn.init.normal_(module.running_mean, 0, 0.1)
    path = tmp_path_factory.mktemp("weights") / "r3d_18.pth"
    torch.save(model.state_dict(), path)
    return path, model


def test_with_width_64_it_is_torchvisions_network(original):
    _, theirs = original
    ours = R3D18(400, width=64, dropout=0.5).eval()
    ours.net.load_state_dict(theirs.state_dict(), strict=True)
    clip = torch.randn(1, 3, 8, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(ours(clip), theirs(clip), rtol=0, atol=1e-5)


def test_a_kinetics_checkpoint_fills_all_but_the_head(original):
    path, theirs = original
    model = R3D18(6, width=64, dropout=0.5)
    head = model.net.fc.weight.clone()
    load_pretrained(model, path)
    assert torch.equal(model.net.fc.weight, head)
    stored = theirs.state_dict()
    for key, value in model.net.state_dict().items():
        assert key.startswith("fc.") or torch.equal(value, stored[key]), key


def test_another_width_than_the_checkpoints_is_refused(original):
    with pytest.raises(UserError, match=r"not a checkpoint of this network.*model\.width"):
        load_pretrained(R3D18(6, width=16, dropout=0.5), original[0])


@pytest.mark.parametrize(("frames", "size"), [(16, 112), (32, 64)])
def test_small_widths_train_on_a_cpu(frames, size):
    torch.manual_seed(0)
    model = R3D18(6, width=16, dropout=0.5)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(33_166_000 / 16, rel=0.02)
    logits = model(torch.randn(2, 3, frames, size, size))
    assert logits.shape == (2, 6)
    logits.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_it_sees_the_order_of_the_frames():
    torch.manual_seed(0)
    model = R3D18(6, width=16, dropout=0.5).eval()
    clip = torch.randn(1, 3, 16, 32, 32)
    with torch.no_grad():
        assert (model(clip) - model(clip.flip(2))).abs().max() > 1e-3


def test_pixels_are_normalised_as_torchvision_trained_it():
    preset = R3D_18_Weights.KINETICS400_V1.transforms()
    assert NORMALISATION["r3d18"] == (tuple(preset.mean), tuple(preset.std))
