"""The report: reads a run directory and writes `report.html`, one page without network or outside file.

It only composes: `judgement` makes what an evaluation comes to, `wording` and `findings` the figures and sentences,
`charts` the drawings, `templates/report.html.j2` the page. What a run does not have (one that was interrupted, or never
evaluated) the page says in words. The same run directory gives the same bytes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from manifests.clips import ClipStore
from trainer import charts, wording
from trainer.judgement import judged
from trainer.page import write_page
from trainer.record import Record, read_record
from trainer.run import flatten

SPLITS = (("Trained on", "train"), ("Validated on", "val"), ("Judged on", "test"))


def write_report(run: Path, store: ClipStore | None, baseline: Path | None = None) -> Path:
    """Write `run`/report.html and return its path.

    `store` gives the pictures of the hardest videos, `baseline` is another run directory to stand beside. Raises
    UserError where either directory is none of a run.
    """
    target = run / "report.html"
    other = read_record(baseline) if baseline else None
    write_page(target, "report", **page_of(read_record(run), store, other, page_beside(run, baseline)))
    return target


def page_beside(run: Path, baseline: Path | None) -> str | None:
    """Where the baseline's report lies, seen from the run's: told if it is there, in a folder beside the run's."""
    if (
        baseline is None
        or baseline.resolve().parent != run.resolve().parent
        or not (baseline / "report.html").is_file()
    ):
        return None
    return f"../{quote(baseline.resolve().name)}/report.html"


def page_of(
    record: Record, store: ClipStore | None, baseline: Record | None, baseline_page: str | None
) -> dict[str, Any]:  # fmt: skip
    """Everything the template shows: finished figures, sentences and drawings, and which sections there are."""
    facts = record.facts
    return {
        "title": f"{wording.model(facts['config']['model'])}, run {facts['run_id']}",
        "facts": facts,
        "manifest": facts["manifest"],
        "leaky": facts["manifest"]["leaky"],
        "ending": wording.ending(epochs_done(record), epochs_asked(record), record.status, record.outcome),
        "trained": trained(record),
        "network": wording.network(facts["config"]["model"]),
        "best_validation": wording.best_validation(record.validations),
        "curves": curves(record),
        "speed": speed_chart(record.steps) if record.steps else None,
        "spent": spent(record),
        "provenance": provenance(record),
        "settings": [(name, json.dumps(value)) for name, value in flatten(facts["config"]).items()],
        "judged": judged(record, store, baseline, baseline_page) if record.evaluation else None,
    }


def curves(record: Record) -> list[tuple[str, Markup]]:
    """Title and drawing of each curve that the run has points for."""
    steps, validations = record.steps, record.validations
    drawn = []
    if steps or validations:
        drawn.append(("Loss", loss_chart(points_of(steps, "loss"), points_of(validations, "loss"))))
    if validations:
        chance = 1 / len(record.facts["labels"])
        uar, war = (points_of(validations, name) for name in ("uar", "war"))
        scores = [charts.Line("UAR", uar, "a", dots=True), charts.Line("WAR", war, "b", dots=True)]
        # Where every emotion has as many videos the two are one line, of which the other would hide half.
        if all(abs(one[1] - other[1]) < 0.0005 for one, other in zip(uar, war, strict=True)):
            scores = [charts.Line("UAR = WAR", uar, "a", dots=True)]
        lines = [*scores, charts.Line("guessing", [(0, chance), (validations[-1]["step"], chance)], "rule")]
        said = f"UAR and WAR on the validation actors. {wording.best_validation(validations)}"
        drawn.append(("Validation score, %", charts.line_chart(lines, said, (0, 1), lambda y: f"{100 * y:.0f}")))
    return drawn


def speed_chart(steps: Sequence[Mapping[str, Any]]) -> Markup:
    speed = points_of(steps, "clips_per_second")
    said = f"Training speed over the steps. {wording.speed(steps)}."
    line = charts.Line("clips/s", charts.thin(speed), "a")
    return charts.line_chart([line], said, (0, max(y for _, y in speed)), lambda y: f"{y:g}")


