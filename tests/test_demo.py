"""The demo goes from nothing to a report and a prediction, and says what to do next. Half a minute, for it trains.

Run: pytest tests/test_demo.py
"""

import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from toys import TINY

from manifests.video import read_frames
from trainer import demo as line
from trainer.__main__ import main

SHORT = [*TINY, "optim.epochs=1", "model.depth=18", "evaluation.robustness=false"]


def test_the_demo_shows_each_stage_and_ends_with_what_to_open_and_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "ACTORS", 3)
    monkeypatch.setenv("VIRTUAL_ENV", "active")
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--out", "small", *SHORT]) == 0
    out, err = capsys.readouterr()
    assert re.findall(r"^(\d)/7  ", err, re.M) == list("1234567")
    stages = re.findall(r"^\$ python -m (\w+ \w+)", out, re.M)
    assert stages == [
        "manifests synth", "manifests build", "manifests prepare", "trainer fit", "trainer fit", "trainer report",
        "trainer predict",
    ]  # fmt: skip
    end = out.partition("on actors that neither has seen")[2]
    assert "guessing gets 16.7%" in end
    pages = [Path(place.removeprefix("file://")) for place in re.findall(r"file://\S+", end)]
    assert [page.suffix for page in pages] == [".html", ".html"]
    assert all(page.is_file() for page in pages)
    tried = []
    monkeypatch.setattr("trainer.__main__.run_command", lambda work: tried.append(work) or 0)
    for command in re.findall(r"^  python -m trainer (fit .*?)(?:  #|$)", end, re.M):
        assert main(command.split()) == 0
    assert len(tried) == 1
    monkeypatch.undo()
    monkeypatch.setattr(line, "ACTORS", 3)
    monkeypatch.chdir(tmp_path)

    # Again: nothing is left to do, and other settings are another demo.
    assert main(["demo", "--out", "small", *SHORT]) == 0
    assert "nothing to do: small/slowfast is finished" in capsys.readouterr().out
    assert main(["demo", "--out", "small", *SHORT, "seed=2"]) == 2
    assert "stopped in stage 4 of 7; `make demo` goes on, `make demo OUT=DIR` begins anew" in capsys.readouterr().err


def test_takes_are_joined_to_one_film_of_their_own_pace(tmp_path: Path) -> None:
    assert main(["demo", "--out", str(tmp_path), "--data", str(tmp_path / "nowhere")]) == 2
    videos = tmp_path / "videos"
    line.COMMANDS["manifests"](["synth", "--out", str(videos), "--actors", "2", "--takes", "1"])
    paths = sorted(path.relative_to(videos) for path in videos.rglob("02-*.mp4"))[:2]
    takes = pd.DataFrame({"actor": "ravdess_01", "path": [str(path) for path in paths], "fps": [29.97, 29.97]})
    film = line.join_takes(videos, takes, tmp_path)
    counts = [sum(1 for _ in read_frames(videos / path)) for path in paths]
    moments = [seconds for seconds, _ in read_frames(film)]
    assert len(moments) == sum(counts)
    assert moments == sorted(set(moments))
    assert moments[-1] == pytest.approx(len(moments) / 29.97, rel=0.02)


@pytest.mark.parametrize(("active", "shown"), [("yes", "python"), ("", ".venv/bin/python")])
def test_a_command_is_shown_as_it_can_be_typed(
    active: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", active)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    monkeypatch.chdir(tmp_path)
    assert line.this_python() == shown
