"""From manifest to clips, whatever happens: faults kill real processes, fill real disks and break real files."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import films
import numpy as np
import pytest

from manifests import crops
from manifests.__main__ import main
from manifests.clipfile import clip_path, read_clip
from manifests.clips import ClipStore, read_index, read_rejected
from manifests.errors import UserError
from manifests.faces import Square, crop_square
from manifests.files import sha256_of
from manifests.prepare import prepare
from manifests.sheet import write_sheet
from manifests.video import read_frames

SKINS: tuple[films.Colour, ...] = ((224, 182, 155), (238, 203, 166), (205, 160, 128))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six takes of three drawn actors, and `m.csv`, a manifest with their sha256."""
    root = tmp_path_factory.mktemp("corpus")
    files = {}
    for actor, skin in enumerate(SKINS, start=1001):
        for take, sway in (("HAP", 8), ("SAD", 30)):
            name = f"{actor}_DFA_{take}_XX.{'flv' if take == 'HAP' else 'mp4'}"
            codec = "flv" if take == "HAP" else "mpeg4"
            films.write_film(root / name, films.face_frames(40, sway, skin), 30, codec)
            files[f"crema_{name[:-4]}"] = name
    digests = {clip_id: sha256_of(root / name) for clip_id, name in files.items()}
    films.write_small_manifest(root / "m.csv", files, digests)
    return root


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty takes: one film, its bytes made different by a box at the end that players skip."""
    root = tmp_path_factory.mktemp("many")
    film = films.write_film(root / "film.mp4", films.face_frames(40)).read_bytes()
    files = {}
    for number in range(30):
        name = f"10{number:02}_DFA_HAP_XX.mp4"
        (root / name).write_bytes(film + (12).to_bytes(4, "big") + b"free" + number.to_bytes(4, "big"))
        files[f"crema_{name[:-4]}"] = name
    films.write_small_manifest(root / "m.csv", files, {clip_id: sha256_of(root / f) for clip_id, f in files.items()})
    return root


def clip_files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*/[0-9a-f]*.clip"))}


def command(corpus: Path, out: Path, *more: str) -> list[str]:
    program = [sys.executable, "-m", "manifests", "prepare", str(corpus / "m.csv"), "--root", str(corpus)]
    return [*program, "--out", str(out), *more]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def assert_whole(out: Path) -> None:
    """Every clip file that a reader may find is whole, and so is every clip that the index names."""
    for path in out.glob("*/[0-9a-f]*.clip"):
        clip = read_clip(path)
        assert clip.frames(range(len(clip))).shape[0] == len(clip)
    for row in read_index(out):
        assert clip_path(out, row["key"]).exists()


def test_every_take_becomes_a_clip_and_a_second_run_does_nothing(corpus: Path, tmp_path: Path) -> None:
    first = prepare(corpus / "m.csv", corpus, tmp_path, workers=1)
    assert (first.made, first.kept, first.rejected) == (6, 0, [])
    assert first.sentence(tmp_path) == f"6 clips are prepared in {tmp_path}, 6 of them now"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.c*")}
    second = prepare(corpus / "m.csv", corpus, tmp_path, workers=1)
    assert second.sentence(tmp_path) == f"nothing to do: 6 clips are prepared in {tmp_path}"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.c*")} == before


def test_a_clip_holds_the_face_of_every_frame_with_its_time(corpus: Path, tmp_path: Path) -> None:
    prepare(corpus / "m.csv", corpus, tmp_path, workers=1)
    store = ClipStore(tmp_path)
    clip = store.open("crema_1002_DFA_SAD_XX")
    raw = list(read_frames(corpus / "1002_DFA_SAD_XX.mp4"))
    assert clip.times == pytest.approx([seconds for seconds, _ in raw], abs=1e-6)
    square = Square(clip.meta["box_x"], clip.meta["box_y"], clip.meta["box_side"])
    direct = np.stack([crop_square(frame, square, store.rule.size) for _, frame in raw])
    assert np.abs(clip.frames(range(len(clip))).astype(int) - direct).mean() < 1.5
    assert 150 < clip.meta["box_side"] < 300
    assert clip.meta["miss_rate"] == 0
    assert clip.meta["score"] > 0.85


def test_the_same_video_gives_the_same_bytes_however_many_workers_and_however_little_memory(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(corpus / "m.csv", corpus, tmp_path / "two", workers=2)
    monkeypatch.setattr(crops, "KEEP_BYTES", 0)  # nothing is held: each film is decoded twice
    prepare(corpus / "m.csv", corpus, tmp_path / "one", workers=1)
    assert clip_files(tmp_path / "one") == clip_files(tmp_path / "two")
    assert (tmp_path / "one" / "index.csv").read_bytes() == (tmp_path / "two" / "index.csv").read_bytes()


def test_a_manifest_without_sha256_is_prepared_too_and_only_once(corpus: Path, tmp_path: Path) -> None:
    files = {"crema_1001_DFA_HAP_XX": "1001_DFA_HAP_XX.flv", "crema_1002_DFA_HAP_XX": "absent.flv"}
    manifest = films.write_small_manifest(tmp_path / "m.csv", files)
    assert prepare(manifest, corpus, tmp_path / "clips", workers=1).made == 1
    again = prepare(manifest, corpus, tmp_path / "clips", workers=1)
    assert (again.made, again.kept, again.changed) == (0, 1, False)


def test_what_cannot_be_prepared_is_named_and_what_is_mended_is_prepared(corpus: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    whole = (data / "1001_DFA_HAP_XX.flv").read_bytes()
    (data / "1001_DFA_HAP_XX.flv").write_bytes(whole[:-3000])
    (data / "1003_DFA_SAD_XX.mp4").unlink()
    summary = prepare(data / "m.csv", data, tmp_path / "clips", workers=1)
    assert summary.made == 4
    reasons = dict(summary.rejected)
    assert "sha256 differs" in reasons["crema_1001_DFA_HAP_XX"]
    assert reasons["crema_1003_DFA_SAD_XX"] == "the file cannot be read: No such file or directory"
    assert {row["clip_id"] for row in read_rejected(tmp_path / "clips")} == set(reasons)
    assert "nothing to do" in prepare(data / "m.csv", data, tmp_path / "clips", workers=1).sentence(tmp_path)
    (data / "1001_DFA_HAP_XX.flv").write_bytes(whole)
    mended = prepare(data / "m.csv", data, tmp_path / "clips", workers=1)
    assert (mended.made, mended.kept, len(mended.rejected)) == (1, 4, 1)


def test_a_clip_without_a_face_is_rejected_or_its_middle_kept_by_setting(tmp_path: Path) -> None:
    films.write_film(tmp_path / "nobody.mp4", films.empty_frames(30))
    films.write_film(tmp_path / "short.mp4", films.face_frames(4))
    manifest = films.write_small_manifest(tmp_path / "m.csv", {"crema_1_a": "nobody.mp4", "crema_2_b": "short.mp4"})
    strict = prepare(manifest, tmp_path, tmp_path / "strict", workers=1)
    assert strict.rejected == [
        ("crema_1_a", "no face found in 2 of 2 frames looked at"),
        ("crema_2_b", "too short to be a clip: 4 frames, 0.13 s"),
    ]
    assert "no clip could be prepared: all 2 were rejected" in strict.sentence(tmp_path)
    kind = prepare(manifest, tmp_path, tmp_path / "kind", no_face="crop", workers=1)
    assert (kind.made, len(kind.rejected)) == (1, 1)
    meta = ClipStore(tmp_path / "kind").open("crema_1_a").meta
    assert (meta["box_x"], meta["box_y"], meta["box_side"], meta["face_size"]) == (60, 0, 360, 0.0)


@pytest.mark.parametrize(("rate", "kept"), [(25, 50), (Fraction(30000, 1001), 60), (30, 60), (50, 60), (60, 60)])
def test_only_frames_beyond_thirty_a_second_are_dropped(tmp_path: Path, rate: Fraction | int, kept: int) -> None:
    film = films.write_film(tmp_path / "film.mp4", films.face_frames(round(2 * rate), 5), rate)
    manifest = films.write_small_manifest(tmp_path / "m.csv", {"crema_1001_a": film.name})
    prepare(manifest, tmp_path, tmp_path / "clips", workers=1)
    clip = ClipStore(tmp_path / "clips").open("crema_1001_a")
    assert len(clip) == kept
    source = [seconds for seconds, _ in read_frames(film)]
    assert set(np.round(clip.times, 5)) <= set(np.round(source, 5))
    assert np.diff(clip.times).max() < 1.5 / 25


@pytest.mark.skipif(not films.BROKEN.is_dir(), reason="the shared test data is not here")
def test_of_the_broken_files_each_is_judged_rightly_and_the_good_are_kept(tmp_path: Path) -> None:
    files = {f"crema_1_{path.stem}": path.name for path in sorted(films.BROKEN.iterdir())}
    manifest = films.write_small_manifest(tmp_path / "m.csv", files)
    summary = prepare(manifest, films.BROKEN, tmp_path / "clips", workers=1)
    assert {row["clip_id"] for row in read_index(tmp_path / "clips")} == {"crema_1_ok", "crema_1_rot90", "crema_1_vfr"}
    assert summary.prepared + len(summary.rejected) == len(files) == 13
    assert len(read_rejected(tmp_path / "clips")) == 10
    pictures = {path.stem for path in (tmp_path / "clips" / "rejected").iterdir()}
    assert pictures >= {"crema_1_trunc60", "crema_1_one_frame", "crema_1_editlist_98_of_95"}
    assert "crema_1_empty" not in pictures


def wait_for_clips(process: "subprocess.Popen[str]", out: Path, count: int) -> None:
    while len(list(out.glob("*/[0-9a-f]*.clip"))) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def test_kill_9_leaves_no_worker_and_nothing_half_written_and_the_next_run_goes_on(many: Path, tmp_path: Path) -> None:
    for count in (1, 9, 17):
        process = subprocess.Popen(command(many, tmp_path, "--workers", "2"), stderr=subprocess.PIPE, text=True)
        wait_for_clips(process, tmp_path, count)
        workers = children_of(process.pid)
        process.kill()
        process.communicate()
        assert len(workers) >= 2
        deadline = time.monotonic() + 20
        while any(map(alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(alive, workers))
        assert_whole(tmp_path)
    there = len(clip_files(tmp_path))
    summary = prepare(many / "m.csv", many, tmp_path, workers=1)
    assert (summary.made, summary.kept, summary.rejected) == (30 - there, there, [])
    assert len(ClipStore(tmp_path)) == 30
    assert not list(tmp_path.rglob(".tmp-*"))


def test_ctrl_c_keeps_what_is_complete_and_says_how_to_go_on(many: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(many, tmp_path, "--workers", "2"), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for_clips(process, tmp_path, 2)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert_whole(tmp_path)
    assert 1 <= len(read_index(tmp_path)) < 30
    assert prepare(many / "m.csv", many, tmp_path, workers=1).prepared == 30


def test_two_at_once_on_one_folder_lose_nothing(corpus: Path, tmp_path: Path) -> None:
    both = [subprocess.Popen(command(corpus, tmp_path, "--workers", "1"), stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        process.communicate(timeout=120)
    assert [process.returncode for process in both] == [0, 0]
    assert_whole(tmp_path)
    assert len(ClipStore(tmp_path)) == 6
    assert not list(tmp_path.rglob(".tmp-*"))


def test_parts_at_once_do_the_whole_and_none_does_what_is_anothers(corpus: Path, tmp_path: Path) -> None:
    # The first is told its part, the second is started as torchrun would.
    named = {**os.environ, "RANK": "1", "WORLD_SIZE": "2"}
    jobs = [
        subprocess.Popen(command(corpus, tmp_path, "--part", "1/2"), stdout=subprocess.PIPE, text=True),
        subprocess.Popen(command(corpus, tmp_path), stdout=subprocess.PIPE, text=True, env=named),
    ]
    said = [process.communicate(timeout=120)[0] for process in jobs]
    assert [process.returncode for process in jobs] == [0, 0]
    assert all(text.startswith(f"3 clips are prepared in {tmp_path}, 3 of them now") for text in said)
    assert (
        prepare(corpus / "m.csv", corpus, tmp_path, workers=1).sentence(tmp_path).startswith("nothing to do: 6 clips")
    )


def test_a_part_beyond_the_takes_has_nothing_to_do_and_no_part_is_a_mistake(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = command(corpus, tmp_path)[3:]
    assert main([*line, "--part", "9/9"]) == 0
    assert "more parts than takes" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*line, "--part", "3/2"])
    assert "say 2/4 for the second of four" in capsys.readouterr().err


def test_a_rank_without_a_world_size_is_no_part(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "3")  # as some schedulers set it: every take from the fourth on would be all there is
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(SystemExit):
        main(command(corpus, tmp_path)[3:])
    assert "'4/1' is no part" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "prepare m.csv --root r --out o --workers 0",
        "build --ravdess r --out m.csv --workers -2",
        "synth --out o --actors 3 --workers 0",
        "pack clips --out o --shard-mb 0",
        "sheet clips --out s.html --per-actor 0",
    ],
)
def test_a_number_of_nothing_is_refused_by_name(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    *_, option, number = line.split()
    with pytest.raises(SystemExit) as left:
        main(line.split())
    assert left.value.code == 2
    assert f"argument {option}: {number!r} is not a whole number of 1 or more" in capsys.readouterr().err


def test_a_full_disk_is_one_sentence_and_loses_nothing(corpus: Path, tmp_path: Path) -> None:
    # A limit on the size of files stands in for a full disk: the write fails half way, in the worker, all the same.
    limit = min(len(data) for data in clips_of(corpus, tmp_path / "free").values()) // 2
    done = subprocess.run(
        command(corpus, tmp_path / "full", "--workers", "2"),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        timeout=120,
    )
    assert done.returncode == 2
    assert f"error: cannot write into {tmp_path / 'full'}: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert clip_files(tmp_path / "full") == {}
    assert not list((tmp_path / "full").rglob(".tmp-*"))
    assert prepare(corpus / "m.csv", corpus, tmp_path / "full", workers=1).made == 6


def clips_of(corpus: Path, out: Path) -> dict[str, bytes]:
    prepare(corpus / "m.csv", corpus, out, workers=1)
    return clip_files(out)


def test_the_command_names_rejected_clips_and_fails_only_if_none_is_left(corpus: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    (data / "1001_DFA_HAP_XX.flv").unlink()
    some = subprocess.run(command(data, tmp_path / "a", "--workers", "1"), capture_output=True, text=True)
    assert some.returncode == 0
    assert "5 clips are prepared" in some.stdout
    assert "rejected crema_1001_DFA_HAP_XX: the file cannot be read" in some.stdout
    for path in data.glob("*_XX.*"):
        path.unlink()
    none = subprocess.run(command(data, tmp_path / "b", "--workers", "1"), capture_output=True, text=True)
    assert none.returncode == 1
    assert "no clip could be prepared: all 6 were rejected" in none.stdout


def test_wrong_folders_and_settings_are_the_users_to_mend(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*--root"):
        prepare(corpus / "m.csv", tmp_path / "absent", tmp_path / "clips")
    with pytest.raises(UserError, match="--size 8"):
        prepare(corpus / "m.csv", corpus, tmp_path / "clips", size=8)
    prepare(corpus / "m.csv", corpus, tmp_path / "clips", size=64, workers=1)
    with pytest.raises(UserError, match=r"size 64.*another --out"):
        prepare(corpus / "m.csv", corpus, tmp_path / "clips", size=96)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write into"):
        prepare(corpus / "m.csv", corpus, tmp_path / "file" / "clips")


def test_the_contact_sheet_shows_each_actor_and_each_rejected_clip(corpus: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    films.write_film(data / "nobody.mp4", films.empty_frames(30))
    files = {f"crema_{path.stem}": path.name for path in sorted(data.glob("*_XX.*"))}
    manifest = films.write_small_manifest(data / "n.csv", {**files, "crema_1009_<b>": "nobody.mp4"})
    prepare(manifest, data, tmp_path / "clips", workers=1)
    line = write_sheet(tmp_path / "clips", tmp_path / "sheet.html", per_actor=1)
    assert "6 clips of 3 actors" in line
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("<h2") == 4
    assert page.count("data:image/jpeg;base64,") == 3 + 1
    assert "no face found in 2 of 2 frames looked at" in page
    assert "crema_1009_&lt;b&gt;" in page
    assert "http" not in page
    with pytest.raises(UserError, match="holds no prepared clips"):
        write_sheet(tmp_path / "nothing", tmp_path / "sheet.html")
    with pytest.raises(UserError, match=f"cannot write into {tmp_path / 'sheet.html'}: File exists"):
        write_sheet(tmp_path / "clips", tmp_path / "sheet.html" / "again.html")