def loss_chart(train: list[charts.Point], val: list[charts.Point]) -> Markup:
    smoothed = list(zip([x for x, _ in train], charts.smooth([y for _, y in train]), strict=True))
    lines = [
        charts.Line("", charts.thin(train), "faint"),
        charts.Line("training", charts.thin(smoothed), "a"),
        charts.Line("validation", val, "b", dots=True),
    ]
    ends = [
        f"{name} ends at {wording.number(p[-1][1])}" for name, p in (("training", smoothed), ("validation", val)) if p
    ]
    top = max((y for _, y in [*train, *val] if math.isfinite(y)), default=1.0)
    said = f"Loss over the steps: {', '.join(ends)}."
    return charts.line_chart([line for line in lines if line.points], said, (0, top), lambda y: f"{y:g}")


def points_of(lines: Sequence[Mapping[str, Any]], key: str) -> list[charts.Point]:
    return [(line["step"], line[key]) for line in lines]


def trained(record: Record) -> list[tuple[str, str]]:
    """Name and value of what was trained, on what, and when."""
    facts, config = record.facts, record.facts["config"]
    counts = facts["manifest"]["counts"]
    return [
        ("Model", wording.model(config["model"])),
        ("Parameters", wording.millions(facts["model"]["parameters"])),
        ("Input", wording.model_input(config)),
        ("Emotions", ", ".join(facts["labels"])),
        *((title, wording.people(counts[split])) for title, split in SPLITS if split in counts),
        ("Epochs", f"{epochs_done(record)} of {epochs_asked(record)}"),
        ("Started", wording.moment(facts["started"])),
    ]


def spent(record: Record) -> list[tuple[str, str]]:
    """Name and value of the time and the money that went into the run, as far as it is known."""
    config, evaluation, rows = record.facts["config"], record.evaluation, []
    if record.steps:
        seconds = training_seconds(record.steps, config["data"]["batch"] * config["data"]["clips_per_video"])
        rows += [("Training steps", wording.duration(seconds)), ("Speed", wording.speed(record.steps))]
    if evaluation:
        looks = wording.number(evaluation["clips_per_second"], 1)
        rows.append(("Judging", f"{wording.duration(evaluation['seconds'])}, {looks} views/s"))
        if evaluation["robustness"]:
            rows.append(("Judging disturbed pictures", wording.duration(evaluation["robustness"]["seconds"])))
    if whole := (record.status or {}).get("seconds"):
        rows.append(("In all until now, pauses left out", wording.duration(whole)))
    rows.append(("Machine", wording.machine(record.facts["hardware"])))
    return [*rows, ("Money", wording.money(record.machine))]


def epochs_done(record: Record) -> int:
    """Epochs are counted from 0 in metrics.jsonl, and each ends with one evaluation."""
    return max((line["epoch"] for line in record.validations), default=-1) + 1


def epochs_asked(record: Record) -> int:
    return int(record.facts["config"]["optim"]["epochs"])


def training_seconds(steps: Sequence[Mapping[str, Any]], clips_per_step: int) -> float:
    """Seconds spent in training steps, from the logged speed: pauses between sessions and validation do not count."""
    seconds, before = 0.0, 0
    for line in steps:
        seconds += (line["step"] - before) * clips_per_step / line["clips_per_second"]
        before = line["step"]
    return seconds


def provenance(record: Record) -> list[tuple[str, str]]:
    """Name and value of everything that decides the result: code, data, weights, seed, versions."""
    facts = record.facts
    rows = [
        ("Code revision", facts["git_revision"] or "not known (no git checkout)"),
        ("Seed", str(facts["seed"])),
        ("Manifest", facts["manifest"]["path"]),
        ("Manifest sha256", facts["manifest"]["sha256"]),
        ("Prepared clips", ", ".join(f"{key} {value}" for key, value in facts["clips"].items())),
        ("Versions", ", ".join(f"{name} {value}" for name, value in facts["versions"].items())),
    ]
    if record.evaluation:
        rows.append(("Weights sha256", record.evaluation["weights_sha256"]))
    return rows
