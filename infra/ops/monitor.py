"""make monitor: the run as bars and curves that fill the terminal: progress, GPU, disk, loss, UAR, money, last lines.

`q` leaves, `l` shows more of the log; neither touches the run. Of a run that is over it shows the last picture.
"""

import io
import json
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.ops import door, ending
from infra.ops.command import is_yes, outputs_of, parser, run, said, say
from infra.ops.errors import EXIT_INTERRUPTED, UserError
from infra.ops.keyboard import Keyboard
from infra.ops.logs import patiently
from infra.ops.record import Record, choose_run, key
from infra.ops.tail import Copy, Tail
from infra.outputs import Outputs

EXAMPLES = """
make monitor
make monitor RUN=2026-01-31-184502-slowfast-face REPLAY=1
python -m infra.ops.monitor --once --svg monitor.svg
"""
LOOK_EVERY = 2.0  # seconds between two looks at S3
DRAW_EVERY = 0.25  # seconds in which a key or a new size of the terminal is seen
KEPT_LINES = 200
SILENT = 60.0  # seconds after which the machine's silence is news
REPLAY_SECONDS, REPLAY_FRAMES = 20.0, 160


def main(arguments: list[str] | None = None) -> int:
    options = parser("monitor", f"{__doc__}\n{ending.IN_WORDS}.", EXAMPLES)
    options.add_argument("--run", default=said("RUN"), help="which run (RUN=; default: the active or newest)")
    options.add_argument(
        "--replay",
        action="store_true",
        default=is_yes("REPLAY"),
        help="run through its history in 20 s (make monitor REPLAY=1)",
    )
    options.add_argument("--once", action="store_true", help="print one picture and leave")
    options.add_argument("--svg", metavar="FILE", type=Path, help="write one picture to a file instead")
    given = options.parse_args(arguments)
    return run(lambda: monitor(given.stack, given.run, given.replay, given.once, given.svg))


def monitor(stack: str, run_id: str | None, replay: bool, once: bool, svg: Path | None) -> int:
    try:
        outputs = outputs_of(stack)
        watch = Watch(outputs, patiently(lambda: choose_run(outputs, run_id)))
        view = patiently(watch.look)
        if svg:
            write_svg(view, svg)
        if svg or once:
            if not svg:
                show(view)
            return 0
        has_screen = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        if not has_screen:
            view = tell_changes(watch, view)
        elif replay:
            play(replayed(view))
        elif not ending.is_over(view.record):
            view = keep_showing(watch, view)
        if has_screen:
            show(view)  # stays when the full screen is gone
    except KeyboardInterrupt:
        say("\nno longer watching; the run goes on (`make stop` would end it)")
        return EXIT_INTERRUPTED
    if not ending.is_over(view.record):
        say("no longer watching; the run goes on (`make stop` would end it)")
        return 0
    say(ending.sentence(view.record))
    return ending.exit_code(view.record)


class Watch:
    """A run's objects, fetched again only when they have changed."""

    def __init__(self, outputs: Outputs, run_id: str) -> None:
        self.outputs, self.run_id = outputs, run_id
        names = ("request.json", "status.json", "machine.json", "outcome.json", "metrics.jsonl")
        self.copies = {name: Copy(outputs, key(run_id, name)) for name in names}
        self.active = Copy(outputs, f"active/{outputs.stack}")
        self.output = Tail(outputs, key(run_id, "output.txt"))
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)

    def look(self) -> Any:
        """The run as it stands. Raises UserError if there is none, and what boto3 raises."""
        from infra.ops.screen import View

        texts = {name: copy.read() for name, copy in self.copies.items()}
        if (asked := texts["request.json"]) is None:
            raise UserError(
                f"there is no run {self.run_id} in s3://{self.outputs.bucket}/runs/; `make runs` lists them"
            )
        status, machine, outcome = (
            json.loads(text) if (text := texts[f"{name}.json"]) else None for name in ("status", "machine", "outcome")
        )
        is_active = (self.active.read() or b"").decode().strip() == self.run_id
        record = Record(self.run_id, json.loads(asked), status, machine, outcome, is_active)
        losses, uars = read_curves(texts["metrics.jsonl"] or b"")
        self._read_lines()
        return View(record, datetime.now(UTC), losses, uars, list(self.lines), notice(record))

    def _read_lines(self) -> None:
        if not self.output.there:
            self.output.start(KEPT_LINES)
        while fresh := self.output.look():
            self.lines.extend(fresh.decode(errors="replace").splitlines())


