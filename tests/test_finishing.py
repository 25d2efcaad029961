"""A GPU finishes clips as the loader's workers do on a CPU. Run: pytest tests/test_finishing.py"""

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_augment import OPERATIONS, STILL, photograph, still_film
from toys import TINY, make_corpus

from manifests.clips import ClipStore
from manifests.table import read_manifest
from trainer.augment import ClipTransform, Draw, look
from trainer.augment import compress as by_file
from trainer.config import CONFIGS, read_config
from trainer.dataset import Clips, TrainingClips, collate
from trainer.finishing import Unfinished, compress, develop, finish
from trainer.learner import create_learner, make_deterministic
from trainer.loader import training_loader
from trainer.processes import Processes
from trainer.train import learn

# A process that has computed with threads must not fork: its workers would wait for threads that they do not have.
cv2.setNumThreads(1)
torch.set_num_threads(1)
CPU = torch.device("cpu")
SIDE, SIZE = 64, 56
SINGLE = {
    **OPERATIONS,
    "mirror": Draw(mirror=True),
    "hue": Draw(hue=0.05),
    "greyscale": Draw(saturation=0.0),
    "slight blur": Draw(blur=0.5),
    "blur": Draw(blur=1.2),
    "coarse": Draw(detail=0.5),
    "erased": Draw(erased=(3, 20, 30, 11)),
    **{f"jpeg {quality}": Draw(quality=quality) for quality in (30, 60, 90)},
}
EVERYTHING = ClipTransform(
    SIZE, flip=0.5, rotate=8, translate=0.06, scale=(0.9, 1.1), brightness=0.25, contrast=0.25, saturation=0.2,
    hue=0.03, grayscale=0.1, blur=0.3, jpeg=0.3, erase=0.5, rand_ops=2, rand_magnitude=0.3,
)  # fmt: skip


@cache
def skin():
    """`(1, 3, SIDE, SIDE)` uint8: light and shade as soft as a face's in a crop of 256 pixels."""
    soft = photograph()[0].permute(1, 2, 0).numpy()
    return torch.from_numpy(cv2.GaussianBlur(soft, (0, 0), 3) // 2 + 60).permute(2, 0, 1)[None]


def by_worker(film, size, drawn):
    return torch.from_numpy(look(film.permute(0, 2, 3, 1).numpy(), size, drawn)).permute(0, 3, 1, 2)


def differences(film, size, drawn):
    """`(T, 3, size, size)`: how far the two are apart in each value, of 255."""
    return (develop(film, size, drawn) - by_worker(film, size, drawn)).abs()


@pytest.mark.parametrize("size", [SIZE, SIDE, 80])
@pytest.mark.parametrize("name", SINGLE)
def test_the_device_does_each_thing_as_a_worker_does(name, size):
    apart = differences(skin(), size, SINGLE[name])
    jpeg = name.startswith("jpeg")  # whose coarse steps make much of little
    assert apart.mean() < (0.8 if jpeg else 0.5)
    assert apart.quantile(0.99) <= (8 if jpeg else 2)
    assert (by_worker(skin(), size, SINGLE[name]).int() - by_worker(skin(), size, Draw())).abs().sum() > 0


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=40, phases=[Phase.generate])
def test_and_all_things_together(seed):
    torch.manual_seed(seed)
    drawn = EVERYTHING.draw()
    apart = differences(skin(), SIZE, drawn)
    jpeg = drawn.quality is not None
    assert apart.mean() < (1.5 if jpeg else 0.6)
    assert apart.quantile(0.99) <= (14 if jpeg else 3)


def test_two_other_draws_are_much_farther_apart():
    """The claims above can fail."""
    torch.manual_seed(0)
    first, second = (by_worker(skin(), SIZE, EVERYTHING.draw()).int() for _ in range(2))
    assert (first - second).abs().float().mean() > 8


def test_drawing_nothing_changes_nothing():
    film = torch.cat([photograph(seed) for seed in range(4)])
    assert torch.equal(develop(film, SIDE, Draw()), film.float())


def test_the_very_same_rectangle_is_erased():
    light = torch.full((2, 3, SIDE, SIDE), 200, dtype=torch.uint8)
    for seed in range(20):
        torch.manual_seed(seed)
        drawn = replace(STILL, erase=1.0).draw()
        assert torch.equal(develop(light, SIDE, drawn) == 0, by_worker(light, SIDE, drawn) == 0)
        assert (develop(light, SIDE, drawn) == 0).any()


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_all_frames_of_a_clip_get_the_same(seed):
    torch.manual_seed(seed)
    out = develop(still_film(), SIZE, replace(EVERYTHING, flip=1.0).draw())
    assert (out == out[:1]).all()
    assert (out[0, 0] != out[0, 0, 0, 0]).any()


