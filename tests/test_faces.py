"""The right face, cheaply: the one that stays, in a square that does not move, from two detections a second."""

from collections.abc import Iterator
from pathlib import Path

import films
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.faces import (
    WEIGHTS_SHA256,
    FaceDetector,
    Square,
    centre_square,
    crop_square,
    static_square,
    weights_path,
)
from manifests.files import sha256_of
from manifests.following import follow_face
from manifests.video import read_frames

RATE = 30.0
needs_media = pytest.mark.skipif(not films.MEDIA.is_dir(), reason="the shared test data is not here")


class CountingDetector(FaceDetector):
    """The real detector, and how often it was asked."""

    looks = 0

    def detect(self, picture: np.ndarray) -> np.ndarray:
        self.looks += 1
        return super().detect(picture)


def timed(frames: list[np.ndarray]) -> Iterator[tuple[float, np.ndarray]]:
    return ((number / RATE, frame) for number, frame in enumerate(frames))


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of (N, 4) boxes with (N, 4) boxes, pair by pair."""
    low = np.maximum(one[:, :2], other[:, :2])
    high = np.minimum(one[:, :2] + one[:, 2:], other[:, :2] + other[:, 2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    return common / (one[:, 2:].prod(axis=1) + other[:, 2:].prod(axis=1) - common)


def with_second_face(frame: np.ndarray, unit: float, centre: tuple[int, int]) -> np.ndarray:
    """A second, smaller face pasted where `centre` is."""
    other = films.portrait(unit, centre)
    half = round(1.5 * unit)
    rows = slice(max(0, centre[1] - half), centre[1] + half)
    columns = slice(max(0, centre[0] - half), centre[0] + half)
    out = frame.copy()
    out[rows, columns] = other[rows, columns]
    return out


def test_the_weights_are_the_ones_this_project_knows() -> None:
    assert sha256_of(weights_path()) == WEIGHTS_SHA256


@pytest.mark.parametrize("unit", [14.0, 30.0, 60.0, 100.0])
def test_faces_from_small_to_close_up_are_found(unit: float) -> None:
    faces = FaceDetector().detect(films.portrait(unit))
    assert len(faces) >= 1
    x, y, w, h, score = faces[0][:5]
    assert abs(x + w / 2 - 240) < 0.3 * w
    assert abs(y + h / 2 - 180) < 0.3 * h
    assert score >= 0.8


def test_a_face_too_small_at_640_pixels_is_found_at_full_size() -> None:
    picture = np.full((1440, 2560, 3), 110, np.uint8)
    picture[600:960, 1000:1480] = films.portrait(28.0)
    faces = FaceDetector().detect(picture)
    assert len(faces) == 1
    assert faces[0][0] + faces[0][2] / 2 == pytest.approx(1240, abs=15)


def test_the_boxes_follow_the_face_and_cost_a_fifteenth_of_looking_at_every_frame() -> None:
    detector = CountingDetector()
    frames = films.face_frames(120, sway=20)
    face = follow_face(timed(frames), detector)
    assert detector.looks == face.looked.sum() == 8
    assert face.found
    assert face.miss_rate == 0
    every = FaceDetector()
    truth = np.stack([every.detect(frame)[0][:4] for frame in frames[::7]])
    assert np.median(overlap(face.boxes[::7], truth)) >= 0.9


def test_every_frame_has_a_time_and_a_box_and_only_looks_are_detections() -> None:
    face = follow_face(timed(films.face_frames(31)))
    assert face.boxes.shape == (31, 4)
    assert face.times.tolist() == [n / RATE for n in range(31)]
    assert face.detected.sum() == 3
    assert not (face.detected & ~face.looked).any()
    assert (face.scores[face.detected] > 0.8).all()
    assert (face.boxes[:, 2:] > 0).all()


def test_of_two_faces_the_one_that_stays_is_followed() -> None:
    frames = films.face_frames(90)
    passing = [with_second_face(frame, 40.0, (70, 90)) if n < 30 else frame for n, frame in enumerate(frames)]
    face = follow_face(timed(passing))
    assert np.abs(face.boxes[:, 0] + face.boxes[:, 2] / 2 - 240).max() < 40


def test_of_two_faces_that_stay_the_larger_is_followed() -> None:
    frames = [with_second_face(frame, 28.0, (80, 280)) for frame in films.face_frames(60)]
    face = follow_face(timed(frames))
    assert face.boxes[:, 3].min() > 100


def test_a_face_that_hides_for_a_moment_is_the_same_face_after() -> None:
    frames = [np.full_like(f, 90) if 40 <= n < 70 else f for n, f in enumerate(films.face_frames(120))]
    face = follow_face(timed(frames))
    assert face.detected[:40].any()
    assert face.detected[70:].any()
    assert 0 < face.miss_rate < 0.5


def test_no_face_gives_a_track_without_detections() -> None:
    face = follow_face(timed(films.empty_frames(60)))
    assert not face.found
    assert not face.detected.any()
    assert face.miss_rate == 1.0
    assert face.looked.sum() == 4


def test_a_single_sighting_in_a_long_film_is_a_false_alarm() -> None:
    frames = films.empty_frames(90)
    frames[24:36] = films.face_frames(12)
    assert not follow_face(timed(frames)).found


@given(
    st.integers(-80, 400),
    st.integers(-80, 300),
    st.integers(1, 130).map(lambda quarter: 4 * quarter),
    st.sampled_from([32, 100, 256]),
)
def test_a_crop_has_its_size_wherever_it_lies(x: int, y: int, side: int, size: int) -> None:
    picture = films.portrait()
    square = Square(x, y, side)
    if x + side <= 0 or y + side <= 0 or x >= films.WIDTH or y >= films.HEIGHT:
        return
    crop = crop_square(picture, square, size)
    assert crop.shape == (size, size, 3)
    assert crop.min() >= picture.min() - 1
    assert crop.max() <= picture.max() + 1


def test_a_crop_of_its_own_size_is_the_picture_itself() -> None:
    picture = films.portrait()
    np.testing.assert_array_equal(crop_square(picture, Square(100, 50, 256), 256), picture[50:306, 100:356])


def test_beyond_the_border_the_edge_is_repeated() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[:, :10] = 200
    crop = crop_square(picture, Square(-50, 0, 100), 100)
    assert (crop[:, :55] == 200).all()
    assert (crop[:, 65:] == 0).all()


def test_shrinking_does_not_alias() -> None:
    checks = np.indices((400, 400)).sum(axis=0) % 2 * 255
    crop = crop_square(np.repeat(checks[..., None], 3, axis=2).astype(np.uint8), Square(0, 0, 400), 100)
    assert abs(int(crop.min()) - 128) <= 1
    assert abs(int(crop.max()) - 128) <= 1


@given(st.floats(0, 300), st.floats(0, 200), st.floats(20, 200), st.floats(0.0, 0.5))
def test_the_square_of_a_still_face_is_the_face_and_its_margin(x: float, y: float, size: float, margin: float) -> None:
    square = static_square(np.tile([x, y, 0.8 * size, size], (20, 1)), margin)
    assert abs(square.side - size * (1 + margin)) <= 2.1
    assert abs(square.x + square.side / 2 - (x + 0.4 * size)) <= 1.1
    assert abs(square.y + square.side / 2 - (y + 0.5 * size)) <= 1.1


def test_one_wild_box_does_not_move_the_square() -> None:
    boxes = np.tile([100.0, 100, 80, 100], (40, 1))
    wild = boxes.copy()
    wild[7] = [400, 10, 300, 330]
    assert static_square(wild, 0.3) == static_square(boxes, 0.3)


def test_a_face_that_wanders_stays_within_its_square() -> None:
    boxes = np.stack([[100 + 4.0 * n, 100, 80, 100] for n in range(40)])
    square = static_square(boxes, 0.3)
    inside = (boxes[:, 0] >= square.x) & (boxes[:, 0] + 80 <= square.x + square.side)
    assert inside.mean() >= 0.9


def test_the_middle_is_taken_where_there_is_no_face() -> None:
    assert centre_square(480, 360) == Square(60, 0, 360)
    assert centre_square(360, 480) == Square(0, 60, 360)


@needs_media
@pytest.mark.parametrize("name", ["r_single.mp4", "c_woman.flv", "single_face.mp4"])
def test_real_faces_have_the_boxes_that_every_frame_detection_gives(name: str) -> None:
    frames = list(read_frames(films.MEDIA / name))[:48]
    face = follow_face(frames)
    detector = FaceDetector()
    shown = range(0, len(frames), 5)
    truth = np.stack([detector.detect(frames[n][1])[0][:4] for n in shown])
    assert face.miss_rate == 0
    assert np.median(overlap(face.boxes[list(shown)], truth)) >= 0.9


@needs_media
def test_a_film_without_people_has_no_face() -> None:
    frames = read_frames(films.MEDIA / "no_face.mp4")
    assert not follow_face(frames).found


@needs_media
def test_a_face_that_leaves_is_not_detected_after_it_left(tmp_path: Path) -> None:
    face = follow_face(read_frames(films.MEDIA / "face_noface.mov"))
    assert face.detected[:50].any()
    assert not face.detected[90:].any()


class BlindDetector(FaceDetector):
    """Sees nothing, at no cost."""

    def detect(self, picture: np.ndarray) -> np.ndarray:
        return np.zeros((0, 6), np.float32)


@pytest.mark.parametrize("rate", [30.0, 30.2, 29.97, 25.0, 59.94])
def test_timestamps_in_whole_milliseconds_and_a_fast_clock_keep_the_stride(rate: float) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    track = follow_face(((round(n / rate, 3), picture) for n in range(200)), BlindDetector())
    assert set(np.diff(np.flatnonzero(track.looked))) == {int(np.ceil((0.5 - 0.005) * rate))}


@pytest.mark.parametrize("shape", [(1, 1), (2, 4000), (4000, 2)])
def test_a_picture_of_any_shape_is_looked_at(shape: tuple[int, int]) -> None:
    assert len(FaceDetector().detect(np.zeros((*shape, 3), np.uint8))) == 0
