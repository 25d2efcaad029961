"""The monitor's picture: pure functions from what a run tells to lines of coloured text of a given width and height."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.text import Text

from infra.ops.figures import UNKNOWN, dollars, duration, gigabytes, mebibytes, parse, percent, share, since
from infra.ops.record import Record

COLOURS = {"run": "cyan", "epoch": "blue", "gpu": "green", "memory": "magenta", "disk": "yellow"}
STATES = {"finished": "green", "failed": "red", "stopped": "yellow", "interrupted": "yellow", "waiting": "yellow"}
EIGHTHS = " ▏▎▍▌▋▊▉"
# Bits of a braille character, from its top to its bottom, of its left and of its right column of dots.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
LABEL, AXIS = 7, 6  # columns before a bar, and before a curve
LEAST_CURVE = 5  # rows that a curve needs, its title included
TWO_CURVES = 60  # columns from which loss and UAR stand side by side

Point = tuple[float, float]


@dataclass(frozen=True)
class View:
    """All that a frame shows of a run at one moment."""

    record: Record
    now: datetime
    losses: list[Point] = field(default_factory=list)  # (step, loss)
    uars: list[Point] = field(default_factory=list)  # (step, UAR on the validation actors, from 0 to 1)
    lines: list[str] = field(default_factory=list)  # the last that the run has printed
    notice: str = ""


def frame(view: View, width: int, height: int, *, only_lines: bool = False) -> Text:
    """The whole picture: `height` lines of at most `width` columns. Where room is scarce the curves go first."""
    top = [title(view, width), *([Text(view.notice, "bold yellow")] if view.notice else [])]
    foot = [Text("q leaves, the run goes on  l log" if not only_lines else "q leaves  l back", "dim")]
    if not only_lines:
        top += [*bars(view, width), *money(view, width)]
    room = max(0, height - len(top) - len(foot))
    curves_height = min(room // 2 + 1, 14) if room >= 2 * LEAST_CURVE and not only_lines else 0
    middle = curves(view, width, curves_height) if curves_height else []
    log = last_lines(view.lines, room - len(middle))
    rows = [*top, *middle, *log][: height - len(foot)]
    rows += [Text()] * (height - len(foot) - len(rows)) + foot
    for row in rows:
        row.truncate(width, overflow="ellipsis")
    return Text("\n", no_wrap=True, end="").join(rows)


def title(view: View, width: int) -> Text:
    record, machine = view.record, view.record.machine or {}
    where = " ".join(str(machine[name]) for name in ("type", "market", "zone") if machine.get(name))
    state = (f" {record.state} ", f"bold black on {STATES.get(record.state, 'cyan')}")
    made = Text.assemble(state, (f" {record.run_id}", "bold"))
    if made.cell_len + len(where) + 2 <= width:
        made.append(" " * (width - made.cell_len - len(where)))
        made.append(where, "dim")
    return made


def bars(view: View, width: int) -> list[Text]:
    """Bars of the run, the epoch, the GPUs, their memory and the disk; those of several GPUs are joined."""
    told, machine = view.record.status or {}, view.record.machine or {}
    rows = [labelled("run", share(told.get("step"), told.get("steps")), width, *run_words(told))]
    rows.append(labelled(*epoch_bar(told, width)))
    gpus = machine.get("gpus") or []
    busy = [gpu["use_percent"] / 100 for gpu in gpus if gpu.get("use_percent") is not None]
    use = sum(busy) / len(busy) if busy else None
    name = f"{len(gpus)} x {gpus[0]['name']}" if len(gpus) > 1 else gpus[0]["name"] if gpus else "none answers"
    rows.append(labelled("gpu", use, width, percent(use), name))
    memory = [sum(gpu.get(f"memory_{kind}_mib") or 0 for gpu in gpus) or None for kind in ("used", "total")]
    rows.append(labelled("memory", share(*memory), width, percent(share(*memory)), mebibytes(*memory)))
    disk = [(machine.get("disk") or {}).get(name) for name in ("used_bytes", "total_bytes")]
    rows.append(labelled("disk", share(*disk), width, percent(share(*disk)), gigabytes(*disk)))
    return rows


def run_words(told: dict[str, Any]) -> tuple[str, str]:
    left = f"{duration(told['eta'])} left" if told.get("eta") is not None and told.get("phase") == "training" else ""
    steps = f"step {told['step']}/{told['steps']}  {left}" if told.get("steps") else "not begun"
    return percent(share(told.get("step"), told.get("steps"))), steps.rstrip()


def epoch_bar(told: dict[str, Any], width: int) -> tuple[str, float | None, int, str, str]:
    """The second bar: how far the epoch is, or the judging of the validation or test actors."""
    if told.get("phase") in ("validating", "evaluating") and told.get("to_evaluate"):
        done = share(told["evaluated"], told["to_evaluate"])
        return "epoch", done, width, percent(done), f"{told['phase']} {told['evaluated']}/{told['to_evaluate']}"
    if not told.get("steps") or not told.get("epochs"):
        return "epoch", None, width, UNKNOWN, ""
    each = told["steps"] / told["epochs"]
    done = share(told["step"] - (told["epoch"] - 1) * each, each)
    speed = f"  {told['clips_per_second']:.1f} clips/s" if told.get("clips_per_second") else ""
    return "epoch", done, width, percent(done), f"{told['epoch']}/{told['epochs']}{speed}"


def labelled(name: str, filled: float | None, width: int, first: str, words: str) -> Text:
    """`gpu    ███████░░░  87%  NVIDIA L4`, as wide as it may be; a narrow one does without the words."""
    room = width // 2 - LABEL if width >= TWO_CURVES else max(4, width // 4)
    made = Text.assemble((f"{name:<{LABEL}}", "bold"), bar(filled, room, COLOURS[name]), f" {first:>4}")
    return made.append(f"  {words}", "dim") if words else made


def bar(filled: float | None, width: int, colour: str) -> Text:
    """A bar of `width` columns, filled to an eighth of a column; `filled` from 0 to 1, None for unknown."""
    whole, part = divmod(round(min(max(filled or 0.0, 0.0), 1.0) * width * 8), 8)
    drawn = "█" * whole + (EIGHTHS[part] if part else "")
    return Text.assemble((drawn, colour), ("░" * (width - len(drawn)), "bright_black"))


def money(view: View, width: int) -> list[Text]:
    """Dollars, cap and deadline: one line where it is wide enough, else two."""
    machine, asked = view.record.machine or {}, view.record.request
    cap = asked.get("cap_dollars")
    spent = machine.get("dollars")
    colour = "red" if cap and spent is not None and spent > 0.9 * cap else "default"
    finish = dollars(machine.get("dollars_at_finish"))
    so_far, at_finish = (" so far", f"{finish} at its finish") if width >= TWO_CURVES else ("", f"{finish} at end")
    first = Text.assemble(
        (f"{'money':<{LABEL}}", "bold"), (f"{dollars(spent)}{so_far}", colour), f", {at_finish}, cap {dollars(cap)}"
    )
    if (ends := parse(asked.get("deadline"))) is None:
        return [first]
    left = -since(ends, view.now)
    words = f"deadline in {duration(left)}" if left > 0 else "the deadline has passed"
    if first.cell_len + len(words) + 3 <= width:
        return [first.append(f" · {words}")]
    return [first, Text(" " * LABEL + words)]


def last_lines(lines: Sequence[str], count: int) -> list[Text]:
    kept = list(lines)[-count:] if count > 0 else []
    return [Text("".join(c if c.isprintable() else " " for c in line)) for line in kept]


def curves(view: View, width: int, height: int) -> list[Text]:
    """Loss and UAR side by side, or the one of them that says more where only one has room."""
    drawn: list[tuple[str, list[Point], str, Callable[[float], str]]] = [
        ("loss", view.losses, "red", lambda value: f"{value:.2f}"),
        ("validation UAR", view.uars, "green", lambda value: f"{value:.0%}"),
    ]
    if width < TWO_CURVES:
        return curve(*drawn[len(view.uars) > 1], width, height)
    half = (width - 2) // 2
    left, right = (curve(*one, half, height) for one in drawn)
    return [Text.assemble(a, " " * (half - a.cell_len + 2), b) for a, b in zip(left, right, strict=True)]


def curve(
    name: str, points: list[Point], colour: str, word: Callable[[float], str], width: int, height: int
) -> list[Text]:
    """A line with the curve's name and its last value, then the curve between its least and its greatest value."""
    good = [point for point in points if math.isfinite(point[1])]
    if not good:
        return [Text.assemble((name, "bold"), (" none yet", "dim")), *[Text()] * (height - 1)]
    values = [y for _, y in good]
    least, greatest = min(values), max(values)
    rows = [Text.assemble((name, "bold"), f" {word(values[-1])}", (f" at step {good[-1][0]:.0f}", "dim"))]
    if width <= AXIS:  # no room for the curve itself
        return [*rows, *[Text()] * (height - 1)]
    for number, drawn in enumerate(braille(good, width - AXIS, height - 1)):
        mark = word(greatest) if number == 0 else word(least) if number == height - 2 else ""
        rows.append(Text.assemble((f"{mark:>{AXIS - 1}} ", "dim"), (drawn, colour)))
    return rows


