"""Heads held upright: an angle that follows the head and not its landmarks' jitter. Run: pytest tests/test_roll.py"""

import json
from pathlib import Path

import cv2
import films
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.__main__ import main
from manifests.clipfile import PreparedClip, encode_frame
from manifests.clips import ClipStore, Rule
from manifests.faces import FaceDetector, Square, crop_square, weights_path
from manifests.following import FaceTrack, follow_face
from manifests.roll import LARGEST, track_roll
from manifests.sheet import write_sheet
from manifests.synth import synthesize
from manifests.video import read_frames
from trainer.predict import fill_windows, plan_windows

RATE = 30
SQUARE = Square(112, 40, 256)
needs_media = pytest.mark.skipif(not films.MEDIA.is_dir(), reason="the shared test data is not here")


def face_with(tilts: list[float], stride: int = 15) -> FaceTrack:
    """A track of these tilts, one look in each `stride` frames of 30 a second."""
    count = stride * len(tilts)
    looked = np.arange(count) % stride == 0
    rolls = np.zeros(count, np.float32)
    rolls[looked] = tilts
    return FaceTrack(np.arange(count) / RATE, np.ones((count, 4)), looked, looked, 1.0 * looked, rolls)


def turned(picture: np.ndarray, degrees: float, about: tuple[float, float]) -> np.ndarray:
    """The picture turned clockwise about a point given in pixels' middles."""
    turn = cv2.getRotationMatrix2D(about, -degrees, 1.0)
    return cv2.warpAffine(picture, turn, picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def jitter(angles: np.ndarray) -> float:
    """What an angle does from frame to frame that a steady turn would not: mean second difference, in degrees."""
    return float(np.abs(np.diff(angles, 2)).mean())


def eye_lines(pictures: np.ndarray) -> np.ndarray:
    """Degrees that the line between the detector's eyes falls to the right in `(n, H, W, 3)` pictures."""
    height, width = pictures.shape[1:3]
    net = cv2.FaceDetectorYN.create(str(weights_path()), "", (width, height), 0.8)
    best = [net.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1][0] for picture in pictures]
    right, down = np.array([face[6:8] - face[4:6] for face in best]).T
    return np.degrees(np.arctan2(down, right))


def prepared(root: Path, film: Path, out: str, *words: str) -> PreparedClip:
    """The one film, prepared by the command."""
    manifest = films.write_small_manifest(root / "m.csv", {"crema_1001_a": film.name})
    line = ["prepare", str(manifest), "--root", str(film.parent), "--out", str(root / out), "--workers", "1", *words]
    assert main(line) == 0
    return ClipStore(root / out).open("crema_1001_a")


def test_a_still_head_gives_a_constant_angle() -> None:
    roll = track_roll(face_with([7.0] * 8))
    assert roll.angles == pytest.approx(np.full(120, 7.0), abs=1e-4)
    assert roll.facts() == {"mean": 7.0, "least": 7.0, "most": 7.0, "straightened": True, "looks_left_out": 0}


@pytest.mark.parametrize("amplitude", [5, 15, 25])
def test_a_head_that_sways_slowly_is_followed(amplitude: int) -> None:
    sway = amplitude * np.sin(2 * np.pi * np.arange(150) / RATE / 5)
    roll = track_roll(face_with(sway[::15].tolist()))
    apart = np.abs(roll.angles - sway)
    assert apart[:136].max() < 0.15 * amplitude
    assert apart[136:].max() < 0.6 * amplitude, "behind the last look the angle is held"


def test_landmarks_that_jitter_do_not_shake_the_picture() -> None:
    noise = np.random.default_rng(0).normal(0, 2, 150)
    assert jitter(track_roll(face_with(noise.tolist(), stride=1)).angles) < 0.02 * jitter(noise)
    assert jitter(track_roll(face_with(noise[::15].tolist())).angles) < 0.02 * jitter(noise)


@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_landmark_that_slips_once_is_left_out_and_counted(place: int) -> None:
    tilts = [4.0] * 8
    tilts[place] = 27.0
    roll = track_roll(face_with(tilts))
    assert roll.left_out == 1
    assert roll.angles == pytest.approx(np.full(120, 4.0), abs=1e-4)


