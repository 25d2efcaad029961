"""The drawn corpus. Run: .venv/bin/python -m pytest tests/test_synth.py"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.__main__ import main
from manifests.acting import PAIRS, Performance, perform
from manifests.corpora import read_name
from manifests.errors import UserError
from manifests.faces import FaceDetector
from manifests.synth import MARKER, Arguments, act, draw_take, plan_takes, synthesize
from manifests.video import read_frames, verify_video

SMALL: dict[str, Any] = {"actors": 1, "seed": 5, "takes": 1}
PERFORMANCES = 300
SECONDS = np.arange(60) / 30.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One actor per corpus, six takes each, drawn by this very process."""
    out = tmp_path_factory.mktemp("drawn")
    assert synthesize(out, **SMALL, workers=1).drawn == 12
    return out


@pytest.fixture(scope="module")
def performances() -> dict[str, list[Performance]]:
    """Many takes of the six emotions, acted but not drawn."""
    everyone = {}
    for number, emotion in enumerate(("angry", "disgust", "fear", "sad", "happy", "neutral")):
        generators = [np.random.default_rng([number, take]) for take in range(PERFORMANCES)]
        everyone[emotion] = [perform(emotion, 0.94, SECONDS, rng, 1.0, 0.3) for rng in generators]
    return everyone


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def largest_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Kolmogorov-Smirnov: the largest difference between two samples' cumulative shares."""
    points = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


# --- names and files -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 24), st.integers(1, 8), st.booleans())
def test_every_name_obeys_the_real_grammars(actors: int, takes: int, every_emotion: bool) -> None:
    plan = plan_takes(Arguments(actors, 0, 0.3, takes, every_emotion, False))
    names = [path for take in plan for path in (take.path, take.twin) if path]
    assert len(set(names)) == len(names)
    for take in plan:
        said = read_name(Path(take.path).name, frozenset({take.corpus}))
        assert said.emotion == take.emotion
        assert take.twin is None or read_name(Path(take.twin).name, frozenset({take.corpus})).clip_id == said.clip_id
    assert len({take.actor for take in plan if take.corpus == "ravdess"}) == actors
    assert len({take.actor for take in plan if take.corpus == "crema"}) == actors


def test_every_file_is_a_whole_video_in_the_codec_of_its_corpus(corpus: Path) -> None:
    videos = [path for path in corpus.rglob("*") if path.suffix in (".mp4", ".flv")]
    assert len(videos) == 18
    for path in videos:
        facts = verify_video(path)
        assert (facts.codec, facts.width) == (("h264", 640) if path.suffix == ".mp4" else ("flv", 480))
        assert 1.6 < facts.duration < 2.5


def test_ravdess_comes_in_its_real_size_when_asked_for(tmp_path: Path) -> None:
    arguments = Arguments(1, 5, 0.3, 1, False, full_size=True)
    take = plan_takes(arguments)[0]
    draw_take(tmp_path, take, arguments)
    facts = verify_video(tmp_path / take.path)
    assert (facts.width, facts.height) == (1280, 720)


