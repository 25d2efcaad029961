"""However and whenever a run is stopped, what it learned is kept, and it says why it ended."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from toys import make_corpus, start_training, wait_until

from manifests.clipfile import clip_path
from manifests.clips import ClipStore
from trainer.checkpoint import load_checkpoint
from trainer.run import Run, read_json


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("toys"))


@pytest.fixture
def block(corpus, tmp_path):
    """A function that makes a copy of the corpus in which one clip of a split never arrives: its file is a pipe."""

    def blocked(split):
        manifest, clips = corpus
        copy = tmp_path / "clips"
        shutil.copytree(clips, copy)
        rows = pd.read_csv(manifest)
        clip_id = rows.loc[rows["split"] == split, "clip_id"].iloc[-1]
        path = clip_path(copy, pd.read_csv(copy / "index.csv").set_index("clip_id").loc[clip_id, "key"])
        path.unlink()
        os.mkfifo(path)
        assert clip_id in ClipStore(copy)
        return manifest, copy

    return blocked


def hangs(run):
    """Whether the run reports nothing any more."""
    before = read_json(run / "status.json")
    time.sleep(2)
    return before is not None and before == read_json(run / "status.json")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_while_training_waits_for_data_saves_and_ends_at_once(block, tmp_path, workers):
    run = tmp_path / "run"
    process = start_training(block("train"), run, f"data.workers={workers}")
    wait_until(lambda: hangs(run), "it waits for data")
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - asked < 20
    assert process.returncode == 143
    assert "Traceback" not in said
    assert read_json(run / "outcome.json")["outcome"] == "interrupted"
    assert load_checkpoint(run / "checkpoints")["step"] == read_json(run / "status.json")["step"]


def test_a_signal_during_validation_keeps_the_epoch_and_validates_it_after(block, corpus, tmp_path):
    run = tmp_path / "run"
    process = start_training(block("val"), run, "optim.epochs=1")
    wait_until(lambda: hangs(run), "it waits for data")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    state = load_checkpoint(run / "checkpoints")
    assert (state["step"], state["validated"]) == (8, False)


def test_ctrl_c_reaches_every_process_of_the_terminal_and_only_the_run_itself_answers(block, tmp_path):
    run = tmp_path / "run"
    process = start_training(block("val"), run, "optim.epochs=1", "data.workers=2")

    def workers():
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]

    wait_until(lambda: len(workers()) == 4, "validation has workers beside those of training")
    wait_until(lambda: hangs(run), "one of them waits for a clip")
    for pid in (*workers(), process.pid):
        os.kill(pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.count("saving, then stopping") == 1
    assert "Traceback" not in said
    assert read_json(run / "outcome.json")["outcome"] == "interrupted"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_process_forked_from_the_run_leaves_a_first_signal_to_it_and_obeys_a_second(tmp_path, signum):
    with Run(tmp_path / "run", {"run_id": "r"}) as run, run.interruptible(True):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        os.kill(child.pid, signum)
        time.sleep(0.3)
        assert child.is_alive()
        # Two that arrive at once count as one.
        wait_until(lambda: os.kill(child.pid, signum) or not child.is_alive(), "a second one ends it")
        assert child.exitcode == -signum
        assert run.signal == 0


def test_a_run_that_stands_still_ends_as_stalled_and_says_where_it_stood(block, tmp_path):
    run = tmp_path / "run"
    process = start_training(block("train"), run, "stall_minutes=0.1", "data.workers=0")
    process.communicate(timeout=120)
    outcome = read_json(run / "outcome.json")
    assert (process.returncode, outcome["outcome"]) == (1, "failed")
    assert outcome["reason"].startswith("stalled: no progress for 0.1 minutes while training")
    assert "clipfile.py" in (run / "log.txt").read_text()


def test_a_second_signal_ends_at_once_and_harms_nothing(corpus, tmp_path):
    run = tmp_path / "run"
    process = start_training(corpus, run, "optim.epochs=50")
    wait_until(lambda: (read_json(run / "status.json") or {}).get("step", 0) > 8, "the first epoch is over")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode in (143, -signal.SIGTERM)
    assert load_checkpoint(run / "checkpoints")["step"] >= 8
