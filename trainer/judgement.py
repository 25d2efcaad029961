"""What the report shows of an evaluation: rows, cells, sentences and drawings, ready for the template."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from manifests.clips import ClipStore
from manifests.errors import UserError
from trainer import charts, findings, verdict, wording
from trainer.hardest import SIDE, card, hardest
from trainer.record import EVALUATION_FORMAT, Record

# The share from which a cell of the confusion matrix takes the other ink; report.css is tuned to it in both themes.
DEEP = 0.72
FOLDED = 16  # actors that are shown before the rest is folded away


def judged(
    record: Record, store: ClipStore | None, baseline: Record | None, baseline_page: str | None
) -> dict[str, Any]:  # fmt: skip
    """What the page shows of a run's evaluation; `baseline_page` is where the baseline's own lies, seen from this one.

    Raises UserError if an older version of this project made the evaluation.
    """
    evaluation = record.evaluation or {}
    if evaluation.get("format") != EVALUATION_FORMAT:
        raise UserError(
            f"the evaluation of run {record.facts['run_id']} was made by another version; make it anew: "
            "python -m trainer evaluate --help"
        )
    manifest, groups, labels = record.facts["manifest"], evaluation["groups"], evaluation["labels"]
    datasets = [row["name"] for row in groups["dataset"]]
    seen = (record.attention or {}).get("clips", {})
    warned = evaluation["actors"] < wording.FEW_ACTORS
    known = {name: rows for name, rows in groups.items() if not is_unknown(rows)}
    return {
        "verdict": verdict.verdict(evaluation, leaky=manifest["leaky"], synthetic=manifest["synthetic"]),
        "comparison": compare(record, evaluation, baseline) if baseline else None,
        "parting": part(record, evaluation, baseline) if baseline else "",
        "baseline_page": baseline_page,
        "fragility": verdict.fragility(evaluation),
        "views": wording.views(evaluation),
        "scores": scores(evaluation, baseline),
        "labels": labels,
        "matrix": [heat_row(row) for row in evaluation["confusion"]],
        "mistakes": verdict.confusions(evaluation["confusion"], labels),
        "per_class": [{**row, "drawing": charts.bar(row["recall"])} for row in evaluation["per_class"]],
        "people": findings.people(evaluation["human"], groups["dataset"]) if evaluation["human"] else None,
        "actors": wording.actors_sentence(groups["actor"]),
        "groups": {
            name: group_table(name, rows, evaluation, synthetic=manifest["synthetic"]) for name, rows in known.items()
        },
        "few_corpora": findings.few(groups["dataset"], warned=warned),
        "few": findings.few(
            [row for name, rows in known.items() if name not in ("dataset", "actor") for row in rows], warned=warned
        ),
        "unknown": [name for name, rows in groups.items() if is_unknown(rows)],
        "folded": FOLDED,
        "calibration": calibrations(evaluation),
        "gain": {"sentence": findings.gain(evaluation["tta"]), "ways": way_rows(evaluation["tta"]),
                 "per_view": evaluation["per_view"], "looks": findings.looks(evaluation)},
        "robustness": robustness(evaluation["robustness"], 1 / len(labels)) if evaluation["robustness"] else None,
        "samples": samples(record, store) if evaluation["robustness"] else [],
        "twins": twins(evaluation["twins"]) if evaluation.get("twins") else None,
        "predicted": bool(record.predictions),
        "hardest": [card(one, store, seen.get(one.clip_id)) for one in hardest(record.predictions)],
        "watched": bool(seen) and store is not None,
        "fields": max((len(one["maps"][0]) for one in seen.values()), default=0),
        "pictures": wording.pictures(datasets, synthetic=manifest["synthetic"], at_hand=store is not None),
        "film_side": SIDE,
        "skipped": evaluation["skipped"],
    }  # fmt: skip


def compare(record: Record, evaluation: Mapping[str, Any], baseline: Record) -> str:
    """UAR beside the baseline's; with an interval of the difference where both left predictions of the same videos."""
    # Only here: it brings torch and torchmetrics, whose import takes longer than all the rest of a report.
    from trainer.metrics import paired_interval

    ours = {p.clip_id: p for p in record.predictions}
    theirs = {p.clip_id: p for p in baseline.predictions}
    classes = {label: index for index, label in enumerate(evaluation["labels"])}
    bounds = None
    if ours and ours.keys() == theirs.keys() and evaluation["labels"] == baseline.facts["labels"]:
        bounds = paired_interval(
            np.array([classes[p.predicted] for p in ours.values()]),
            np.array([classes[theirs[clip].predicted] for clip in ours]),
            np.array([classes[p.label] for p in ours.values()]),
            np.array([p.actor for p in ours.values()]),
            len(classes),
            record.facts["seed"],
        )
    return verdict.compare(evaluation, baseline.evaluation, wording.model(baseline.facts["config"]["model"]), bounds)


