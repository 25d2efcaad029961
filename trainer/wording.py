"""What the report says: pure functions from a run's numbers to the figures and sentences that are printed.

Shares are fractions 0..1 on the way in and per cent on the way out. A value that is not defined (None or NaN, such as a
share of no videos) is printed as a dash, never as a zero.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

UNDEFINED = "–"
# Signs that belong to their number stay on its line.
NBSP = "\u00a0"
MINUS = "\u2212"
# Below this, resampling actors has little to draw from.
FEW_ACTORS = 10


def in_hundred(share: float | None, digits: int = 1) -> str:
    """0.8417 -> `84.2`, for a column whose head says per cent."""
    return f"{100 * share:.{digits}f}" if share is not None and math.isfinite(share) else UNDEFINED


def percent(share: float | None, digits: int = 1) -> str:
    """0.8417 -> `84.2 %`."""
    figure = in_hundred(share, digits)
    return figure if figure == UNDEFINED else f"{figure}{NBSP}%"


def interval(bounds: Sequence[float]) -> str:
    """(0.781, 0.903) -> `78.1 to 90.3 %`."""
    low, high = bounds
    return f"{in_hundred(low)} to {percent(high)}"


def points(difference: float) -> str:
    """A difference of two shares in percentage points: 0.232 -> `23.2 points`; the sign is left to the sentence."""
    rounded = f"{100 * abs(difference):.1f}"
    return f"{rounded}{NBSP}{'point' if rounded == '1.0' else 'points'}"


def signed(difference: float) -> str:
    """A difference of two shares in points, with its sign and without the word: 0.151 -> `+15.1`, -0.02 -> `−2.0`."""
    # Adding 0.0 turns a negative zero into a plain one.
    return f"{round(100 * difference, 1) + 0.0:+.1f}".replace("-", MINUS)


def number(value: float | None, digits: int = 2) -> str:
    """A plain figure such as a loss: 1.70432 -> `1.70`, -0.5 -> `−0.50`, 12480 with no digits -> `12,480`."""
    return f"{value:,.{digits}f}".replace("-", MINUS) if value is not None and math.isfinite(value) else UNDEFINED


def plural(count: int, noun: str, nouns: str = "") -> str:
    """1, `actor` -> `1 actor`; 1200, `video` -> `1,200 videos`."""
    return f"{count:,}{NBSP}{noun if count == 1 else nouns or noun + 's'}"


def duration(seconds: float) -> str:
    """154.2 -> `2 min 34 s`, 7512 -> `2 h 05 min`, 3.21 -> `3.2 s`."""
    if seconds < 59.95:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest:02d}{NBSP}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,}{NBSP}h {minutes:02d}{NBSP}min"


def millions(count: int) -> str:
    """33646000 -> `33.6 million`; small counts are given in full."""
    return f"{count / 1e6:.1f}{NBSP}million" if count >= 1_000_000 else f"{count:,}"


def moment(iso: str) -> str:
    """An ISO time -> `22 November 2025, 14:21 UTC`; a time without zone is taken as UTC."""
    time = datetime.fromisoformat(iso)
    time = time.astimezone(UTC) if time.tzinfo else time
    return f"{time.day}{NBSP}{time:%B %Y, %H:%M} UTC"


def views(evaluation: Mapping[str, Any]) -> str:
    """What one prediction is: how many views of a video are averaged, and what a single view would have scored."""
    clips, flip, one = evaluation["views"]["clips"], evaluation["views"]["flip"], evaluation["one_view"]
    total = clips * (2 if flip else 1)
    if total == 1:
        return "Scores are per video, from one view of each."
    made_of = plural(total, "view") + (f", {clips} in time and each also mirrored" if flip else " in time")
    overall = evaluation["overall"]
    shares = [(percent(one[name]), percent(overall[name])) for name in ("war", "uar")]
    alone = "the same" if all(a == b for a, b in shares) else f"{shares[0][0]} WAR, {shares[1][0]} UAR"
    return f"Scores are per video: the mean over {made_of}. One view alone scores {alone}."


def score(figures: Mapping[str, Any], name: str) -> str:
    """A score, its deviation between runs where there are several, and below it the interval over actors."""
    spread = figures.get(f"{name}_sd")
    told = percent(figures[name]) + (f" ± {in_hundred(spread)}" if spread is not None else "")
    bounds = figures.get(f"{name}_interval")
    return f"{told}\n{interval(bounds)}" if bounds else told


@dataclass(frozen=True)
class Mistake:
    """`count` of the `of` videos of class `true` were read as `predicted`."""

    true: str
    predicted: str
    count: int
    of: int


def commonest_mistakes(confusion: Sequence[Sequence[int]], labels: Sequence[str], most: int = 3) -> list[Mistake]:
    """The off-diagonal cells with the largest share of their row (rows = true), largest first; ties by count."""
    mistakes = [
        Mistake(true, labels[column], row[column], sum(row))
        for (at, true), row in zip(enumerate(labels), confusion, strict=True)
        for column in range(len(labels))
        if column != at and row[column]
    ]
    return sorted(mistakes, key=lambda m: (-m.count / m.of, -m.count))[:most]


def mistakes_sentence(mistakes: Sequence[Mistake]) -> str:
    if not mistakes:
        return "No video was misread."
    told = [f"{m.true} taken for {m.predicted} ({m.count} of {plural(m.of, 'video')})" for m in mistakes]
    return f"Most often confused: {'; '.join(told)}."


def actors_sentence(actors: Sequence[Mapping[str, Any]]) -> str:
    """The spread over people: the worst-read actor by name, and how far the best is away."""
    if len(actors) < 2:
        return "Only one actor was judged: nothing can be said about how the score differs between people."
    worst, best = min(actors, key=lambda a: a["war"]), max(actors, key=lambda a: a["war"])
    if worst["war"] == best["war"]:
        return f"All {plural(len(actors), 'actor')} are read equally well: {percent(worst['war'])}."
    right = f"{round(worst['war'] * worst['clips'])} of {plural(worst['clips'], 'video')} right"
    return (
        f"Hardest to read is {worst['name']}: {right} ({percent(worst['war'])}). "
        f"Easiest is {best['name']} ({percent(best['war'])}), {points(best['war'] - worst['war'])} apart."
    )


def confidence_sentence(calibration: Mapping[str, Any]) -> str:
    """Mean confidence beside accuracy, over all videos, and which way the model errs."""
    bins = [b for b in calibration["bins"] if b["clips"]]
    clips = sum(b["clips"] for b in bins)
    sure = sum(b["confidence"] * b["clips"] for b in bins) / clips
    right = sum(b["accuracy"] * b["clips"] for b in bins) / clips
    if abs(sure - right) < 0.01:
        judgement = "about as sure as it may be"
    else:
        judgement = f"{points(sure - right)} {'too sure' if sure > right else 'too modest'}"
    return (
        f"On average the model is {percent(sure)} sure and right in {percent(right)}: {judgement}. "
        f"Bin by bin the two are {points(calibration['ece'])} apart (ECE): "
        "there, too sure and too modest do not cancel out."
    )


def best_validation(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Where the validation UAR peaked; epochs are counted from 1 for people."""
    if not evaluations:
        return "No validation score has been logged yet."
    best = max(evaluations, key=lambda e: e["uar"])
    return f"Validation UAR peaked at {percent(best['uar'])} in epoch {best['epoch'] + 1}, step {best['step']:,}."


