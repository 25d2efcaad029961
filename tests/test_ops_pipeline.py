"""make manifest, make prepare and make pipeline: what a machine does for them is played here, all else is real.

Run: pytest tests/test_ops_pipeline.py
"""

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from operators import Desk, Office
from watching import forbidden

from infra.box.request import read_request
from infra.box.tasks import PREPARED, made_of
from infra.box.transfer import Bucket
from infra.ops import agent, arrival, chore, download, logs, pipeline

FACTS = {
    "counts": {"train": {"ravdess": {"angry": 3, "happy": 4}, "crema": {"angry": 2}}, "test": {"ravdess": {"sad": 1}}},
    "actors": {"train": ["ravdess_01", "crema_1001"], "test": ["ravdess_02"]},
    "rejected": {"twin of a kept take": 18},
    "notes": ["val is empty"],
}
EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")


class Machine(threading.Thread):
    """A machine that takes up whatever run is active and does at once what the courier would; `ends` says how."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(daemon=True)
        self.desk, self.over = desk, threading.Event()
        self.done: list[dict[str, Any]] = []
        self.ends: Callable[[str], str] = lambda task: "finished"
        self.before: Callable[[str], None] = lambda task: None

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.desk.online[:] = self.desk.machines()
            active = self.desk.active()
            if active and self.desk.online and self.desk.get(f"runs/{active}/request.json"):
                self.work(active)

    def work(self, run_id: str) -> None:
        text = self.desk.get(f"runs/{run_id}/request.json") or b""
        request, tree = read_request(text), json.loads(text)  # raises if a machine would refuse it
        self.before(request.task)
        self.desk.put(f"runs/{run_id}/output.txt", f"{request.task} says hello\n")
        end = self.ends(request.task)
        if end == "finished":
            getattr(self, request.task)(request, run_id)
        self.done.append(tree | {"run": run_id})
        self.desk.hands_in(run_id, end, f"so the machine said of {request.task}")

    def manifest(self, request: Any, _: str) -> None:
        self.desk.put(request.manifest, f"clip_id\n{len(self.done)}\n")
        self.desk.put(request.manifest.replace(".csv", ".json"), FACTS)

    def prepare(self, request: Any, _: str) -> None:
        self.desk.put(request.clips + "one.npz", b"clip")
        self.desk.put(request.clips + "index.csv", 'clip_id,file\na,"x\ny"\nb,y\n')
        self.desk.put(request.clips + "rejected.csv", "clip_id,reason\nc,no face\n")
        self.desk.put(request.clips + PREPARED, self.sources(request))

    def sources(self, request: Any) -> dict[str, str]:
        """As the courier itself notes it."""
        bucket = Bucket(self.desk.outputs.bucket, self.desk.aws.client("s3"))
        station = type("Station", (), {"image": "image@sha256:ab"})
        return made_of(
            type("Duty", (), {"bucket": bucket, "check": staticmethod(lambda: None), "station": station}), request
        )  # type: ignore[arg-type]

    def fit(self, request: Any, run_id: str) -> None:
        self.desk.put(f"runs/{run_id}/report.html", "<html>")
        self.desk.put(f"runs/{run_id}/model.safetensors", "weights")
        scores = {"overall": {"uar": 0.7, "uar_interval": [0.65, 0.75], "war": 0.71}}
        self.desk.put(f"runs/{run_id}/evaluation.json", scores)


@pytest.fixture
def desk(office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for module, name in ((arrival, "LOOK_EVERY"), (agent, "FIRST_PAUSE"), (logs, "QUIET"), (logs, "LOOK_EVERY")):
        monkeypatch.setattr(module, name, 0.1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    desk = office.desk(monkeypatch, tmp_path)
    desk.aws.client("logs").create_log_group(logGroupName=desk.outputs.log_group)
    s3 = desk.aws.client("s3")
    for key in (*desk.keys("manifests/"), *desk.keys("clips/")):
        s3.delete_object(Bucket=desk.outputs.bucket, Key=key)
    return desk


@pytest.fixture
def machine(desk: Desk) -> Iterator[Machine]:
    made = Machine(desk)
    made.start()
    yield made
    made.over.set()
    made.join(30)


@pytest.fixture
def videos(desk: Desk) -> Path:
    """CREMA-D names of three actors and all emotions; whether they can be decoded is the machine's to find out."""
    folder = desk.folder / "the 'videos' $(x)"
    for actor in (1001, 1002, 1003):
        for emotion in EMOTIONS:
            path = folder / "crema" / f"{actor}_DFA_{emotion}_XX.flv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(2000))
    return folder


