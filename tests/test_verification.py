"""Decoding everything, once, whatever happens meanwhile. Run: .venv/bin/python -m pytest tests/test_verification.py"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from videos import crema_names, encode, ravdess_names, tell_apart

from manifests import verification
from manifests.__main__ import main
from manifests.build import Request, build
from manifests.errors import UserError
from manifests.table import read_manifest
from manifests.verification import CACHE_NAME, verify_files

SHARED = Path(os.environ.get("SLOWFAST_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
NAMES = [
    *(
        name
        for name in ravdess_names(range(1, 4), song=False)
        if name[18:26] == "01-01-01" and name[15:17] not in ("02", "08")
    ),
    *crema_names(range(1001, 1004), sentences=["DFA"], suffix=".mp4"),
]


def plant_videos(root: Path, names: list[str], frames: int = 12, width: int = 64, height: int = 48) -> Path:
    """Real videos under these names, all with the same pictures and each with bytes of its own."""
    pattern = encode(root.parent / "pattern.mp4", frames, width=width, height=height).read_bytes()
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tell_apart(pattern, number))
    return root


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant_videos(tmp_path_factory.mktemp("videos") / "root", NAMES)


def of(root: Path, out: Path, **asked: object) -> Request:
    # One worker is this very process, which starts no other: quick. The tests of faults ask for two.
    return Request(out=out, ravdess=root, crema=root, **{"workers": 1, **asked})  # type: ignore[arg-type]


def test_what_decoding_shows_is_in_the_rows(corpus: Path, tmp_path: Path) -> None:
    built = build(of(corpus, tmp_path / "m.csv"))
    assert built.decoded == len(NAMES)
    facts = built.rows[["frames", "fps", "width", "height", "duration", "rotation"]].drop_duplicates()
    assert facts.values.tolist() == [[12, 25.0, 64, 48, 0.48, 0]]
    assert set(built.rows["codec"]) <= {"h264", "mpeg4"}
    assert built.rows["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert built.facts["verification"] == "decoded"
    assert built.facts["twins"] == {"compared": 18, "differ": []}


def test_the_number_of_workers_changes_no_byte(corpus: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        build(of(corpus, tmp_path / str(workers) / "m.csv", workers=workers))
    for suffix in (".csv", ".json", ".rejected.csv", ".md"):
        one, three = (tmp_path / workers / f"m{suffix}" for workers in ("1", "3"))
        assert one.read_bytes() == three.read_bytes()


def test_a_second_build_decodes_nothing_and_a_changed_file_alone_is_decoded_again(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(corpus, root)
    out = tmp_path / "m.csv"
    assert build(of(root, out)).decoded == len(NAMES)
    again = build(of(root, out))
    assert (again.decoded, again.changed) == (0, False)
    (root / NAMES[0]).write_bytes(tell_apart((root / NAMES[0]).read_bytes(), 999))
    assert build(of(root, out)).decoded == 1
    assert build(of(root, tmp_path / "other.csv", seed=1)).decoded == 0


def test_a_moved_tree_is_hashed_but_not_decoded_again(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(corpus, root)
    assert build(of(root, tmp_path / "m.csv")).decoded == len(NAMES)
    root.rename(tmp_path / "moved")
    again = build(of(tmp_path / "moved", tmp_path / "m.csv"))
    assert (again.decoded, again.changed) == (0, False)


def test_a_torn_or_foreign_line_in_the_cache_costs_only_itself(corpus: Path, tmp_path: Path) -> None:
    build(of(corpus, tmp_path / "m.csv"))
    cache = tmp_path / CACHE_NAME
    lines = cache.read_text().splitlines()
    stale = json.dumps({**json.loads(lines[1]), "rules": "of another version"})
    cache.write_text("\n".join(["[1]", "null", stale, *lines[2:-1], lines[-1][:40]]))
    assert build(of(corpus, tmp_path / "m.csv")).decoded == 3
    assert build(of(corpus, tmp_path / "m.csv")).decoded == 0


def test_a_broken_file_is_named_and_its_good_twin_takes_its_place(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(corpus, root)
    silent = next(name for name in NAMES if "/02-" in name)
    (root / silent).write_bytes((root / silent).read_bytes()[:700])
    lone = NAMES[-1]
    (root / lone).write_bytes(b"<!DOCTYPE html><html>404</html>")
    built = build(of(root, tmp_path / "m.csv"))
    reasons = built.rejected.set_index("path")["reason"]
    assert reasons[lone] == "a web page was saved in place of the video"
    assert silent in reasons.index
    assert silent.replace("/02-", "/01-") in set(built.rows["path"])
    assert len(built.rows) == 18 + 17, built.rejected.values.tolist()
    assert not set(built.rows["path"]) & set(reasons.index)


def test_twins_that_show_different_pictures_are_noted(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(corpus, root)
    silent = next(name for name in NAMES if "/02-" in name)
    encode(root / silent, frames=15)
    built = build(of(root, tmp_path / "m.csv"))
    clip = "ravdess_" + Path(silent).stem[3:]
    assert built.facts["twins"]["differ"] == [f"{clip}: frames 12 with sound, 15 without"]
    assert any("1 of 18 pairs of twins differ" in note for note in built.facts["notes"])


def test_the_same_bytes_under_another_label_are_trusted_under_neither(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(corpus, root)
    angry, disgust = NAMES[-6:-4]
    shutil.copy(root / angry, root / disgust)
    extra = "VideoFlash/1001_TIE_HAP_XX.mp4"
    happy = next(name for name in NAMES if "1001_DFA_HAP" in name)
    shutil.copy(root / happy, root / extra)
    built = build(of(root, tmp_path / "m.csv", split="100/0/0"))
    reasons = built.rejected.set_index("path")["reason"]
    assert {reasons[angry], reasons[disgust]} == {
        f"contradiction: the same bytes under another actor or emotion as {name}" for name in (angry, disgust)
    }
    assert reasons[extra] == f"copy of a kept take: the same bytes as {happy}"
    assert happy in set(built.rows["path"])


# The right answers of data/README.md: good files by frames, the others by what must stand in the reason.
GOOD = {"ok.flv": 75, "editlist_98_of_95.mp4": 95, "vfr.mp4": 62, "rot90.mp4": 105}
BAD = {
    "one_frame.mp4": "too short: 1 frame",
    "trunc60.flv": "cut short",
    "trunc60_front.mp4": "cut short",
    "mid_zero4k.flv": "damaged",
    "liar_444_of_68.avi": "444",
    "audio_only.flv": "no video stream",
    "empty.mp4": "empty",
    "html_404.mp4": "web page",
    "lfs_pointer.flv": "git-lfs pointer",
}


def test_every_broken_file_is_judged_rightly_under_the_name_of_a_take(tmp_path: Path) -> None:
    broken = SHARED / "broken"
    if not broken.is_dir():
        pytest.skip(f"no {broken}")
    takes = [
        name
        for name in crema_names(range(1001, 1005), sentences=["DFA"])
        if "_NEU_" not in name and "_SAD_" not in name
    ]
    paths = dict(zip([*GOOD, *BAD], takes, strict=False))
    names: dict[str, str] = {}
    for name, take in paths.items():
        path = tmp_path / "root" / Path(take).with_suffix(Path(name).suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(broken / name, path)
        names[name] = str(path.relative_to(tmp_path / "root"))
    labels = "angry,disgust,fear,happy"
    built = build(Request(out=tmp_path / "m.csv", crema=tmp_path / "root", labels=labels, split="100/0/0", workers=1))
    reasons = dict(built.rejected.itertuples(index=False, name=None))
    rows = built.rows.set_index("path", drop=False)
    assert {name: rows.at[names[name], "frames"] for name in GOOD} == GOOD
    for name, reason in BAD.items():
        assert reason in reasons[names[name]], (name, reasons[names[name]])
    upright = rows[rows["path"] == names["rot90.mp4"]][["rotation", "width", "height"]]
    assert upright.values.tolist() == [[90, 720, 1280]]
    assert rows.at[names["vfr.mp4"], "variable_rate"]
    assert len(rows) + len(reasons) == len(names)


def test_every_broken_file_is_judged_rightly_by_itself(tmp_path: Path) -> None:
    broken = SHARED / "broken"
    if not broken.is_dir():
        pytest.skip(f"no {broken}")
    paths = [broken / name for name in (*GOOD, *BAD)]
    verdicts, decoded = verify_files(paths, tmp_path / CACHE_NAME, 2)
    assert decoded == len(paths)
    assert {path.name: verdict.facts["frames"] for path, verdict in verdicts.items() if verdict.facts} == GOOD
    for name, reason in BAD.items():
        assert reason in verdicts[broken / name].reason
    assert verify_files(paths, tmp_path / CACHE_NAME, 2) == (verdicts, 0)


def test_a_video_that_is_moved_away_after_it_was_decoded_is_not_told_as_a_full_disk(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    shutil.copytree(corpus, root)
    sizes = {path: (root / path).stat().st_size for path in NAMES}

    def verify_and_lose(paths: list[Path], *rest: Any) -> Any:
        answer = verify_files(paths, *rest)
        (root / NAMES[-1]).unlink()
        return answer

    monkeypatch.setattr(verification, "verify_files", verify_and_lose)
    rows = build(of(root, tmp_path / "m.csv")).rows.set_index("path")
    assert NAMES[-1] in rows.index
    assert {path: rows.loc[path, "bytes"] for path in rows.index} == {path: sizes[path] for path in rows.index}


def test_a_cache_that_cannot_be_written_or_read_is_told_as_what_it_is(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"cannot write into {tmp_path / 'file'}: File exists"):
        build(of(corpus, tmp_path / "file" / "m.csv"))
    (tmp_path / CACHE_NAME).mkdir()
    with pytest.raises(UserError, match=f"cannot read {tmp_path / CACHE_NAME} .*: make it readable, or delete it"):
        build(of(corpus, tmp_path / "m.csv"))


def test_a_file_that_cannot_be_read_is_named_and_not_remembered(corpus: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone.mp4"
    verdicts, _ = verify_files([gone], tmp_path / CACHE_NAME, 1)
    assert verdicts[gone].reason == "unreadable: No such file or directory"
    shutil.copy(corpus / NAMES[0], gone)
    verdicts, _ = verify_files([gone], tmp_path / CACHE_NAME, 1)
    assert verdicts[gone].facts


# --- faults: real processes, really killed ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos that take a while: 90 frames of 640 x 480."""
    return plant_videos(tmp_path_factory.mktemp("slow") / "root", NAMES, frames=90, width=640, height=480)