def ending(done: int, asked: int, status: Mapping[str, Any] | None, outcome: Mapping[str, Any] | None) -> str:
    """How far training came, of `asked` epochs, and how the run ended if not well."""
    if outcome is not None and outcome["outcome"] != "finished":
        was = "" if outcome["outcome"] == "failed" else "was "
        return f"The run {was}{outcome['outcome']} after {done} of {plural(asked, 'epoch')}: {outcome['reason']}."
    if done == asked or outcome is not None:
        return f"Training went through {'all' if done == asked else done} of its {plural(asked, 'epoch')}."
    if status is None:
        return "The run has not begun."
    seen = moment(status["heartbeat"])
    return f"The run has not ended: {done} of {plural(asked, 'epoch')} done, last sign of life {seen}."


def model(settings: Mapping[str, Any]) -> str:
    """The name of a network, from the model settings of its recipe."""
    if settings["arch"] == "single_frame":
        return "single-frame ResNet-18"
    if settings["arch"] == "r3d18":
        return "R3D-18"
    return f"SlowFast-R{settings['depth']}{' with SE' if settings['se_ratio'] else ''}"


def network(settings: Mapping[str, Any]) -> str:
    """What the name of a network means, from the model settings of its recipe."""
    if settings["arch"] == "single_frame":
        return "ResNet-18: 18 layers that look at one still picture. It cannot see movement; it is there to be beaten."
    if settings["arch"] == "r3d18":
        return "R3D-18: a ResNet of 18 layers whose filters reach over time as well as over the picture."
    gates = " SE: gates that weigh the channels by what they see." if settings["se_ratio"] else ""
    return (
        "SlowFast: two pathways side by side, one sees few frames, for how things look, the other many, for how they "
        f"move. R{settings['depth']}: as deep as a ResNet of {settings['depth']} layers.{gates}"
    )


def model_input(config: Mapping[str, Any]) -> str:
    """What the network sees of a video at once."""
    data = config["data"]
    frames = "1 frame, the middle one" if config["model"]["arch"] == "single_frame" else f"{data['frames']} frames"
    return f"{frames} of {data['span']:g}{NBSP}s, {data['size']}{NBSP}×{NBSP}{data['size']} pixels"


def people(split: Mapping[str, int]) -> str:
    return f"{plural(split['clips'], 'video')} of {plural(split['actors'], 'actor')}"


def machine(hardware: Mapping[str, Any]) -> str:
    device = "" if hardware["device"] == "cpu" else f"{hardware['device']}; "
    return f"{device}{hardware['cpu']}, {plural(hardware['cores'], 'core')}, {hardware['memory_gb']:g}{NBSP}GB"


def money(rented: Mapping[str, Any] | None) -> str:
    """What machine.json says of the price: `$1.24: g6.xlarge, spot, us-east-1b, at $0.412 an hour`."""
    if rented is None:
        return "no rented machine is known of"
    where = ", ".join(str(rented[key]) for key in ("type", "market", "zone") if rented.get(key))
    return f"${rented['dollars']:.2f}: {where}, at ${rented['price_per_hour']:.3g} an hour"


def speed(steps: Sequence[Mapping[str, Any]]) -> str:
    """Median speed, and the mean share of the time in which training waited for data."""
    clips = statistics.median(line["clips_per_second"] for line in steps)
    waiting = statistics.fmean(line["data_wait"] for line in steps)
    return f"{number(clips, 1)} clips/s, {percent(waiting, 0)} of the time waiting for data"


def pictures(datasets: Sequence[str], *, synthetic: bool, at_hand: bool) -> str:
    """Why there are no pictures, or under which licence they stand; empty where they are drawn."""
    if not at_hand:
        return "Films are left out, because no prepared clips were given."
    licences = {"ravdess": "RAVDESS (CC BY-NC-SA 4.0)", "crema": "CREMA-D (ODbL 1.0)"}
    named = [] if synthetic else [licences[name] for name in datasets if name in licences]
    return f"The films come from {' and '.join(named)}; pass this page on under the same terms." if named else ""
