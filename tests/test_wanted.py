"""Training from a folder of shards that a second process fills and empties is training with all of them there."""

import json
import multiprocessing
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from toys import fit_words, make_corpus, start_training, wait_until

from manifests.clips import ClipStore
from manifests.shards import pack
from trainer.__main__ import main
from trainer.run import read_json
from trainer.sampling import ShardedRows, TrainingOrder

WINDOW = 2
ROOM = 8  # shards; the corpus has 16
SETTINGS = (f"data.shard_window={WINDOW}", "optim.epochs=2", "optim.lr=1e-4", "optim.backbone_lr=1e-4")


@st.composite
def orders(draw):
    """(arguments of an order, its shards): some shards of some rows each, dealt to rows in any order."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=8))
    of_row = np.repeat(np.arange(len(sizes)), sizes)
    of_row = of_row[np.random.default_rng(draw(st.integers(0, 99))).permutation(len(of_row))]
    batch = draw(st.integers(1, len(of_row)))
    shards = ShardedRows(of_row, draw(st.integers(1, 4)))
    weights = draw(st.sampled_from([None, np.random.default_rng(1).choice([1.0, 3.0], len(of_row))]))
    return {"rows": len(of_row), "batch": batch, "epochs": 3, "seed": draw(st.integers(0, 99)), "weights": weights,
            "shards": shards}  # fmt: skip


@settings(deadline=None)
@given(orders())
def test_an_epoch_meets_the_rows_that_it_met_without_shards_equally_often(how):
    drawn = [key for keys in TrainingOrder(first_step=0, **how) for key in keys]
    steps = how["rows"] // how["batch"]
    for epoch in range(3):
        met = drawn[epoch * steps * how["batch"] : (epoch + 1) * steps * how["batch"]]
        assert {e for e, _, _ in met} == {epoch}
        assert len(set(met)) == len(met)
        if how["weights"] is None:
            assert len({row for _, row, _ in met}) == len(met)
        else:
            alike = TrainingOrder(first_step=0, **{**how, "shards": None})
            plain = [key for keys in list(alike)[epoch * steps : (epoch + 1) * steps] for key in keys]
            assert Counter(met) == Counter(plain)


@settings(deadline=None)
@given(orders(), st.integers(1, 4), st.data())
def test_several_processes_from_any_step_see_the_rest_of_what_one_sees(how, world, data):
    whole = list(TrainingOrder(first_step=0, **how))
    first = data.draw(st.integers(0, len(whole)))
    ranks = [list(TrainingOrder(first_step=first, rank=rank, world=world, **how)) for rank in range(world)]
    for step, keys in enumerate(whole[first:]):
        assert [ranks[place % world][step][place // world] for place in range(len(keys))] == keys


@settings(deadline=None)
@given(orders())
def test_no_more_shards_than_the_window_are_half_read_at_any_moment(how):
    order = TrainingOrder(first_step=0, **how)
    for epoch in range(3):
        shards = how["shards"].of_row[order._epoch(epoch)[0]]
        first = {shard: int(np.flatnonzero(shards == shard)[0]) for shard in set(shards.tolist())}
        last = {shard: int(np.flatnonzero(shards == shard)[-1]) for shard in first}
        for place in range(len(shards)):
            assert sum(first[shard] <= place <= last[shard] for shard in first) <= how["shards"].window


@settings(deadline=None)
@given(orders(), st.integers(1, 5), st.data())
def test_what_is_wanted_is_what_the_next_steps_read_in_their_order(how, ahead, data):
    order = TrainingOrder(first_step=0, **how)
    steps = list(order)
    step = data.draw(st.integers(0, len(steps)))
    wanted, in_use = order.shards_needed(step, ahead)
    end = (step // order.steps_per_epoch + 2) * order.steps_per_epoch
    read = [how["shards"].of_row[[row for _, row, _ in keys]].tolist() for keys in steps[step:end]]
    assert set(wanted) == {shard for shards in read for shard in shards}
    soon = {shard for shards in read[:ahead] for shard in shards}
    # What is half read counts as in use, though the next steps may pass it over.
    assert soon <= set(wanted[:in_use])
    later = [shard for shards in read for shard in dict.fromkeys(shards) if shard not in wanted[:in_use]]
    firsts = [next(n for n, shards in enumerate(read) if shard in shards) for shard in wanted[in_use:]]
    assert firsts == sorted(firsts)
    assert set(later) == set(wanted[in_use:])


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """(manifest, folder with all shards): 128 clips, eight in a shard."""
    folder = tmp_path_factory.mktemp("toys")
    manifest, clips = make_corpus(folder, takes=8)
    sizes = [path.stat().st_size for path in clips.glob("*/*.clip")]
    pack(clips, folder / "packed", shard_bytes=round(7.5 * np.mean(sizes)))
    assert 14 <= len(list((folder / "packed").glob("*.tar"))) <= 18
    return manifest, folder / "packed"


@pytest.fixture(scope="module")
def undisturbed(packed, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(fit_words(packed, run, *SETTINGS)) == 0
    return run


def carry(source, folder, run, most):
    """A courier: keeps the first ROOM of the shards that a run wants in a folder, and no others; slowly."""
    while True:
        try:
            wanted = json.loads((run / "wanted.json").read_text())["shards"][:ROOM]
        except FileNotFoundError:
            wanted = []
        for shard in folder.glob("shard-*.tar"):
            if shard.name not in wanted:
                shard.unlink()
        missing = [name for name in wanted if not (folder / name).exists()]
        if missing:
            time.sleep(0.05)
            shutil.copyfile(source / missing[0], folder / f".{missing[0]}")
            os.replace(folder / f".{missing[0]}", folder / missing[0])
        most.value = max(most.value, len(list(folder.glob("shard-*.tar"))))
        time.sleep(0.01)


@pytest.fixture
def small_disk(packed, tmp_path):
    """(manifest, folder), a run directory, and the most shards that were ever in the folder; at first there is none."""
    manifest, source = packed
    folder, run = tmp_path / "clips", tmp_path / "run"
    folder.mkdir()
    for table in source.iterdir():
        if table.suffix != ".tar":
            shutil.copyfile(table, folder / table.name)
    most = multiprocessing.get_context("spawn").Value("i", 0)
    courier = multiprocessing.get_context("spawn").Process(target=carry, args=(source, folder, run, most), daemon=True)
    courier.start()
    yield (manifest, folder), run, most
    courier.kill()
    courier.join()


def assert_same(run, undisturbed):
    ours, theirs = (load_file(path / "model.safetensors") for path in (run, undisturbed))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert (run / "predictions.csv").read_bytes() == (undisturbed / "predictions.csv").read_bytes()
    # Learning so slowly it misreads some, whose shards are fetched once more to show them.
    shown, wanted = (read_json(path / "attention.json")["clips"] for path in (run, undisturbed))
    assert shown == wanted
    assert len(shown) > 4


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_that_holds_half_of_the_shards_gives_the_same_weights_and_predictions(
    small_disk, undisturbed, workers
):
    corpus, run, most = small_disk
    process = start_training(corpus, run, *SETTINGS, f"data.workers={workers}")
    _, complained = process.communicate(timeout=300)
    assert process.returncode == 0, complained
    assert most.value <= ROOM
    assert_same(run, undisturbed)


def test_killed_in_the_middle_of_an_epoch_it_wants_the_same_shards_again(small_disk, undisturbed):
    corpus, run, most = small_disk
    process = start_training(corpus, run, *SETTINGS, "data.workers=1")
    wait_until(lambda: (read_json(run / "status.json") or {}).get("step", 0) >= 20, "the second epoch is under way")
    process.kill()
    process.communicate(timeout=30)
    process = start_training(corpus, run, *SETTINGS, "data.workers=1")
    _, complained = process.communicate(timeout=300)
    assert process.returncode == 0, complained
    assert most.value <= ROOM
    assert_same(run, undisturbed)


def test_clips_that_are_not_packed_are_refused_with_the_next_command(packed, tmp_path, capsys):
    manifest, folder = packed
    assert main(fit_words((manifest, folder.parent / "clips"), tmp_path / "run", *SETTINGS)) == 2
    assert "are not; pack them with python -m manifests pack" in capsys.readouterr().err
    assert main(fit_words(packed, tmp_path / "run", *SETTINGS, "optim.batchnorm=precise")) == 2
    assert "say optim.batchnorm=frozen, or data.shard_window=null" in capsys.readouterr().err


def test_without_anybody_who_brings_it_a_missing_shard_is_an_error(packed, tmp_path):
    folder = shutil.copytree(packed[1], tmp_path / "clips", ignore=shutil.ignore_patterns("*.tar"))
    store = ClipStore(Path(folder))
    with pytest.raises(Exception, match="No such file"):
        store.open("toy_00_grows_0")
