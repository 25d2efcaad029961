"""The sentences of the evaluation card: pure functions from the sections of evaluation.json to what the report says."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.wording import NBSP, in_hundred, number, percent, plural, points, signed

Figures = Mapping[str, Any]

CORPORA = {"crema": "CREMA-D", "ravdess": "RAVDESS"}
FEW = 5  # actors, below which drawing them again has little to draw from
WHO = {"single": "one answer", "majority": "majority"}


def span(bounds: Sequence[float]) -> str:
    """(-0.004, 0.029) -> `−0.4 to +2.9`, in points."""
    low, high = bounds
    return f"{signed(low)} to {signed(high)}"


def interval(bounds: Sequence[float]) -> str:
    """(-0.004, 0.029) -> `95 % interval −0.4 to +2.9`, in points."""
    return f"95{NBSP}% interval {span(bounds)}"


def gap(found: Figures) -> str:
    """How far apart the two most unlike groups are, and whether these actors make it certain."""
    told = (
        f"{found['better']} is read {points(found['gap'])} better than {found['worse']} "
        f"({interval(found['gap_interval'])})"
    )
    doubts = [] if found["gap_interval"][0] > 0 else ["may be chance with these actors"]
    # The widest of several differences is wide by chance as well.
    doubts += ["was picked as the widest, so is likely smaller"] if found["groups"] > 2 else []
    return f"{told[0].upper()}{told[1:]}{', which ' if doubts else ''}{' and '.join(doubts)}."


def nothing(change: float, bounds: Sequence[float]) -> bool:
    """Whether a change is none, in whatever actors are drawn, as far as a tenth of a point shows."""
    return all(points(value) == points(0) for value in (change, *bounds))


def gain(ways: Sequence[Figures]) -> str:
    """What the average over all views brings against one view, and what it costs; `ways` as in `tta`."""
    one, most = ways[0], ways[-1]
    if most is one:
        return "Each video was looked at once, so there is no average over views to weigh."
    times = most["seconds_per_video"] / one["seconds_per_video"]
    change = (
        "leaves UAR as it is"
        if nothing(most["gain"], most["gain_interval"])
        else f"changes UAR by {signed(most['gain'])} points ({interval(most['gain_interval'])})"
    )
    return (
        f"The mean over {most['views']} views instead of one {change} and takes {number(times, 1)} times as long: "
        f"{seconds(most['seconds_per_video'])} instead of {seconds(one['seconds_per_video'])} per video."
    )


def seconds(value: float | None) -> str:
    """0.0412 -> `41 ms`, 1.31 -> `1.31 s`; a dash for what was not measured."""
    if value is None:
        return number(None)
    return f"{number(value)}{NBSP}s" if value >= 1 else f"{number(1000 * value, 0 if value >= 0.01 else 1)}{NBSP}ms"


def robustness(figures: Figures, chance: float) -> str:
    """The disturbance that costs most, and how many cost more than the choice of actors could explain."""
    variants = figures["variants"]
    worst = max(variants, key=lambda variant: variant["lost"])
    if worst["lost"] <= 0:
        return "No disturbance costs anything."
    certain = sum(variant["lost_interval"][0] > 0 for variant in variants)
    change = f"{signed(-worst['lost'])}{NBSP}points, {interval([-bound for bound in reversed(worst['lost_interval'])])}"
    guessed = ", no better than guessing" if worst["uar"] < chance + 0.005 else ""
    return (
        f"Costliest is {worst['name']} ({worst['severity']}): UAR falls to {percent(worst['uar'])} ({change})"
        f"{guessed}. Of {len(variants)} disturbances, {certain} "
        "cost more than the choice of actors could explain."
    )


def temperature(fitted: Figures, before: Figures, after: Figures) -> str:
    """What the temperature does to the stated confidence of the test videos, better or worse."""
    value, people = fitted["value"], plural(fitted["actors"], "actor")
    direction = "less sure of itself" if value > 1 else "surer of itself"
    moved = "improves" if after["nll"] < before["nll"] else "worsens"
    return (
        f"Dividing by a temperature of {number(value)}, fitted on {plural(fitted['clips'], 'video')} of {people} that "
        f"only validated, makes the model {direction} and changes no answer. On the test actors it takes the ECE from "
        f"{percent(before['ece'])} to {percent(after['ece'])} and {moved} the likelihood."
    )


def people(human: Sequence[Figures], datasets: Sequence[Figures]) -> str:
    """What people read in the same faces, beside what the model reads in that corpus."""
    single, majority = (next(h for h in human if h["who"] == who) for who in ("single", "majority"))
    name = CORPORA[single["dataset"]]
    ours = next(row for row in datasets if row["name"] == single["dataset"])
    return (
        f"People who see {name}'s faces without the sound name the played emotion in {percent(single['war'])} of their "
        f"answers; their majority is right in {percent(majority['war'])} of the videos, ties counted as wrong. The "
        f"model is right in {percent(ours['war'])} (WAR). People judge what they see, the model has learned how these "
        f"actors were directed. Sources: {single['source']}"
        + (f"; {majority['source']}." if majority["source"] != single["source"] else ".")
    )


def twins(figures: Figures) -> str:
    """Whether the two files of one take get the same answer."""
    same = figures["compared"] - len(figures["disagreements"])
    return (
        f"RAVDESS stores each take twice, with sound and without. From the other file {same} of "
        f"{plural(figures['compared'], 'take')} get the same answer ({percent(figures['agreement'])}); no probability "
        f"differs by more than {points(figures['largest_difference'])}."
    )


def few(rows: Sequence[Figures], *, warned: bool = False) -> str:
    """Which groups are too few people for an interval, or for one that can be trusted; empty where none is.

    `warned`: that all actors together are too few has been said already.
    """
    alone = [row["name"] for row in rows if row["war_interval"] is None]
    rough = [row["name"] for row in rows if row["war_interval"] is not None and row["actors"] < FEW]
    told = [f"One actor only, so no interval: {', '.join(alone)}."] if alone else []
    rough = [] if warned else rough
    told += [f"Fewer than {FEW} actors, so the interval is rough and too narrow: {', '.join(rough)}."] if rough else []
    return " ".join(told)


def looks(evaluation: Figures) -> str:
    """What the test videos were used for, and what that decided: nothing."""
    extra = ["one view"] if len(evaluation["tta"]) > 1 else []
    extra += [f"{len(evaluation['robustness']['variants'])} disturbances"] if evaluation["robustness"] else []
    extra += ["the takes' other files"] if evaluation.get("twins") else []
    more = f" Extra passes measured {', '.join(extra)}." if extra else ""
    return (
        f"The scores come from one pass over the test videos, with the final weights.{more} No choice was made by them."
    )


def group_score(score: float, bounds: Sequence[float] | None) -> tuple[str, str]:
    """(`84.2`, `78–90`) in per cent; the second is empty without an interval."""
    return in_hundred(score), "" if bounds is None else f"{in_hundred(bounds[0], 0)}–{in_hundred(bounds[1], 0)}"
