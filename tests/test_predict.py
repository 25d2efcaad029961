"""Any video gives probabilities over time, or one sentence. Run: pytest tests/test_predict.py"""

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from films import empty_frames, face_frames, write_film
from toys import LABELS, TINY, make_corpus

from manifests.clips import Rule
from manifests.files import sha256_of
from manifests.following import FaceTrack
from manifests.synth import synthesize
from manifests.video import read_frames
from trainer.__main__ import main
from trainer.formats import load_network
from trainer.predict import find_again, in_view, plan_windows
from trainer.temperature import tempered

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


def test_a_video_gives_json_plot_annotated_video_and_a_page_that_plays_it(model, video, tmp_path, capsys):
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
    page = (tmp_path / f"{video.stem}.html").read_text()
    assert f'src="{video.stem}.mp4"' in page
    assert "This model learned from drawn faces." in page
    assert all(f'<th scope="row">{moment:.1f}</th>' in page for moment in moments)
    with av.open(str(tmp_path / f"{video.stem}.mp4")) as drawn:
        assert sum(1 for _ in drawn.decode(video=0)) == sum(1 for _ in read_frames(video))
        stream = drawn.streams.video[0]
        assert result["size"] == [stream.width, stream.height]


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


@pytest.mark.parametrize("words", [
    *(["predict", "a.mp4", "--model", "m", "--stride", stride] for stride in ("0", "-1", "nan", "inf", "often")),
    *(["preflight", "--config", "c", "--manifest", "m", "--clips", "c", "--processes", n] for n in ("0", "-2", "1.5")),
], ids=" ".join)  # fmt: skip
def test_a_number_that_cannot_be_is_one_sentence(words, capsys):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {words[-2]}: {words[-1]!r} is no " in said
    assert "; say " in said


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


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.mp4", "there is no video at"),
        ("page.mp4", "cannot be used"),
        ("photo.png", "is a single picture; emotions are read from movement"),
        ("folder", "is a folder; give the videos in it"),
    ],
)
def test_what_is_no_video_is_one_sentence(model, tmp_path, capsys, name, says):
    (tmp_path / "page.mp4").write_text("<html>404</html>" * 100)
    (tmp_path / "folder").mkdir()
    cv2.imwrite(str(tmp_path / "photo.png"), np.full((240, 320, 3), 128, np.uint8))
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


def shares_of(path):
    result = json.loads(path.read_text())
    return result, np.array([list(window["probabilities"].values()) for window in result["windows"]])


def test_the_temperature_of_these_weights_is_applied_and_told(model, video, tmp_path):
    shutil.copy(model, tmp_path / "model.safetensors")
    known = {"weights_sha256": "of other weights", "temperature": {"value": 2.5}}
    (tmp_path / "evaluation.json").write_text(json.dumps(known))
    assert predict(tmp_path / "model.safetensors", tmp_path / "raw", video) == 0
    known["weights_sha256"] = sha256_of(model)
    (tmp_path / "evaluation.json").write_text(json.dumps(known))
    assert predict(tmp_path / "model.safetensors", tmp_path / "mild", video) == 0
    raw, raw_shares = shares_of(tmp_path / "raw" / f"{video.stem}.json")
    mild, mild_shares = shares_of(tmp_path / "mild" / f"{video.stem}.json")
    assert (raw["temperature"], mild["temperature"]) == (None, 2.5)
    assert mild_shares == pytest.approx(tempered(raw_shares, 2.5), abs=1e-5)
    assert np.abs(mild_shares - raw_shares).max() > 0.01


def test_the_whole_video_s_answer_is_tempered_as_it_was_fitted_on_the_mean_over_views(
    model, video, tmp_path, monkeypatch
):
    def changing(video, frames, windows, *rest):
        happy = np.linspace(0.1, 0.9, len(windows)) ** 2
        return np.stack([happy, 1 - happy], axis=1)

    monkeypatch.setattr("trainer.predict.classify", changing)
    shutil.copy(model, tmp_path / "model.safetensors")
    known = {"weights_sha256": sha256_of(model), "temperature": {"value": 2.5}}
    (tmp_path / "evaluation.json").write_text(json.dumps(known))
    assert predict(tmp_path / "model.safetensors", tmp_path / "out", video) == 0
    result, windows = shares_of(tmp_path / "out" / f"{video.stem}.json")
    raw = changing(None, None, windows)
    assert windows == pytest.approx(tempered(raw, 2.5), abs=1e-5)
    assert list(result["overall"].values()) == pytest.approx(tempered(raw.mean(axis=0), 2.5), abs=1e-5)
    assert np.abs(windows.mean(axis=0) - tempered(raw.mean(axis=0), 2.5)).max() > 0.01


def test_many_videos_are_read_by_a_model_that_is_loaded_once(model, video, tmp_path, monkeypatch, capsys):
    other = Path(shutil.copy(video, tmp_path / "other.mp4"))
    assert predict(model, tmp_path / "out", video, other) == 0
    loads = []
    monkeypatch.setattr("trainer.predict.load_network", lambda *how: loads.append(how) or load_network(*how))
    assert predict(model, tmp_path / "out", video, other) == 0
    assert len(loads) == 1
    said = capsys.readouterr()
    assert said.out.count("nothing to do") == 2
    assert said.err.count("learned from drawn faces") == 2  # once for each command