def part(record: Record, evaluation: Mapping[str, Any], baseline: Record) -> str:
    """Where model and baseline part, and what kind of opponent it is; empty where they cannot be compared."""
    if baseline.evaluation is None or verdict.unlike(evaluation, baseline.evaluation):
        return ""
    sizes = (each.facts["model"]["parameters"] for each in (record, baseline))
    told = (
        verdict.parting(evaluation["confusion"], baseline.evaluation["confusion"], evaluation["labels"]),
        verdict.rival(baseline.facts["config"]["model"]["arch"], *sizes),
    )
    return " ".join(filter(None, told))


def scores(evaluation: Mapping[str, Any], baseline: Record | None) -> list[dict[str, Any]]:
    """The rows of the table of scores: name, figure, interval, drawing."""
    chance = 1 / len(evaluation["labels"])

    def row(name: str, note: str, score: float, bounds: Any, look: str) -> dict[str, Any]:
        told = wording.interval(bounds) if bounds else ""
        drawing = charts.whisker(score, bounds, chance, look)
        return {"name": name, "note": note, "score": wording.percent(score), "interval": told, "drawing": drawing}

    overall = evaluation["overall"]
    rows = [
        row("UAR", "mean of the emotions' recalls", overall["uar"], overall["uar_interval"], "a"),
        row("WAR", "share of all videos", overall["war"], overall["war_interval"], "a"),
        row("Macro-F1", "mean of the emotions' F1", overall["macro_f1"], None, "a"),
        row("UAR of one view", "no averaging over views", evaluation["one_view"]["uar"], None, "a"),
    ]
    rows = [joined(list(alike)) for _, alike in groupby(rows, key=lambda told: (told["score"], told["interval"]))]
    if baseline is not None and baseline.evaluation is not None:
        theirs = baseline.evaluation["overall"]
        name = wording.model(baseline.facts["config"]["model"])
        rows.append(row("Baseline UAR", name, theirs["uar"], theirs["uar_interval"], "b"))
    for human in evaluation["human"]:
        corpus = findings.CORPORA[human["dataset"]]
        rows.append(row(f"People's WAR, {findings.WHO[human['who']]}", f"{corpus}, face only", human["war"], None, "c"))
    return [*rows, row("Guessing", "an emotion at random", chance, None, "c")]


def joined(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row in place of several with the same figures."""
    return (
        {**rows[0], "name": " and ".join(row["name"] for row in rows), "note": "the same here"} if rows[1:] else rows[0]
    )


def heat_row(row: Sequence[int]) -> list[dict[str, Any]]:
    """The cells of one true class: the count, its share of the row in words and as a shade, and which ink it takes."""
    total = sum(row)
    cells = []
    for count in row:
        share = count / total if total else None
        ink = "deep" if share is not None and share > DEEP else "" if count else "none"
        cells.append(
            {"count": f"{count:,}", "share": wording.percent(share, 0), "shade": round(share or 0, 3), "ink": ink}
        )
    return cells


def is_unknown(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a kind of group says nothing, because no row of the manifest has a value."""
    return [row["name"] for row in rows] == ["unknown"]


def group_table(
    name: str, rows: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any], *, synthetic: bool
) -> dict[str, Any]:  # fmt: skip
    """One kind of group; actors from the worst read to the best, the others as they come. The mark is everybody.

    A drawn corpus bears the name of the one that it stands in for, and is called drawn.
    """
    overall = evaluation["overall"]["war"]
    ordered = sorted(rows, key=lambda row: (row["war"], row["name"])) if name == "actor" else rows
    found = evaluation["gaps"].get(name)
    told = []
    for row in ordered:
        bounds = row["war_interval"]
        drawing = charts.whisker(row["war"], bounds, overall, "a")
        drawn = " (drawn)" if synthetic and name == "dataset" else ""
        told.append({
            **row, "name": f"{row['name']}{drawn}", "drawing": drawing,
            "war_told": findings.group_score(row["war"], bounds),
            "uar_told": findings.group_score(row["uar"], row["uar_interval"]),
        })  # fmt: skip
    return {"rows": told, "gap": findings.gap(found) if found else ""}


