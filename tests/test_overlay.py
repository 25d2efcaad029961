"""Overlay: the box on the face, the bars below the picture, a video that plays, a plot that hides no gap."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from browser import Browser
from colours import contrast
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manifests.errors import UserError
from trainer import film, overlay
from trainer.film import write_video
from trainer.overlay import COLOURS, DASHES, STRIP, draw_frame, plot_timeline, strip_height, text_size, with_gaps
from trainer.playback import covered

SHARES = {"sad": 0.06, "happy": 0.61, "neutral": 0.3, "fear": 0.03}
GREY = 90


def picture(width: int = 640, height: int = 360) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def pixels_of(drawn: np.ndarray, label: str) -> np.ndarray:
    """(H, W) bool: where the emotion's own colour is."""
    return (drawn == np.array(COLOURS[label], np.uint8)).all(axis=-1)


def test_the_box_is_where_it_was_asked_for() -> None:
    drawn = draw_frame(picture(), (200, 100, 160, 200), SHARES)[:360]
    rows, columns = np.nonzero(pixels_of(drawn, "happy"))
    assert (abs(rows.min() - 100), abs(rows.max() - 300)) <= (2, 2)
    assert (abs(columns.min() - 200), abs(columns.max() - 360)) <= (2, 2)


def test_the_face_itself_stays_untouched() -> None:
    drawn = draw_frame(picture(), (200, 100, 160, 200), SHARES)
    assert (drawn[105:295, 205:355] == GREY).all()
    assert drawn.shape == (360 + strip_height(640), 640, 3)


def test_the_tag_is_above_the_box_or_inside_it_at_the_top_of_the_picture() -> None:
    changed = (draw_frame(picture(), (200, 100, 160, 200), SHARES)[:360] != GREY).any(axis=-1)
    assert changed[85, 200:300].mean() > 0.5
    changed = (draw_frame(picture(), (200, 4, 160, 200), SHARES)[:360] != GREY).any(axis=-1)
    assert changed[12, 210:260].mean() > 0.5


def test_the_bars_are_the_three_likeliest_as_long_as_their_shares() -> None:
    strip = draw_frame(picture(), (200, 100, 160, 200), SHARES)[360:]
    lengths = {label: pixels_of(strip, label).sum(axis=1).max() for label in COLOURS}
    assert lengths["fear"] == 0, "the fourth has no bar"
    assert lengths["happy"] > lengths["neutral"] > lengths["sad"] > 0
    assert lengths["happy"] / lengths["neutral"] == pytest.approx(0.61 / 0.3, rel=0.02)
    tops = [np.nonzero(pixels_of(strip, label).any(axis=1))[0].min() for label in ("happy", "neutral", "sad")]
    assert tops == sorted(tops)


def test_without_a_face_there_is_no_box_and_no_bar_but_words() -> None:
    drawn = draw_frame(picture(), None, SHARES)
    assert (drawn[:360] == GREY).all()
    assert not any(pixels_of(drawn, label).any() for label in COLOURS)
    assert (drawn[360:] > 200).any(), "the strip says so"
    assert drawn.shape == draw_frame(picture(), (200, 100, 160, 200), SHARES).shape


@pytest.mark.parametrize("width", [320, 640, 1280, 1920])
def test_words_are_large_enough_and_clear_of_the_bars(width: int) -> None:
    size = text_size(width)
    assert size >= 11
    assert strip_height(width) >= 3 * size
    for label in COLOURS:
        assert overlay._font(size, bold=True).getlength(label) < 5.6 * size, label
    assert overlay._font(size, bold=True).getlength("100%") < 3.2 * size


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(16, 400),
    height=st.integers(16, 300),
    box=st.tuples(*[st.floats(-500, 500)] * 2, *[st.floats(0, 600)] * 2),
)
def test_any_box_in_any_picture_can_be_drawn(width: int, height: int, box: tuple[float, float, float, float]) -> None:
    given_picture = picture(width, height)
    drawn = draw_frame(given_picture, box, SHARES)
    assert drawn.shape == (height + strip_height(width), width, 3)
    assert (given_picture == GREY).all(), "the caller's picture is not drawn into"


def test_every_emotion_has_a_dash_of_its_own() -> None:
    assert len(set(DASHES)) == len(DASHES) >= len(COLOURS)


def test_every_bar_stands_out_from_the_strip() -> None:
    for label, colour in COLOURS.items():
        assert contrast(np.array(colour, float), np.array(STRIP, float)) >= 3, label


def at_rate(pictures: Iterable[np.ndarray], fps: float) -> Iterator[tuple[float, np.ndarray]]:
    return ((number / fps, each) for number, each in enumerate(pictures))


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_the_video_has_every_frame_at_its_rate_in_a_form_that_browsers_play(tmp_path: Path) -> None:
    write_video(tmp_path / "out.mp4", at_rate((picture(64, 48) for _ in range(45)), 30000 / 1001), 30000 / 1001)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == Fraction(30000, 1001)
        assert len(list(container.decode(stream))) == 45
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index is in front: it plays before it is all there"