def test_a_run_directory_stands_for_its_model(model, video, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    shutil.copy(model, tmp_path / "run" / "model.safetensors")
    assert predict(tmp_path / "run", tmp_path / "out", video) == 0
    assert predict(tmp_path, tmp_path / "out", video) == 2
    assert "model.safetensors" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence_and_not_the_cpu(model, video, tmp_path, capsys):
    assert main(["predict", str(video), "--model", str(model), "--out", str(tmp_path), "--device", "cuda"]) == 2
    said = capsys.readouterr()
    assert "torch sees no GPU" in said.err
    assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_film_of_changing_rate_is_drawn_at_its_own_moments(model, tmp_path):
    moments = [*np.arange(12) * 0.1, *1.2 + np.arange(24) / 30]
    film = write_film(tmp_path / "film.mp4", face_frames(36), times=moments)
    assert predict(model, tmp_path / "out", film) == 0
    with av.open(str(tmp_path / "out" / "film.mp4")) as drawn:
        assert [frame.time for frame in drawn.decode(video=0)] == pytest.approx(moments, abs=0.002)


def frames_with_a_face(drawn, height):
    """Which frames of an annotated video do not say, as its last does, `no face in view` in the strip below."""
    with av.open(str(drawn)) as container:
        strips = [frame.to_ndarray(format="rgb24")[height:].astype(int) for frame in container.decode(video=0)]
    return [number for number, strip in enumerate(strips) if np.abs(strip - strips[-1]).mean() > 2]


@pytest.mark.parametrize("cut", [40, 44, 52])
def test_the_box_ends_with_the_last_frame_that_shows_the_face(model, tmp_path, cut):
    film = write_film(tmp_path / "film.mp4", [*face_frames(cut), *empty_frames(70)])
    assert predict(model, tmp_path / "out", film) == 0
    assert frames_with_a_face(tmp_path / "out" / "film.mp4", 360) == list(range(cut))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the films of real faces are not at {DATA}")
def test_a_face_that_leaves_is_not_guessed_at_and_a_film_without_one_is_refused(model, tmp_path, capsys):
    assert predict(model, tmp_path, DATA / "media" / "face_noface.mov") == 0
    result = json.loads((tmp_path / "face_noface.json").read_text())
    assert result["windows_without_face"] > 0
    assert len(result["windows"]) > 0
    # Its last face is in frame 71, a title follows.
    assert frames_with_a_face(tmp_path / "face_noface.mp4", 540) == list(range(72))
    assert predict(model, tmp_path, DATA / "media" / "no_face.mp4") == 2
    assert "no face found" in capsys.readouterr().err


def track(seconds, seen, fps=10):
    times = np.arange(round(seconds * fps)) / fps
    boxes = np.stack([50 + 10 * times, 40 + 0 * times, 30 + 0 * times, 40 + 0 * times], axis=1)
    detected = np.array([any(a <= t < b for a, b in seen) for t in times])
    return FaceTrack(times, boxes, np.ones(len(times), bool), detected, *np.tile(detected, (2, 1)).astype(np.float32))


def test_windows_follow_the_face_and_leave_out_the_time_without_it():
    data = {"span": 2.0, "frames": 8}
    windows, faceless = plan_windows(track(10, [(0, 10)]), data, Rule(margin=0.3), stride=0.5)
    assert faceless == 0
    assert [w.middle for w in windows] == pytest.approx(np.arange(1, 9.01, 0.5))
    assert all(b.square.x > a.square.x for a, b in pairwise(windows))
    windows, faceless = plan_windows(track(10, [(0, 3)]), data, Rule(margin=0.3), stride=0.5)
    assert len(windows) + faceless == 17
    assert max(w.middle for w in windows) == 3, "half of the last one shows the face"


def test_a_video_shorter_than_a_window_is_one_window():
    windows, faceless = plan_windows(track(1, [(0, 1)]), {"span": 2.0, "frames": 8}, Rule(margin=0.3), stride=0.5)
    assert (len(windows), faceless) == (1, 0)
    assert windows[0].frames[0] <= 1
    assert windows[0].frames[-1] >= 8


def looked_at(*looks):
    """A track of 5 frames between looks, each of which saw the face or not, and 4 frames behind the last."""
    looked = np.arange(5 * len(looks)) % 5 == 0
    detected = np.repeat(looks, 5) & looked
    return FaceTrack(
        np.arange(len(looked)) / 10, np.ones((len(looked), 4)), looked, detected, detected * 1.0, detected * 0.0
    )


def test_a_face_seen_before_and_after_is_there_and_one_seen_on_one_side_only_is_looked_for():
    seen, doubtful = in_view(looked_at(True, True, False, False, True))
    assert np.flatnonzero(seen).tolist() == [0, 1, 2, 3, 4, 5, 20]
    assert np.flatnonzero(doubtful).tolist() == [6, 7, 8, 9, 16, 17, 18, 19, 21, 22, 23, 24]


def test_the_face_that_is_found_again_is_the_same():
    box = np.array([100.0, 100.0, 40.0, 50.0])
    here, elsewhere, larger = [104, 98, 42, 50, 0.9], [300, 98, 42, 50, 0.99], [60, 60, 120, 140, 0.95]
    assert find_again(np.array([elsewhere, here, larger]), box) == pytest.approx(np.array(here[:4]))
    assert find_again(np.array([elsewhere, larger]), box) is None
    assert find_again(np.zeros((0, 5)), box) is None
