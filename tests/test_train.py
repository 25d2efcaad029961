"""Training learns, repeats itself bit for bit, and loses nothing when it is stopped. Run: pytest tests/test_train.py"""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from toys import fit_words, make_corpus, start_training, wait_until

from manifests.errors import UserError
from trainer.__main__ import main
from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.run import Run, differences, read_json, read_metrics


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("toys"))


def fit(corpus, run, *settings):
    return main(fit_words(corpus, run, *settings))


def weights(run):
    return load_file(run / "model.safetensors")


def assert_same_weights(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "trained"
    assert fit(corpus, run, "optim.epochs=12") == 0
    return run


def test_slowfast_tells_apart_what_differs_only_in_time(trained):
    assert read_json(trained / "evaluation.json")["overall"]["uar"] >= 0.9


def test_a_single_frame_model_cannot(corpus, tmp_path):
    assert fit(corpus, tmp_path / "run", "optim.epochs=4", "model.arch=single_frame") == 0
    assert read_json(tmp_path / "run" / "evaluation.json")["overall"]["uar"] <= 0.75


def test_the_run_directory_holds_what_the_contract_names(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "run.json", "status.json", "metrics.jsonl", "log.txt", "checkpoints", "model.safetensors", "evaluation.json",
        "predictions.csv", "attention.json", "report.html", "model_card.md", "outcome.json",
    }  # fmt: skip
    assert read_json(trained / "outcome.json")["outcome"] == "finished"
    assert "epoch 12/12  loss" in (trained / "log.txt").read_text(encoding="utf-8")
    some = {"clips": 16, "actors": 2}
    assert read_json(trained / "run.json")["manifest"]["counts"]["test"] == some | {"datasets": {"ravdess": some}}
    lines = read_metrics(trained)
    assert [line["epoch"] for line in lines if line["kind"] == "evaluation"] == list(range(12))
    assert [line["step"] for line in lines if line["kind"] == "step"] == list(range(10, 97, 10))


def test_the_report_that_a_run_writes_tells_its_whole_time(trained):
    html = (trained / "report.html").read_text(encoding="utf-8")
    assert re.search(r"In all until now, pauses left out</\w+>\s*<\w+>\d", html)


def test_the_time_of_a_start_that_was_killed_counts(tmp_path):
    facts = {"run_id": "r"}
    first = Run(tmp_path, facts)
    first.__enter__()
    time.sleep(0.3)
    first.report("training", force=True)  # and killed: outcome.json is never written
    with Run(tmp_path, facts):
        pass
    assert read_json(tmp_path / "outcome.json")["seconds"] >= 0.3


def test_a_finished_run_is_not_done_again(trained, corpus, capsys):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    assert fit(corpus, trained, "optim.epochs=12") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_a_run_directory_of_other_settings_is_refused_with_the_difference(trained, corpus, capsys):
    assert fit(corpus, trained, "optim.epochs=12", "optim.lr=1e-3") == 2
    assert "holds another run: config.optim.lr is 0.005 there and 0.001 here" in capsys.readouterr().err


def test_a_start_that_was_refused_leaves_its_directory_to_the_next(corpus, tmp_path, monkeypatch):
    with monkeypatch.context() as without:
        without.setattr(torch.cuda, "is_available", lambda: False)
        assert fit(corpus, tmp_path, "device=cuda", "seed=7") == 2
    assert fit(corpus, tmp_path, "optim.epochs=1") == 0
    assert read_json(tmp_path / "run.json")["config"]["device"] == "cpu"


def test_all_that_two_runs_differ_in_is_named_up_to_three():
    old = {"config": dict.fromkeys("abcde", 1), "seed": 1, "labels": ["x"]}
    assert differences(old, old | {"seed": 2}) is None  # it stands in the config too
    assert (
        differences(old, old | {"config": {"a": 2, "b": 1, "c": 1, "d": 1, "e": 1}}) == "config.a is 1 there and 2 here"
    )
    told = differences(old, old | {"config": dict.fromkeys("abcde", 2)})
    assert told is not None
    assert told.endswith("config.c is 1 there and 2 here, and 2 more")


def test_a_checkpoint_of_another_run_is_refused_with_the_difference(trained, corpus, tmp_path, capsys):
    shutil.copytree(trained / "checkpoints", tmp_path / "run" / "checkpoints")
    assert fit(corpus, tmp_path / "run", "optim.epochs=12", "model.se_ratio=null") == 2
    assert "are those of another run: config.model.se_ratio is 0.0625 there and None here" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(corpus, tmp_path):
    for name, seed, workers in (("a", 1, 0), ("b", 1, 2), ("c", 2, 0)):
        settings = ("optim.epochs=1", f"seed={seed}", f"data.workers={workers}")
        assert fit(corpus, tmp_path / name, *settings) == 0
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert any(not torch.equal(v, weights(tmp_path / "c")[k]) for k, v in weights(tmp_path / "a").items())


def wait_for_step(run, step):
    wait_until(lambda: (read_json(run / "status.json") or {}).get("step", 0) >= step, f"step {step} is done")


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert fit(corpus, run, "optim.epochs=4") == 0
    return run


@pytest.mark.parametrize(
    ("signum", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "interrupted")]
)
def test_a_signal_saves_and_ends_and_the_next_start_gives_the_same_weights(
    corpus, tmp_path, undisturbed, signum, code, word
):
    run = tmp_path / "run"
    process = start_training(corpus, run, "optim.epochs=4")
    wait_for_step(run, 3)
    process.send_signal(signum)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in said
    assert read_json(run / "outcome.json")["outcome"] == word
    assert load_checkpoint(run / "checkpoints")["step"] < 32
    assert fit(corpus, run, "optim.epochs=4") == 0
    assert_same_weights(run, undisturbed)


