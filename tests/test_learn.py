"""One optimizer step: in pieces as in one, with a backbone that stands still, with gradients that are bounded."""

from pathlib import Path

import pytest
import steps
import torch

from trainer import train
from trainer.config import read_config
from trainer.train import learn

# Of BatchNorm each piece would measure its own videos; AdamW divides gradients by their size, however small.
STILL = ("optim.batchnorm=frozen", "model.pretrained=kinetics400", "optim.name=sgd", "optim.momentum=0")


def take(pieces, *settings):
    """(weights by name after a step in so many pieces, its loss)."""
    config = read_config(Path("demo.yaml"), [*steps.SETTINGS, *settings])
    learner = steps.make_learner(config)
    loss = learn(config, learner, *steps.batch(config, 0), 0, pieces)
    return dict(learner.model.named_parameters()), loss


@pytest.mark.parametrize(
    "settings",
    [
        ("optim.consistency=0", "optim.class_weights=false", "optim.label_smoothing=0"),
        ("optim.class_weights=true", "optim.consistency=0.5", "mixing.mixup=0.3", "mixing.probability=1"),
    ],
)
def test_the_gradients_of_pieces_add_up_to_those_of_the_whole(settings):
    settings = (*STILL, "optim.clip_norm=1e9", "data.batch=5", *settings)  # five cannot be cut evenly
    whole, loss = take(1, *settings)
    before = dict(steps.make_learner(read_config(Path("demo.yaml"), list(steps.SETTINGS))).model.named_parameters())
    assert max((value - before[name]).abs().max() for name, value in whole.items()) > 1e-4
    for pieces in (2, 3, 5):
        parts, summed = take(pieces, *settings)
        assert summed == pytest.approx(loss, abs=1e-5)
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-6)


def test_a_recipes_own_pieces_are_those_that_its_steps_are_computed_in(tmp_path):
    config = read_config(Path("demo.yaml"), [*steps.SETTINGS, "optim.accumulate=4"])
    pieces = train.count_pieces(config, None, 2, steps.CPU, steps.ALONE, None)
    learner, seen = steps.make_learner(config), []
    learner.forward.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    learn(config, learner, *steps.batch(config, 0), 0, pieces)
    assert (pieces, seen) == (4, [4, 4, 4])  # two videos of two clips each
    few = read_config(Path("demo.yaml"), [*steps.SETTINGS, "optim.accumulate=99"])
    assert train.count_pieces(few, None, 2, steps.CPU, steps.ALONE, None) == 6


def test_the_backbone_stands_still_for_its_epochs_while_head_and_gates_learn_and_moves_after():
    config = read_config(Path("demo.yaml"), [*steps.SETTINGS, "optim.epochs=4", "optim.frozen_epochs=2"])
    learner = steps.make_learner(config, total=12)
    assert learner.frozen_steps == 6
    moved = []
    for step in range(8):
        before = {name: value.clone() for name, value in learner.model.state_dict().items()}
        learn(config, learner, *steps.batch(config, step), step, 2)
        after = learner.model.state_dict()
        moved.append({name for name, value in before.items() if not torch.equal(value, after[name])})
    backbone = {name for name in before if name.startswith(learner.backbone) and ".se." not in name}
    weights = backbone & dict(learner.model.named_parameters()).keys()
    statistics = {name for name in backbone if name.endswith(("running_mean", "running_var"))}
    for names in moved[:6]:
        assert not names & backbone
        assert {name for name in before if name.startswith(learner.model.stages[-1])} <= names
    assert any(".se." in name for name in moved[5])
    for names in moved[6:]:
        assert weights | statistics <= names


@pytest.mark.parametrize("pieces", [1, 3])
def test_the_norm_of_all_gradients_together_is_bounded(pieces):
    def norm(bound):
        config = read_config(Path("demo.yaml"), [*steps.SETTINGS, f"optim.clip_norm={bound}"])
        learner = steps.make_learner(config)
        learn(config, learner, *steps.batch(config, 0), 0, pieces)
        return torch.stack([parameter.grad.norm() for parameter in learner.model.parameters()]).norm().item()

    free = norm(1e9)
    assert free > 0.1
    assert norm(2 * free) == pytest.approx(free)
    assert norm(free / 10) == pytest.approx(free / 10, rel=1e-3)