def test_demographics_have_the_real_header_and_one_line_per_drawn_actor(corpus: Path) -> None:
    with (corpus / "crema-d" / "VideoDemographics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["ActorID"] for row in rows] == ["1001"]
    assert list(rows[0]) == ["ActorID", "Age", "Sex", "Race", "Ethnicity"]


def test_the_marker_says_that_nobody_is_shown(corpus: Path) -> None:
    marker = json.loads((corpus / MARKER).read_text())
    assert marker["synthetic"] is True
    assert "no person is shown" in marker["notice"]


def test_twins_show_the_same_pictures_and_only_one_has_sound(corpus: Path) -> None:
    silent = next((corpus / "ravdess").rglob("02-*.mp4"))
    spoken = silent.with_name("01" + silent.name[2:])
    pictures = [[picture for _, picture in read_frames(path)] for path in (silent, spoken)]
    assert len(pictures[0]) == len(pictures[1])
    assert all(np.array_equal(first, second) for first, second in zip(*pictures, strict=True))
    with av.open(str(silent)) as before, av.open(str(spoken)) as after:
        assert (len(before.streams.audio), [s.codec_context.name for s in after.streams.audio]) == (0, ["aac"])


# --- the same arguments, the same bytes ----------------------------------------------------------------------------


def test_another_seed_draws_another_picture(corpus: Path, tmp_path: Path) -> None:
    arguments = Arguments(1, 6, 0.3, 1, False, False)
    take = plan_takes(arguments)[0]
    draw_take(tmp_path, take, arguments)
    assert (tmp_path / take.path).read_bytes() != (corpus / take.path).read_bytes()


def test_a_second_run_does_nothing_and_says_so(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    assert main(["synth", "--out", str(corpus), "--actors", "1", "--seed", "5", "--takes", "1"]) == 0
    assert "nothing to do: all 12 takes" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_leaves_whole_files_and_the_next_one_ends_with_the_same_bytes(
    corpus: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    reference, out = contents(corpus), tmp_path / "out"
    command = [sys.executable, "-m", "manifests", "synth", "--out", str(out), "--workers", "2"]
    command += [f"--{name}={value}" for name, value in SMALL.items()]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(out.rglob("0*.mp4"))) < 3:
        assert time.monotonic() < deadline
        assert run.poll() is None, "ended before it could be stopped"
        time.sleep(0.01)
    if stop == signal.SIGINT:
        os.killpg(run.pid, stop)  # as a terminal does: the workers get it too
    else:
        run.kill()
    errors = run.communicate()[1]
    left = contents(out)
    whole = {name: data for name, data in left.items() if not Path(name).name.startswith(".tmp-")}
    assert whole == {name: reference[name] for name in whole}
    assert len(whole) < len(reference)
    if stop == signal.SIGINT:
        assert (run.returncode, left) == (130, whole)
        assert "Traceback" not in errors
    assert 0 < synthesize(out, **SMALL, workers=2).drawn < 12
    assert contents(out) == reference


def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(tmp_path: Path) -> None:
    limited = """
import resource, sys
from manifests.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", limited, "synth", "--out", str(tmp_path), "--actors=1", "--takes=1", "--workers=1"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
    assert "File too large" in run.stderr
    assert [path.name for path in tmp_path.rglob("*.mp4")] == []


# --- wrong arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--actors", "0"], "--actors 0: give 1 to 24"),
        (["--actors", "25"], "--actors 25: give 1 to 24"),
        (["--actors", "2", "--takes", "9"], "--takes 9: give 1 to 8"),
        (["--actors", "2", "--difficulty", "1.5"], "--difficulty 1.5: give a number from 0"),
        (["--actors", "2", "--seed", "-1"], "--seed -1: give a whole number"),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    wrong: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["synth", "--out", str(tmp_path / "out"), *wrong]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_corpus_made_with_other_arguments_is_refused(corpus: Path) -> None:
    with pytest.raises(UserError, match="made with other arguments"):
        synthesize(corpus, actors=2, seed=5, takes=1)


def test_drawn_faces_are_not_put_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "02-01-03-01-01-01-01.mp4").write_bytes(b"a real one")
    with pytest.raises(UserError, match="holds files that synth did not draw"):
        synthesize(tmp_path, **SMALL)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="is a file"):
        synthesize(tmp_path / "out", **SMALL)


def test_a_marker_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        synthesize(tmp_path, **SMALL)


# --- what the science needs ----------------------------------------------------------------------------------------


def test_the_face_detector_finds_the_drawn_faces(corpus: Path) -> None:
    detector = FaceDetector()
    for path in [*corpus.rglob("02-*.mp4"), *corpus.rglob("*.flv")]:
        looks = [detector.detect(picture) for _, picture in list(read_frames(path))[::5]]
        assert np.mean([len(faces) == 1 for faces in looks]) >= 0.95, path


@pytest.mark.parametrize("pair", PAIRS)
def test_no_moment_of_a_clip_tells_the_two_of_a_pair_apart(
    pair: tuple[str, str], performances: dict[str, list[Performance]]
) -> None:
    """Two samples of 300 from one distribution differ by more than 0.16 once in a thousand times."""
    for moment in (2, 8, 20, 30, 41, 52):
        for what in ("intensity", "pitch", "yaw", "size"):
            first, second = ([value_of(take, what, moment) for take in performances[emotion]] for emotion in pair)
            assert largest_gap(np.array(first), np.array(second)) < 0.16, (what, moment)
    together = [np.concatenate([take.intensity for take in performances[emotion]]) for emotion in pair]
    assert largest_gap(*together) < 0.04


def test_the_same_measure_tells_emotions_with_other_faces_apart(performances: dict[str, list[Performance]]) -> None:
    scowls, rests = ([value_of(take, "brow", 30) for take in performances[name]] for name in ("angry", "happy"))
    assert largest_gap(np.array(scowls), np.array(rests)) > 0.9


def test_anger_rises_faster_than_it_falls_and_disgust_the_other_way(performances: dict[str, list[Performance]]) -> None:
    for emotion, faster in (("angry", 1), ("disgust", -1)):
        steps = [faster * np.diff(take.intensity[10:-10]) for take in performances[emotion]]
        assert np.mean([step.max() > 1.8 * -step.min() for step in steps]) > 0.98


def test_fear_moves_more_quickly_than_sadness_in_every_take(performances: dict[str, list[Performance]]) -> None:
    pace = {
        name: [np.abs(np.diff(take.intensity[10:-10])).mean() for take in performances[name]]
        for name in ("fear", "sad")
    }
    assert min(pace["fear"]) > 1.5 * max(pace["sad"])


@pytest.mark.parametrize("difficulty", [0.0, 0.3, 1.0])
def test_a_take_begins_and_ends_at_rest_and_stays_in_its_range(difficulty: float) -> None:
    arguments = Arguments(3, 1, difficulty, 4, True, False)
    for take in plan_takes(arguments)[::7]:
        shown = act(take, arguments)
        assert max(shown.intensity[0], shown.intensity[-1]) < 0.1
        assert shown.intensity.min() >= 0
        assert shown.intensity.max() <= 1.3
        assert all(
            0 <= unit <= 1.6 for action in shown.actions for name, unit in vars(action).items() if name != "tilt"
        )


def test_a_harder_corpus_is_fainter() -> None:
    def loudest(difficulty: float) -> float:
        arguments = Arguments(4, 1, difficulty, 2, False, False)
        return float(np.mean([act(take, arguments).intensity.max() for take in plan_takes(arguments)]))

    assert loudest(0.0) > loudest(0.5) > loudest(1.0)


def value_of(take: Performance, what: str, moment: int) -> float:
    if what == "intensity":
        return take.intensity[moment]
    if what == "brow":
        return take.actions[moment].brow_lower
    return getattr(take.poses[moment], what)
