"""A video is blamed for the mean of its clips, and for their quarrels. Run: pytest tests/test_losses.py"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from trainer.losses import class_weights, disagreement, video_loss

PLAIN = {"class_weights": None, "label_smoothing": 0.0, "consistency": 0.0}


def draws(videos=6, clips=3, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(videos, clips, classes, generator=generator)
    return logits.requires_grad_(), torch.randint(classes, (videos,), generator=generator)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 2.0, 0.7])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_with_hard_labels_it_is_torchs_cross_entropy_of_the_mean_logits_bit_for_bit(weights, smoothing):
    logits, labels = draws()
    loss = video_loss(logits, labels, class_weights=weights, label_smoothing=smoothing, consistency=0.0)
    assert torch.equal(loss, nn.CrossEntropyLoss(weights, label_smoothing=smoothing)(logits.mean(1), labels))


def test_soft_targets_are_learned_as_they_are():
    logits, labels = draws()
    hard = nn.functional.one_hot(labels, 4).float()
    torch.testing.assert_close(video_loss(logits, hard, **PLAIN), video_loss(logits, labels, **PLAIN))
    soft = 0.7 * hard + 0.3 / 4
    expected = -(soft * logits.mean(1).log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(video_loss(logits, soft, **PLAIN), expected)


def test_consistency_adds_the_disagreement_at_its_weight():
    logits, labels = draws()
    plain = video_loss(logits, labels, **PLAIN)
    with_it = video_loss(logits, labels, **{**PLAIN, "consistency": 0.7})
    torch.testing.assert_close(with_it - plain, 0.7 * disagreement(logits))
    assert with_it > plain + 0.01


def test_clips_disagree_by_the_jensen_shannon_divergence():
    logits, _ = draws()
    clips = logits.detach().double().softmax(-1).numpy()
    mean = clips.mean(1, keepdims=True)
    assert disagreement(logits).item() == pytest.approx((clips * np.log(clips / mean)).sum(-1).mean(), rel=1e-5)


def test_one_clip_or_like_clips_do_not_disagree_and_opposite_ones_do_by_log_two():
    logits, _ = draws(clips=1)
    assert disagreement(logits).item() == 0.0
    assert disagreement(logits.expand(-1, 3, -1)).item() == pytest.approx(0.0, abs=1e-6)
    opposite = torch.tensor([[[200.0, 0.0], [0.0, 200.0]]])
    assert disagreement(opposite).item() == pytest.approx(math.log(2))


def test_its_gradient_brings_a_videos_clips_together_and_leaves_other_videos_alone():
    logits, _ = draws(videos=2)
    disagreement(logits[:1]).backward()
    assert logits.grad[1].abs().max() == 0
    nearer = (logits - 0.5 * logits.grad).detach()
    assert disagreement(nearer[:1]) < disagreement(logits[:1])


def test_to_detach_the_mean_would_change_no_gradient():
    logits, _ = draws()
    (whole,) = torch.autograd.grad(disagreement(logits), logits)
    probabilities = logits.softmax(-1)
    divergence = probabilities * (probabilities.log() - probabilities.mean(1, keepdim=True).detach().log())
    (detached,) = torch.autograd.grad(divergence.sum(-1).mean(), logits)
    torch.testing.assert_close(whole, detached)


def test_class_weights_follow_the_inverse_root_of_the_counts_with_a_mean_of_one():
    labels = np.array([0] * 90 + [1] * 10)
    weights = class_weights(labels, 2).numpy()
    assert weights[1] / weights[0] == pytest.approx(3.0)
    assert weights[labels].mean() == pytest.approx(1.0)


def test_a_class_without_videos_leaves_the_loss_a_number():
    weights = class_weights(np.array([0, 0, 2]), 3)
    assert weights[1] == 0
    logits, _ = draws(videos=3, classes=3)
    loss = video_loss(logits, torch.tensor([0, 0, 2]), class_weights=weights, label_smoothing=0.1, consistency=0.0)
    assert loss.isfinite()
