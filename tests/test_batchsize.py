"""The largest batch that fits is found by really running out of memory. Run: pytest tests/test_batchsize.py"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import TINY

from manifests.errors import UserError
from trainer import train
from trainer.batchsize import fits, is_out_of_memory, largest_batch, memory_errors_explained
from trainer.config import read_config
from trainer.processes import ALONE

# A process with 300 MB to spare, where a video costs 8 MB: what largest_batch finds, and what one by one shows.
CHILD = """
import contextlib, gc, json, resource
import numpy, torch
from torch import nn
from manifests.errors import UserError
from trainer.batchsize import largest_batch, memory_errors_explained

def with_torch(batch):
    torch.empty(batch, 2**21)

def with_numpy(batch):
    numpy.empty((batch, 2**20))

def with_gradients(batch):
    network = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1))
    network(torch.zeros(batch, 3, 4, 112, 112)).sum().backward()

for step in (with_torch, with_numpy, with_gradients):
    step(1)
gc.freeze()  # torch's own objects need not be looked through at each try
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 300 * 2**20,) * 2)
found = {}
for step in (with_torch, with_numpy):
    by_hand = 0
    with contextlib.suppress(RuntimeError, MemoryError):
        while True:
            step(by_hand + 1)
            by_hand += 1
    tried = []
    largest = largest_batch(lambda batch: (tried.append(batch), step(batch)), 4, 1000)
    found[step.__name__] = [by_hand, largest, len(tried), largest_batch(step, 50, 1000), largest_batch(step, 1, 9)]
found["gradients"] = largest_batch(with_gradients, 32, 512)
try:
    with memory_errors_explained(512, 2, auto=False):
        with_gradients(256)
except UserError as error:
    found["said"] = str(error)
try:
    largest_batch(lambda batch: with_torch(1000 * batch), 8, 64)
except UserError as error:
    found["nothing"] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def small_machine():
    root = Path(__file__).parents[1]
    process = subprocess.run([sys.executable, "-c", CHILD], cwd=root, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("allocator", ["with_torch", "with_numpy"])
def test_the_largest_batch_is_the_one_that_trying_all_finds_less_a_margin(small_machine, allocator):
    by_hand, largest, tries, from_above, capped = small_machine[allocator]
    assert 20 <= by_hand <= 50  # 300 MB at 8 MB a video, and what the process had free before
    # What the process itself takes changes by some MB between one try and the next.
    assert abs(largest - by_hand * 0.9) <= 3
    assert abs(from_above - largest) <= 3
    assert max(largest, from_above) < by_hand
    assert capped == 9
    assert tries <= 12  # doubling to the wall, then halving what is left


def test_a_network_that_trains_runs_into_the_same_wall(small_machine):
    assert 1 <= small_machine["gradients"] < 256


def test_a_step_that_does_not_fit_is_one_sentence_that_says_what_to_set(small_machine):
    assert small_machine["said"] == (
        "512 videos in 2 pieces do not fit into memory; say optim.accumulate=auto, which finds the number of pieces "
        "that do, or lower data.batch"
    )


def test_where_not_even_one_video_fits_the_sentence_says_what_makes_a_video_smaller(small_machine):
    assert small_machine["nothing"].startswith("not even one video at a time fits into memory; lower data.size")


def more_than_there_is():
    return torch.empty(2**55)


@pytest.mark.parametrize(
    ("pieces", "auto", "says"),
    [
        (2, False, "say optim.accumulate=auto"),
        (2, True, "8 videos in 2 pieces do not fit into memory, though they did on trial; say optim.accumulate=4 "),
        (5, True, "say optim.accumulate=8 "),
        (8, True, "8 videos in 8 pieces do not fit into memory; lower data.size"),
    ],
)
def test_what_to_set_is_never_what_is_set_already(pieces, auto, says):
    with pytest.raises(UserError, match=says), memory_errors_explained(8, pieces, auto=auto):
        more_than_there_is()


@pytest.mark.parametrize(
    ("device", "had", "of_processes", "pieces"),
    [
        ("cuda", 2, 1, 3),  # the next machine's GPU is smaller
        ("cuda", 5, 1, 5),  # or larger
        ("cuda", 5, 2, 3),  # each process has twice the videos that each of two had
        ("cpu", 2, 2, 3),
        ("cpu", 2, 1, 2),
        ("cpu", 5, 1, 5),
    ],
)
def test_a_run_that_goes_on_finds_the_pieces_that_fit_where_it_is_now(monkeypatch, device, had, of_processes, pieces):
    def try_three(try_step, start, most):
        """Where three videos fit at once."""
        assert (start, most) == (8, 8)
        return 3

    monkeypatch.setattr(train, "largest_batch", try_three)
    config = read_config(Path("demo.yaml"), ["optim.accumulate=auto", "data.batch=8"])
    state = {"pieces": had, "rng": [{}] * of_processes}
    assert train.count_pieces(config, None, 2, torch.device(device), ALONE, state) == pieces
    assert train.count_pieces(config, None, 2, torch.device(device), ALONE, None) == 3


def test_the_trial_is_a_step_of_the_run_itself(monkeypatch):
    """Where more than three videos run out of memory, a tenth is left free and eight are learned two by two."""

    def small(config, learner, clips, *others):
        if len(clips) > 3:
            more_than_there_is()
        return learn(config, learner, clips, *others)

    learn = train.learn
    monkeypatch.setattr(train, "learn", small)
    config = read_config(
        Path("demo.yaml"), [*TINY, "optim.accumulate=auto", "data.batch=8", "optim.class_weights=false"]
    )
    assert train.count_pieces(config, None, 2, torch.device("cpu"), ALONE, None) == 4


def test_the_search_leaves_the_random_generator_as_it_was():
    def try_step(batch):
        torch.rand(batch)
        if batch > 20:
            more_than_there_is()

    before = torch.random.get_rng_state()
    assert largest_batch(try_step, 1, 100) == 18
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_mistake_that_is_not_about_memory_is_not_taken_for_it():
    def broken(batch):
        torch.zeros(2, 3) @ torch.zeros(batch, 5)

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        fits(broken, 2)
    with pytest.raises(RuntimeError, match="cannot be multiplied"), memory_errors_explained(2, 1, auto=False):
        broken(2)
    with pytest.raises(UserError), memory_errors_explained(2, 1, auto=False):
        more_than_there_is()
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
