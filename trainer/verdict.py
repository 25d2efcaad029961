"""The verdict: what the first screen of a report says, from the figures of an evaluation and of its baseline's."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.wording import (
    FEW_ACTORS,
    NBSP,
    commonest_mistakes,
    interval,
    millions,
    mistakes_sentence,
    percent,
    plural,
    points,
    signed,
)

Figures = Mapping[str, Any]
Counts = Sequence[Sequence[int]]  # a confusion matrix, rows as played

APART = 0.3  # of an emotion's videos, from which two models are said to part there
MOST = 3  # emotions or disturbances that are named


def verdict(evaluation: Figures, *, leaky: bool, synthetic: bool) -> tuple[str, str]:
    """The two headline sentences: how many videos are read right; then WAR and UAR with intervals, and chance."""
    overall, classes, clips = evaluation["overall"], len(evaluation["labels"]), evaluation["clips"]
    actors = plural(evaluation["actors"], "drawn actor" if synthetic else "actor")
    doubt = "" if beats_guessing(evaluation) else ": not shown to be better than guessing"
    war = (
        f"Of {plural(clips, 'video')} of {actors}{acquaintance(leaky)}, the model reads the "
        f"emotion right in {round(overall['war'] * clips):,} ({percent(overall['war'])}){doubt}."
    )
    told = {name: f"{percent(overall[name])}, {interval(overall[f'{name}_interval'])}" for name in ("war", "uar")}
    alike = "the same" if told["war"] == told["uar"] else told["uar"]
    uar = (
        f"Its 95{NBSP}% interval is {interval(overall['war_interval'])} (WAR). With each of the {classes} emotions "
        f"counted alike it is {alike} (UAR). Guessing gives {percent(1 / classes)}."
    )
    if evaluation["actors"] < FEW_ACTORS:
        uar += f" With only {plural(evaluation['actors'], 'actor')}, intervals are rough and tend to be too narrow."
    return war, uar


def beats_guessing(evaluation: Figures) -> bool:
    """Whether the interval of the UAR lies above what naming an emotion at random would score."""
    return bool(evaluation["overall"]["uar_interval"][0] > 1 / len(evaluation["labels"]))


def acquaintance(leaky: bool) -> str:
    """What the model knows of the test split's actors, to follow that word."""
    return ", some of whom the model was trained on" if leaky else " never seen in training"


def confusions(confusion: Counts, labels: Sequence[str]) -> str:
    """What is confused most often; or, of a model that gives most videos one answer, which."""
    named = [sum(column) for column in zip(*confusion, strict=True)]
    clips, most = sum(named), max(range(len(labels)), key=named.__getitem__)
    # Half of all answers, and twice as many as there are such videos.
    if 2 * named[most] > clips and named[most] >= 2 * sum(confusion[most]):
        return f"It names {labels[most]} for {named[most]:,} of {plural(clips, 'video')}, whatever was played."
    return mistakes_sentence(commonest_mistakes(confusion, labels))


def unlike(evaluation: Figures, baseline: Figures) -> list[str]:
    """In what two evaluations differ, so that their scores cannot be compared."""
    kinds = (("manifests", "manifest_sha256"), ("classes", "labels"), ("numbers of videos", "clips"))
    return [word for word, key in kinds if evaluation[key] != baseline[key]]


def compare(evaluation: Figures, baseline: Figures | None, name: str, bounds: Sequence[float] | None) -> str:
    """UAR beside the baseline's, `bounds` the 95 % interval of the difference (first minus baseline) where it is known.

    No difference is given unless both were judged on the same videos and classes.
    """
    if baseline is None:
        return f"The baseline ({name}) has not been evaluated, so there is nothing to compare with yet."
    theirs = f"The baseline ({name}) reaches {percent(baseline['overall']['uar'])} UAR"
    if differing := unlike(evaluation, baseline):
        different = " and ".join(differing)
        return f"{theirs}, but the two were judged on different {different}, so the scores cannot be compared."
    gain = evaluation["overall"]["uar"] - baseline["overall"]["uar"]
    known = f" (95{NBSP}% interval of the difference {signed(bounds[0])} to {signed(bounds[1])})" if bounds else ""
    if points(gain) == points(0):
        return f"{theirs}: no difference{known}."
    return f"{theirs}: this model is {points(gain)} {'better' if gain > 0 else 'worse'}{known}."


def parting(ours: Counts, theirs: Counts, labels: Sequence[str]) -> str:
    """The emotions that the two read most unlike, each with the counts and what the one that fails takes it for.

    Empty where they are not far apart in any.
    """
    found = []
    for place, label in enumerate(labels):
        clips, right, other = sum(ours[place]), ours[place][place], theirs[place][place]
        if clips and abs(right - other) / clips >= APART:
            loser, whose = (theirs, "the baseline") if right > other else (ours, "this model")
            wrong = {name: count for name, count in zip(labels, loser[place], strict=True) if name != label}
            taken = max(wrong, key=wrong.__getitem__)
            told = f"{label}, {right} of {clips} against {other} ({whose} takes it for {taken})"
            found.append((-abs(right - other) / clips, told))
    named = [told for _, told in sorted(found, key=lambda item: item[0])[:MOST]]
    return f"Where they part, in videos read right: {'; '.join(named)}." if named else ""


def rival(arch: str, ours: int, theirs: int) -> str:
    """What kind of opponent the baseline is: what it cannot see, and its size in parameters beside the model's."""
    blind = (
        "The baseline sees one still picture of each video: what differs only in how a face moves looks alike to it."
    )
    sizes = f"{millions(theirs)} parameters against {millions(ours)}"
    size = f"is the larger network: {sizes}." if theirs > ours else f"has {sizes}."
    return f"{blind} It {size}" if arch == "single_frame" else f"The baseline {size}"


def fragility(evaluation: Figures) -> str:
    """The disturbances that take more than half of what the model reads beyond guessing; empty if none was tried."""
    disturbed, chance = evaluation["robustness"], 1 / len(evaluation["labels"])
    if not disturbed or not beats_guessing(evaluation):
        return ""
    half = (disturbed["clean"]["uar"] + chance) / 2
    worst: dict[str, float] = {}
    for variant in disturbed["variants"]:
        worst[variant["name"]] = min(worst.get(variant["name"], 1.0), variant["uar"])
    broken = sorted((uar, name) for name, uar in worst.items() if uar < half)
    if not broken:
        return f"Of {len(worst)} kinds of worse pictures none takes more than half of that away."
    (uar, name), *others = broken[:MOST]
    told = [f"{name} leaves {percent(uar)} UAR", *(f"{name} {percent(uar)}" for uar, name in others)]
    return f"It breaks when the picture gets worse: {', '.join(told)}."
