"""Rates are graded from input to head, rise, fall and wait as the recipe says. Run: pytest tests/test_optimizer.py"""

import copy
import io

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from trainer.networks import create_model
from trainer.optimizer import backbone_rate_at, create_optimizer, parameter_groups, rate_at, rates

SMALL = {
    "depth": 18, "width": 16, "alpha": 4, "beta_inv": 8, "se_ratio": 0.0625, "se_place": "residual", "dropout": 0.0,
}  # fmt: skip
RATES = {"lr": 1e-2, "backbone_lr": 1e-3, "layer_decay": 0.5, "weight_decay": 0.1}


def settings_of(model):
    groups = parameter_groups(model, model.stages, **RATES)
    of = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(of)
    return {name: of[id(parameter)] for name, parameter in model.named_parameters()}


def test_rates_fall_by_stage_towards_the_input_and_head_and_gates_learn_at_the_full_one():
    settings = settings_of(create_model(6, arch="slowfast", **SMALL))
    path = "net.blocks.{}.multipathway_blocks.0.res_blocks.0.branch2.{}"
    assert settings["net.blocks.6.proj.weight"] == (1e-2, 0.1)
    assert settings[path.format(4, "conv_a.weight")] == (1e-3, 0.1)
    assert settings[path.format(3, "conv_a.weight")] == (0.5e-3, 0.1)
    assert settings[path.format(1, "conv_a.weight")] == (0.125e-3, 0.1)
    assert settings["net.blocks.0.multipathway_blocks.1.conv.weight"] == (0.0625e-3, 0.1)
    assert {pair for name, pair in settings.items() if ".se." in name} == {(1e-2, 0.0)}


def test_vectors_do_not_decay_and_matrices_do():
    settings = settings_of(create_model(6, arch="slowfast", **SMALL))
    assert settings["net.blocks.6.proj.bias"] == (1e-2, 0.0)
    norms = {decay for name, (_, decay) in settings.items() if ".norm" in name}
    convolutions = {decay for name, (_, decay) in settings.items() if ".conv" in name}
    assert (norms, convolutions) == ({0.0}, {0.1})


@pytest.mark.parametrize("arch", ["single_frame", "r3d18"])
def test_the_baselines_are_graded_alike(arch):
    settings = settings_of(create_model(6, arch=arch, **SMALL))
    assert {settings[name][0] for name in settings if name.startswith("net.fc.")} == {1e-2}
    assert {settings[name][0] for name in settings if name.startswith("net.layer4.")} == {1e-3}
    assert {settings[name][0] for name in settings if name.startswith("net.layer1.")} == {0.125e-3}


def test_a_parameter_of_no_stage_is_not_forgotten_in_silence():
    with pytest.raises(ValueError, match=r"1\.weight is in no stage"):
        parameter_groups(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), (("0.",), ("2.",)), **RATES)


def test_rates_rise_straight_and_fall_as_a_cosine():
    share = [rate_at(step, 100, 0.1) for step in range(101)]
    assert share[0] == pytest.approx(1 / 11)
    assert share[4] == pytest.approx(5 / 11)
    assert max(share) == share[10] == 1
    assert share[55] == pytest.approx(0.5)
    assert share[100] == pytest.approx(0)


def test_the_backbone_waits_then_rises_as_slowly_as_the_head_did_and_ends_with_it():
    head = [rate_at(step, 100, 0.1) for step in range(101)]
    backbone = [backbone_rate_at(step, 100, 0.1, frozen=20) for step in range(101)]
    assert backbone[:20] == [0.0] * 20
    assert backbone[20:25] == head[:5]
    assert backbone[31:] == head[31:]
    assert [backbone_rate_at(step, 100, 0.1, frozen=0) for step in range(101)] == head


class Toy(nn.Module):
    stages = (("body.",), ("head.",))

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def parts(self, name, frozen=3, total=8):
        groups = parameter_groups(self, self.stages, lr=0.1, backbone_lr=0.1, layer_decay=1.0, weight_decay=0.5)
        optimizer = create_optimizer(groups, name, momentum=0.9)
        return optimizer, LambdaLR(optimizer, rates(optimizer, total, 0.25, frozen))

    def learn(self, optimizer, schedule, steps):
        for step in steps:
            inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            self.head(self.body(inputs)).square().sum().backward()
            optimizer.step()
            schedule.step()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_frozen_backbone_keeps_every_bit_while_the_head_learns_and_then_learns_too(name):
    model = Toy()
    before = copy.deepcopy(model.state_dict())
    optimizer, schedule = model.parts(name)
    model.learn(optimizer, schedule, range(3))
    assert torch.equal(model.body.weight, before["body.weight"])
    assert torch.equal(model.body.bias, before["body.bias"])
    assert not torch.equal(model.head.weight, before["head.weight"])
    model.learn(optimizer, schedule, range(3, 4))
    assert not torch.equal(model.body.weight, before["body.weight"])


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("stop", [2, 3, 5], ids="stopped_after_{}".format)
def test_a_run_that_was_stopped_while_frozen_or_after_ends_with_the_same_bits(name, stop):
    whole = Toy()
    whole.learn(*whole.parts(name), range(8))
    first = Toy()
    optimizer, schedule = first.parts(name)
    first.learn(optimizer, schedule, range(stop))
    file = io.BytesIO()
    torch.save([part.state_dict() for part in (first, optimizer, schedule)], file)
    second = Toy()
    optimizer, schedule = second.parts(name)
    file.seek(0)
    for part, state in zip((second, optimizer, schedule), torch.load(file), strict=True):
        part.load_state_dict(state)
    second.learn(optimizer, schedule, range(stop, 8))
    assert all(torch.equal(second.state_dict()[key], value) for key, value in whole.state_dict().items())


def test_the_optimizers_are_the_ones_named_fused_and_with_momentum():
    adamw, _ = Toy().parts("adamw")
    sgd, _ = Toy().parts("sgd")
    assert (type(adamw), type(sgd)) == (torch.optim.AdamW, torch.optim.SGD)
    assert adamw.defaults["fused"]
    assert sgd.defaults["fused"]
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.9, True)
    plain = create_optimizer(parameter_groups(Toy(), Toy.stages, **RATES), "sgd", momentum=0.0)
    assert not plain.defaults["nesterov"]
