"""Charts as inline SVG: pure functions from numbers to markup, without ids, scripts or colours of their own.

Every shape carries a CSS class (`line-a`, `grid`, `bar` ...) and the page decides its colour, so one drawing serves the
dark theme, the light one and the printer. Series differ in dash and in marker as well as in colour. What a chart shows
is told by its `role="img"` label; the numbers themselves stand beside it.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

# Drawn as wide as it is shown, on a phone and three to a row on a wide screen: its text stays near 12 px.
WIDTH = 360
HEIGHT = 236
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 34, 38

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One series: its name in the legend (empty: not in the legend), (x, y) in order of x, and its look.

    `look` is a CSS suffix: a, b, c for the series colours, `faint` for the raw data behind a smoothed one, `rule` for a
    reference. `dots` marks each point. A y that is not finite breaks the line.
    """

    name: str
    points: Sequence[Point]
    look: str
    dots: bool = False


def line_chart(lines: Sequence[Line], label: str, y_range: Point, y_text: Callable[[float], str]) -> Markup:
    """Lines over the steps of training, from 0 to the last; `y_text` words the y ticks, `label` what it shows."""
    last = max((x for line in lines for x, _ in line.points), default=1) or 1
    x_ticks = [tick for tick in ticks(0, last, 5) if tick <= last]
    y_ticks = ticks(*y_range, 5)
    across = _scale(0, last, LEFT, WIDTH - RIGHT)
    up = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_legend([line for line in lines if line.name])]
    for value in y_ticks:
        parts.append(_rule(LEFT, up(value), WIDTH - RIGHT, up(value), "grid"))
        parts.append(_text(LEFT - 8, up(value) + 4, y_text(value), "end"))
    for value in x_ticks:
        parts.append(_text(across(value), HEIGHT - BOTTOM + 17, f"{value:,.10g}", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "step", "middle"))
    for line in lines:
        for run in _unbroken(line.points):
            placed = [(across(x), up(y)) for x, y in run]
            if len(placed) > 1:
                path = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
                parts.append(Markup('<path class="line-{}" d="M{}"/>').format(line.look, path))
            if line.dots or len(placed) == 1:
                parts += [_dot(x, y, 3.2, line.look) for x, y in placed]
    return _svg(WIDTH, HEIGHT, label, parts)


def reliability(bins: Sequence[tuple[float, float, int]], label: str) -> Markup:
    """Accuracy against confidence, one disc per bin of (mean confidence, accuracy, videos), its area as the videos.

    Their number stands above it, unless that of a larger disc stands there.

    The dashed diagonal is a model that is right exactly as often as it says.
    """
    side = WIDTH - LEFT - RIGHT
    height = TOP + side + BOTTOM
    across = _scale(0, 1, LEFT, WIDTH - RIGHT)
    up = _scale(0, 1, TOP + side, TOP)
    parts = [_text(LEFT - 30, TOP - 14, "right, %", "start")]
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_rule(LEFT, up(value), WIDTH - RIGHT, up(value), "grid"))
        parts.append(_text(LEFT - 8, up(value) + 4, f"{100 * value:.0f}", "end"))
        parts.append(_text(across(value), TOP + side + 17, f"{100 * value:.0f}", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, height - 4, "how sure it says it is, %", "middle"))
    parts.append(_rule(across(0), up(0), across(1), up(1), "line-rule"))
    most = max((videos for _, _, videos in bins), default=1)
    discs = [(across(x), up(y), math.sqrt(videos / most), f"{videos:,}") for x, y, videos in bins]
    for (x, y, size, _), (confidence, *_) in zip(discs, bins, strict=True):
        # As wide as it weighs: the long gap of a single video must not be what one sees first.
        gap = '<line class="gap" x1="{}" y1="{}" x2="{}" y2="{}" stroke-width="{}"/>'
        parts.append(Markup(gap).format(*map(_short, (x, up(confidence), x, y, 4 * size))))
        parts.append(_dot(x, y, 3 + 8 * size, "a bubble"))
    told: list[tuple[float, float, str]] = []
    for x, y, size, words in sorted(discs, key=lambda disc: -disc[2]):
        above = y - 7 - 8 * size
        if all(abs(x - left) > 4 * len(words + other) + 2 or abs(above - high) > 13 for left, high, other in told):
            told.append((x, above, words))
    parts += [_text(*place, "middle") for place in told]
    return _svg(WIDTH, height, label, parts)


def bar(share: float | None, mark: float | None = None) -> Markup:
    """A bar from 0 to `share` of the width, with an upright mark, for a table cell whose text gives the number.

    Purely decorative beside that number, so hidden from screen readers. It stretches to its cell.
    """
    parts = [Markup('<rect class="trough" width="100" height="10"/>')]
    if share is not None and math.isfinite(share):
        parts.append(Markup('<rect class="bar" width="{}" height="10"/>').format(_short(100 * share)))
    if mark is not None:
        parts.append(_rule(100 * mark, 0, 100 * mark, 10, "mark"))
    return _strip(parts)