def test_a_killed_run_goes_on_with_other_workers_to_the_same_weights_and_no_metric_missing_or_double(
    corpus, tmp_path, undisturbed
):
    run = tmp_path / "run"
    process = start_training(corpus, run, "optim.epochs=4")
    wait_for_step(run, 18)
    process.kill()
    process.communicate(timeout=30)
    assert not (run / "outcome.json").exists()
    assert fit(corpus, run, "optim.epochs=4", "data.workers=2") == 0
    assert_same_weights(run, undisturbed)
    timeless = [
        [
            {k: v for k, v in line.items() if k not in ("time", "clips_per_second", "data_wait")}
            for line in read_metrics(r)
        ]
        for r in (run, undisturbed)
    ]
    assert timeless[0] == timeless[1]


def test_a_loss_that_is_no_number_stops_the_run_with_one_sentence(corpus, tmp_path, capsys):
    assert fit(corpus, tmp_path / "run", "optim.lr=1e30", "optim.backbone_lr=1e30", "optim.warmup=0") == 2
    assert "lower optim.lr" in capsys.readouterr().err
    assert read_json(tmp_path / "run" / "outcome.json")["outcome"] == "failed"


def test_a_gpu_that_is_absent_is_never_silently_the_cpu(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert fit(corpus, tmp_path / "run", "device=cuda") == 2
    assert "torch sees no GPU here" in capsys.readouterr().err


def test_compiling_without_a_compiler_is_told_before_anything_is_learned(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert fit(corpus, tmp_path / "run", "optim.compile=true") == 2
    assert "needs g++ or clang++, and neither is here" in capsys.readouterr().err
    assert read_json(tmp_path / "run" / "outcome.json")["outcome"] == "failed"


def test_more_videos_in_a_batch_than_there_are_is_refused(corpus, tmp_path, capsys):
    assert fit(corpus, tmp_path / "run", "data.batch=64") == 2
    assert "lower data.batch" in capsys.readouterr().err


def test_a_torn_checkpoint_gives_way_to_the_one_before(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, f"step-{step:08d}", {"step": step})
    assert len(list(tmp_path.glob("step-*.pt"))) == 2
    newest = tmp_path / "step-00000003.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert load_checkpoint(tmp_path)["step"] == 2
    (tmp_path / "step-00000002.pt").unlink()
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(tmp_path)


def test_a_kill_while_writing_a_checkpoint_leaves_the_one_before(tmp_path):
    program = (
        "import sys, pathlib, torch\n"
        "from trainer.checkpoint import save_checkpoint\n"
        "folder, step = pathlib.Path(sys.argv[1]), 0\n"
        "while True:\n"
        "    step += 1\n"
        "    state = {'step': step, 'weights': torch.full((200_000,), float(step))}\n"
        "    save_checkpoint(folder, f'step-{step:08d}', state)\n"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
        while not (tmp_path / "last.json").exists():
            time.sleep(0.05)
        time.sleep(0.3)
        process.kill()
        process.wait()
        state = load_checkpoint(tmp_path)
        assert (state["weights"] == state["step"]).all()


def test_a_checkpoint_that_would_run_code_is_refused_unrun(tmp_path):
    class Code:
        def __reduce__(self):
            return (tmp_path / "ran").mkdir, ()

    save_checkpoint(tmp_path, "step-00000001", {"step": 1, "of": Code()})
    with pytest.raises(UserError, match=r"step-00000001\.pt is no checkpoint of ours"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_what_a_killed_writer_left_half_written_goes_when_the_run_goes_on(tmp_path):
    program = (
        "import sys, time, pathlib\n"
        "from manifests.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(bytes(1000))\n"
        "    time.sleep(60)\n"
    )
    facts = {"run_id": "r"}
    files = (tmp_path / "model.safetensors", tmp_path / "checkpoints" / "step-00000001.pt")

    def left():
        return [path for path in tmp_path.rglob(".tmp-*") if path.stat().st_size]

    with Run(tmp_path, facts):
        pass
    for count, file in enumerate(files, 1):
        process = subprocess.Popen([sys.executable, "-c", program, str(file)])
        wait_until(lambda count=count: len(left()) == count, "the file is half written")
        process.kill()
        process.wait()
    with Run(tmp_path, facts, leader=False):
        assert len(left()) == 2
    of_another = tmp_path / ".tmp-machine.json"  # which is being written, and about to get its name
    of_another.write_text("{")
    with Run(tmp_path, facts):
        assert left() == [of_another]


def test_status_is_always_whole_json(trained):
    status = json.loads((trained / "status.json").read_text())
    assert status["phase"] == "finished"
    assert status["step"] == status["steps"] == 96