def do(desk: Desk, verb: str, *arguments: str) -> tuple[int, str, str]:
    """As desk.do, with streams that take bytes too."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        code = importlib.import_module(f"infra.ops.{verb}").main(list(arguments))
    return code, *(stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]


def interrupt(desk: Desk) -> None:
    """Press Ctrl-C while the verb waits for the machine, the run having begun."""
    looks = desk.seen.names["ec2:DescribeInstances"]
    end = time.monotonic() + 60
    while desk.seen.names["ec2:DescribeInstances"] == looks:
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)


def started(desk: Desk) -> Counter[str]:
    """Runs by task, of all that were ever asked for."""
    trees = [desk.tree(f"runs/{run_id}/request.json") for run_id in desk.runs()]
    return Counter(tree.get("task", "fit") for tree in trees)


def put_videos(desk: Desk) -> None:
    desk.put("data/crema/a.flv", b"video")
    desk.put("data/", b"")


def test_a_manifest_is_made_on_a_machine_and_told(desk: Desk, machine: Machine) -> None:
    put_videos(desk)
    code, out, err = do(desk, "manifest", "--yes")
    assert code == 0, err
    assert out.splitlines() == [
        f"s3://{desk.outputs.bucket}/manifests/all/manifest.csv",
        "train  9 takes of 2 actors (7 ravdess, 2 crema)",
        "val    0 takes of 0 actors",
        "test   1 takes of 1 actors (1 ravdess)",
        "left out: 18 twin of a kept take",
        "val is empty",
    ]
    assert "manifest says hello\n" in err
    (asked,) = machine.done
    assert (asked["task"], asked["manifest"], asked["cap_dollars"]) == (
        "manifest",
        "manifests/all/manifest.csv",
        chore.CAP,
    )
    assert desk.is_at_rest()


def test_a_manifest_of_these_very_videos_is_not_made_again_unless_forced(desk: Desk, machine: Machine) -> None:
    put_videos(desk)
    assert do(desk, "manifest", "--yes")[0] == 0
    code, out, err = do(desk, "manifest", "--json")
    assert (code, json.loads(out)["counts"]) == (0, FACTS["counts"])
    assert err.startswith("nothing to do: ")
    desk.put("data/crema/b.flv", b"another")
    assert do(desk, "manifest", "--yes")[0] == 0
    assert do(desk, "manifest", "--yes", "--force")[0] == 0
    assert started(desk) == {"manifest": 3}


def test_clips_are_prepared_once_for_a_manifest_and_its_videos(desk: Desk, machine: Machine) -> None:
    put_videos(desk)
    code, _, err = do(desk, "prepare", "--yes")
    assert (code, "`make manifest` makes it" in err) == (2, True)
    do(desk, "manifest", "--yes")
    code, out, err = do(desk, "prepare", "--yes")
    assert (code, out) == (0, f"s3://{desk.outputs.bucket}/clips/all/\n2 clips, 1 takes without one\n"), err
    code, out, err = do(desk, "prepare", "--json")
    assert (code, json.loads(out)["clips"]) == (0, 2)
    assert err.startswith("nothing to do: ")
    do(desk, "manifest", "--yes", "--force")
    assert do(desk, "prepare", "--yes")[0] == 0
    assert do(desk, "prepare", "--yes", "--force")[0] == 0
    assert started(desk) == {"manifest": 2, "prepare": 3}


def test_without_videos_or_with_a_wrong_word_nothing_starts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, sentence in (
        (("manifest",), "holds no videos; `make data SRC=DIR` brings them"),
        (("manifest", "--manifest", "../x"), "'../x' is no name"),
        (("manifest", "--manifest", "$(x)"), "'$(x)' is no name"),
        (("prepare", "--cap", "much"), "CAP is 'much', not a number above zero"),
    ):
        code, out, err = do(desk, *words)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert sentence in err
    put_videos(desk)
    monkeypatch.setenv("NODES", "2")
    code, _, err = do(desk, "manifest", "--yes")
    assert (code, "one machine does it" in err) == (2, True)
    monkeypatch.setenv("NAME", "fold1")
    code, _, err = do(desk, "manifest", "--yes")
    assert (code, "; MANIFEST=fold1 names the data" in err) == (2, True)
    assert desk.is_at_rest()
    assert not desk.runs()


def test_a_dry_run_tells_the_price_and_starts_nothing(desk: Desk) -> None:
    put_videos(desk)
    code, out, _ = do(desk, "manifest", "--dry-run")
    assert (code, "at most   $3.00" in out) == (0, True)
    assert desk.is_at_rest()
    assert not desk.runs()


def test_whoever_does_not_wait_is_told_the_run_and_finds_its_work_later(
    desk: Desk, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_videos(desk)
    code, out, err = do(desk, "manifest", "--yes", "--no-wait")
    assert (code, [out.strip()]) == (0, desk.runs())
    assert f"run {out.strip()} is on its way; " in err
    code, _, err = do(desk, "manifest")
    assert (code, "is at it already" in err or "nothing to do" in err) == (0, True)
    assert started(desk) == {"manifest": 1}


def test_a_manifest_that_was_made_here_is_brought_if_its_videos_are_there(desk: Desk, videos: Path) -> None:
    table = desk.folder / "my fold.csv"
    line = [sys.executable, "-m", "manifests", "build", "--crema", str(videos / "crema"), "--folds", "3", "--no-verify"]
    subprocess.run([*line, "--root", str(videos), "--out", str(table)], check=True, capture_output=True)
    put_videos(desk)
    code, _, err = do(desk, "manifest", "--local", str(table), "--manifest", "fold1")
    assert (code, "18 of its 18 videos are not in the bucket, such as data/crema/1001_DFA_ANG_XX.flv" in err) == (
        2,
        True,
    )
    assert do(desk, "data", str(videos))[0] == 0
    code, out, err = do(desk, "manifest", "--local", str(table), "--manifest", "fold1")
    assert code == 0, err
    assert out.startswith(
        f"s3://{desk.outputs.bucket}/manifests/fold1/manifest.csv\ntrain  6 takes of 1 actors (6 crema)\n"
    )
    assert desk.get("manifests/fold1/manifest.csv") == table.read_bytes()
    assert desk.get("manifests/fold1/manifest.rejected.csv") == table.with_suffix(".rejected.csv").read_bytes()
    code, _, err = do(desk, "manifest", "--manifest", "fold1")
    assert (code, err.startswith("nothing to do: ")) == (0, True)
    table.write_text(table.read_text() + "x")
    for path in (table, desk.folder / "none.csv", desk.folder):
        code, _, err = do(desk, "manifest", "--local", str(path))
        assert (code, len(err.splitlines())) == (2, 1)
    assert not desk.runs()


def test_one_that_failed_is_told_with_its_reason_and_is_made_at_the_next_call(desk: Desk, machine: Machine) -> None:
    put_videos(desk)
    machine.ends = lambda task: "failed"
    code, _, err = do(desk, "manifest", "--yes")
    assert code == 2
    assert "failed: so the machine said of manifest" in err.splitlines()[-1]
    machine.ends = lambda task: "finished"
    assert do(desk, "manifest", "--yes")[0] == 0
    assert started(desk) == {"manifest": 2}


def test_whoever_leaves_and_comes_again_watches_the_same_run(desk: Desk, machine: Machine) -> None:
    put_videos(desk)
    machine.before = lambda task: interrupt(desk)
    machine.ends = lambda task: time.sleep(2) or "finished"  # type: ignore[func-returns-value]
    code, _, err = do(desk, "manifest", "--yes")
    assert code == 130
    assert "run the same command again to go on" in err
    code, _, err = do(desk, "manifest", "--yes")
    assert code == 0, err
    assert "is at it already" in err or "nothing to do" in err
    assert started(desk) == {"manifest": 1}


def test_the_whole_line_is_one_command_and_a_second_one_does_nothing_again(
    desk: Desk, machine: Machine, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(download, "show", lambda report: shown.append(str(report)))
    code, out, err = do(desk, "pipeline", str(videos), "--config", "demo", "--set", "optim.epochs=2", "--yes")
    assert code == 0, err
    assert [done.get("task", "fit") for done in machine.done] == ["manifest", "prepare", "fit"]
    assert len(desk.keys("data/")) == 18
    run_id = machine.done[-1]["run"]
    assert machine.done[-1]["settings"] == ["optim.epochs=2"]
    folder = desk.folder / "runs" / run_id
    assert shown == [f"runs/{run_id}/report.html"]
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert out.splitlines()[0] == f"run     {run_id}, finished"
    assert out.splitlines()[-1] == "result  UAR 70.0% (95 % interval 65.0% to 75.0%), WAR 71.0%"
    assert forbidden(desk, desk.seen.made) == []
    desk.seen.made.clear()
    code, again, err = do(desk, "pipeline", str(videos), "--config", "demo", "--set", "optim.epochs=2", "--json")
    assert code == 0, err
    assert json.loads(again)["run"] == run_id
    assert started(desk) == {"manifest": 1, "prepare": 1, "fit": 1}
    # outputs; the videos, three times; what tells that manifest, clips and run are made; the run, and its files
    assert desk.seen.names == {"ssm:GetParameter": 1, "s3:ListBucket": 4, "s3:GetObject": 17}
    assert desk.is_at_rest()


def test_the_plan_tells_each_step_and_the_most_it_may_cost_and_nothing_is_done(desk: Desk, videos: Path) -> None:
    code, out, err = do(desk, "pipeline", str(videos), "--dry-run")
    assert code == 0, err
    steps = [line.split()[0] for line in out.splitlines()]
    assert steps == ["data", "manifest", "prepare", "train", "download", "in"]
    assert "in all           at most $16.11" in out
    assert "18 takes of 3 actors" not in out
    assert "18 videos and 0 tables" in err
    code, out, _ = do(desk, "pipeline", str(videos), "--dry-run", "--json")
    assert [step["at_most_dollars"] for step in json.loads(out)] == [0, 3, 3, 10.11, 0]
    assert do(desk, "pipeline", str(videos))[0] == 2  # nobody to ask
    assert desk.is_at_rest()
    assert not desk.runs()
    assert not desk.keys("data/")


def test_what_cannot_become_a_manifest_is_told_before_aws_is_asked(desk: Desk, videos: Path) -> None:
    for path in videos.rglob("*_SAD_*"):
        path.unlink()
    code, _, err = do(desk, "pipeline", str(videos), "--yes")
    assert code == 2
    assert "no manifest can be made of these videos: no take of sad" in err
    (videos / "empty.mp4").write_bytes(b"")
    code, _, err = do(desk, "pipeline", str(videos), "--yes")
    assert (code, "1 videos are broken, as told above" in err) == (2, True)
    code, _, err = do(desk, "pipeline", str(videos), "--yes", "--set", "optim.lrr=1")
    assert (code, "lrr" in err) == (2, True)
    assert not desk.seen.made


@pytest.mark.parametrize("step", ["manifest", "fit"])
def test_left_at_any_step_it_goes_on_there(desk: Desk, machine: Machine, videos: Path, step: str) -> None:
    left: list[str] = []

    def leave(task: str) -> None:
        if task == step and not left:
            left.append(task)
            interrupt(desk)

    machine.before = leave
    line = ("pipeline", str(videos), "--config", "demo", "--yes")
    assert do(desk, *line)[0] == 130
    code, out, err = do(desk, *line)
    assert code == 0, err
    assert started(desk) == {"manifest": 1, "prepare": 1, "fit": 1}
    assert out.startswith(f"run     {machine.done[-1]['run']}, finished\n")


def test_another_run_has_the_stack_is_told_before_anything_is_sent(desk: Desk, videos: Path) -> None:
    desk.tells("other-run", "request.json", {"config": "x", "manifest": "m.csv"})
    desk.put(f"active/{desk.outputs.stack}", "other-run")
    code, _, err = do(desk, "pipeline", str(videos), "--yes")
    assert (code, "run other-run has the stack" in err) == (2, True)
    assert not desk.keys("data/")


def test_a_training_that_was_stopped_is_not_begun_anew(desk: Desk, machine: Machine, videos: Path) -> None:
    machine.ends = lambda task: "stopped" if task == "fit" else "finished"
    line = ("pipeline", str(videos), "--config", "demo", "--yes")
    code, _, err = do(desk, *line)
    assert (code, "`make resume RUN=" in err.splitlines()[-1]) == (2, True)
    code, _, err = do(desk, *line)
    assert (code, "`make resume RUN=" in err.splitlines()[-1]) == (2, True)
    assert started(desk)["fit"] == 1


def test_on_a_terminal_the_monitor_shows_the_training_and_leaving_it_ends_the_line_only(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("sys.stdout", Terminal())
    watched: list[str] = []
    monkeypatch.setattr(pipeline.monitor, "monitor", lambda stack, run_id, **_: watched.append(run_id))
    desk.tells("a-run", "request.json", {"config": "x", "manifest": "m.csv"})
    desk.put(f"active/{desk.outputs.stack}", "a-run")
    with pytest.raises(KeyboardInterrupt):
        pipeline.follow(desk.outputs, "a-run")
    assert desk.active() == "a-run"
    desk.hands_in("a-run", "finished", "all stages are done")
    assert pipeline.follow(desk.outputs, "a-run").state == "finished"
    assert watched == ["a-run"]  # and not again when it was over
