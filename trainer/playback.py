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
            # what the first look begins before its middle, it sees as well
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
        stretches=stretches(windows, result["stride"]),
        windows=[[window["seconds"], *(window["probabilities"][label] for label in labels)] for window in windows],
        labels=labels,
        provenance=provenance(result),
    )


def course(result: Mapping[str, Any], label: str) -> list[charts.Point]:
    """(second, probability) over the video, NaN between looks where no face was in view.

    A look stands for all the seconds that it sees, as far as no other is nearer.
    """
    reach = result["seconds_per_window"] / 2
    runs = unbroken(result["windows"], result["stride"])
    # Where two runs of looks see the same seconds, each keeps those nearer to it.
    between = [(a[-1]["seconds"] + b[0]["seconds"]) / 2 for a, b in pairwise(runs)]
    points: list[charts.Point] = []
    for run, earliest, latest in zip(runs, [0.0, *between], [*between, result["duration"]], strict=True):
        known = [(window["seconds"], window["probabilities"][label]) for window in run]
        start, end = max(known[0][0] - reach, earliest), min(known[-1][0] + reach, latest)
        points += [(start, known[0][1]), *known, (end, known[-1][1]), (end, math.nan)]
    return points


def unbroken(windows: Windows, stride: float) -> list[list[Mapping[str, Any]]]:
    """The runs of looks between which no face was missing."""
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
    told = f"{label[0].upper()}{label[1:]}: {wording.percent(share, 0)} on average"
    if count == 1:
        return f"{told}, in one look at the whole video."
    return f"{told}, and likeliest in {leading} of {wording.plural(count, 'look')}."


def confidence(result: Mapping[str, Any]) -> str:
    """What the percentages are, and what was left out."""
    value = result["temperature"]
    made = (
        "They are as the network states them, which is too sure as a rule"
        if value is None
        else f"They were divided by a temperature of {wording.number(value)}, which validation actors set"
    )
    missing = result["windows_without_face"]
    left = f" {wording.plural(missing, 'look')} found no face and got no answer." if missing else ""
    return f"Percentages say how sure the model is, not how strong a feeling is. {made}.{left}"


def times(windows: Windows) -> str:
    """How many looks each emotion is the likeliest in, the commonest first."""
    counts = Counter(map(likeliest, windows)).most_common()
    told = ", ".join(f"{label} in {wording.percent(count / len(windows), 0)}" for label, count in counts)
    return f"Likeliest of the looks: {told}."


def stretches(windows: Windows, stride: float) -> list[dict[str, Any]]:
    """Each stretch of looks with the same likeliest emotion: from, to (s), emotion and its mean probability.

    A gap without a face ends a stretch.
    """
    told = []
    for stretch in unbroken(windows, stride):
        for label, alike in groupby(stretch, key=likeliest):
            inside = list(alike)
            mean = sum(window["probabilities"][label] for window in inside) / len(inside)
            told.append({"start": inside[0]["seconds"], "end": inside[-1]["seconds"], "label": label, "mean": mean})
    return told


def likeliest(window: Mapping[str, Any]) -> str:
    return str(max(window["probabilities"].items(), key=lambda item: item[1])[0])


def provenance(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Video sha256", result["video_sha256"]),
        ("Model", result["model"]),
        ("Weights sha256", result["weights_sha256"]),
        ("A look every", f"{result['stride']:g}{wording.NBSP}s"),
    ]
