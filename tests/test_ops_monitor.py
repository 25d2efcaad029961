"""make monitor on a real terminal of changing size, and its picture as pure functions.

Run: pytest tests/test_ops_monitor.py
"""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from calls import calls
from cloud import Cloud
from hypothesis import example, given, settings
from hypothesis import strategies as st
from terminal import ALTERNATE_OFF, ALTERNATE_ON, Terminal
from watching import Stage, forbidden, iso, machine, request, stage, status

from infra.ops.monitor import REPLAY_FRAMES, notice, read_curves, replayed
from infra.ops.record import Record
from infra.ops.screen import View, bar, braille, frame

RUN = "2026-01-31-184502-r50"
FAILED = {"outcome": "failed", "reason": "the machine had no memory left", "exit_code": 1, "last_lines": []}


def metrics(steps: int) -> str:
    lines = []
    for step in range(10, steps + 1, 10):
        lines.append({"kind": "step", "step": step, "loss": 2 * math.exp(-step / 300)})
        if step % 100 == 0:
            lines.append({"kind": "evaluation", "split": "val", "step": step, "uar": step / 2000, "loss": 1.0})
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def desk(aws: Cloud, tmp_path: Path) -> Iterator[Stage]:
    with stage(aws, tmp_path) as made:
        output = "".join(f"line {number}\n" for number in range(300))
        made.put_run(RUN, machine=machine(), status=status(), metrics=metrics(500), output=output)
        made.activate(RUN)
        yield made


@contextmanager
def terminal(desk: Stage, *arguments: str, columns: int = 80, rows: int = 24) -> Iterator[Terminal]:
    line = [sys.executable, "-m", "infra.ops.monitor", *arguments]
    made = Terminal(line, desk.environment(), desk.folder, columns, rows)
    try:
        yield made
    finally:
        made.close()


def end_run(desk: Stage) -> None:
    desk.put(f"runs/{RUN}/machine.json", machine(phase="ended"))
    desk.put(f"runs/{RUN}/outcome.json", FAILED)
    desk.delete(f"active/{desk.outputs.stack}")


def test_it_fills_the_terminal_follows_its_size_and_leaves_by_q(desk: Stage) -> None:
    with terminal(desk) as seen:
        seen.wait_for(lambda: "line 299" in seen.text, "the picture")
        assert seen.text.count(ALTERNATE_ON) == 1
        shown = seen.screen()
        assert len(shown) == 24
        assert all(len(line) <= 80 for line in shown)
        for words in (f"training  {RUN}", "25%  step 250/1000", "3/10  31.4 clips/s", "87%  NVIDIA L4",
                      "11.6 of 24.2 GB", "80.0 of 250.0 GB", "$1.25 so far, $4.50 at its finish, cap $20.00",
                      "loss 0.38", "validation UAR 25%", "⠀", "line 299"):  # fmt: skip
            assert words in "\n".join(shown), words
        seen.type("l")
        seen.wait_for(lambda: "line 280" in "\n".join(seen.screen()), "more of the log")
        seen.resize(40, 12)
        seen.wait_for(lambda: len(seen.screen()) == 12, "the smaller picture")
        assert all(len(line) <= 40 for line in seen.screen())
        seen.type("l")
        desk.put(f"runs/{RUN}/status.json", status(step=777))
        seen.wait_for(lambda: "step 777/1000" in "\n".join(seen.screen()), "the next step")
        assert "\x1b[2J" not in seen.text.partition("\x1b[H")[2]  # nothing is wiped, so nothing flickers
        seen.type("q")
        assert seen.end() == 0
        assert seen.is_as_before()
        assert seen.text.count(ALTERNATE_OFF) == 1
        assert "step 777/1000" in seen.after()  # the last picture stays
        assert "no longer watching; the run goes on" in seen.after()


def test_it_ends_with_the_run_and_tells_the_outcome(desk: Stage) -> None:
    with terminal(desk) as seen:
        seen.wait_for(lambda: "line 299" in seen.text, "the picture")
        end_run(desk)
        assert seen.end() == 1
        assert " failed " in seen.after()
        assert f"run {RUN} failed: the machine had no memory left; `make resume RUN={RUN}`" in seen.after()


