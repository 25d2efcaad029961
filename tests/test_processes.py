"""Two processes under torchrun learn and judge what one does.

Real processes over gloo; each start takes seconds, so there are few.
"""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import steps
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toys import TINY, fit_words, make_corpus, wait_until

from manifests.clips import ClipStore
from manifests.table import read_manifest, write_manifest
from trainer.__main__ import main
from trainer.config import change_config
from trainer.dataset import TestViews
from trainer.inference import load_model, predict_views
from trainer.losses import video_loss
from trainer.networks import create_model
from trainer.processes import Processes, meet
from trainer.run import read_json, read_metrics
from trainer.workflow import choose_clips

# What two processes compute as one does: BatchNorm over half a batch is another function, each drops out by itself, and
# AdamW divides a gradient by its own size, so that where there is hardly any the last bit decides.
ALIKE = ("optim.batchnorm=frozen", "model.dropout=0", "optim.name=sgd", "optim.epochs=4", "evaluation.robustness=true")
TIMES = ("seconds", "clips_per_second", "seconds_per_video", "time", "data_wait")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """An odd number of videos to validate and to test on: no two processes can share them evenly."""
    manifest, clips = make_corpus(tmp_path_factory.mktemp("toys"))
    known = read_manifest(manifest)
    odd = known.rows.drop([known.rows.index[known.rows["split"] == split][0] for split in ("val", "test")])
    facts = {key: known.facts[key] for key in ("labels", "leaky", "synthetic")}
    write_manifest(manifest, odd.reset_index(drop=True), facts)
    return manifest, clips


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    """ALIKE, with weights to start from: only they have statistics to freeze."""
    config = change_config({"model": {"arch": "slowfast", "depth": 18}}, TINY)
    torch.manual_seed(0)
    model = create_model(2, **config.model.model_dump(exclude={"pretrained"}))
    path = tmp_path_factory.mktemp("weights") / "pretrained.pth"
    torch.save({name.removeprefix("net."): value for name, value in model.state_dict().items()}, path)
    return (*ALIKE, f"model.pretrained={path}")


@pytest.fixture(scope="module")
def one(corpus, alike, tmp_path_factory):
    run = tmp_path_factory.mktemp("one") / "run"
    assert main(fit_words(corpus, run, *alike)) == 0
    return run


