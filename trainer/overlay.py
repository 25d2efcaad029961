"""What a prediction looks like: frames with a box and bars, and probabilities over time.

The bars stand in a strip below the picture, so that they never hide a face. Emotions keep their colours everywhere.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from trainer.film import Picture

Floats = NDArray[np.floating]
Colour = tuple[int, int, int]

# After Okabe and Ito's palette for all kinds of colour vision; the yellow is darkened to be seen on white too.
COLOURS: dict[str, Colour] = {
    "angry": (213, 94, 0),
    "calm": (86, 180, 233),
    "disgust": (0, 158, 115),
    "fear": (204, 121, 167),
    "happy": (230, 159, 0),
    "neutral": (140, 140, 140),
    "sad": (30, 126, 196),
    "surprise": (176, 164, 20),
}
# One for each emotion: lines are told apart without their colours as well. (offset, (points on, points off, ...))
DASHES = ("-", "--", "-.", ":", (0, (9, 2)), (0, (1, 3)), (0, (5, 1, 1, 1, 1, 1)), (0, (3, 5)))
STRIP, TROUGH, WORDS = (22, 25, 28), (52, 58, 64), (240, 242, 244)
ROWS = 3


def draw_frame(frame: Picture, box: Sequence[float] | None, probabilities: Mapping[str, float]) -> Picture:
    """(H, W, 3) uint8 RGB -> (H + strip_height(W), W, 3): the face's box, and bars of the three likeliest emotions.

    `box` is x, y, width, height in pixels; None where there is no face, which the strip then says in words.
    """
    height, width = frame.shape[:2]
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])[:ROWS] if box is not None else []
    canvas = np.empty((height + strip_height(width), width, 3), np.uint8)
    canvas[:height] = frame
    canvas[height:] = draw_strip(width, ranked)
    if box is not None and ranked:
        draw_box(canvas[:height], box, ranked[0][0], ranked[0][1])
    return canvas


def text_size(width: int) -> int:
    """Pixels of the letters: readable at 320 px, in proportion up to 1920 px."""
    return round(np.clip(width / 45, 11, 40))


def strip_height(width: int) -> int:
    return round(text_size(width) * (1.5 * ROWS + 1) / 2) * 2


def draw_strip(width: int, ranked: Sequence[tuple[str, float]]) -> Picture:
    """The bars, likeliest first: name, bar, share."""
    size, height = text_size(width), strip_height(width)
    strip = Image.new("RGB", (width, height), STRIP)
    draw = ImageDraw.Draw(strip)
    edge = size / 2
    start = edge + 5.6 * size
    end = max(start, width - edge - 3.2 * size)
    if not ranked:
        draw.text((edge, height / 2), "no face in view", fill=WORDS, font=_font(size), anchor="lm")
    for row, (label, share) in enumerate(ranked):
        middle = edge + (row + 0.5) * (height - 2 * edge) / ROWS
        top, bottom = middle - 0.36 * size, middle + 0.36 * size
        draw.text((edge, middle), label, fill=WORDS, font=_font(size, bold=row == 0), anchor="lm")
        draw.rectangle((start, top, end, bottom), fill=TROUGH)
        draw.rectangle((start, top, start + share * (end - start), bottom), fill=colour_of(label))
        draw.text((width - edge, middle), f"{share:.0%}", fill=WORDS, font=_font(size, bold=row == 0), anchor="rm")
    return np.asarray(strip)


def draw_box(picture: Picture, box: Sequence[float], label: str, share: float) -> None:
    """Draw the face's box into `picture`, in the emotion's colour with a dark edge, and a tag with its name."""
    width = picture.shape[1]
    size, line = text_size(width), max(2, round(width / 320))
    x, y, w, h = (round(float(value)) for value in box)
    for colour, thickness in ((STRIP, line + 2), (colour_of(label), line)):
        cv2.rectangle(picture, (x, y), (x + w, y + h), colour, thickness, cv2.LINE_AA)
    words = f"{label} {share:.0%}"
    font = _font(size, bold=True)
    tag_width, tag_height = round(font.getlength(words) + size), round(1.5 * size)
    # Above the box; inside it where the box begins at the top of the picture.
    left = int(np.clip(x, 0, max(width - tag_width, 0)))
    top = y - tag_height if y >= tag_height else max(y, 0)
    tag = Image.new("RGB", (tag_width, tag_height), STRIP)
    ImageDraw.Draw(tag).text((size / 2, tag_height / 2), words, fill=WORDS, font=font, anchor="lm")
    place = picture[top : top + tag_height, left : left + tag_width]
    place[:] = np.asarray(tag)[: place.shape[0], : place.shape[1]]


def plot_timeline(
    path: Path, times: Floats, spans: Sequence[tuple[float, float]], probabilities: Floats, labels: Sequence[str],
    duration: float,
) -> None:  # fmt: skip
    """A PNG with a line per emotion over `times` (W,) seconds from `probabilities` (W, C), and a band of the likeliest.

    `spans` are the seconds, of all `duration`, for which each window's answer counts. Where windows are missing,
    because no face was in view, the lines are broken.
    """
    figure = Figure(figsize=(10, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    lines, band = figure.subplots(2, 1, sharex=True, height_ratios=(12, 1))
    moments, shares = with_gaps(times, spans, probabilities)
    for index, label in enumerate(labels):
        look = {"linestyle": DASHES[index % len(DASHES)], "linewidth": 2}
        lines.plot(moments, 100 * shares[:, index], color=_tint(label), label=label, **look)
    lines.set(xlim=(0, duration), ylim=(0, 100), ylabel="probability, %")
    lines.grid(axis="y", color="#dddddd", linewidth=0.8)
    lines.spines[["top", "right"]].set_visible(False)
    # Likeliest on the whole first, as the eye meets the lines.
    order = np.argsort(-probabilities.mean(axis=0))
    handles = lines.get_lines()
    lines.legend(handles=[handles[i] for i in order], loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    palette = ListedColormap([_tint(label) for label in labels])
    for (start, end), index in zip(spans, probabilities.argmax(axis=1), strict=True):
        band.axvspan(start, end, color=palette(int(index)), linewidth=0)
    band.set(yticks=[], xlabel="seconds", ylabel="likeliest")
    band.yaxis.label.set(rotation=0, ha="right", va="center")
    band.spines[:].set_visible(False)
    figure.savefig(path, format="png", metadata={"Software": None})


def with_gaps(
    times: Floats, spans: Sequence[tuple[float, float]], probabilities: Floats
) -> tuple[Floats, Floats]:  # fmt: skip
    """Times and probabilities from where the first answer begins to count to where the last one ends.

    Where an answer ends before the next begins, a row of NaN stands between their ends.
    """
    moments, shares = [spans[0][0]], [probabilities[0]]
    for place, (time, (start, _)) in enumerate(zip(times, spans, strict=True)):
        if place and start > spans[place - 1][1]:
            moments += [spans[place - 1][1]] * 2 + [start]
            shares += [probabilities[place - 1], np.full_like(probabilities[0], np.nan), probabilities[place]]
        moments.append(time)
        shares.append(probabilities[place])
    return np.array([*moments, spans[-1][1]]), np.array([*shares, probabilities[-1]])


def colour_of(label: str) -> Colour:
    return COLOURS.get(label, COLOURS["neutral"])


def _tint(label: str) -> tuple[float, ...]:
    return tuple(value / 255 for value in colour_of(label))


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: the same letters on every machine."""
    name = f"fonts/ttf/DejaVuSans{'-Bold' if bold else ''}.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / name, size)