@pytest.mark.parametrize("tilts", [[44.0] * 6, [-90.0, 3.0, 80.0, -45.0]])
def test_a_head_tilted_too_far_or_too_wildly_is_left_as_it_is_and_this_is_told(tilts: list[float]) -> None:
    roll = track_roll(face_with(tilts))
    assert not roll.straightened
    assert not roll.angles.any()
    assert roll.facts()["straightened"] is False
    assert roll.left_out > len(tilts) / 2


@given(st.lists(st.floats(-180, 180), min_size=1, max_size=30), st.integers(1, 20))
def test_whatever_the_detector_says_the_angle_is_bounded_and_every_frame_has_one(
    tilts: list[float], stride: int
) -> None:
    roll = track_roll(face_with(tilts, stride))
    assert roll.angles.shape == (stride * len(tilts),)
    assert np.abs(roll.angles).max() <= LARGEST
    # A head turns by less than this in a frame; so does the picture.
    assert len(roll.angles) < 2 or np.abs(np.diff(roll.angles)).max() < 6


@pytest.mark.parametrize("square", [SQUARE, Square(-60, 120, 300), Square(300, -20, 200), Square(100, 41, 320)])
@pytest.mark.parametrize("size", [64, 100, 224])
def test_a_turn_of_next_to_nothing_is_next_to_the_crop_itself(square: Square, size: int) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (18, 24, 3), np.uint8)
    picture = cv2.resize(noise, (480, 360), interpolation=cv2.INTER_CUBIC)
    straight = crop_square(picture, square, size).astype(int)
    shifted = np.abs(np.roll(straight, 1, axis=1) - straight).mean()
    assert np.abs(crop_square(picture, square, size, 1e-6) - straight).mean() < 0.1 * shifted


@pytest.mark.parametrize("size", [100, 256])
@pytest.mark.parametrize("degrees", [-29.0, -8.0, 17.0])
def test_a_turned_picture_is_turned_back_about_the_middle_of_the_square(degrees: float, size: int) -> None:
    middle = (SQUARE.x + SQUARE.side / 2 - 0.5, SQUARE.y + SQUARE.side / 2 - 0.5)
    crop = crop_square(turned(films.portrait(), degrees, middle), SQUARE, size, degrees)
    straight = crop_square(films.portrait(), SQUARE, size)
    disc = np.hypot(*(np.indices((size, size)) - (size - 1) / 2)) < size / 2
    assert np.abs(crop[disc].astype(int) - straight[disc]).mean() < 1.5
    assert np.abs(crop_square(films.portrait(), SQUARE, size)[disc].astype(int) - crop[::-1][disc]).mean() > 10


def test_turning_blurs_no_more_than_one_bilinear_pass() -> None:
    picture = cv2.cvtColor(cv2.resize(np.eye(2, dtype=np.uint8) * 200, (480, 360)), cv2.COLOR_GRAY2RGB)
    picture[:, ::2] = picture[:, ::2] // 2
    once = turned(picture, -20, (SQUARE.x + 127.5, SQUARE.y + 127.5))[40:296, 112:368]
    assert np.abs(crop_square(picture, SQUARE, 256, 20).astype(int) - once).mean() < 1


def test_without_roll_a_rule_has_the_key_and_the_words_that_it_had_before() -> None:
    assert Rule().key("ab") == "b8cf3cbbb9193db07d77533f47babfaa0e8deb1ed45f8ceed491dbfe8cd0ce8d"
    assert "roll" not in Rule().as_dict()
    assert Rule(**Rule().as_dict()) == Rule()
    assert Rule(**Rule(roll=True).as_dict()) == Rule(roll=True)


def test_without_roll_clips_are_what_they_were_and_with_it_the_folder_is_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [turned(frame, 10, (240, 180)) for frame in films.face_frames(40)]
    film = films.write_film(tmp_path / "film.mp4", frames)
    clip = prepared(tmp_path, film, "plain")
    square = Square(clip.meta["box_x"], clip.meta["box_y"], clip.meta["box_side"])
    jpegs = b"".join(encode_frame(crop_square(frame, square, 256)) for _, frame in read_frames(film))
    assert clip.path.read_bytes().endswith(jpegs)
    assert "roll" not in clip.meta
    assert "roll" not in clip.meta["rule"]
    assert "roll" not in json.loads((tmp_path / "plain" / "rule.json").read_text())
    line = ["prepare", str(tmp_path / "m.csv"), "--root", str(tmp_path), "--out", str(tmp_path / "plain")]
    assert main([*line, "--roll"]) == 2
    assert "roll False" in capsys.readouterr().err


