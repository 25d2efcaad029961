"""BatchNorm's statistics stay, are shared or are measured anew, as asked. Run: pytest tests/test_batchnorm.py"""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from manifests.errors import UserError
from trainer.batchnorm import precise_statistics, synchronise, train_mode
from trainer.networks import create_model

SMALL = {
    "depth": 18, "width": 8, "alpha": 4, "beta_inv": 4, "se_ratio": 0.0625, "se_place": "residual", "dropout": 0.5,
}  # fmt: skip


def small():
    torch.manual_seed(0)
    return create_model(3, arch="slowfast", **SMALL)


def clips(seed, batch=4):
    return 2 + 3 * torch.randn(batch, 3, 8, 32, 32, generator=torch.Generator().manual_seed(seed))


def step(model, held):
    train_mode(model, held)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model(clips(0)).square().sum().backward()
    optimizer.step()


def statistics(model, prefix=""):
    return {
        name: buffer.clone()
        for name, buffer in model.named_buffers()
        if name.startswith(prefix) and "running" in name
    }  # fmt: skip


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_held_statistics_stay_and_are_used_while_gains_and_biases_learn():
    model = small()
    before, gains = statistics(model), model.net.blocks[0].multipathway_blocks[0].norm.weight.clone()
    for _ in range(2):
        model.train()  # as whoever validates in between may leave it
        step(model, held=("",))
    assert moved(before, statistics(model)) == set()
    assert not torch.equal(model.net.blocks[0].multipathway_blocks[0].norm.weight, gains)
    model.net.blocks[6].dropout.eval()
    alone, together = model(clips(1)[:1]), model(clips(1))[:1]
    torch.testing.assert_close(alone, together)


def test_without_a_hold_every_statistic_moves_and_dropout_is_on_either_way():
    for held in ((), ("",)):
        model = small()
        before = statistics(model)
        step(model, held)
        assert moved(before, statistics(model)) == (set() if held else set(before))
        assert model.net.blocks[6].dropout.training


def test_a_frozen_backbones_statistics_do_not_drift_and_others_do():
    model = small()
    frozen = tuple(prefix for stage in model.stages[:3] for prefix in stage)
    before = statistics(model)
    step(model, frozen)
    assert moved(before, statistics(model)) == {name for name in before if not name.startswith(frozen)}
    train_mode(model)
    assert all(module.training for module in model.modules())


def test_precise_statistics_are_those_of_all_batches_as_one():
    model = small()
    batches = [clips(seed, batch) for seed, batch in enumerate((4, 4, 2))]
    stem = model.net.blocks[0].multipathway_blocks[1]
    with torch.no_grad():
        seen = stem.conv(torch.cat(batches)).transpose(0, 1).flatten(1)
    precise_statistics(model, batches, len(batches))
    torch.testing.assert_close(stem.norm.running_mean, seen.mean(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stem.norm.running_var, seen.var(1, correction=0), rtol=1e-4, atol=1e-4)


def test_precise_statistics_move_nothing_else_and_need_no_dropout():
    model = small()
    before, rng = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    precise_statistics(model, [clips(0), clips(1)], 2)
    changed = moved(before, model.state_dict())
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert not any(module.training for module in model.modules())
    assert all(module.momentum == 0.1 for module in model.modules() if isinstance(module, _BatchNorm))


def test_averaged_weights_get_statistics_of_their_own():
    model = small()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    step(model, ())
    average.update_parameters(model)
    trained, averaged = statistics(model), statistics(average)
    precise_statistics(average.module, [clips(0), clips(1)], 2)
    assert moved(averaged, statistics(average)) == set(averaged)
    assert moved(trained, statistics(model)) == set()
    # A checkpoint carries them.
    twin = AveragedModel(small())
    twin.load_state_dict(average.state_dict())
    assert moved(statistics(average), statistics(twin)) == set()


def test_shared_statistics_keep_the_weights_and_their_names():
    model = small()
    shared = synchronise(copy.deepcopy(model), torch.device("cuda"), processes=2)
    norms = [module for module in shared.modules() if isinstance(module, _BatchNorm)]
    assert {type(norm) for norm in norms} == {nn.SyncBatchNorm}
    assert shared.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(shared.state_dict()[name], value) for name, value in model.state_dict().items())


def test_one_process_shares_with_nobody_and_cpus_cannot():
    model = small()
    assert synchronise(model, torch.device("cpu"), processes=1) is model
    with pytest.raises(UserError, match=r"sync needs GPUs, and these 2 processes run on cpu; say .*precise"):
        synchronise(model, torch.device("cpu"), processes=2)