@pytest.mark.parametrize("encoder", [name for name in film.ENCODERS if name in av.codecs_available])
def test_frames_of_a_changing_rate_are_shown_at_their_own_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    monkeypatch.setattr(film, "available_encoder", lambda: encoder)
    moments = [0.0, 0.04, 0.08, 0.5, 0.54, 0.6, 1.2, 1.24, 1.24]  # a file may give two frames one moment
    shades = [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(len(moments))]
    write_video(tmp_path / "out.mp4", zip(moments, shades, strict=True), 7)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        shown = [(frame.time, frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(stream)]
        assert container.duration is not None
        assert container.duration / av.time_base > 1.24, "a player stops where the file says that it ends"
    assert [time for time, _ in shown] == pytest.approx(moments, abs=0.001)
    assert [shade for _, shade in shown] == pytest.approx([20 * number for number in range(len(moments))], abs=4)


def test_odd_sizes_are_made_even_without_losing_a_row(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(0, 250, 10, dtype=np.uint8)[:, None, None], 33, axis=1).repeat(3, axis=2)
    assert ramp.shape == (25, 33, 3)
    write_video(tmp_path / "out.mp4", at_rate([ramp] * 3, 25), 25)
    frame = decoded(tmp_path / "out.mp4")[0]
    assert frame.shape == (26, 34, 3)
    assert frame[24].mean() == pytest.approx(240, abs=6)
    assert frame[25].mean() == pytest.approx(240, abs=6)


@pytest.mark.parametrize("colour", [(200, 40, 40), (40, 180, 60), (30, 126, 196), (230, 159, 0)])
def test_colours_survive_the_video_and_are_declared(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    write_video(tmp_path / "out.mp4", at_rate([np.full((48, 64, 3), colour, np.uint8)] * 3, 25), 25)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_range)) == (1, 1), "BT.709, limited range"
    back = frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
    assert np.abs(back.reshape(-1, 3).mean(axis=0) - colour).max() < 6


def test_frames_of_different_sizes_and_no_frames_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a frame of 32x48 in a video of 64x48"):
        write_video(tmp_path / "out.mp4", at_rate([picture(64, 48), picture(32, 48)], 25), 25)
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "none.mp4", [], 25)


def test_a_machine_without_any_encoder_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film.av, "codecs_available", {"mpeg4"})
    with pytest.raises(UserError, match="pip install"):
        film.available_encoder()


def test_the_video_plays_in_a_browser(tmp_path: Path, browser: Browser) -> None:
    write_video(tmp_path / "out.mp4", at_rate((draw_frame(picture(320, 240), None, {}) for _ in range(30)), 30), 30)
    (tmp_path / "page.html").write_text("<!doctype html><link rel=icon href=data:,><video src=out.mp4 muted></video>")
    browser.open(tmp_path / "page.html", 800)
    play = "document.querySelector('video').play().then(() => 'plays', error => String(error))"
    assert browser.evaluate(play, wait=True) == "plays"
    video = browser.evaluate("(v => [v.videoWidth, v.videoHeight, v.duration])(document.querySelector('video'))")
    assert video == [320, 240 + strip_height(320), pytest.approx(1.0, abs=0.05)]


def test_lines_go_as_far_as_answers_count_and_are_broken_where_none_does() -> None:
    spans = [(0.5, 1.25), (1.25, 1.75), (1.75, 2.5), (3.5, 4.25), (4.25, 5.0)]
    times, shares = with_gaps(np.array([1.0, 1.5, 2.0, 4.0, 4.5]), spans, np.ones((5, 2)))
    assert times.tolist() == [0.5, 1.0, 1.5, 2.0, 2.5, 2.5, 3.5, 4.0, 4.5, 5.0]
    assert np.isnan(shares[5]).all()
    assert np.isfinite(np.delete(shares, 5, axis=0)).all()


def plot(path: Path, times: np.ndarray, shares: np.ndarray, labels: list[str]) -> None:
    # Windows of a second, to the end of the last.
    duration = float(times[-1]) + 0.5
    plot_timeline(path, times, covered(times.tolist(), 0.5, duration), shares, labels, duration)


def plotted(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("windows", [1, 2, 40])
def test_the_plot_shows_every_emotion_in_its_colour(tmp_path: Path, windows: int) -> None:
    labels = list(COLOURS)
    shares = np.random.default_rng(1).dirichlet(np.ones(len(labels)), windows)
    plot(tmp_path / "out.png", np.arange(windows) * 0.5 + 1.05, shares, labels)
    drawn = plotted(tmp_path / "out.png")
    assert drawn.shape[1] == 1500
    for label in labels:
        assert pixels_of(drawn, label).sum() > 20, label


def test_the_band_below_the_plot_names_the_likeliest_of_each_moment(tmp_path: Path) -> None:
    shares = np.repeat([[0.9, 0.1], [0.2, 0.8]], 10, axis=0)
    plot(tmp_path / "out.png", np.arange(20) * 0.5 + 0.5, shares, ["happy", "sad"])
    drawn = plotted(tmp_path / "out.png")
    # The band is the one place where a row is mostly one of the two colours.
    happy, sad = (pixels_of(drawn, label) for label in ("happy", "sad"))
    (band,) = {int(np.argmax(happy.sum(axis=1) + sad.sum(axis=1)))}
    assert happy[band].sum() == pytest.approx(sad[band].sum(), rel=0.05)
    assert np.nonzero(happy[band])[0].max() <= np.nonzero(sad[band])[0].min()


def test_the_same_prediction_gives_the_same_plot(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        plot(tmp_path / name, np.array([1.0, 2.0]), np.array([[0.6, 0.4], [0.3, 0.7]]), ["happy", "sad"])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_single_window_fills_the_plot_from_the_first_second_to_the_last(tmp_path: Path) -> None:
    plot_timeline(tmp_path / "out.png", np.array([0.9]), [(0.0, 1.8)], np.array([[0.8, 0.2]]), ["happy", "sad"], 1.8)
    happy = pixels_of(plotted(tmp_path / "out.png"), "happy")
    band = happy[int(np.argmax(happy.sum(axis=1)))]
    # The legend stands at the right, the names of the axes at the left.
    assert band.sum() > 0.8 * band.size
