"""Videos are mixed alike in all clips, frames and pathways, and so are targets. Run: pytest tests/test_mixing.py"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.mixing import mix, mixing_active
from trainer.slowfast import slow_indices

VIDEOS, CLIPS, FRAMES, SIZE = 4, 2, 16, 12
MIXUP = {"mixup": 0.4, "cutmix": 0.0, "probability": 1.0}
CUTMIX = {"mixup": 0.0, "cutmix": 1.0, "probability": 1.0}


def own_colours():
    """Each pixel of a video is its number, so that a mixed pixel tells how much of whom is in it."""
    numbers = torch.arange(1.0, VIDEOS + 1).repeat_interleave(CLIPS)
    inputs = numbers.view(-1, 1, 1, 1, 1).expand(-1, 3, FRAMES, SIZE, SIZE)
    return inputs.contiguous(memory_format=torch.channels_last_3d), torch.eye(VIDEOS)


def noise():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(VIDEOS * CLIPS, 3, FRAMES, SIZE, SIZE, generator=generator)
    return inputs.contiguous(memory_format=torch.channels_last_3d), torch.eye(VIDEOS)


def partner(inputs):
    """The clips of the video before, in their order."""
    return inputs.unflatten(0, (VIDEOS, CLIPS)).roll(1, 0).flatten(0, 1)


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_mixup_adds_the_clips_of_two_videos_in_the_shares_of_their_targets(seed):
    inputs, targets = noise()
    mixed, shares = mix(inputs, targets, **MIXUP, seed=seed)
    own = shares.diagonal()
    torch.testing.assert_close(shares, own.diag() + (1 - own).diag().roll(-1, 1))
    assert (own == own[0]).all()
    torch.testing.assert_close(mixed, own[0] * inputs + (1 - own[0]) * partner(inputs))


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_cutmix_pastes_one_rectangle_in_all_clips_and_frames_and_its_area_is_the_share(seed):
    inputs, targets = own_colours()
    mixed, shares = mix(inputs, targets, **CUTMIX, seed=seed)
    pasted = mixed != inputs
    assert (pasted == pasted[:1, :1, :1]).all()
    mask = pasted[0, 0, 0]
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    if len(rows):
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert torch.equal(mixed, torch.where(pasted, partner(inputs), inputs))
    torch.testing.assert_close(shares.diagonal(), torch.full((VIDEOS,), 1 - mask.float().mean().item()))
    torch.testing.assert_close(shares.sum(1), torch.ones(VIDEOS))


@pytest.mark.parametrize("how", [MIXUP, CUTMIX], ids=["mixup", "cutmix"])
def test_both_pathways_see_the_same_mixture(how):
    inputs, targets = own_colours()
    mixed, shares = mix(inputs, targets, **how, seed=3)
    assert not torch.equal(mixed, inputs)
    slow, fast = mixed.index_select(2, slow_indices(FRAMES, 4)), mixed
    assert slow.shape[2] == FRAMES // 4
    # A video's mean brightness is the mixture of two numbers that its target names, whichever frames are looked at.
    expected = (shares @ torch.arange(1.0, VIDEOS + 1)).repeat_interleave(CLIPS)
    for pathway in (slow, fast):
        torch.testing.assert_close(pathway.mean((1, 2, 3, 4)), expected)
        assert (pathway == pathway[:, :, :1]).all()


def test_the_callers_batch_is_left_as_it_was_and_channels_stay_innermost():
    for how in (MIXUP, CUTMIX):
        inputs, targets = noise()
        mixed, _ = mix(inputs, targets, **how, seed=3)
        assert torch.equal(inputs, noise()[0])
        assert torch.equal(targets, noise()[1])
        assert type(mixed) is torch.Tensor
        assert mixed.is_contiguous(memory_format=torch.channels_last_3d)


def test_the_seed_decides_and_no_other_generator_is_touched():
    inputs, targets = noise()
    before = torch.random.get_rng_state()
    first, again, other = (mix(inputs, targets, **MIXUP, seed=seed)[1] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_as_many_batches_are_mixed_as_asked_for_and_half_of_them_each_way():
    inputs, targets = own_colours()
    counts = {"plain": 0, "mixup": 0, "cutmix": 0}
    for seed in range(200):
        mixed, shares = mix(inputs, targets, mixup=1.0, cutmix=1.0, probability=0.6, seed=seed)
        whole_numbers = (mixed == mixed.round()).all()
        counts["plain" if torch.equal(shares, targets) else "cutmix" if whole_numbers else "mixup"] += 1
    assert 50 <= counts["plain"] <= 115  # of 200, where 80 and the few rectangles of no area are expected
    assert 35 <= counts["mixup"] <= 85
    assert 30 <= counts["cutmix"] <= 85


def test_off_is_off():
    inputs, targets = noise()
    for how in ({**MIXUP, "probability": 0.0}, {"mixup": 0.0, "cutmix": 0.0, "probability": 1.0}):
        mixed, shares = mix(inputs, targets, **how, seed=3)
        assert mixed is inputs
        assert shares is targets


def test_the_last_part_of_the_training_is_not_mixed():
    assert [step for step in range(10) if mixing_active(step, 10, until=0.8)] == list(range(8))
    assert all(mixing_active(step, 10, until=1.0) for step in range(10))
    assert not mixing_active(0, 10, until=0.0)
