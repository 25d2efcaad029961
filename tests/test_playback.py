"""The page of a prediction: what it says and draws, and how it plays. Run: pytest tests/test_playback.py"""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser
from pages import OVERLAPPING, TOO_WIDE, violations, wait_for

from trainer.film import write_video
from trainer.playback import confidence, course, headline, stretches, times, write_playback

LABELS = ("angry", "happy", "sad")


def window(second: float, *shares: float) -> dict[str, Any]:
    return {"seconds": second, "box": [0, 0, 9], "probabilities": dict(zip(LABELS, shares, strict=True))}


def result(windows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """What `predict` writes to NAME.json of a film of eight seconds."""
    overall = {label: sum(w["probabilities"][label] for w in windows) / len(windows) for label in LABELS}
    return {
        "video": "talk & <more>.mp4", "model": "model.safetensors", "weights_sha256": "b7" * 32,
        "video_sha256": "5d" * 32, "model_sha256": "b7" * 32, "stride": 0.5, "temperature": 1.4,
        "learned_from_drawn_faces": False, "labels": list(LABELS), "duration": 8.0, "size": [640, 436],
        "seconds_per_window": 2.0, "overall": overall, "windows_without_face": 4, "windows": windows, **changes,
    }  # fmt: skip


# Happy, then sad; no face around the fourth second.
TALK = [window(1.0, 0.1, 0.8, 0.1), window(1.5, 0.1, 0.7, 0.2), window(2.0, 0.1, 0.3, 0.6), window(6.5, 0.2, 0.1, 0.7),
        window(7.0, 0.2, 0.1, 0.7)]  # fmt: skip


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text.replace("\u00a0", " ")))


def test_the_headline_says_what_the_video_is_on_the_whole_and_how_often() -> None:
    assert plain(headline(result(TALK))) == "Sad: 46 % on average, and likeliest in 3 of 5 windows."
    assert plain(headline(result(TALK[:1]))) == "Happy: 80 %, from one window."


def test_what_the_percentages_are_and_what_was_left_out_is_said() -> None:
    told = plain(confidence(result(TALK)))
    assert "divided by a temperature of 1.40" in told
    assert told.endswith("4 windows found no face and got no answer.")
    raw = plain(confidence(result(TALK, temperature=None, windows_without_face=0)))
    assert raw.endswith("as the network states them, which is too sure as a rule.")


def test_stretches_are_all_the_seconds_that_are_answered_for_and_end_where_the_face_is_gone() -> None:
    told = [(s["start"], s["end"], s["label"], round(s["mean"], 2)) for s in stretches(result(TALK))]
    assert told == [(0.0, 1.75, "happy", 0.75), (1.75, 3.0, "sad", 0.6), (5.5, 8.0, "sad", 0.7)]


def test_the_likeliest_emotions_are_counted_over_all_windows() -> None:
    assert plain(times(TALK)) == "Likeliest in the windows: sad in 60 %, happy in 40 %."


def test_a_window_stands_for_the_seconds_that_it_sees_and_a_gap_for_none() -> None:
    drawn = course(result(TALK), "sad")
    assert [point for point in drawn if math.isfinite(point[1])] == [
        (0.0, 0.1), (1.0, 0.1), (1.5, 0.2), (2.0, 0.6), (3.0, 0.6), (5.5, 0.7), (6.5, 0.7), (7.0, 0.7), (8.0, 0.7),
    ]  # fmt: skip
    assert [second for second, share in drawn if math.isnan(share)] == [3.0, 8.0]