def test_ctrl_c_leaves_the_terminal_as_it_was_and_the_run_going(desk: Stage) -> None:
    with terminal(desk) as seen:
        seen.wait_for(lambda: "line 299" in seen.text, "the picture")
        seen.type("\x03")
        assert seen.end() == 130
        assert seen.is_as_before()
        assert seen.text.count(ALTERNATE_OFF) == 1
        assert "no longer watching; the run goes on" in seen.after()


def test_a_run_that_is_over_is_shown_as_it_ended_and_replayed_if_asked(desk: Stage) -> None:
    end_run(desk)
    with terminal(desk) as seen:
        assert seen.end() == 1
        assert ALTERNATE_ON not in seen.text
        assert "the machine had no memory left" in seen.text
    with terminal(desk, "--replay") as seen:
        seen.wait_for(lambda: " replay " in seen.text, "the replay")
        seen.wait_for(lambda: "step 9/1000" in seen.text and "line 103" in seen.text, "its first steps")
        seen.type("q")
        assert seen.end() == 1
        assert "step 250/1000" in seen.after()


def test_without_a_terminal_it_tells_each_change_in_a_line(desk: Stage) -> None:
    watching = desk.start("monitor")
    assert watching.stdout
    assert watching.stdout.readline()[9:] == "training, epoch 3/10, validation UAR 61.2%\n"
    desk.put(f"runs/{RUN}/status.json", status(epoch=4))
    assert watching.stdout.readline()[9:] == "training, epoch 4/10, validation UAR 61.2%\n"
    end_run(desk)
    out, err = watching.communicate(timeout=60)
    assert out.splitlines()[-1][9:] == "failed, epoch 4/10, validation UAR 61.2%"
    assert watching.returncode == 1
    assert "\x1b" not in out + err


def test_one_picture_can_be_printed_or_written(desk: Stage) -> None:
    done = desk.make("monitor", "--once")
    assert done.returncode == 0, done.stderr
    assert "step 250/1000" in done.stdout
    assert "\x1b" not in done.stdout
    target = desk.folder / "monitor.svg"
    done = desk.make("monitor", "--svg", str(target))
    assert (done.returncode, done.stdout) == (0, "")
    assert target.read_text().startswith("<svg")
    assert "NVIDIA&#160;L4" in target.read_text()


def test_it_asks_for_no_more_than_it_needs_within_the_operators_policy(desk: Stage, aws: Cloud) -> None:
    with calls(aws.url) as seen:
        assert replace(desk, endpoint=seen.url).make("monitor", "--run", RUN, "--once").returncode == 0
        # five objects of the run, the stack's note, the log's end, what is in it, and that there is no more
        assert seen.names == {"ssm:GetParameter": 1, "s3:GetObject": 5 + 1 + 3}
        assert forbidden(desk, seen.made) == []


