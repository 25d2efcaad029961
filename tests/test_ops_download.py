"""make download: a run that has ended, over real HTTP with faults in between. Run: pytest tests/test_ops_download.py"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud import Cloud
from faults import Proxy, proxy
from moving import do, end_by, start, wait_for
from watching import Stage, iso, machine, request, stage, status

from infra.box.transfer import Bucket
from infra.ops import download

RUN = "2026-01-31-184502-slowfast-face"
SCORES = {"overall": {"uar": 0.6432, "uar_interval": [0.6, 0.681], "war": 0.65}}
FINISHED = {"outcome": "finished", "reason": "all stages are done", "exit_code": 0, "last_lines": []}
FILES: dict[str, bytes] = {
    "report.html": b"<html>" + bytes(70_000),
    "model.safetensors": os.urandom(1_000_000),
    "evaluation.json": json.dumps(SCORES).encode(),
    "metrics.jsonl": b'{"loss": 1}\n' * 1000,
    "output.txt": b"line\n" * 1000,
    "model_card.md": b"# card\n",
    "empty.txt": b"",
}
CHECKPOINTS: dict[str, bytes] = {
    "checkpoints/last.json": b'[{"file": "step-2.pt"}]',
    "checkpoints/step-1.pt": b"old",
    "checkpoints/step-2.pt": b"last",
    "checkpoints/best.safetensors": b"best",
}


@pytest.fixture
def faulty(aws: Cloud) -> Iterator[Proxy]:
    with proxy(aws.url) as made:
        yield made


@pytest.fixture
def here(aws: Cloud, faulty: Proxy, tmp_path: Path) -> Iterator[Stage]:
    with stage(aws, tmp_path, faulty.url) as made:
        yield made


def put_run(here: Stage, run_id: str = RUN, outcome: dict[str, Any] | None = FINISHED, **files: bytes) -> None:
    """A run as the courier leaves it: every file with its sha256, outcome.json last."""
    here.put_run(run_id, machine=machine(phase="ended"), status=status(phase="finished"))
    bucket = Bucket(here.outputs.bucket, here.aws.client("s3"))
    for name, data in (FILES | CHECKPOINTS | files).items():
        bucket.write(f"runs/{run_id}/{name}", data)
    if outcome:
        bucket.write(f"runs/{run_id}/outcome.json", json.dumps(outcome).encode())


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_comes_whole_without_its_checkpoints_and_a_second_call_brings_nothing(
    here: Stage, faulty: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_run(here)
    code, out, err = do(here, monkeypatch, "download")
    assert code == 0, err
    folder = here.folder / "runs" / RUN
    brought = files_in(folder)
    assert brought.keys() == FILES.keys() | {"request.json", "machine.json", "status.json", "outcome.json"}
    assert all(brought[name] == data for name, data in FILES.items())
    assert out.splitlines() == [
        f"run     {RUN}, finished",
        f"folder  runs/{RUN}",
        f"report  runs/{RUN}/report.html",
        f"model   runs/{RUN}/model.safetensors",
        f"card    runs/{RUN}/model_card.md",
        f"log     runs/{RUN}/output.txt",
        "result  UAR 64.3% (95 % interval 60.0% to 68.1%), WAR 65.0%",
    ]
    faulty.seen.clear()
    assert do(here, monkeypatch, "download")[0] == 0
    # the stack's outputs; the active run, the runs, whether it was trained; its four objects, active again; its listing
    assert len(faulty.seen) == 10
    assert not any("report.html" in seen.path for seen in faulty.seen)


def test_all_brings_the_checkpoints_that_one_can_go_on_from(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    put_run(here)
    out = here.folder / "my $(results) 'dir'"
    code, told, _ = do(here, monkeypatch, "download", "--run", RUN, "--all", "--json", "--out", str(out))
    assert code == 0
    tree = json.loads(told)
    assert (tree["run"], tree["state"], tree["uar"], tree["folder"]) == (RUN, "finished", 0.6432, str(out / RUN))
    assert files_in(out / RUN).keys() & CHECKPOINTS.keys() == CHECKPOINTS.keys() - {"checkpoints/step-1.pt"}


@pytest.mark.parametrize(
    ("active", "outcome", "phase", "sentence"),
    [
        (True, None, "training", f"error: run {RUN} goes on (training, epoch 3 of 10); `make logs` tells its end, "),
        (
            True,
            FINISHED | {"outcome": "interrupted"},
            "training",
            f"error: run {RUN} goes on (training, epoch 3 of 10); ",
        ),
        (False, None, "handing in", f"error: run {RUN} goes on (interrupted, epoch 3 of 10); "),
        (
            False,
            None,
            "ended",
            f"error: run {RUN} was interrupted, and no machine works on it; `make resume RUN={RUN}`",
        ),
        (False, FINISHED | {"outcome": "interrupted"}, "ended", f"error: run {RUN} was interrupted, and no machine "),
    ],
)
def test_a_run_that_has_not_ended_is_refused_unless_what_there_is_will_do(
    here: Stage, monkeypatch: pytest.MonkeyPatch, active: bool, outcome: Any, phase: str, sentence: str
) -> None:
    put_run(here, outcome=outcome)
    here.put_run(RUN, machine=machine(phase=phase), status=status())
    if outcome:
        here.put(f"runs/{RUN}/outcome.json", outcome)
    if active:
        here.activate(RUN)
    code, out, err = do(here, monkeypatch, "download", "--run", RUN)
    assert (code, out) == (2, "")
    assert err.startswith(sentence)
    assert err.endswith("PARTIAL=1 fetches what there is\n")
    assert not (here.folder / "runs").exists()
    assert do(here, monkeypatch, "download", "--run", RUN, "--partial")[0] == 0
    assert (here.folder / "runs" / RUN / "report.html").exists()


@pytest.mark.parametrize("outcome", ["failed", "stopped"])
def test_a_run_that_has_ended_otherwise_comes_with_its_reason(
    here: Stage, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    put_run(here, outcome=FINISHED | {"outcome": outcome, "reason": "the disk was full"})
    code, out, _ = do(here, monkeypatch, "download")
    assert (code, out.splitlines()[0]) == (0, f"run     {RUN}, {outcome}: the disk was full")


def test_a_run_that_is_not_there_and_a_bucket_without_runs_are_sentences(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run_id, told in ((RUN, f"error: there is no run {RUN} in"), ("$(rm -rf .)", "error: '$(rm -rf .)' is no run")):
        code, _, err = do(here, monkeypatch, "download", "--run", run_id)
        assert (code, err.startswith(told)) == (2, True)
    assert do(here, monkeypatch, "download")[2].endswith("holds no trained run yet; `make train` starts one\n")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_ended_amid_a_file_it_goes_on_where_it_stood(here: Stage, faulty: Proxy, how: signal.Signals) -> None:
    size, held = 24_000_000, 15_000_000
    data = os.urandom(1000) * (size // 1000)
    put_run(here, **{"model.safetensors": data})
    faulty.hold = held
    process = start(here, "download")
    folder = here.folder / "runs" / RUN

    def parts() -> list[int]:
        return [part.stat().st_size for part in folder.rglob(".part-*")]

    wait_for(lambda: max(parts(), default=0) > held - 2 * 2**20, "the first half")
    code, said = end_by(process, how, faulty)
    assert code == (-9 if how is signal.SIGKILL else 130)
    assert "Traceback" not in said
    assert not (folder / "model.safetensors").exists()
    here_already = max(parts())  # one that was small may have been cut off too
    faulty.given = 0
    assert start(here, "download").wait(60) == 0
    assert (folder / "model.safetensors").read_bytes() == data
    assert files_in(folder).keys() & FILES.keys() == FILES.keys()
    assert not parts()
    small = sum(len(each) for name, each in FILES.items() if name != "model.safetensors")
    assert faulty.given < size - here_already + small + 2**20


@pytest.mark.parametrize("mode", ["503", "cut"])
def test_an_s3_that_is_away_or_cuts_for_a_while_is_waited_for(here: Stage, faulty: Proxy, mode: str) -> None:
    put_run(here)
    faulty.mode, faulty.only = mode, f"/{RUN}/model"
    process = start(here, "download")
    wait_for(lambda: faulty.refused >= 4, "trouble")
    faulty.mode = "pass"
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    brought = files_in(here.folder / "runs" / RUN)
    assert all(brought[name] == data for name, data in FILES.items())
    assert not [name for name in brought if ".part" in name]


def test_expired_credentials_end_it_at_once_with_the_cure(here: Stage, faulty: Proxy) -> None:
    put_run(here)
    faulty.mode, faulty.only = "expired", f"/{RUN}/model"
    process = start(here, "download")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.endswith(
        "error: your AWS credentials have expired; `aws sso login` renews them (or fetch new keys), then run it again\n"
    )
    assert not (here.folder / "runs" / RUN / "model.safetensors").exists()


def test_what_is_damaged_in_the_bucket_is_said_and_never_gets_its_name(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_run(here)
    key, wrong = f"runs/{RUN}/model.safetensors", {"sha256": "0" * 64}
    here.aws.client("s3").put_object(Bucket=here.outputs.bucket, Key=key, Body=b"other", Metadata=wrong)
    code, _, err = do(here, monkeypatch, "download")
    assert code == 2
    assert err.endswith(
        f"error: {key} did not arrive as it was sent, and so each time; what lies in the bucket is damaged\n"
    )
    assert not (here.folder / "runs" / RUN / "model.safetensors").exists()


def test_keys_that_would_leave_the_folder_are_named_and_left_out(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    put_run(here)
    for name in ("../evil", "x/../../evil", "folder/"):
        here.put(f"runs/{RUN}/{name}", b"evil")
    code, _, err = do(here, monkeypatch, "download")
    assert code == 0
    assert err.count("is no name of a file") == 2
    assert not list(here.folder.rglob("evil"))


def test_a_folder_that_cannot_be_written_and_a_full_disk_are_sentences(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_run(here)
    (here.folder / "file").write_text("")
    code, _, err = do(here, monkeypatch, "download", "--out", str(here.folder / "file"))
    assert (code, len(err.splitlines())) == (2, 1)
    assert "cannot write to" in err
    monkeypatch.setattr(download, "KEPT_FREE", 2**60)
    code, _, err = do(here, monkeypatch, "download")
    assert (code, "GB are needed; make room there, or say OUT=DIR" in err) == (2, True)


@pytest.mark.parametrize(
    ("screen", "asked", "opened"),
    [({"DISPLAY": ":0"}, (), True), ({"DISPLAY": ":0"}, ("--no-open",), False), ({}, (), False)],
)
def test_the_report_opens_where_there_is_a_screen_unless_it_shall_not(
    here: Stage, monkeypatch: pytest.MonkeyPatch, screen: dict[str, str], asked: tuple[str, ...], opened: bool
) -> None:
    put_run(here)
    shown: list[str] = []
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in screen.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(download.sys, "platform", "linux")
    monkeypatch.setattr(download, "is_terminal", lambda: True)
    monkeypatch.setattr(download.webbrowser, "open", shown.append)
    assert do(here, monkeypatch, "download", *asked)[0] == 0
    assert shown == ([(here.folder / "runs" / RUN / "report.html").as_uri()] if opened else [])


def test_of_several_runs_the_newest_is_meant_or_the_active_one(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for run_id in ("2026-01-01-000000-a", "2026-02-01-000000-b"):
        put_run(here, run_id)
    assert do(here, monkeypatch, "download")[1].startswith("run     2026-02-01-000000-b")
    here.put_run("2026-03-01-000000-c", machine=machine(phase="bringing", time=iso()))
    here.activate("2026-03-01-000000-c")
    assert "run 2026-03-01-000000-c goes on (bringing)" in do(here, monkeypatch, "download")[2]


def test_what_made_a_manifest_or_clips_is_no_run_to_fetch(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    put_run(here, "2026-01-01-000000-trained")
    for task in ("manifest", "prepare"):
        here.put(f"runs/2026-02-01-000000-{task}-all/request.json", request(task=task))
    here.put("runs/2026-03-01-000000-half/output.txt", "no request was ever written")
    here.activate("2026-02-01-000000-prepare-all")
    code, out, err = do(here, monkeypatch, "download")
    assert code == 0, err
    assert out.startswith("run     2026-01-01-000000-trained, finished\n")