def start_two(words, *options, program=("-m", "--", "trainer")):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *options]
    return subprocess.Popen(
        [sys.executable, *torchrun, *program, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def two(corpus, alike, tmp_path_factory):
    run = tmp_path_factory.mktemp("two") / "run"
    process = start_two(fit_words(corpus, run, *alike))
    said, complained = process.communicate(timeout=240)
    assert process.returncode == 0, complained
    assert said.count("slowfast: UAR ") == 1
    return run


def timeless(value):
    """The same figures without those that the clock made."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in (*TIMES, "weights_sha256")}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def assert_close(first, second, path="", tolerance=1e-5):
    assert type(first) is type(second), path
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first:
            assert_close(first[key], second[key], f"{path}.{key}", tolerance)
    elif isinstance(first, list):
        assert len(first) == len(second), path
        for place, pair in enumerate(zip(first, second, strict=True)):
            assert_close(*pair, f"{path}[{place}]", tolerance)
    else:
        assert first == (pytest.approx(second, abs=tolerance) if isinstance(first, float) else second), path


def test_two_processes_learn_and_judge_as_one_does(one, two):
    assert len(pd.read_csv(two / "predictions.csv")) == 15
    assert read_json(two / "run.json")["processes"] == 2
    assert_close(timeless(read_json(one / "evaluation.json")), timeless(read_json(two / "evaluation.json")))
    ours, theirs = (pd.read_csv(run / "predictions.csv", index_col="clip_id") for run in (one, two))
    pd.testing.assert_frame_equal(ours, theirs, rtol=0, atol=1e-5)
    for ours, theirs in zip(read_metrics(one), read_metrics(two), strict=True):
        assert_close(timeless(ours), timeless(theirs))
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}


def test_batchnorms_statistics_are_the_same_in_both_and_what_is_validated_is_what_is_kept(corpus, tmp_path):
    run = tmp_path / "run"
    process = start_two(fit_words(corpus, run, "optim.epochs=1"))
    complained = process.communicate(timeout=240)[1]
    assert process.returncode == 0, complained
    model, metadata = load_model(run / "model.safetensors", "cpu")
    val = choose_clips(read_manifest(corpus[0]), ClipStore(corpus[1]))[0]["val"]
    data = metadata["data"]
    views = TestViews(val, frames=data["frames"], span=data["span"], size=data["size"], views=1)
    logits = predict_views(model, views, torch.device("cpu"), arch="slowfast", batch=4, workers=0, flip=False)
    smoothing = read_json(run / "run.json")["config"]["optim"]["label_smoothing"]
    # Both classes have as many training clips, so that class weights change nothing.
    loss = video_loss(logits, torch.as_tensor(val.labels), class_weights=None, label_smoothing=smoothing, consistency=0)
    told = [line["loss"] for line in read_metrics(run) if line["kind"] == "evaluation"]
    assert told[-1] == pytest.approx(loss.item(), abs=1e-5)


@pytest.fixture(scope="module")
def stepped(tmp_path_factory):
    """What one process and two keep after three steps with these settings, in so many pieces."""

    def take(world, pieces, *settings):
        out = tmp_path_factory.mktemp("stepped")
        words = [str(out), str(pieces), *settings]
        if world == 1:
            steps.main(words)
        else:
            process = start_two(words, program=(steps.__file__,))
            complained = process.communicate(timeout=120)[1]
            assert process.returncode == 0, complained
        return [torch.load(out / f"{rank}.pt") for rank in range(world)]

    return take


def test_both_processes_keep_the_mean_of_what_batchnorm_measured_in_each(stepped):
    slow = ("optim.lr=1e-7", "optim.backbone_lr=1e-7")  # so that only what is measured tells them apart
    first, second = stepped(2, 1, *slow)
    for part in ("model", "average"):
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items())
    # Of equal shares the means add up to that of the whole; at the first layer both saw what one would have seen.
    (alone,) = stepped(1, 1, *slow)
    name = next(name for name in alone["model"] if name.endswith("running_mean"))
    assert first["model"][name].abs().max() > 1e-3
    torch.testing.assert_close(first["model"][name], alone["model"][name], rtol=1e-4, atol=1e-6)


def test_gradients_travel_once_a_step_in_however_many_pieces_and_the_weights_are_those_of_one_process(stepped):
    settings = ("optim.batchnorm=frozen", "model.pretrained=kinetics400", "optim.name=sgd")
    (alone,) = stepped(1, 1, *settings)
    whole, pieces = stepped(2, 1, *settings), stepped(2, 2, *settings)
    assert pieces[0]["exchanges"] == whole[0]["exchanges"] > 0
    for name, value in alone["model"].items():
        torch.testing.assert_close(whole[0]["model"][name], value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(pieces[0]["model"][name], value, rtol=1e-4, atol=1e-6)
        assert torch.equal(pieces[0]["model"][name], pieces[1]["model"][name])


def test_two_processes_run_the_folds_of_a_protocol_together_and_one_of_them_pools(corpus, tmp_path):
    manifest, clips = corpus
    inputs = ["--protocol", "actors", "--folds", "2", "--config", "demo.yaml", "--manifest", str(manifest)]
    words = ["crossval", *inputs, "--clips", str(clips), "--out", str(tmp_path / "cv"), *TINY, "optim.epochs=1"]
    process = start_two(words)
    said, complained = process.communicate(timeout=240)
    assert process.returncode == 0, complained
    assert len(pd.read_csv(tmp_path / "cv" / "predictions.csv")) == len(read_manifest(manifest).rows)
    assert said.count("report: ") == 2  # one for each fold
    assert said.count("page: ") == 1


def test_a_run_whose_process_is_killed_is_taken_up_again_by_all_of_them(corpus, alike, tmp_path):
    run = tmp_path / "run"
    process = start_two(fit_words(corpus, run, *alike), "--max-restarts=3")
    try:
        wait_until(lambda: (read_json(run / "status.json") or {}).get("step", 0) >= 9, "the second epoch has begun")
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(workers[1]), signal.SIGKILL)
        complained = process.communicate(timeout=240)[1]
        assert process.returncode == 0, complained
    finally:
        process.kill()
    steps = [line["step"] for line in read_metrics(run) if line["kind"] == "step"]
    assert steps == sorted(set(steps))
    assert read_json(run / "outcome.json")["outcome"] == "finished"


@given(early=st.lists(st.integers(0, 2), unique=True, max_size=3))
@settings(deadline=None, max_examples=10)
def test_processes_that_start_again_share_a_word_that_none_of_the_dead_knew(early):
    """Those in `early` are there before the others, and find in the store what the dead have left."""
    store, world = dist.HashStore(), 3
    words = []
    for _ in range(3):
        with ThreadPoolExecutor(world) as pool:
            jobs = [pool.submit(meet, store, rank, world) for rank in early]
            time.sleep(0.05)
            jobs += [pool.submit(meet, store, rank, world) for rank in range(world) if rank not in early]
            agreed = {job.result(timeout=60) for job in jobs}
        assert len(agreed) == 1
        words += agreed
    assert len(set(words)) == 3


class Mean(nn.Module):
    """As logits the means over each colour."""

    def forward(self, clips):
        return clips.mean(dim=(2, 3, 4))


class Films(torch.utils.data.Dataset):
    """Two views of a film whose pixels are its number; remembers who was looked at."""

    def __init__(self, count):
        self.count, self.seen = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        self.seen.append(row)
        return torch.full((2, 2, 3, 1, 1), row, dtype=torch.uint8), row


class Apart(Processes):
    """One of several processes that are run one after the other; keeps what it would have sent."""

    def gather_shares(self, rows, total):
        self.__dict__["sent"] = rows
        return rows


@settings(deadline=None)
@given(total=st.integers(1, 25), world=st.integers(1, 6), batch=st.integers(1, 4))
def test_every_video_is_looked_at_once_by_one_process_and_all_are_told_equally_often(total, world, batch):
    films = Films(total)
    how = {"arch": "r3d18", "batch": batch, "workers": 0, "flip": False}
    alone = predict_views(Mean(), Films(total), torch.device("cpu"), **how)
    told, whole = [], torch.full_like(alone, float("nan"))
    for rank in range(world):
        process, calls = Apart(rank, world), []
        predict_views(Mean(), films, torch.device("cpu"), **how, each=calls.append, processes=process)
        if len(process.sent):
            whole[rank::world] = process.sent
        told.append(len(calls))
        assert calls[-1] == total or rank
        assert np.all(np.diff(calls) >= 0)
    assert sorted(films.seen) == list(range(total))
    assert len(set(told)) == 1
    torch.testing.assert_close(whole, alone)