def test_light_is_measured_over_the_clip():
    """A bright thing that comes into view must not darken what else is there."""
    film = torch.full((8, 3, SIDE, SIDE), 40, dtype=torch.uint8)
    film[4:, :, SIDE // 2 :] = 200
    out = develop(film, SIDE, Draw(contrast=0.6))
    assert out[0, 0, 0, 0] == out[-1, 0, 0, 0] == 40 + 40 * 0.4


def test_jpeg_is_libjpegs_but_for_its_rounding():
    for seed, quality in ((1, 30), (2, 75), (3, 90)):
        film = photograph(seed)[..., :50, :59]  # no whole number of blocks
        apart = (compress(film.float(), quality) - by_worker_jpeg(film, quality)).abs()
        lost = (by_worker_jpeg(film, quality).float() - film).abs().mean()
        assert apart.mean() < 0.15 * lost


def by_worker_jpeg(film, quality):
    frame = film[0].permute(1, 2, 0).numpy()
    return torch.from_numpy(by_file(frame, quality).copy()).permute(2, 0, 1)[None]


# Through the loader.


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    manifest, root = make_corpus(tmp_path_factory.mktemp("toys"), actors=4, takes=2)
    rows = read_manifest(manifest).rows
    return Clips(ClipStore(root), rows["clip_id"].tolist(), [number % 2 for number in range(len(rows))])


def config_for(device, *words):
    augment = ("augment.rotate=8", "augment.erase=0.5", "augment.jpeg=0.2", "augment.blur=0.2", "augment.rand_ops=1")
    settings = [*TINY, f"device={device}", "data.clips_per_video=2", *augment, *words]
    return read_config(CONFIGS / "demo.yaml", settings)


def batches(config, clips):
    return list(training_loader(config, clips, 0, Processes()))[:3]


@pytest.mark.filterwarnings("ignore:'pin_memory'")
def test_batches_for_a_gpu_are_those_for_a_cpu_once_they_are_finished(clips):
    for (unfinished, targets), (done, same) in zip(
        batches(config_for("cuda"), clips), batches(config_for("cpu"), clips), strict=True
    ):
        assert isinstance(unfinished, Unfinished)
        assert unfinished.frames.shape == (4, 2, 8, 3, 40, 40)
        assert unfinished.frames.movedim(-3, -1).is_contiguous()
        finished = finish(unfinished, 32, CPU)
        assert (finished.dtype, finished.shape) == (torch.uint8, done.shape)
        assert finished.stride() == done.stride()
        assert (finished.float() - done.float()).abs().mean() < 1
        assert torch.equal(targets, same)


@pytest.mark.filterwarnings("ignore:'pin_memory'")
def test_the_number_of_workers_changes_no_draw(clips):
    for (alone, _), (helped, _) in zip(
        batches(config_for("cuda"), clips), batches(config_for("cuda", "data.workers=2"), clips), strict=True
    ):
        assert torch.equal(alone.frames, helped.frames)
        assert alone.draws == helped.draws


@pytest.mark.filterwarnings("ignore:'pin_memory'")
def test_a_step_learns_as_much_from_either(clips):
    def losses(device):
        """Of each batch, by the same new network."""
        config = config_for(device)
        told = []
        for pixels, targets in batches(config, clips):
            make_deterministic(1, "cpu", 0)
            learner = create_learner(config, clips, 2, 10, CPU, Processes(), None)
            told.append(learn(config, learner, pixels, targets, 0, 2))
        return np.array(told)

    unfinished, done = losses("cuda"), losses("cpu")
    np.testing.assert_allclose(unfinished, done, rtol=0.015)
    assert min(abs(done[[0, 1, 2]] - done[[1, 2, 0]])) > 0.04  # other videos are farther apart
    assert (unfinished != done).all()  # they did come by other ways


def test_samples_for_a_gpu_share_their_memory_with_what_was_decoded(clips):
    """No copy but the batch itself."""
    dataset = TrainingClips(clips, STILL, frames=8, span=0.6, clips_per_video=2, seed=1, draw=STILL.draw)
    sample, _ = dataset[0, 0, 0]
    assert isinstance(sample, Unfinished)
    assert sample.frames.movedim(-3, -1).is_contiguous()
    batch, _ = collate([dataset[0, 0, 0], dataset[0, 1, 0]])
    assert torch.equal(batch.frames[0], sample.frames)
    assert len(batch.draws) == 4
