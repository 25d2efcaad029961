"""Augmentation changes a clip, and all its frames alike. Run: pytest tests/test_augment.py"""

import io
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as F

from trainer.augment import FACE_SAFE, ClipTransform, Draw, colour_matrix, look

SIDE = 64
STILL = ClipTransform(
    SIDE, flip=0, rotate=0, translate=0, scale=(1, 1), brightness=0, contrast=0, saturation=0, hue=0, grayscale=0,
    blur=0, jpeg=0, erase=0, rand_ops=0, rand_magnitude=0,
)  # fmt: skip
GEOMETRY = [{"flip": 1.0}, {"rotate": 20.0}, {"translate": 0.2}, {"scale": (0.7, 0.8)}]
COLOURS = [{"brightness": 0.9}, {"contrast": 0.9}, {"saturation": 0.9}, {"hue": 0.1}, {"grayscale": 1.0}]
FILTERS = [{"blur": 1.0}, {"jpeg": 1.0}]
# One operation at a time, as RandAugment would draw it.
OPERATIONS = {
    name: replace(Draw(), **{name: FACE_SAFE[name](getattr(Draw(), name), strength)})
    for name, strength in zip(FACE_SAFE, [0.9, -0.9] * 6, strict=True)
}


def name_of(change):
    return next(iter(change))


def photograph(seed=3):
    """`(1, 3, SIDE, SIDE)` uint8: soft colours, as a face has."""
    noise = np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    soft = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    return torch.from_numpy(soft).permute(2, 0, 1)[None]


def still_film():
    return photograph().expand(6, -1, -1, -1)


def augmented(film, seed=5, **change):
    torch.manual_seed(seed)
    return replace(STILL, **change)(film)


def seen(film, drawn):
    return torch.from_numpy(look(film.permute(0, 2, 3, 1).numpy(), SIDE, drawn)).permute(0, 3, 1, 2)


def test_without_augmentation_the_picture_is_untouched():
    assert torch.equal(augmented(still_film()), still_film())


@pytest.mark.parametrize("change", [*GEOMETRY, *COLOURS, *FILTERS, {"erase": 1.0}], ids=name_of)
def test_each_augmentation_changes_the_picture_and_leaves_a_still_film_still(change):
    out = augmented(still_film(), **change)
    assert (out.dtype, out.shape) == (torch.uint8, (6, 3, SIDE, SIDE))
    assert (out == out[:1]).all()
    assert (out.float() - still_film()).abs().mean() > 0.5


@pytest.mark.parametrize("name", FACE_SAFE)
def test_each_operation_of_randaugment_does_so_too(name):
    out = seen(still_film(), OPERATIONS[name])
    assert (out == out[:1]).all()
    assert (out.float() - still_film()).abs().mean() > 0.5


# Motion.


def walk(step):
    """A bright dot that goes on by (1.5, 1) * `step` pixels per frame over a dark ground: `(8, 3, SIDE, SIDE)`."""
    film = np.full((8, SIDE, SIDE, 3), 40, np.uint8)
    for index, frame in enumerate(film):
        centre = SIDE / 2 + (index - 3.5) * step * np.array([1.5, 1.0])
        rows, columns = np.mgrid[:SIDE, :SIDE]
        frame[..., 1] = 40 + 200 * np.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / 8)
    return torch.from_numpy(film).permute(0, 3, 1, 2)


def places(film):
    """`(T, 2)`: where the dot is in each frame."""
    light = film[:, 1].double()
    light = (light - 0.75 * light.amax((1, 2), keepdim=True)).clamp(min=0)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return torch.stack([(light * axis).sum((1, 2)) / light.sum((1, 2)) for axis in (columns, rows)], 1)


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=25)
def test_a_dot_that_goes_straight_and_evenly_still_does(seed):
    anything = {
        "flip": 0.5, "rotate": 20.0, "translate": 0.1, "scale": (0.8, 1.2), "blur": 0.5, "rand_ops": 2,
        "rand_magnitude": 0.8,
    }  # fmt: skip
    path = places(augmented(walk(2.0), seed, **anything))
    steps = path.diff(dim=0)
    assert steps.norm(dim=1).min() > 1
    torch.testing.assert_close(steps, steps.mean(0).expand_as(steps), atol=0.25, rtol=0)


@pytest.mark.parametrize("change", GEOMETRY, ids=name_of)
def test_it_does_not_where_each_frame_is_drawn_for_itself(change):
    """The claim above can fail."""
    frames = [augmented(frame[None], seed, **change) for seed, frame in enumerate(walk(2.0))]
    if name_of(change) == "flip":
        frames = [augmented(frame[None], flip=float(index % 2)) for index, frame in enumerate(walk(2.0))]
    steps = places(torch.cat(frames)).diff(dim=0)
    assert (steps - steps.mean(0)).abs().max() > 0.5