def calibrations(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Confidence as the network states it, and after the temperature."""
    before, after = evaluation["calibration"], evaluation["calibration_after"]
    fitted = evaluation["temperature"]
    told = {"before": calibration(before, "As the network states it"),
            "after": calibration(after, f"After temperature {wording.number(fitted['value'])}")}  # fmt: skip
    return {
        **told,
        "sentence": wording.confidence_sentence(before),
        "temperature": findings.temperature(fitted, before, after),
    }


def calibration(measured: Mapping[str, Any], title: str) -> dict[str, Any]:
    points = [(b["confidence"], b["accuracy"], b["clips"]) for b in measured["bins"]]
    said = f"{title}: share right by confidence. {wording.confidence_sentence(measured)}"
    return {**measured, "title": title, "drawing": charts.reliability(points, said)}


def way_rows(ways: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each number of views: what it scores, gains and costs."""
    reach = max(0.01, *(abs(bound) for way in ways for bound in way["gain_interval"]))
    rows = []
    for way in ways:
        name = wording.plural(way["clips"], "moment") + (", each mirrored too" if way["flip"] else "")
        timed = way["seconds_per_video"] is not None
        row = {**way, "name": name, "seconds": findings.seconds(way["seconds_per_video"]) if timed else "not timed"}
        told = {"change": "", "interval": "", "drawing": ""}
        if way["views"] > 1:
            bounds = way["gain_interval"]
            told = {**changed(way["gain"], bounds), "drawing": charts.difference(way["gain"], bounds, reach)}
        rows.append(row | told)
    return rows


def robustness(figures: Mapping[str, Any], chance: float) -> dict[str, Any]:
    """The disturbances by kind, each with what it leaves of the undisturbed view's UAR, which is the mark."""
    clean, told = figures["clean"]["uar"], findings.robustness(figures, chance)
    kinds = [
        {
            "name": name,
            "rows": [
                {
                    **variant,
                    **changed(-variant["lost"], [-bound for bound in reversed(variant["lost_interval"])]),
                    "drawing": charts.bar(variant["uar"], clean),
                }
                for variant in variants
            ],
        }
        for name, variants in groupby(figures["variants"], key=lambda variant: variant["name"])
    ]
    return {"clean": clean, "kinds": kinds, "sentence": told, "seconds": figures["seconds"]}


def changed(change: float, bounds: Sequence[float]) -> dict[str, str]:
    """A change in points and its interval, or in a word that there is none."""
    if findings.nothing(change, bounds):
        return {"change": "none", "interval": ""}
    return {"change": wording.signed(change), "interval": findings.span(bounds)}


def samples(record: Record, store: ClipStore | None) -> list[dict[str, str]]:
    """Pictures of the disturbances on the first test video, where prepared clips are at hand."""
    shown = [p.clip_id for p in record.predictions if store is not None and p.clip_id in store][:1]
    if store is None or not shown:
        return []
    # Only here: it brings torch, as `compare` does.
    from trainer.samples import sample_pictures

    return sample_pictures(store, shown[0], record.facts["config"]["data"]["size"])


def twins(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {"sentence": findings.twins(figures), "disagreements": figures["disagreements"]}