def test_drawn_faces_are_upright_already(tmp_path: Path) -> None:
    synthesize(tmp_path / "corpus", actors=1, seed=3, takes=1, workers=1)
    for number, film in enumerate(sorted((tmp_path / "corpus").rglob("02-*.mp4"))[:2]):
        roll = prepared(tmp_path, film, f"clips{number}", "--roll").meta["roll"]
        assert roll["straightened"]
        assert abs(roll["mean"]) < 3
        assert -8 < roll["least"] <= roll["most"] < 8


def sway(seconds: np.ndarray) -> np.ndarray:
    return 8 + 14 * np.sin(2 * np.pi * seconds / 6)


@pytest.fixture(scope="module")
def tilted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real woman's film, its frames turned by the angles of `sway`."""
    frames = list(read_frames(films.MEDIA / "r_woman_a.mp4"))
    small = [cv2.resize(frame, (640, 360), interpolation=cv2.INTER_AREA) for _, frame in frames]
    angles = sway(np.array([seconds for seconds, _ in frames]))
    pictures = [turned(frame, angle, (320, 180)) for frame, angle in zip(small, angles, strict=True)]
    return films.write_film(tmp_path_factory.mktemp("tilted") / "film.mp4", pictures)


@needs_media
def test_a_real_head_that_sways_is_level_in_the_clip_and_without_roll_is_not(tilted: Path, tmp_path: Path) -> None:
    plain, level = prepared(tmp_path, tilted, "plain"), prepared(tmp_path, tilted, "level", "--roll")
    shown = range(0, len(plain), 4)
    assert np.median(np.abs(eye_lines(plain.frames(shown)))) > 6
    assert np.median(np.abs(eye_lines(level.frames(shown)))) < 2
    boxes = [[clip.meta[name] for name in ("box_x", "box_y", "box_side")] for clip in (plain, level)]
    assert boxes[0] == boxes[1]
    assert plain.meta["key"] != level.meta["key"]
    roll, truth = level.meta["roll"], sway(level.times)
    # She moves her head by some degrees of her own.
    assert roll["straightened"]
    assert [roll["mean"], roll["least"], roll["most"]] == pytest.approx([truth.mean(), truth.min(), truth.max()], abs=8)
    write_sheet(tmp_path / "level", tmp_path / "sheet.html")
    assert f"straightened by {roll['mean']:.0f}°" in (tmp_path / "sheet.html").read_text(encoding="utf-8")


@needs_media
def test_the_angle_of_a_real_head_jitters_far_less_than_its_landmarks(tilted: Path) -> None:
    frames = list(read_frames(tilted))
    landmarks = eye_lines(np.stack([frame for _, frame in frames[:60]]))
    angles = track_roll(follow_face(frames, roll=True)).angles[:60]
    assert np.corrcoef(landmarks, angles)[0, 1] > 0.9
    assert jitter(angles) < 0.1 * jitter(landmarks)


@needs_media
def test_a_real_head_that_holds_still_is_turned_by_one_angle(tmp_path: Path) -> None:
    _, frame = next(iter(read_frames(films.MEDIA / "c_woman.flv")))
    detector = FaceDetector()
    natural = detector.roll(frame, detector.detect(frame)[0])
    film = films.write_film(tmp_path / "film.mp4", [turned(frame, 12, (240, 180))] * 60)
    roll = prepared(tmp_path, film, "clips", "--roll").meta["roll"]
    assert roll["mean"] == pytest.approx(natural + 12, abs=4)
    assert roll["most"] - roll["least"] < 0.5


@needs_media
@pytest.mark.parametrize("words", [[], ["--roll"]])
def test_predict_crops_as_the_clips_were_that_its_model_learned_from(
    tilted: Path, tmp_path: Path, words: list[str]
) -> None:
    clip = prepared(tmp_path, tilted, "clips", *words)
    rule = Rule(**clip.meta["rule"])
    (window,), _ = plan_windows(
        follow_face(read_frames(tilted), roll=rule.roll), {"span": 9.0, "frames": len(clip)}, rule, stride=1.0
    )
    (pictures,) = fill_windows(tilted, len(clip), [window], rule.size)
    assert np.abs(pictures.astype(int) - clip.frames(range(len(clip)))).mean() < 2