def test_a_dot_that_rests_rests_where_the_settings_bound_it():
    for seed in range(20):
        path = places(augmented(walk(0.0), seed, rotate=20.0, translate=0.1, scale=(0.8, 1.2)))
        assert path.diff(dim=0).abs().max() == 0
        assert (path[0] - (SIDE - 1) / 2).abs().max() <= 0.1 * SIDE + 1


# Light.


def flicker():
    """Frames of the same eight colours in ever other numbers, as when a bright thing comes into view."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (8, 3), np.uint8)
    odds = rng.dirichlet(np.ones(8), size=6)
    film = [colours[rng.choice(8, (SIDE, SIDE), p=share)] for share in odds]
    return torch.from_numpy(np.stack(film)).permute(0, 3, 1, 2)


def curves(film, out):
    """What each colour of the film became, over all frames: a set per colour."""
    pairs = torch.cat([film, out], 1).permute(0, 2, 3, 1).reshape(-1, 6).unique(dim=0)
    became: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for pair in pairs.tolist():
        became.setdefault(tuple(pair[:3]), set()).add(tuple(pair[3:]))
    return became


@pytest.mark.parametrize("change", COLOURS, ids=name_of)
def test_equal_colours_stay_equal_in_every_frame(change):
    film = flicker()
    assert all(len(values) == 1 for values in curves(film, augmented(film, **change)).values())


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "warmth", "gamma"])
def test_equal_colours_stay_equal_under_randaugment_too(name):
    film = flicker()
    assert all(len(values) == 1 for values in curves(film, seen(film, OPERATIONS[name])).values())


def test_torchvisions_contrast_would_not_leave_them_equal():
    """The two claims above can fail."""
    film = flicker()
    assert any(len(values) > 1 for values in curves(film, F.adjust_contrast(film, 0.5)).values())


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (Draw(brightness=1.3), lambda film: F.adjust_brightness(film, 1.3)),
        (Draw(contrast=0.6), lambda film: F.adjust_contrast(film, 0.6)),
        (Draw(saturation=1.4), lambda film: F.adjust_saturation(film, 1.4)),
        (Draw(saturation=0.0), lambda film: F.rgb_to_grayscale(film, num_output_channels=3)),
        (Draw(gamma=1.5), lambda film: F.adjust_gamma(film, 1.5)),
        (Draw(sharpness=1.8), lambda film: F.adjust_sharpness(film, 1.8)),
        (Draw(blur=0.9), lambda film: F.gaussian_blur(film, [5, 5], [0.9, 0.9])),
        (Draw(mirror=True), F.horizontal_flip),
    ],
    ids=["brightness", "contrast", "saturation", "greyscale", "gamma", "sharpness", "blur", "mirror"],
)
def test_a_still_film_looks_as_torchvision_makes_it_look(drawn, expected):
    inside = (..., slice(2, -2), slice(2, -2))  # torchvision leaves the outermost pixels as they were
    difference = (seen(still_film(), drawn).int() - expected(still_film()).int()).abs()[inside]
    assert difference.max() <= 2
    assert difference.float().mean() < 1  # torchvision truncates where we round


def test_hue_and_saturation_leave_light_alone_and_hue_goes_round():
    mean = np.zeros(3)
    luma = np.array([0.299, 0.587, 0.114])
    for drawn in (Draw(hue=0.1), Draw(hue=-0.3, saturation=0.4)):
        matrix = colour_matrix(mean, drawn)[:, :3]
        np.testing.assert_allclose(luma @ matrix, luma, atol=1e-9)
        np.testing.assert_allclose(matrix @ np.ones(3), 1, atol=1e-9)
    tenth = colour_matrix(mean, Draw(hue=0.1))[:, :3]
    np.testing.assert_allclose(np.linalg.matrix_power(tenth, 10), np.eye(3), atol=1e-9)
    # The same way round as torchvision: red towards yellow.
    red = colour_matrix(mean, Draw(hue=0.05))[:, :3] @ np.array([200.0, 50, 50])
    assert red[1] > red[2] + 20


# Codecs, cameras and hands.


@pytest.mark.parametrize("change", FILTERS, ids=name_of)
def test_a_thing_that_moves_on_is_blurred_and_compressed_as_it_was(change):
    first = photograph()
    film = torch.cat([first.roll(16 * index, dims=-1) for index in range(4)])  # 16 pixels are a block of JPEG
    out = augmented(film, **change)
    back = torch.stack([frame.roll(-16 * index, dims=-1) for index, frame in enumerate(out)])
    middle = back[..., 6:8]  # away from the seams, which are at other places in each frame
    assert (middle == middle[:1]).all()
    assert not torch.equal(out, film)


def test_the_worse_the_quality_the_more_is_lost_and_the_colours_stay():
    film = photograph()
    lost = [(seen(film, Draw(quality=quality)).float() - film).abs().mean() for quality in (90, 60, 30)]
    assert 0.1 < lost[0] < lost[1] < lost[2]
    # Were red taken for blue, other colours would be the coarse ones.
    file = io.BytesIO()
    Image.fromarray(film[0].permute(1, 2, 0).numpy()).save(file, "jpeg", quality=60)
    expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    assert (seen(film, Draw(quality=60))[0].int() - expected.int()).abs().float().mean() < 0.2


@pytest.mark.parametrize("name", ["sharpness", "detail"])
def test_and_sharpened_and_coarsened_so(name):
    drawn = replace(OPERATIONS[name], detail=0.5) if name == "detail" else OPERATIONS[name]
    film = torch.cat([photograph().roll(16 * index, dims=-1) for index in range(4)])
    out = seen(film, drawn)
    middle = torch.stack([frame.roll(-16 * index, dims=-1) for index, frame in enumerate(out)])[..., 6:8]
    assert (middle == middle[:1]).all()
    assert not torch.equal(out, film)


def test_one_rectangle_is_erased_from_all_frames_of_a_moving_picture():
    film = flicker() // 2 + 60
    for seed in range(10):
        out = augmented(film, seed, erase=1.0)
        gone = (out == 0).all(1)
        assert (gone == gone[:1]).all()
        assert torch.equal(out[~gone[:, None].expand_as(out)], film[~gone[:, None].expand_as(film)])
        rows, columns = gone[0].any(1).nonzero(), gone[0].any(0).nonzero()
        assert gone[0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0.01 < gone[0].float().mean() < 0.17


# Draws.


@pytest.mark.parametrize("name", ["flip", "grayscale", "blur", "jpeg", "erase"])
def test_probabilities_are_kept(name):
    film = photograph()
    changed = [not torch.equal(augmented(film, seed, **{name: 0.3}), film) for seed in range(200)]
    assert 35 <= sum(changed) <= 85  # 60 are expected


def test_draws_stay_within_their_bounds_and_use_them():
    transform = replace(STILL, rotate=8.0, translate=0.06, scale=(0.9, 1.1), brightness=0.25, hue=0.03)
    torch.manual_seed(0)
    drawn = [transform.draw() for _ in range(300)]
    for name, low, high in (
        ("degrees", -8, 8), ("right", -0.06, 0.06), ("down", -0.06, 0.06), ("factor", 0.9, 1.1),
        ("brightness", 0.75, 1.25), ("hue", -0.03, 0.03),
    ):  # fmt: skip
        values = [getattr(each, name) for each in drawn]
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(values) <= high


@given(st.integers(1, 4), st.floats(0.1, 1), st.integers(0, 2**32))
@settings(max_examples=50)
def test_randaugment_draws_as_many_operations_as_asked_each_as_strong_as_asked(operations, magnitude, seed):
    torch.manual_seed(seed)
    drawn = replace(STILL, rand_ops=operations, rand_magnitude=magnitude).draw()
    changed = [name for name in FACE_SAFE if getattr(drawn, name) != getattr(Draw(), name)]
    assert len(changed) <= operations
    if operations == 1:
        (name,) = changed
        both_ways = [FACE_SAFE[name](getattr(Draw(), name), sign * magnitude) for sign in (-1, 1)]
        assert getattr(drawn, name) in both_ways


def test_every_operation_comes_up_both_ways():
    torch.manual_seed(0)
    draws = [replace(STILL, rand_ops=1, rand_magnitude=0.5).draw() for _ in range(400)]
    for name in FACE_SAFE:
        values = {getattr(drawn, name) for drawn in draws} - {getattr(Draw(), name)}
        assert len(values) == (1 if name == "detail" else 2)


def test_at_the_strongest_a_face_is_still_upright_and_in_the_picture():
    strongest = {name: FACE_SAFE[name](getattr(Draw(), name), 1.0) for name in FACE_SAFE}
    assert strongest["degrees"] + 8 < 20  # on top of the recipe's own rotation
    assert max(strongest["right"], strongest["down"]) + 0.06 < 0.15
    assert "mirror" not in FACE_SAFE


def test_the_same_seed_gives_the_same_clip_also_in_another_process():
    settings = {"flip": 0.5, "rotate": 8.0, "jpeg": 0.5, "erase": 0.5, "rand_ops": 2, "rand_magnitude": 0.5}
    transform = replace(STILL, **settings)
    copy = pickle.loads(pickle.dumps(transform))  # as a loader's worker gets it where processes are not forked
    torch.manual_seed(11)
    first = transform(still_film())
    torch.manual_seed(11)
    assert torch.equal(copy(still_film()), first)
    torch.manual_seed(12)
    assert not torch.equal(transform(still_film()), first)


def test_a_smaller_picture_is_one_of_the_whole_clip():
    out = replace(STILL, size=32)(still_film())
    assert out.shape == (6, 3, 32, 32)
    assert (out.float() - F.resize(still_film(), [32, 32], antialias=False)).abs().mean() < 1
