"""The live bars tell what the line above them tells. Run: pytest tests/test_progress.py"""

import io
import sys

import pytest

from trainer.progress import TrainingProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_ends_with_the_score_of_the_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setenv("COLUMNS", "120")
    with TrainingProgress("slowfast", epochs=2, steps_per_epoch=1, first_step=0, shown=True) as progress:
        for epoch, uar in enumerate((0.5, 0.75)):
            progress.show_step(epoch + 1, 1.0, 20.0, 0.0)
            progress.show_evaluation(epoch, [1.0], {"loss": 1.0, "uar": uar, "war": uar})
    last_bar = screen.getvalue().rpartition("slowfast    ")[2]
    assert "val UAR 75.0%" in last_bar
    assert "2/2" in last_bar


def test_without_a_terminal_there_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress("slowfast", epochs=1, steps_per_epoch=1, first_step=0, shown=True) as progress:
        progress.show_evaluation(0, [], {"loss": 1.0, "uar": 0.5, "war": 0.25})
    assert capsys.readouterr().err == "slowfast epoch  1/1  val loss 1.000  val UAR 50.0%  val WAR 25.0%\n"
