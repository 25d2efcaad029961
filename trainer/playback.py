"""The page of a prediction: the annotated video, and beside it each emotion's probability over the same time.

It is made from what `NAME.json` holds, and plays the `NAME.mp4` that lies beside it.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trainer import charts, wording
from trainer.page import write_page

Windows = Sequence[Mapping[str, Any]]


def write_playback(path: Path, result: Mapping[str, Any]) -> None:
    """Write `path`, NAME.html, from the content of NAME.json."""
    labels, windows, length = result["labels"], result["windows"], result["duration"]
    seconds = [window["seconds"] for window in windows]
    ranked = sorted(result["overall"].items(), key=lambda item: -item[1])
    write_page(
        path,
        "playback",
        title=f"{result['video']}, read by {result['model']}",
        leaky=False,
        contents=None,
        media="'self' file:",
        headline=headline(result),
        confidence=confidence(result),
        drawn=result["learned_from_drawn_faces"],
        film=quote(f"{path.stem}.mp4"),
        size=result["size"],
        length=length,
        told={
            "labels": labels,
            "seconds": seconds,
            "shares": [[round(window["probabilities"][label], 4) for label in labels] for window in windows],
            # what the first window begins before its middle, it sees as well
            "reach": result["seconds_per_window"] / 2 + 0.01,
        },
        rows=[
            {
                "label": label,
                "note": "",
                "text": wording.percent(share, 0),
                "drawing": charts.profile(course(result, label), length),
            }
            for label, share in ranked
        ],
        ticks=[f"{tick:g}" for tick in charts.ticks(0, length, 4) if tick <= length],
        times=times(windows),
        stretches=stretches(result),
        windows=[[window["seconds"], *(window["probabilities"][label] for label in labels)] for window in windows],
        labels=labels,
        window=result["seconds_per_window"],
        provenance=provenance(result),
    )


def covered(moments: Sequence[float], reach: float, duration: float) -> list[tuple[float, float]]:
    """From which second to which each window's answer counts: as far as it sees, and no further than half way to the
    next. `moments` are the windows' middles, which see `reach` seconds to either side.
    """  # fmt: skip
    between = [(one + other) / 2 for one, other in pairwise(moments)]
    return [
        (max(middle - reach, earliest), min(middle + reach, latest))
        for middle, earliest, latest in zip(moments, [0.0, *between], [*between, duration], strict=True)
    ]


def spans_of(result: Mapping[str, Any]) -> list[tuple[float, float]]:
    moments = [window["seconds"] for window in result["windows"]]
    return covered(moments, result["seconds_per_window"] / 2, result["duration"])


def course(result: Mapping[str, Any], label: str) -> list[charts.Point]:
    """(second, probability) over the video, NaN between windows where no face was in view."""
    spans = iter(spans_of(result))
    points: list[charts.Point] = []
    for run in unbroken(result["windows"], result["stride"]):
        reached = [next(spans) for _ in run]
        known = [(window["seconds"], window["probabilities"][label]) for window in run]
        start, end = reached[0][0], reached[-1][1]
        points += [(start, known[0][1]), *known, (end, known[-1][1]), (end, math.nan)]
    return points


def unbroken(windows: Windows, stride: float) -> list[list[Mapping[str, Any]]]:
    """The runs of windows between which no face was missing."""
    runs: list[list[Mapping[str, Any]]] = []
    for window in windows:
        if runs and window["seconds"] - runs[-1][-1]["seconds"] < 1.5 * stride:
            runs[-1].append(window)
        else:
            runs.append([window])
    return runs


def headline(result: Mapping[str, Any]) -> str:
    """What the video is on the whole, and in how much of it."""
    label, share = max(result["overall"].items(), key=lambda item: item[1])
    leading = sum(likeliest(window) == label for window in result["windows"])
    count = len(result["windows"])
    told = f"{label[0].upper()}{label[1:]}: {wording.percent(share, 0)}"
    if count == 1:
        return f"{told}, from one window."
    return f"{told} on average, and likeliest in {leading} of {wording.plural(count, 'window')}."


def confidence(result: Mapping[str, Any]) -> str:
    """What the percentages are, and what was left out."""
    value = result["temperature"]
    made = (
        "They are as the network states them, which is too sure as a rule"
        if value is None
        else f"They were divided by a temperature of {wording.number(value)}, which validation actors set"
    )
    missing = result["windows_without_face"]
    left = f" {wording.plural(missing, 'window')} found no face and got no answer." if missing else ""
    return f"Percentages say how sure the model is, not how strong a feeling is. {made}.{left}"


def times(windows: Windows) -> str:
    """How many windows each emotion is the likeliest in, the commonest first."""
    counts = Counter(map(likeliest, windows)).most_common()
    told = ", ".join(f"{label} in {wording.percent(count / len(windows), 0)}" for label, count in counts)
    return f"Likeliest in the windows: {told}."


def stretches(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each stretch of windows with the same likeliest emotion: from, to (s), emotion and its mean probability.

    A gap without a face ends a stretch.
    """
    spans, told = iter(spans_of(result)), []
    for stretch in unbroken(result["windows"], result["stride"]):
        for label, alike in groupby(stretch, key=likeliest):
            inside = list(alike)
            reached = [next(spans) for _ in inside]
            mean = sum(window["probabilities"][label] for window in inside) / len(inside)
            told.append({"start": reached[0][0], "end": reached[-1][1], "label": label, "mean": mean})
    return told


def likeliest(window: Mapping[str, Any]) -> str:
    return str(max(window["probabilities"].items(), key=lambda item: item[1])[0])


def provenance(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Video sha256", result["video_sha256"]),
        ("Model", result["model"]),
        ("Weights sha256", result["weights_sha256"]),
        ("A window every", f"{result['stride']:g}{wording.NBSP}s"),
    ]