def braille(points: Sequence[Point], width: int, height: int) -> list[str]:
    """The points as a line of braille dots, two to a column and four to a row, from the least to the greatest.

    Points that share a column of dots are averaged; between distant ones the line is straight.
    """
    columns, dots = 2 * width, 4 * height
    cells = [[0] * width for _ in range(height)]
    first, last = points[0][0], points[-1][0]
    at: dict[int, list[float]] = {}
    for x, y in points:
        at.setdefault(round((x - first) / (last - first) * (columns - 1)) if last > first else 0, []).append(y)
    known = [(column, sum(ys) / len(ys)) for column, ys in sorted(at.items())]
    low, high = min(y for _, y in known), max(y for _, y in known)
    before = -1
    for (left, a), (right, b) in zip(known, [*known[1:], known[-1]], strict=True):
        for column in range(left, max(right, left + 1)):
            y = a + (b - a) * (column - left) / max(right - left, 1)
            row = round((high - y) / (high - low) * (dots - 1)) if high > low else dots // 2
            reached = row if before < 0 else before  # so that a steep line has no gaps
            for dot in range(min(row, reached), max(row, reached) + 1):
                cells[dot // 4][column // 2] |= DOTS[column % 2][dot % 4]
            before = row
    return ["".join(chr(0x2800 + cell) for cell in line) for line in cells]