def test_two_runs_of_windows_at_the_same_seconds_meet_half_way() -> None:
    close = [window(1.0, 0.1, 0.8, 0.1), window(2.6, 0.1, 0.2, 0.7)]
    seconds = [second for second, _ in course(result(close), "sad")]
    assert seconds == pytest.approx([0, 1, 1.8, 1.8, 1.8, 2.6, 3.6, 3.6])


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page beside a film of eight seconds, each of its own shade, in a folder whose name needs quoting."""
    folder = tmp_path_factory.mktemp("played") / "a # folder"
    folder.mkdir()
    shades = (np.full((96, 160, 3), 25 * (number // 10), np.uint8) for number in range(80))
    write_video(folder / "talk 100%.mp4", ((number / 10, shade) for number, shade in enumerate(shades)), 10)
    page = folder / "talk 100%.html"
    write_playback(page, result(TALK, size=[160, 96]))
    return page


def test_the_page_is_its_own_but_for_the_film_beside_it_and_escapes_names(played: Path) -> None:
    html = played.read_text(encoding="utf-8")
    assert set(re.findall(r'(?:src|href)="([^"#]+)"', html)) == {"data:,", "talk%20100%25.mp4"}
    assert "talk &amp; &lt;more&gt;.mp4, read by model.safetensors" in html
    assert "default-src 'none'" in html
    for w in TALK:
        assert f'<th scope="row">{w["seconds"]:.1f}</th>' in html
    told = json.loads(re.search(r"data-told='([^']+)'", html).group(1))  # type: ignore[union-attr]
    assert told["shares"] == [list(w["probabilities"].values()) for w in TALK]


@pytest.mark.parametrize("width", [360, 1600])
def test_in_a_browser_nothing_sticks_out_or_is_complained_of(browser: Browser, played: Path, width: int) -> None:
    browser.open(played, width)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(TOO_WIDE) == []
    assert browser.evaluate(OVERLAPPING) == []
    assert browser.complaints() == []
    assert set(browser.requests()) == {played.as_uri(), (played.parent / "talk 100%.mp4").as_uri()}


def test_a_keyboard_is_enough_to_play_and_to_seek(browser: Browser, played: Path) -> None:
    browser.open(played, 1000)
    wait_for(browser, "document.querySelector('video').readyState >= 2")
    focus = "document.activeElement.tagName + ' ' + (document.activeElement.type || '')"
    order = []
    for _ in range(2):
        browser.press("Tab")
        order.append(browser.evaluate(focus))
    assert order == ["INPUT range", "BUTTON button"]
    browser.press("Enter")
    wait_for(browser, "document.querySelector('video').currentTime > 0.3")
    wait_for(browser, "document.querySelector('button').innerText.startsWith('Pause')")
    browser.press("Enter")
    wait_for(browser, "document.querySelector('video').paused")
    wait_for(browser, "document.querySelector('button').innerText.startsWith('Play')")
    browser.evaluate("document.querySelector('input').focus()")
    browser.press("End")
    wait_for(browser, "document.querySelector('video').currentTime > 7.5")
    browser.press("Home")
    wait_for(browser, "document.querySelector('video').currentTime < 0.2")


@pytest.mark.parametrize(("second", "says"), [(1.2, "1.2 s: happy 80 %"), (2.4, "2.4 s: sad 60 %"),
                                              (4.4, "4.4 s: no answer"), (6.8, "6.8 s: sad 70 %")])  # fmt: skip
def test_picture_cursor_and_words_are_at_the_same_moment(
    browser: Browser, played: Path, second: float, says: str
) -> None:
    browser.open(played, 1000)
    wait_for(browser, "document.querySelector('video').readyState >= 2")
    browser.evaluate(
        f"(i => {{ i.value = {second}; i.dispatchEvent(new Event('input')) }})(document.querySelector('input'))"
    )
    wait_for(browser, f"document.querySelector('output').innerText.startsWith('{second}')")
    assert browser.evaluate("document.querySelector('output').innerText").replace("\u00a0", " ") == says
    spoken = browser.evaluate("document.querySelector('input').getAttribute('aria-valuetext')")
    assert spoken.replace("\u00a0", " ") == says
    assert float(browser.evaluate("document.querySelector('.player').style.getPropertyValue('--at')")) == pytest.approx(
        second / 8, abs=0.02
    )
    wait_for(browser, "!document.querySelector('video').seeking")
    # Each second of the film has a shade of its own.
    assert np.median(browser.picture("video")) == pytest.approx(25 * int(second), abs=8)


def test_axe_finds_no_fault(browser: Browser, played: Path) -> None:
    for dark in (False, True):
        browser.open(played, 1000, dark=dark)
        assert violations(browser) == []
