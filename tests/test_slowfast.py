"""The networks keep their promises about shapes, pathways, gates and checkpoints. Run: pytest tests/test_slowfast.py"""

import pytest
import torch
from pytorchvideo.models.slowfast import create_slowfast
from torch import nn

from manifests.errors import UserError
from trainer.slowfast import (
    SlowFast,
    SqueezeExcite,
    create_model,
    load_kinetics,
    parameter_groups,
    slow_indices,
    to_input,
)

SMALL = {"depth": 18, "width": 16, "alpha": 4, "beta_inv": 8, "dropout": 0.0}


def make_unlike_new(model):
    """Random gains and statistics: a fresh residual branch ends in zeros, which would hide what a gate does to it."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.2, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1, generator=generator)
    return model.eval()


def test_fresh_gates_change_nothing_at_all():
    torch.manual_seed(0)
    plain = make_unlike_new(SlowFast(6, se_ratio=None, **SMALL))
    gated = make_unlike_new(SlowFast(6, se_ratio=0.0625, **SMALL))
    gated.load_state_dict(plain.state_dict(), strict=False)
    clip = torch.randn(2, 3, 16, 64, 64)
    with torch.no_grad():
        assert (plain(clip) - gated(clip)).abs().max() == 0.0
        for module in gated.modules():
            if isinstance(module, SqueezeExcite):
                module.fc2.bias.fill_(0.5)
        assert (plain(clip) - gated(clip)).abs().max() > 1e-3


def test_every_bottleneck_of_both_pathways_has_a_gate_that_learns():
    model = make_unlike_new(SlowFast(6, se_ratio=0.0625, **SMALL)).train()
    model(torch.randn(2, 3, 16, 64, 64)).square().sum().backward()
    gates = [m for m in model.modules() if isinstance(m, SqueezeExcite)]
    assert len(gates) == 2 * 4
    assert all(gate.fc2.weight.grad.abs().max() > 0 for gate in gates)


def test_the_slow_pathway_sees_the_frames_that_the_kinetics_weights_saw():
    assert slow_indices(32, 4).tolist() == [0, 4, 8, 13, 17, 22, 26, 31]


@pytest.mark.parametrize(("frames", "size"), [(16, 64), (32, 112), (64, 80)])
def test_any_usual_length_and_size_fits(frames, size):
    model = SlowFast(6, se_ratio=0.0625, **SMALL).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, frames, size, size)).shape == (1, 6)


def test_the_callers_clip_is_left_as_it_was_and_a_second_look_gives_the_same():
    model = SlowFast(6, se_ratio=0.0625, **SMALL).eval()
    clip = torch.randn(1, 3, 16, 64, 64)
    before = clip.clone()
    with torch.no_grad():
        first, second = model(clip), model(clip)
    assert torch.equal(clip, before)
    assert torch.equal(first, second)


def test_the_single_frame_model_looks_at_one_frame_only():
    model = create_model(6, arch="single_frame", se_ratio=None, pretrained=None, **SMALL).eval()
    clip = torch.randn(2, 3, 16, 64, 64)
    elsewhere = clip.clone()
    elsewhere[:, :, [t for t in range(16) if t != 8]] = 0
    with torch.no_grad():
        assert torch.equal(model(clip), model(elsewhere))
        elsewhere[:, :, 8] = 0
        assert not torch.equal(model(clip), model(elsewhere))


def test_pixels_are_normalised_as_kinetics_was():
    frames = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 2, 1, 1, 1).expand(1, 2, 3, 1, 1)
    inputs = to_input(frames)
    assert inputs.shape == (1, 3, 2, 1, 1)
    torch.testing.assert_close(inputs[0, 0, :, 0, 0], torch.tensor([-2.0, (1 - 0.45) / 0.225]))


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory):
    """A checkpoint in the real layout: pytorchvideo's SlowFast-R50 with its 400-class head, random weights."""
    torch.manual_seed(1)
    model = make_unlike_new(create_slowfast())
    path = tmp_path_factory.mktemp("weights") / "SLOWFAST_8x8_R50.pyth"
    torch.save({"model_state": model.state_dict(), "optimizer_state": {"state": {}}}, path)
    return path, model


def test_a_kinetics_checkpoint_fills_all_but_head_and_gates_and_gives_the_same_features(kinetics):
    path, original = kinetics
    assert len(original.state_dict()) == 662
    model = create_model(
        6, arch="slowfast", depth=50, width=64, alpha=4, beta_inv=8, se_ratio=0.0625, dropout=0.5, pretrained=str(path)
    ).eval()
    clip = torch.randn(1, 3, 32, 224, 224)
    with torch.no_grad():
        model.net.blocks[6] = original.blocks[6]
        expected = original([clip[:, :, slow_indices(32, 4)], clip.clone()])
        assert (model(clip) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_checkpoint_of_another_network_is_refused_with_the_first_weight_that_does_not_fit(kinetics):
    path, _ = kinetics
    with pytest.raises(UserError, match=r"not a checkpoint of this network.*blocks\."):
        load_kinetics(SlowFast(6, se_ratio=None, **SMALL), path)


def test_absent_weights_are_one_sentence_with_a_way_out(tmp_path):
    with pytest.raises(UserError, match=r"model zoo, or train from scratch with model\.pretrained=null"):
        load_kinetics(SlowFast(6, se_ratio=None, **SMALL), tmp_path / "none.pyth")


def test_head_and_gates_learn_at_the_full_rate_and_vectors_are_not_decayed():
    model = SlowFast(6, se_ratio=0.0625, **SMALL)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in parameter_groups(model, 1e-2, 1e-3, 0.1) for p in g["params"]}
    named = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert len(named) == len(list(model.parameters()))
    assert named["net.blocks.6.proj.weight"] == (1e-2, 0.1)
    assert named["net.blocks.6.proj.bias"] == (1e-2, 0.0)
    assert {rate for name, rate in named.items() if ".se." in name} == {(1e-2, 0.0)}
    assert named["net.blocks.1.multipathway_blocks.0.res_blocks.0.branch2.conv_a.weight"] == (1e-3, 0.1)
    assert named["net.blocks.1.multipathway_blocks.0.res_blocks.0.branch2.norm_a.weight"] == (1e-3, 0.0)