def test_a_run_that_is_not_there_is_a_sentence(desk: Stage) -> None:
    done = desk.make("monitor", "--run", "no-such-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no run no-such-run" in done.stderr


def view(**changes: Any) -> View:
    parts = {"status": status(), "machine": machine(), "outcome": None, "active": True} | changes
    losses, uars = read_curves(metrics(500).encode())
    record = Record(RUN, request(), parts["status"], parts["machine"], parts["outcome"], parts["active"])
    return View(record, datetime.now(UTC), losses, uars, [f"line {number} \x1b[2J\t" * 9 for number in range(99)], "")


@settings(deadline=None, max_examples=60)
@given(width=st.integers(1, 250), height=st.integers(1, 90), lines=st.booleans(), known=st.booleans())
@example(width=1, height=19, lines=False, known=False)
def test_a_frame_is_as_high_as_asked_and_no_wider(width: int, height: int, lines: bool, known: bool) -> None:
    shown = view() if known else view(status=None, machine=None)
    drawn = frame(shown, width, height, only_lines=lines).plain.split("\n")
    assert len(drawn) == height
    assert all(len(line) <= width for line in drawn)
    assert "\x1b" not in "".join(drawn)  # what a run prints moves no cursor


@settings(deadline=None)
@given(share=st.one_of(st.none(), st.floats(-1, 2)), width=st.integers(1, 120))
def test_a_bar_is_as_long_as_its_share(share: float | None, width: int) -> None:
    drawn = bar(share, width, "green").plain
    assert len(drawn) == width
    filled = drawn.count("█") + sum("▏▎▍▌▋▊▉".index(c) + 1 for c in drawn if c in "▏▎▍▌▋▊▉") / 8
    assert filled == pytest.approx(min(max(share or 0, 0), 1) * width, abs=1 / 16)


def dots(rows: list[str]) -> set[tuple[int, int]]:
    """Columns and rows, from the upper left, of the dots of a braille picture."""
    places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]  # in the order of the bits
    return {
        (2 * x + dx, 4 * y + dy)
        for y, row in enumerate(rows)
        for x, letter in enumerate(row)
        for bit, (dx, dy) in enumerate(places)
        if (ord(letter) - 0x2800) >> bit & 1
    }


def test_a_curve_falls_where_its_values_fall_and_has_no_gaps() -> None:
    drawn = dots(braille([(x, -x) for x in range(100)], 20, 5))
    assert {(0, 0), (39, 19)} <= drawn
    assert {x for x, _ in drawn} == set(range(40))
    steep = dots(braille([(0, 0.0), (1, 0.0), (2, 9.0), (3, 9.0)], 2, 6))
    assert {y for _, y in steep} == set(range(24))


@pytest.mark.parametrize("points", [[(5.0, 1.0)], [(1.0, 2.0), (2.0, 2.0)], [(3.0, 1.0), (3.0, 4.0)]])
def test_one_value_alone_is_a_curve_too(points: list[tuple[float, float]]) -> None:
    drawn = braille(points, 8, 3)
    assert [len(row) for row in drawn] == [8, 8, 8]
    assert dots(drawn)


def test_a_loss_that_is_no_number_breaks_nothing() -> None:
    shown = view()
    shown.losses[3] = (40, math.nan)
    assert "loss" in frame(shown, 80, 24).plain


def test_a_torn_last_line_of_metrics_is_left_for_later() -> None:
    losses, uars = read_curves(metrics(200).encode() + b'{"kind": "st')
    assert [step for step, _ in losses] == list(range(10, 201, 10))
    assert uars == [(100, 0.05), (200, 0.1)]


def test_a_replay_runs_through_the_whole_run() -> None:
    pictures = list(replayed(view()))
    assert len(pictures) == REPLAY_FRAMES
    steps = [picture.record.status["step"] for picture in pictures]
    assert steps == sorted(steps)
    assert (steps[-1], pictures[-1].record.status["epoch"]) == (500, 5)
    assert all(point[0] <= step for picture, step in zip(pictures, steps, strict=True) for point in picture.losses)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"machine": None}, "no machine has taken up the run yet"),
        ({"machine": {"time": -5.0}}, "no word from the machine for 5 min"),
        ({"machine": {"spot_notice": {"action": "terminate"}}}, "EC2 takes this machine back"),
        ({"machine": {"mirror": {"trouble": "SlowDown"}}}, "S3 does not take the run's files: SlowDown"),
        ({"active": False, "outcome": FAILED, "machine": {"phase": "ended"}}, "the machine had no memory left"),
    ],
)
def test_what_a_watcher_should_know_first(changes: dict[str, Any], told: str) -> None:
    if minutes := (changes.get("machine") or {}).get("time"):
        changes = {"machine": {"time": iso(minutes=minutes)}}
    if changes.get("machine"):
        changes = changes | {"machine": machine(**changes["machine"])}
    said = notice(view(**changes).record)
    assert said.startswith(told)
    assert bool(said) == bool(told)
