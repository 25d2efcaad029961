"""Any video gives probabilities over time, or one sentence. Run: pytest tests/test_predict.py"""

import json
import os
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from toys import LABELS, TINY, make_corpus

from manifests.faces import FaceTrack
from manifests.synth import synthesize
from manifests.video import read_frames
from trainer.__main__ import main
from trainer.predict import face_near, plan_windows

DATA = Path(os.environ.get("SLOWFAST_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    manifest, clips = make_corpus(folder, actors=4, takes=2)
    words = ["fit", "--config", "demo.yaml", "--manifest", manifest, "--clips", clips, "--run", folder / "run"]
    assert main([str(word) for word in (*words, *TINY, "optim.epochs=1")]) == 0
    return folder / "run" / "model.safetensors"


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    corpus = tmp_path_factory.mktemp("corpus")
    synthesize(corpus, actors=1, seed=3, takes=1, workers=1)
    return sorted(corpus.rglob("02-*.mp4"))[0]


def predict(model, out, *videos):
    return main(["predict", *map(str, videos), "--model", str(model), "--out", str(out), "--stride", "0.3"])


def test_a_video_gives_json_plot_and_annotated_video(model, video, tmp_path, capsys):
    assert predict(model, tmp_path, video) == 0
    said = capsys.readouterr()
    assert "on average over" in said.out
    assert "learned from drawn faces" in said.err
    result = json.loads((tmp_path / f"{video.stem}.json").read_text())
    assert result["labels"] == list(LABELS)
    moments = [window["seconds"] for window in result["windows"]]
    assert len(moments) >= 3
    assert all(b - a == pytest.approx(0.3, abs=0.002) for a, b in pairwise(moments))
    for window in [*result["windows"], {"probabilities": result["overall"]}]:
        assert sum(window["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert (tmp_path / f"{video.stem}.png").stat().st_size > 5000
    with av.open(str(tmp_path / f"{video.stem}.mp4")) as drawn:
        assert sum(1 for _ in drawn.decode(video=0)) == sum(1 for _ in read_frames(video))


def test_the_same_video_gives_the_same_prediction(model, video, tmp_path):
    for name in ("a", "b"):
        assert predict(model, tmp_path / name, video) == 0
    first, second = ((tmp_path / name / f"{video.stem}.json").read_bytes() for name in ("a", "b"))
    assert first == second


def test_predicting_again_does_nothing_and_another_stride_is_another_prediction(model, video, tmp_path, capsys):
    assert predict(model, tmp_path, video) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert predict(model, tmp_path, video) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert main(["predict", str(video), "--model", str(model), "--out", str(tmp_path), "--stride", "0.6"]) == 0
    assert "nothing to do" not in capsys.readouterr().out


def test_two_videos_of_one_name_do_not_hide_each_other(model, video, tmp_path, capsys):
    assert predict(model, tmp_path / "out", video, tmp_path / f"{video.stem}.flv") == 2
    assert "more than one video is called" in capsys.readouterr().err


def test_a_bad_video_among_good_ones_costs_only_itself(model, video, tmp_path, capsys):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(video.read_bytes()[:2000])
    assert predict(model, tmp_path / "out", broken, video) == 2
    said = capsys.readouterr().err
    assert f"error: {broken} cannot be used:" in said
    assert "1 of 2 videos gave no prediction" in said
    assert (tmp_path / "out" / f"{video.stem}.json").exists()
    assert not list((tmp_path / "out").glob("broken*"))


@pytest.mark.parametrize(("name", "says"), [("missing.mp4", "there is no video at"), ("page.mp4", "cannot be used")])
def test_what_is_no_video_is_one_sentence(model, tmp_path, capsys, name, says):
    (tmp_path / "page.mp4").write_text("<html>404</html>" * 100)
    assert predict(model, tmp_path / "out", tmp_path / name) == 2
    said = capsys.readouterr().err
    assert said.count("error:") == 1
    assert says in said


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_what_is_no_model_is_one_sentence(model, video, tmp_path, capsys, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(model.read_bytes()[:5000] if content is None else content)
    assert predict(path, tmp_path / "out", video) == 2
    assert "is not a model of this project" in capsys.readouterr().err


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the films of real faces are not at {DATA}")
def test_a_face_that_leaves_is_not_guessed_at_and_a_film_without_one_is_refused(model, tmp_path, capsys):
    assert predict(model, tmp_path, DATA / "media" / "face_noface.mov") == 0
    result = json.loads((tmp_path / "face_noface.json").read_text())
    assert result["windows_without_face"] > 0
    assert len(result["windows"]) > 0
    assert predict(model, tmp_path, DATA / "media" / "no_face.mp4") == 2
    assert "no face found" in capsys.readouterr().err


def track(seconds, seen, fps=10):
    times = np.arange(round(seconds * fps)) / fps
    boxes = np.stack([50 + 10 * times, 40 + 0 * times, 30 + 0 * times, 40 + 0 * times], axis=1)
    detected = np.array([any(a <= t < b for a, b in seen) for t in times])
    return FaceTrack(times, boxes, np.ones(len(times), bool), detected, detected.astype(np.float32))


def test_windows_follow_the_face_and_leave_out_the_time_without_it():
    data = {"span": 2.0, "frames": 8}
    windows, faceless = plan_windows(track(10, [(0, 10)]), data, margin=0.3, stride=0.5)
    assert faceless == 0
    assert [w.middle for w in windows] == pytest.approx(np.arange(1, 9.01, 0.5))
    assert all(b.square.x > a.square.x for a, b in pairwise(windows))
    windows, faceless = plan_windows(track(10, [(0, 3)]), data, margin=0.3, stride=0.5)
    assert len(windows) + faceless == 17
    assert max(w.middle for w in windows) < 4


def test_a_video_shorter_than_a_window_is_one_window():
    windows, faceless = plan_windows(track(1, [(0, 1)]), {"span": 2.0, "frames": 8}, margin=0.3, stride=0.5)
    assert (len(windows), faceless) == (1, 0)
    assert windows[0].frames[0] <= 1
    assert windows[0].frames[-1] >= 8


def test_a_box_is_drawn_only_near_a_moment_when_the_face_was_seen():
    near = face_near(track(10, [(2, 4)]), seconds=0.7)
    times = np.arange(100) / 10
    assert near[(times >= 1.4) & (times <= 4.5)].all()
    assert not near[(times < 1.2) | (times > 4.7)].any()
