"""SlowFast and what it promises of shapes, pathways, gates and Kinetics weights. Run: pytest tests/test_slowfast.py"""

import copy

import pytest
import torch
from pytorchvideo.models import hub
from torch import nn

from manifests.errors import UserError
from trainer.networks import create_model, load_pretrained, normalisation, place, to_input
from trainer.slowfast import SlowFast, SqueezeExcite, slow_indices

SMALL = {"depth": 18, "width": 16, "alpha": 4, "beta_inv": 8, "dropout": 0.0}
R50 = {"depth": 50, "width": 64, "alpha": 4, "beta_inv": 8, "dropout": 0.5}


def small(se_ratio=0.0625, se_place="residual", classes=6):
    return SlowFast(classes, se_ratio=se_ratio, se_place=se_place, **SMALL)


def make_unlike_new(model):
    """Random gains and statistics: a fresh residual branch ends in zeros, which would hide what a gate does to it.

    The range of the gains is such that the logits of an R50 are about as large as a trained network's.
    """
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.weight.data.uniform_(0.4, 1.1, generator=generator)
            module.running_var.uniform_(0.5, 1.2, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1, generator=generator)
    return model.eval()


def shapes(module):
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


@pytest.mark.parametrize("se_place", ["residual", "inner"])
def test_fresh_gates_change_nothing_at_all(se_place):
    torch.manual_seed(0)
    plain = make_unlike_new(small(se_ratio=None))
    gated = make_unlike_new(small(se_place=se_place))
    gated.load_state_dict(plain.state_dict(), strict=False)
    clip = torch.randn(2, 3, 16, 64, 64)
    with torch.no_grad():
        assert (plain(clip) - gated(clip)).abs().max() == 0.0
        for module in gated.modules():
            if isinstance(module, SqueezeExcite):
                module.fc2.bias.fill_(0.5)
        assert (plain(clip) - gated(clip)).abs().max() > 1e-3


@pytest.mark.parametrize("se_place", ["residual", "inner"])
def test_every_bottleneck_of_both_pathways_has_a_gate_that_learns(se_place):
    torch.manual_seed(0)
    model = make_unlike_new(small(se_place=se_place)).train()
    model(torch.randn(2, 3, 16, 64, 64)).square().sum().backward()
    gates = [m for m in model.modules() if isinstance(m, SqueezeExcite)]
    assert len(gates) == 2 * 4
    assert all(gate.fc2.weight.grad.abs().max() > 0 for gate in gates)


def test_a_gate_stands_behind_the_layer_that_its_place_names():
    def layers(se_place):
        return list(small(se_place=se_place).net.blocks[1].multipathway_blocks[0].res_blocks[0].branch2._modules)

    assert layers("residual")[-3:] == ["conv_c", "norm_c", "se"]
    assert layers("inner")[3:7] == ["conv_b", "norm_b", "se", "act_b"]


@pytest.mark.parametrize("se_place", ["residual", "inner"])
def test_gates_rename_no_weight_of_the_network(se_place):
    plain, gated = shapes(small(se_ratio=None)), shapes(small(se_place=se_place))
    assert plain.items() <= gated.items()
    assert all(".se." in key for key in gated.keys() - plain.keys())


def test_the_inner_gates_of_an_r50_are_about_fifteen_times_smaller():
    with torch.device("meta"):
        count = {
            place: sum(
                parameter.numel()
                for name, parameter in SlowFast(6, se_ratio=0.0625, se_place=place, **R50).named_parameters()
                if ".se." in name
            )
            for place in ("residual", "inner")
        }
    assert count["residual"] == pytest.approx(2.58e6, rel=0.01)
    assert count["residual"] / count["inner"] == pytest.approx(15, rel=0.05)


def test_the_ratio_sets_how_far_a_gate_squeezes():
    assert SqueezeExcite(256, 0.0625).fc1.out_channels == 16
    assert SqueezeExcite(256, 0.25).fc1.out_channels == 64
    assert SqueezeExcite(32, 0.0625).fc1.out_channels == 8


def test_the_slow_pathway_sees_the_frames_that_the_kinetics_weights_saw():
    assert slow_indices(32, 4).tolist() == [0, 4, 8, 13, 17, 22, 26, 31]
    for frames in range(8, 129, 8):
        for alpha in (2, 4, 8):
            assert (
                slow_indices(frames, alpha).tolist() == torch.linspace(0, frames - 1, frames // alpha).long().tolist()
            )


@pytest.mark.parametrize(("frames", "size"), [(16, 112), (16, 256), (32, 160), (64, 112)])
def test_any_usual_length_and_size_fits(frames, size):
    with torch.no_grad():
        assert small().eval()(torch.randn(1, 3, frames, size, size)).shape == (1, 6)


def test_the_callers_clip_is_left_as_it_was_and_a_second_look_gives_the_same():
    model = small().eval()
    clip = torch.randn(1, 3, 16, 64, 64)
    before = clip.clone()
    with torch.no_grad():
        first, second = model(clip), model(clip)
    assert torch.equal(clip, before)
    assert torch.equal(first, second)


def test_the_layout_in_memory_changes_no_clip_and_no_answer():
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (2, 8, 3, 64, 64), dtype=torch.uint8)
    before = frames.clone()
    model = make_unlike_new(small())
    inputs = to_input(frames, *normalisation("slowfast"))
    assert torch.equal(frames, before)
    assert inputs.is_contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        plain = model(inputs.contiguous())
        fast = place(copy.deepcopy(model), torch.device("cpu"))
        torch.testing.assert_close(fast(inputs), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ["slowfast", "r3d18"])