def start(root: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "manifests",
        "build",
        "--ravdess",
        root,
        "--crema",
        root,
        "--out",
        out,
        "--workers",
        "2",
    ]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def await_lines(cache: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not (cache.exists() and cache.read_bytes().count(b"\n") >= count):
        assert time.monotonic() < deadline, "the build never got going"
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_worker(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def kill_build(process: subprocess.Popen[bytes]) -> list[int]:
    workers = [pid for pid in children_of(process.pid) if is_worker(pid)]
    process.kill()
    process.wait()
    return workers


def interrupt_build(process: subprocess.Popen[bytes]) -> list[int]:
    workers = [pid for pid in children_of(process.pid) if is_worker(pid)]
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C: the workers get it too
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"interrupted" in said
    assert b"Traceback" not in said
    return workers


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("end", [kill_build, interrupt_build])
def test_a_build_that_is_ended_leaves_nothing_half_written_and_the_next_goes_on(
    end: Callable[[subprocess.Popen[bytes]], list[int]], slow_corpus: Path, tmp_path: Path
) -> None:
    process = start(slow_corpus, tmp_path / "m.csv")
    await_lines(tmp_path / CACHE_NAME, 3)
    workers = end(process)
    assert workers
    assert sorted(path.name for path in tmp_path.iterdir()) == [CACHE_NAME]
    deadline = time.monotonic() + 10
    while any(is_worker(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers outlive their build"
        time.sleep(0.05)
    known = len((tmp_path / CACHE_NAME).read_text().splitlines())
    built = build(of(slow_corpus, tmp_path / "m.csv", workers=2))
    assert 3 <= known < len(NAMES)
    assert built.decoded <= len(NAMES) - known + 1  # a line torn by the kill counts for nothing
    assert len(read_manifest(tmp_path / "m.csv").rows) == 36


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_worker_that_is_killed_loses_no_file(slow_corpus: Path, tmp_path: Path) -> None:
    process = start(slow_corpus, tmp_path / "m.csv")
    await_lines(tmp_path / CACHE_NAME, 2)
    victim = next(pid for pid in children_of(process.pid) if is_worker(pid))
    os.kill(victim, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert len(read_manifest(tmp_path / "m.csv").rows) == 36


def test_verified_is_said_with_the_number_of_files_decoded(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["build", "--ravdess", str(corpus), "--crema", str(corpus), "--out", str(tmp_path / "m.csv")]
    assert main(command) == 0
    said = capsys.readouterr()
    assert f"verified: {len(NAMES)} files decoded now" in said.out
    assert f"verifying {len(NAMES)}/{len(NAMES)} files" in said.err
    assert main(command) == 0
    said = capsys.readouterr()
    assert "verified: 0 files decoded now" in said.out
    assert "unchanged" in said.out
