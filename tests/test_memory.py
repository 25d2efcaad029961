"""A large manifest costs arrays, once, and an epoch leaves workers as they were. Run: pytest tests/test_memory.py"""

import pickle

import numpy as np
import pytest
from memory import MEASURABLE, MIB, enlarged, footprint
from toys import make_corpus

from trainer.dataset import Clips

ROWS = 100_000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    _, small = make_corpus(tmp_path_factory.mktemp("toys"), actors=1, takes=1)
    return enlarged(small, tmp_path_factory.mktemp("large") / "clips", ROWS)


def test_rows_are_arrays_and_not_objects_that_every_worker_would_copy(store):
    clips = Clips(store[0], store[1], [0] * ROWS, ["crema"] * ROWS, np.full((ROWS, 6), 1 / 6))
    held = [value for value in vars(clips).values() if value is not clips.store]
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in held)
    # With the index of the store: at most 400 MB for a million rows.
    assert len(pickle.dumps(clips)) < 400 * ROWS


@pytest.mark.skipif(not MEASURABLE, reason="/proc/self/smaps_rollup is there on Linux only")
def test_an_epoch_leaves_a_worker_as_small_as_it_was(store):
    found = footprint(*store, batches=200)
    assert found.rows < 400 * ROWS / MIB
    # The interpreter's own pages come to some 2 MiB; 1,600 rows as Python objects would be 6 and more.
    assert found.worker_at_last < found.worker_at_first + 4
