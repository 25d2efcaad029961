"""What a person sees while a run trains: live bars on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_LINE_SECONDS = 10.0


class TrainingProgress:
    """Two bars, the run and the epoch, with loss, UAR, speed and the share of time spent waiting for data."""

    def __init__(self, title: str, epochs: int, steps_per_epoch: int, first_step: int, shown: bool) -> None:
        self.title, self.epochs, self.steps_per_epoch = title, epochs, steps_per_epoch
        self.first_step = first_step
        self.shown = shown
        self.live = shown and sys.stderr.isatty()
        self.started = self.last_line = time.monotonic()
        columns = (
            TextColumn("[bold]{task.description:<12}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
        )
        self.bars = Progress(*columns, console=Console(stderr=True), disable=not self.live)
        self.run_bar = self.bars.add_task(title, total=epochs * steps_per_epoch, completed=first_step, facts="")
        self.epoch_bar = self.bars.add_task("epoch", total=steps_per_epoch, facts="")

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def eta(self, step: int) -> float:
        """Seconds left at the pace so far, this start's steps only."""
        done = step - self.first_step
        left = self.epochs * self.steps_per_epoch - step
        return (time.monotonic() - self.started) / max(done, 1) * left

    def show_step(self, step: int, loss: float, clips_per_second: float, data_wait: float) -> None:
        epoch, within = divmod(step - 1, self.steps_per_epoch)
        speed = f"{clips_per_second:5.1f} clips/s  data wait {data_wait:4.0%}"
        if self.live:
            self.bars.update(self.run_bar, completed=step)
            self.bars.update(
                self.epoch_bar,
                completed=within + 1,
                description=f"epoch {epoch + 1}/{self.epochs}",
                facts=f"loss {loss:.3f}  {speed}",
            )
        elif self.shown and time.monotonic() - self.last_line >= PLAIN_LINE_SECONDS:
            self.last_line = time.monotonic()
            print(
                f"{self.title} epoch {epoch + 1}/{self.epochs} step {within + 1}/{self.steps_per_epoch} "
                f"loss {loss:.3f}  {speed}  {self.eta(step):.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def show_evaluation(self, epoch: int, losses: list[float], validation: dict[str, Any]) -> str:
        """A lasting line per epoch, returned too: loss over the steps of this start, what the validation actors say."""
        loss = f"loss {sum(losses) / len(losses):.3f}  " if losses else ""
        line = (
            f"{self.title} epoch {epoch + 1:>2}/{self.epochs}  {loss}"
            f"val loss {validation['loss']:.3f}  val UAR {validation['uar']:.1%}  val WAR {validation['war']:.1%}"
        )
        if self.live:
            self.bars.update(self.run_bar, facts=f"val UAR {validation['uar']:.1%}")
            self.bars.console.print(line, highlight=False)
        elif self.shown:
            print(line, file=sys.stderr, flush=True)
            self.last_line = time.monotonic()
        return line