def whisker(value: float, bounds: Point | None, mark: float, look: str) -> Markup:
    """A point with its interval on a scale from 0 to 1, and an upright mark (chance); decorative, as `bar` is."""
    parts = [
        Markup('<rect class="trough" y="4" width="100" height="2"/>'),
        _rule(100 * mark, 0, 100 * mark, 10, "mark"),
    ]
    if bounds is not None:
        low, high = bounds
        parts.append(
            Markup('<rect class="span-{}" x="{}" y="2.5" width="{}" height="5"/>').format(
                look, _short(100 * low), _short(max(100 * (high - low), 0.4))
            )
        )
    parts.append(_rule(100 * value, 0, 100 * value, 10, f"point-{look}"))
    return _strip(parts)


def profile(points: Sequence[Point], length: float) -> Markup:
    """A share from 0 to 1 over the `length` seconds of a video, as an area; decorative, as `bar` is.

    A share that is not finite leaves a gap; a lonely point is drawn as wide as a twenty-fifth of the video.
    """
    parts = [Markup('<rect class="trough" width="100" height="10"/>')]
    for run in _unbroken(points):
        seconds, shares = zip(*run, strict=True)
        across = [100 * second / length for second in seconds]
        look = "area"
        if len(run) == 1:
            left = min(max(across[0] - 2, 0), 96)
            across, shares, look = [left, left + 4], (shares[0], shares[0]), "area lone"
        top = "L".join(f"{_short(x)} {_short(10 - 10 * y)}" for x, y in zip(across, shares, strict=True))
        area = '<path class="{}" d="M{} 10L{}L{} 10Z"/><path class="profile" d="M{}"/>'
        parts.append(Markup(area).format(look, _short(across[0]), top, _short(across[-1]), top))
    return _strip(parts)


def difference(value: float, bounds: Point, reach: float) -> Markup:
    """A difference with its interval on a scale from -reach to reach, the mark at none; decorative, as `bar` is."""
    low, high, at = (50 + 50 * number / reach for number in (*bounds, value))
    parts = [
        Markup('<rect class="trough" y="4" width="100" height="2"/>'),
        _rule(50, 0, 50, 10, "mark"),
        Markup('<rect class="span-a" x="{}" y="2.5" width="{}" height="5"/>').format(
            _short(low), _short(max(high - low, 0.4))
        ),
        _rule(at, 0, at, 10, "point-a"),
    ]
    return _strip(parts)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values (steps of 1, 2 or 5 times a power of ten) that enclose low..high, roughly `about` of them."""
    if high - low < 1e-9:
        high = low + 1
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def smooth(values: Sequence[float]) -> list[float]:
    """Mean over the neighbours at both sides, a fortieth of all values each way, so that it does not lag behind.

    A value that is not finite stays so at its place and does not spoil its neighbours.
    """
    reach = len(values) // 40
    smoothed = []
    for place, value in enumerate(values):
        near = [v for v in values[max(0, place - reach) : place + reach + 1] if math.isfinite(v)]
        smoothed.append(statistics.fmean(near) if math.isfinite(value) else value)
    return smoothed


def thin(points: Sequence[Point], most: int = 600) -> list[Point]:
    """About `most` of the points, evenly taken, the first and last always: a page does not need 100,000 steps."""
    if len(points) <= most:
        return list(points)
    stride = math.ceil(len(points) / most)
    kept = list(points[::stride])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _unbroken(points: Sequence[Point]) -> list[list[Point]]:
    """The runs of points between those whose y is not finite."""
    runs: list[list[Point]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _legend(lines: Sequence[Line]) -> Markup:
    x, parts = float(LEFT), []
    for line in lines:
        parts.append(_rule(x, 12, x + 18, 12, f"line-{line.look}"))
        if line.dots:
            parts.append(_dot(x + 9, 12, 3.2, line.look))
        parts.append(_text(x + 24, 16, line.name, "start"))
        x += 40 + 7.4 * len(line.name)
    return Markup("").join(parts)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _rule(x1: float, y1: float, x2: float, y2: float, look: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(look, *map(_short, (x1, y1, x2, y2)))


def _dot(x: float, y: float, radius: float, look: str) -> Markup:
    return Markup('<circle class="dot-{}" cx="{}" cy="{}" r="{}"/>').format(look, *map(_short, (x, y, radius)))


def _text(x: float, y: float, words: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(_short(x), _short(y), anchor, words)


def _svg(width: float, height: float, label: str, parts: Sequence[Markup]) -> Markup:
    shell = '<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {}" width="{}" height="{}">{}</svg>'
    return Markup(shell).format(label, width, height, width, height, Markup("").join(parts))


def _strip(parts: Sequence[Markup]) -> Markup:
    shell = '<svg class="strip" aria-hidden="true" viewBox="0 0 100 10" preserveAspectRatio="none">{}</svg>'
    return Markup(shell).format(Markup("").join(parts))