def test_pixels_are_normalised_as_the_weights_saw_them(arch):
    frames = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 2, 1, 1, 1).expand(1, 2, 3, 4, 4)
    mean, std = (torch.tensor(values) for values in normalisation(arch))
    inputs = to_input(frames, *normalisation(arch))
    assert inputs.shape == (1, 3, 2, 4, 4)
    torch.testing.assert_close(inputs[0, :, 0, 0, 0], -mean / std)
    torch.testing.assert_close(inputs[0, :, 1, 0, 0], (1 - mean) / std)


@pytest.mark.parametrize("arch", ["slowfast", "r3d18", "single_frame"])
def test_every_parameter_is_in_one_stage_and_the_head_in_the_last(arch):
    model = create_model(6, arch=arch, se_ratio=0.0625, se_place="inner", **SMALL)
    names = [name for name, _ in model.named_parameters()]
    assert all(sum(name.startswith(stage) for stage in model.stages) == 1 for name in names)
    assert all(any(name.startswith(stage) for name in names) for stage in model.stages)
    (head,) = {m for m in model.modules() if isinstance(m, nn.Linear)}
    assert {id(p) for name, p in model.named_parameters() if name.startswith(model.stages[-1])} == set(
        map(id, head.parameters())
    )


def test_the_single_frame_model_looks_at_one_frame_only():
    model = create_model(6, arch="single_frame", se_ratio=None, se_place="residual", **SMALL).eval()
    clip = torch.randn(2, 3, 16, 64, 64)
    elsewhere = clip.clone()
    elsewhere[:, :, [t for t in range(16) if t != 8]] = 0
    with torch.no_grad():
        assert torch.equal(model(clip), model(elsewhere))
        elsewhere[:, :, 8] = 0
        assert not torch.equal(model(clip), model(elsewhere))


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory):
    """A checkpoint in the real layout: pytorchvideo's own SlowFast-R50 with its 400-class head, random weights."""
    torch.manual_seed(1)
    model = make_unlike_new(hub.slowfast_r50(pretrained=False))
    path = tmp_path_factory.mktemp("weights") / "SLOWFAST_8x8_R50.pyth"
    torch.save({"model_state": model.state_dict(), "optimizer_state": {"state": {}}}, path)
    return path, model


def test_a_kinetics_checkpoint_gives_the_logits_of_pytorchvideos_own_model(kinetics):
    path, original = kinetics
    assert len(original.state_dict()) == 662
    model = SlowFast(400, se_ratio=None, se_place="residual", **R50).eval()
    load_pretrained(model, path)
    clip = torch.randn(1, 3, 32, 224, 224)
    with torch.no_grad():
        model.net.blocks[6].proj.load_state_dict(original.blocks[6].proj.state_dict())
        expected = original([clip[:, :, slow_indices(32, 4)], clip.clone()])
        assert 1 < expected.abs().max() < 20
        assert (model(clip) - expected).abs().max() <= 1e-5


def test_loading_leaves_head_and_gates_as_they_were_and_nothing_else(kinetics):
    path, original = kinetics
    model = create_model(6, arch="slowfast", se_ratio=0.0625, se_place="residual", **R50)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    load_pretrained(model, path)
    stored = original.state_dict()
    for key, value in model.state_dict().items():
        mine = ".se." in key or key.startswith("net.blocks.6.")
        assert torch.equal(value, before[key] if mine else stored[key.removeprefix("net.")]), key
    assert sum(".se." in key for key in before) == 4 * 32


def test_our_r101_has_the_weights_of_pytorchvideos():
    with torch.device("meta"):
        ours = SlowFast(400, se_ratio=None, se_place="residual", **{**R50, "depth": 101})
        theirs = hub.slowfast_r101(pretrained=False)
    assert shapes(ours.net) == shapes(theirs)


def test_a_checkpoint_of_another_network_is_refused_with_the_first_weight_that_does_not_fit(kinetics):
    path, _ = kinetics
    with pytest.raises(UserError, match=r"not a checkpoint of this network.*blocks\."):
        load_pretrained(small(), path)


def test_a_checkpoint_that_lacks_one_weight_is_refused(tmp_path):
    state = small(se_ratio=None).net.state_dict()
    lost = "blocks.2.multipathway_blocks.1.res_blocks.0.branch2.conv_b.weight"
    del state[lost]
    torch.save({"model_state": state}, tmp_path / "lost.pyth")
    with pytest.raises(UserError, match=f"0 of its weights do not fit and 1 are missing, the first is net.{lost}"):
        load_pretrained(small(), tmp_path / "lost.pyth")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "page.pyth"
    path.write_text("<html>Sign in to the guest network</html>")
    with pytest.raises(UserError, match="not a checkpoint that torch can read"):
        load_pretrained(small(), path)