def read_curves(metrics: bytes) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Losses and UARs over the steps, from the whole lines of metrics.jsonl."""
    lines = [json.loads(line) for line in metrics.split(b"\n")[:-1] if line]
    losses = [(line["step"], line["loss"]) for line in lines if line["kind"] == "step"]
    return losses, [(line["step"], line["uar"]) for line in lines if line["kind"] == "evaluation"]


def notice(record: Record) -> str:
    """What a watcher should know before all else, if there is anything."""
    machine = record.machine or {}
    if ending.is_over(record):
        return str((record.outcome or {}).get("reason", ""))
    if machine.get("spot_notice"):
        return "EC2 takes this machine back; the run is saved, and goes on on another one"
    if record.active and machine and (silence := ending.silence(machine)) > SILENT:
        return f"no word from the machine for {silence / 60:.0f} min; `make status` looks at it"
    if record.active and not machine:
        return "no machine has taken up the run yet; `make logs` shows how it boots"
    trouble = (machine.get("mirror") or {}).get("trouble")
    return f"S3 does not take the run's files: {trouble}" if trouble else ""


def keep_showing(watch: Watch, view: Any) -> Any:
    """Draw until the run is over or `q` is pressed; what is seen last is returned."""
    latest = Latest(watch, view)
    with Keyboard() as keyboard, full_screen() as draw:
        only_lines = False
        while True:
            draw(replace(latest.view, now=datetime.now(UTC)), only_lines)
            pressed = keyboard.wait(DRAW_EVERY)
            only_lines ^= pressed == "l"
            if pressed == "q" or (latest.seen > view.now and ending.is_over(latest.view.record)):
                return latest.view
            if latest.failure:
                raise latest.failure


class Latest:
    """Looks at the run in a thread, so that no slow answer holds up a key."""

    def __init__(self, watch: Watch, view: Any) -> None:
        self.watch, self.view = watch, view
        self.seen: datetime = view.now
        self.failure: Exception | None = None
        threading.Thread(target=self._keep_looking, daemon=True).start()

    def _keep_looking(self) -> None:
        while self.failure is None:
            time.sleep(LOOK_EVERY)
            try:
                self.view = self.watch.look()
                self.seen = self.view.now
            except Exception as error:
                if not door.is_passing(error):
                    self.failure = error
                self.view = replace(self.view, notice=f"{door.sentence(error)}; trying on")


def console(**options: Any) -> Any:
    from rich.console import Console

    return Console(highlight=False, **options)


def picture(view: Any, width: int, height: int, *, only_lines: bool = False) -> Any:
    from infra.ops.screen import frame

    return frame(view, width, height, only_lines=only_lines)


def show(view: Any) -> None:
    """Print one picture as large as the terminal, less the line of the next prompt."""
    out = console()
    width, height = out.size
    out.print(picture(view, width, height - 1))


def write_svg(view: Any, path: Path) -> None:
    out = console(record=True, file=io.StringIO(), width=100, height=30, force_terminal=True)
    out.print(picture(view, 100, 30))
    path.write_text(without_fonts(out.export_svg(title="make monitor")), encoding="utf-8")
    say(f"wrote {path}")


def without_fonts(svg: str) -> str:
    """The picture without the fonts that Rich would have a reader's browser fetch: it asks no other machine."""
    return re.sub(r"\s*@font-face \{.*?\n    \}", "", svg, flags=re.DOTALL)


class full_screen:
    """The terminal's other screen for the block; gives the function that draws on it, and draws only what changed."""

    def __enter__(self) -> Any:
        from rich.live import Live

        self.console = console()
        self.live = Live(console=self.console, screen=True, auto_refresh=False, redirect_stderr=False)
        self.live.start()
        self.drawn: Any = None
        return self.draw

    def draw(self, view: Any, only_lines: bool = False) -> None:
        width, height = self.console.size
        made = picture(view, width, height, only_lines=only_lines)
        if (made, width, height) != self.drawn:
            self.drawn = made, width, height
            self.live.update(made, refresh=True)

    def __exit__(self, *_: object) -> None:
        self.live.stop()


def tell_changes(watch: Watch, view: Any) -> Any:
    """Where there is no terminal: a line whenever the run's phase, epoch or UAR has changed, until it is over."""
    told, was_over = "", False
    while True:
        if (line := in_one_line(view.record)) != told:
            print(f"{datetime.now(UTC):%H:%M:%S} {line}", flush=True)
            told = line
        is_over = ending.is_over(view.record)
        if is_over and (was_over or not told):
            return view
        was_over = is_over
        if not is_over:
            time.sleep(LOOK_EVERY)
        view = patiently(watch.look)


def in_one_line(record: Record) -> str:
    told = record.status or {}
    words = [record.state]
    if told.get("epochs"):
        words.append(f"epoch {told['epoch']}/{told['epochs']}")
    if told.get("val"):
        words.append(f"validation UAR {told['val']['uar']:.1%}")
    return ", ".join(words)


def replayed(view: Any) -> Iterator[Any]:
    """The run's views from its first step to its last, as far as its metrics tell."""
    last = max((step for step, _ in [*view.losses, *view.uars]), default=0)
    told = view.record.status or {}
    each = max(1, (told.get("steps") or last or 1) / (told.get("epochs") or 1))
    for number in range(1, REPLAY_FRAMES + 1):
        share = number / REPLAY_FRAMES
        step = round(last * share)
        losses = [point for point in view.losses if point[0] <= step]
        uars = [point for point in view.uars if point[0] <= step]
        status = told | {"phase": "replay", "step": step, "epoch": int(max(step - 1, 0) // each) + 1, "eta": None}
        lines = view.lines[: round(len(view.lines) * share)]
        record = replace(view.record, status=status, outcome={"outcome": "replay"}, active=False)
        yield replace(view, record=record, losses=losses, uars=uars, lines=lines, notice="")


def play(views: Iterator[Any]) -> None:
    with Keyboard() as keyboard, full_screen() as draw:
        for view in views:
            draw(view)
            if keyboard.wait(REPLAY_SECONDS / REPLAY_FRAMES) == "q":
                return


if __name__ == "__main__":
    sys.exit(main())
