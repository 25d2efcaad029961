"""Strict reading: sound videos whole and upright, every other file named with its true reason."""

from pathlib import Path

import av
import cv2
import films
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.video import VideoError, read_frames, verify_video

needs_broken = pytest.mark.skipif(not films.BROKEN.is_dir(), reason="the shared test data is not here")
needs_media = pytest.mark.skipif(not films.MEDIA.is_dir(), reason="the shared test data is not here")


@needs_broken
@pytest.mark.parametrize(
    ("name", "frames", "seconds"),
    [("ok.flv", 75, 2.5), ("editlist_98_of_95.mp4", 95, 3.96), ("rot90.mp4", 105, 3.5), ("one_frame.mp4", 1, 0.033)],
)
def test_a_sound_file_is_read_whole(name: str, frames: int, seconds: float) -> None:
    facts = verify_video(films.BROKEN / name)
    assert facts.frames == frames
    assert facts.duration == pytest.approx(seconds, abs=0.02)
    assert not facts.variable_rate


@needs_broken
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("trunc60.flv", "cut short: the file ends inside frame 46 after 1.50 s of 2.53 s promised"),
        ("trunc60_front.mp4", "cut short: the file ends inside frame 62 after 2.04 s of 3.50 s promised"),
        ("mid_zero4k.flv", "damaged: frame 36 after 1.17 s"),
        ("liar_444_of_68.avi", "the header promises 444, 68 decode"),
        ("audio_only.flv", "there is no video stream, only audio"),
        ("empty.mp4", "the file is empty"),
        ("html_404.mp4", "a web page"),
        ("lfs_pointer.flv", "a git-lfs pointer"),
    ],
)
def test_a_broken_file_is_refused_with_the_true_reason(name: str, reason: str) -> None:
    with pytest.raises(VideoError, match=reason):
        verify_video(films.BROKEN / name)
    with pytest.raises(VideoError, match=reason):
        list(read_frames(films.BROKEN / name))


@needs_broken
def test_a_rotation_tag_is_honoured_exactly_as_opencv_does() -> None:
    facts = verify_video(films.BROKEN / "rot90.mp4")
    assert (facts.width, facts.height, facts.rotation) == (720, 1280, 90)
    _, frame = next(read_frames(films.BROKEN / "rot90.mp4"))
    _, theirs = cv2.VideoCapture(str(films.BROKEN / "rot90.mp4")).read()
    assert frame.shape == (1280, 720, 3)
    np.testing.assert_array_equal(frame, cv2.cvtColor(theirs, cv2.COLOR_BGR2RGB))


@needs_broken
def test_a_variable_frame_rate_keeps_its_true_times() -> None:
    facts = verify_video(films.BROKEN / "vfr.mp4")
    assert facts.variable_rate
    assert facts.frames == 62
    times = [time for time, _ in read_frames(films.BROKEN / "vfr.mp4")]
    assert times[0] == 0.0
    assert times[-1] == pytest.approx(3.470, abs=0.001)


@needs_media
@pytest.mark.parametrize(
    ("name", "codec", "frames"),
    [("c_woman.flv", "flv", 75), ("r_single.mp4", "h264", 72), ("face_noface.mov", "hevc", 169)],
)
def test_the_codecs_of_the_corpora_are_read(name: str, codec: str, frames: int) -> None:
    facts = verify_video(films.MEDIA / name)
    assert (facts.codec, facts.frames) == (codec, frames)


def test_frames_come_back_in_order_with_their_times(tmp_path: Path) -> None:
    levels = [20 + 20 * n for n in range(10)]
    film = films.write_film(tmp_path / "grey.mp4", [np.full((64, 96, 3), level, np.uint8) for level in levels], 25)
    times, frames = zip(*read_frames(film), strict=True)
    np.testing.assert_allclose(times, np.arange(10) / 25, atol=1e-6)
    assert [frame.mean() for frame in frames] == pytest.approx(levels, abs=3)
    assert frames[0].shape == (64, 96, 3)


def test_times_of_a_variable_rate_film_are_the_encoders(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 0.30, 0.34, 0.90]
    film = films.write_film(tmp_path / "vfr.mkv", films.empty_frames(6), 25, "mpeg4", times)
    assert [time for time, _ in read_frames(film)] == pytest.approx(times, abs=0.0011)
    assert verify_video(film).variable_rate


@pytest.mark.parametrize("codec", ["flv", "mpeg4"])
def test_a_film_cut_anywhere_is_refused(tmp_path: Path, codec: str) -> None:
    suffix = "flv" if codec == "flv" else "mp4"
    film = films.write_film(tmp_path / f"whole.{suffix}", films.face_frames(40), 30, codec)
    data = film.read_bytes()
    assert verify_video(film).frames == 40

    @settings(max_examples=25, deadline=None)
    @given(st.floats(0.02, 0.90))
    def cut(share: float) -> None:
        part = tmp_path / f"part.{suffix}"
        part.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(VideoError):
            verify_video(part)

    cut()


def test_sound_that_outlasts_the_picture_a_little_is_no_damage(tmp_path: Path) -> None:
    film = films.write_film(tmp_path / "long_sound.flv", films.empty_frames(30), 30, "flv", sound_seconds=1.3)
    assert verify_video(film).frames == 30


def test_a_picture_that_ends_long_before_the_sound_is_cut_short(tmp_path: Path) -> None:
    film = films.write_film(tmp_path / "no_picture.flv", films.empty_frames(15), 30, "flv", sound_seconds=2.5)
    with pytest.raises(VideoError, match=r"cut short: 15 frames end at 0\.5"):
        verify_video(film)


def test_a_file_that_is_not_there_or_no_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        verify_video(tmp_path / "absent.mp4")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(VideoError, match="not a video"):
        verify_video(tmp_path / "noise.mp4")


def test_colours_are_those_of_a_plain_conversion(tmp_path: Path) -> None:
    film = films.write_film(tmp_path / "face.mp4", films.face_frames(3), 30)
    with av.open(str(film)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(np.stack([frame for _, frame in read_frames(film)]), np.stack(plain))


def test_a_film_whose_picture_changes_size_is_refused(tmp_path: Path) -> None:
    small = films.write_film(tmp_path / "a.ts", films.empty_frames(12), 30, "mpeg4")
    wide = [np.repeat(frame, 2, axis=1) for frame in films.empty_frames(12)]
    large = films.write_film(tmp_path / "b.ts", wide, 30, "mpeg4", [1 + n / 30 for n in range(12)])
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(VideoError, match=r"changes size at frame 1\d, \d\.\d+ s: 480 x 360 to 960 x 360"):
        verify_video(joined)
