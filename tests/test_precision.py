"""Half precision goes where float32 goes; an overflow costs one step. Run: pytest tests/test_precision.py"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from manifests.errors import UserError
from trainer.learner import PARTS, Learner
from trainer.losses import video_loss
from trainer.networks import create_model
from trainer.optimizer import create_optimizer, parameter_groups
from trainer.precision import precision

CPU = torch.device("cpu")
SMALL = {
    "depth": 18, "width": 8, "alpha": 4, "beta_inv": 4, "se_ratio": 0.0625, "se_place": "residual", "dropout": 0.0,
}  # fmt: skip


def step(name, frames=16):
    """One step of a small SlowFast: the loss, what its features were computed in, how far each weight went."""
    torch.manual_seed(0)
    model = create_model(3, arch="slowfast", **SMALL)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    groups = parameter_groups(model, model.stages, lr=1e-3, backbone_lr=1e-3, layer_decay=1.0, weight_decay=0.0)
    optimizer = create_optimizer(groups, "sgd", momentum=0.0)
    autocast, scaler = precision(name, CPU)
    seen = []
    model.net.blocks[4].register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[0].dtype))
    with autocast():
        logits = model(torch.randn(4, 3, frames, 32, 32))
    loss = video_loss(
        logits.float()[:, None], torch.tensor([0, 1, 2, 0]), class_weights=None, label_smoothing=0.1, consistency=0
    )
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    went = [(now.detach() - old).flatten() for now, old in zip(model.parameters(), before, strict=True)]
    return loss.item(), seen[0], torch.cat(went), scaler


@pytest.fixture(scope="module")
def plain():
    return step("none")


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_step_in_half_precision_goes_where_the_plain_one_goes(plain, name, dtype):
    loss, got, went, _ = step(name)
    assert (got, plain[1]) == (dtype, torch.float32)
    assert loss == pytest.approx(plain[0], rel=0.03)
    assert loss != plain[0]
    assert torch.cosine_similarity(went, plain[2], dim=0) > 0.95
    assert went.norm().item() == pytest.approx(plain[2].norm().item(), rel=0.1)


def test_clips_too_short_for_bf16_on_a_cpu_are_refused_in_one_sentence_and_only_there():
    with pytest.raises(UserError, match=r"over 3 frames meets only 2, .* wrong on a CPU; say optim\.amp=none"):
        step("bf16", frames=8)
    step("none", frames=8)
    autocast, _ = precision("bf16", CPU)
    with autocast():
        nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))(torch.zeros(1, 4, 3, 2, 2))
    # After the context nothing is looked at any more.
    nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))(torch.zeros(1, 4, 2, 2, 2))


def test_weights_and_what_the_optimizer_sees_stay_float32_and_unscaled(plain):
    _, _, went, scaler = step("fp16")
    assert scaler.get_scale() > 1
    assert went.dtype == torch.float32
    assert went.norm() < 2 * plain[2].norm()


def test_an_overflow_skips_the_step_and_halves_the_scale_and_the_next_step_counts():
    weight = nn.Parameter(torch.ones(2))
    optimizer = create_optimizer([{"params": [weight], "lr": 0.1}], "adamw", momentum=0.0)
    _, scaler = precision("fp16", CPU)
    before = scaler.get_scale()

    def learn(loss):
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()

    learn((weight * float("inf")).sum())
    assert torch.equal(weight, torch.ones(2))
    assert scaler.get_scale() == before / 2
    learn(weight.sum())
    assert (weight < 1).all()
    assert scaler.get_scale() == before / 2


def test_what_the_scaler_has_learned_survives_a_checkpoint():
    weight = nn.Parameter(torch.ones(2))
    optimizer = create_optimizer([{"params": [weight], "lr": 0.1}], "adamw", momentum=0.0)
    _, scaler = precision("fp16", CPU)
    scaler.scale((weight * float("inf")).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    _, second = precision("fp16", CPU)
    second.load_state_dict(scaler.state_dict())
    assert second.get_scale() == scaler.get_scale() < precision("fp16", CPU)[1].get_scale()


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
@pytest.mark.filterwarnings("ignore:torch.cuda.amp.GradScaler is enabled")
def test_auto_is_what_the_gpu_can_do(monkeypatch, has_bf16, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bf16)
    assert precision("auto", torch.device("cuda"))[0].args[1] == dtype


def test_a_run_that_scaled_nothing_goes_on_where_a_scale_is_needed():
    parts = {name: SimpleNamespace(load_state_dict=lambda state: None) for name in PARTS[:-1]}
    scaler = precision("fp16", CPU)[1]
    Learner.load_state(SimpleNamespace(**parts, scaler=scaler), {name: {} for name in PARTS})
    assert scaler.get_scale() == precision("fp16", CPU)[1].get_scale()


@pytest.mark.parametrize("name", ["none", "bf16", "auto"])
def test_without_fp16_nothing_is_scaled(name):
    _, scaler = precision(name, CPU)
    loss = torch.tensor(2.0)
    assert scaler.scale(loss) is loss
    assert scaler.state_dict() == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks a GPU what it can do")
def test_a_gpu_that_only_imitates_bf16_is_told_so():
    device = torch.device("cuda")
    if torch.cuda.is_bf16_supported(including_emulation=False):
        precision("bf16", device)
    else:
        with pytest.raises(UserError, match=r"has no bfloat16 .*; say optim\.amp=auto"):
            precision("bf16", device)
