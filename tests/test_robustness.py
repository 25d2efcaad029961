"""Each disturbance does what its name says, and nothing else. Run: pytest tests/test_robustness.py"""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from toys import make_corpus

from manifests.clips import ClipStore
from manifests.table import read_manifest
from trainer import robustness
from trainer.dataset import Clips, TestViews
from trainer.robustness import DISTURBANCES, EYES, GREY, MOUTH, DisturbedViews


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def noise_clip(frames=8, size=56):
    return torch.randint(40, 216, (frames, 3, size, size), generator=rng(5), dtype=torch.uint8)


def numbered(frames=8, size=8):
    """A clip whose every pixel is the number of its frame."""
    return torch.arange(frames, dtype=torch.uint8).view(-1, 1, 1, 1).expand(frames, 3, size, size).contiguous()


def detail(clip):
    """How much neighbouring pixels differ."""
    return clip.float().diff(dim=-1).abs().mean().item()


@pytest.mark.parametrize("disturbance", DISTURBANCES, ids=lambda d: f"{d.name} {d.severity}")
def test_every_disturbance_keeps_shape_and_type_and_source_and_is_the_same_each_time(disturbance):
    # Frames that differ in time as well as in space, so that every disturbance has something to disturb.
    clip = noise_clip()
    before = clip.clone()
    once, again = (disturbance.apply(clip, rng(1)) for _ in range(2))
    assert once.shape == clip.shape
    assert once.dtype == torch.uint8
    assert torch.equal(once, again)
    assert torch.equal(clip, before)
    assert not torch.equal(once, clip)


def test_names_and_severities_tell_all_disturbances_apart():
    assert len({(d.name, d.severity) for d in DISTURBANCES}) == len(DISTURBANCES)


def test_blur_takes_detail_and_keeps_brightness():
    clip = noise_clip()
    mild, strong = (robustness.blur(clip, rng(), sigma=s) for s in (2 / 224, 4 / 224))
    assert detail(clip) > 1.2 * detail(mild) > 1.5 * detail(strong)
    assert strong.float().mean().item() == pytest.approx(clip.float().mean().item(), abs=1)


def test_jpeg_gives_what_a_jpeg_of_that_quality_gives():
    clip = noise_clip(frames=2)
    stored = io.BytesIO()
    Image.fromarray(clip[1].permute(1, 2, 0).numpy()).save(stored, "JPEG", quality=10)
    expected = torch.from_numpy(np.array(Image.open(stored))).permute(2, 0, 1)
    made = robustness.jpeg(clip, rng(), quality=10)[1]
    assert (made.float() - expected.float()).abs().mean() < 3
    assert (made.float() - clip[1].float()).abs().mean() > 10


def test_noise_has_the_strength_it_says_and_is_new_in_every_frame():
    flat = torch.full((6, 3, 64, 64), 128, dtype=torch.uint8)
    grain = robustness.noise(flat, rng(), sigma=0.04).float() - 128
    assert grain.std().item() == pytest.approx(0.04 * 255, rel=0.03)
    assert grain.mean().abs() < 0.2
    assert not torch.equal(grain[0], grain[1])


def test_darkness_leaves_that_share_of_the_light():
    clip = noise_clip()
    dark = robustness.darken(clip, rng(), light=0.5)
    assert torch.allclose(dark.float(), clip.float() / 2, atol=0.5)


def test_low_resolution_leaves_only_that_many_pixels():
    # Stripes of one pixel cannot be seen at half the resolution, those of eight can.
    fine, coarse = ((torch.arange(64) // width % 2 * 200).to(torch.uint8).expand(2, 3, 64, 64) for width in (1, 8))
    assert robustness.shrink(fine, rng(), side=0.5).float().std() < 15
    assert robustness.shrink(coarse, rng(), side=0.5).float().std() > 80


def test_of_lost_frames_the_last_that_arrived_stays_on():
    shown = robustness.lose_frames(numbered(16), rng(), share=0.25)[:, 0, 0, 0].tolist()
    assert shown[0] == 0
    assert len(set(shown)) == 12
    for before, (number, now) in zip(shown, list(enumerate(shown))[1:], strict=False):
        assert now in (number, before)


def test_each_video_loses_frames_of_its_own():
    clip = numbered(32)
    assert not torch.equal(*(robustness.lose_frames(clip, rng(row), share=0.5) for row in (0, 1)))


def test_half_the_rate_shows_every_other_frame_twice():
    assert robustness.hold_frames(numbered(7), rng(), each=2)[:, 0, 0, 0].tolist() == [0, 0, 2, 2, 4, 4, 6]
    assert robustness.hold_frames(numbered(8), rng(), each=4)[:, 0, 0, 0].tolist() == [0, 0, 0, 0, 4, 4, 4, 4]


def test_a_box_that_sits_too_far_right_and_down_shows_the_face_further_left_and_up():
    clip = noise_clip(size=50)
    moved = robustness.shift(clip, rng(), share=0.1)
    assert torch.equal(moved[..., :45, :45], clip[..., 5:, 5:])
    assert torch.equal(moved[..., -1, :45], clip[..., -1, 5:])
    back = robustness.shift(clip, rng(), share=-0.1)
    assert torch.equal(back[..., 5:, 5:], clip[..., :45, :45])


@pytest.mark.parametrize(("place", "inside", "outside"), [(EYES, (0.42, 0.38), (0.68, 0.5)),
                                                          (MOUTH, (0.68, 0.5), (0.42, 0.38))])  # fmt: skip
def test_what_is_covered_is_grey_in_all_frames_and_the_rest_is_seen(place, inside, outside):
    clip = noise_clip(size=100)
    covered = robustness.cover(clip, rng(), place=place)
    row, column = (int(100 * share) for share in inside)
    assert (covered[..., row, column] == GREY).all()
    row, column = (int(100 * share) for share in outside)
    assert torch.equal(covered[..., row, column], clip[..., row, column])
    top, bottom, left, right = place
    changed = (covered != clip).float().mean().item()
    assert changed == pytest.approx((bottom - top) * (right - left), abs=0.01)


def test_one_view_of_each_video_comes_in_every_disturbance(tmp_path):
    manifest, folder = make_corpus(tmp_path, actors=1, takes=1)
    clips = Clips(ClipStore(folder), read_manifest(manifest).rows["clip_id"].tolist(), [0, 1])
    views = TestViews(clips, frames=8, span=1.0, size=32, views=1)
    disturbed, row = DisturbedViews(views)[1]
    assert row == 1
    assert len(DisturbedViews(views)) == 2
    assert disturbed.shape == (len(DISTURBANCES), 8, 3, 32, 32)
    (clip,), _ = views[1]
    for number, disturbance in enumerate(DISTURBANCES):
        assert torch.equal(disturbed[number], disturbance.apply(clip, rng(1)))
