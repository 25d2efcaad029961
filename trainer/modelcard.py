"""The model card: what a run's weights are, what they were judged to do, and what they must not be used for.

A function of run.json and evaluation.json alone: every figure in it is theirs, and the same files give the same bytes.
After Mitchell et al., Model Cards for Model Reporting (arXiv:1810.03993).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from manifests.card import LICENCES
from manifests.errors import UserError
from manifests.files import write_text
from trainer import findings, verdict, wording
from trainer.record import EVALUATION_FORMAT
from trainer.run import read_json

CARD = "model_card.md"
SPLITS = {"train": "training", "val": "validation", "test": "test"}
GROUPS = ("dataset", "sex", "age", "race", "intensity")


def write_card(run: Path) -> Path:
    """Write `run`/model_card.md and return its path.

    Raises UserError if the directory is none of a run, or was evaluated by another version of this project.
    """
    facts, evaluation = read_json(run / "run.json"), read_json(run / "evaluation.json")
    if facts is None:
        raise UserError(f"{run} is no run directory (no run.json); train first: python -m trainer fit --help")
    if evaluation is not None and evaluation.get("format") != EVALUATION_FORMAT:
        raise UserError(
            f"the evaluation of run {facts['run_id']} was made by another version; make it anew: "
            "python -m trainer evaluate --help"
        )
    write_text(run / CARD, card_text(facts, evaluation))
    return run / CARD


def card_text(facts: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> str:
    """The card in Markdown, from what run.json and evaluation.json hold; None where a run is not evaluated (yet)."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        percent=wording.percent, figure=wording.number, plural=wording.plural, signed=wording.signed
    )
    page = {**of_run(facts, evaluation), "judged": judged(facts, evaluation) if evaluation else None}
    # A file that is read as it stands, and searched: plain spaces.
    return environment.get_template("model_card.md.j2").render(page).replace(wording.NBSP, " ")


def of_run(facts: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the card says of how the weights came about."""
    config, manifest = facts["config"], facts["manifest"]
    known = "datasets" in manifest["counts"]["train"]
    corpora = corpora_of(manifest["counts"], evaluation)
    return {
        "facts": facts,
        "name": wording.model(config["model"]),
        "parameters": wording.millions(facts["model"]["parameters"]) if "model" in facts else None,
        "input": wording.model_input(config),
        "weights_sha256": evaluation["weights_sha256"] if evaluation else None,
        "licence": licence(corpora, known=known, synthetic=manifest["synthetic"]),
        "corpora": corpora,
        "known": known,
        "sources": [(name, *LICENCES.get(name, (name, "own recordings: as their owner says"))) for name in corpora],
        "counts": count_rows(manifest["counts"]),
        "config": yaml.safe_dump(config, sort_keys=False, width=110).rstrip(),
        "machine": wording.machine(facts["hardware"]),
    }


def corpora_of(counts: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> list[str]:
    """Every corpus that the run is known to have met, in training or in testing."""
    named = {name for split in counts.values() for name in split.get("datasets", {})}
    return sorted(named | {row["name"] for row in (evaluation["groups"]["dataset"] if evaluation else [])})


def licence(corpora: Sequence[str], *, known: bool, synthetic: bool) -> str:
    """The licence tag of the weights: that of the strictest corpus; strict where training's corpora are not known."""
    if synthetic:
        return "apache-2.0"
    if "ravdess" in corpora or not known:
        return "cc-by-nc-sa-4.0"
    return "odbl" if set(corpora) == {"crema"} else "other"


def count_rows(counts: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
    """(split, corpus, videos, actors), by corpus where run.json tells them apart."""
    return [
        (SPLITS[split], name, part["clips"], part["actors"])
        for split, whole in counts.items()
        for name, part in whole.get("datasets", {"all": whole}).items()
    ]


def judged(facts: Mapping[str, Any], evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of how well the weights do."""
    manifest, groups = facts["manifest"], evaluation["groups"]
    before, after = evaluation["calibration"], evaluation["calibration_after"]
    return {
        "verdict": verdict.verdict(evaluation, leaky=manifest["leaky"], synthetic=manifest["synthetic"]),
        "views": wording.views(evaluation),
        "looks": findings.looks(evaluation),
        "scores": scores(evaluation),
        "per_class": evaluation["per_class"],
        "mistakes": verdict.confusions(evaluation["confusion"], evaluation["labels"]),
        "people": findings.people(evaluation["human"], groups["dataset"]) if evaluation["human"] else None,
        "groups": [
            (name, row, score_and_span(row, "uar")) for name in GROUPS for row in groups[name] if told(groups[name])
        ],
        "unknown": [name for name in GROUPS if not told(groups[name])],
        "gaps": [findings.gap(found) for found in evaluation["gaps"].values()],
        "actors": wording.actors_sentence(groups["actor"]),
        "few": findings.few(
            [row for name in GROUPS if told(groups[name]) for row in groups[name]],
            warned=evaluation["actors"] < wording.FEW_ACTORS,
        ),
        "calibration": [("as the network states it", before), ("after the temperature", after)],
        "confidence": wording.confidence_sentence(before),
        "temperature": findings.temperature(evaluation["temperature"], before, after),
        "robustness": evaluation["robustness"],
        "worst": findings.robustness(evaluation["robustness"], 1 / len(evaluation["labels"]))
        if evaluation["robustness"]
        else None,
        "skipped": evaluation["skipped"],
    }


def told(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a kind of group says something: the manifest has values for it."""
    return [row["name"] for row in rows] != ["unknown"]


def scores(evaluation: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(score, value, 95 % interval) of the table of results."""
    overall, one = evaluation["overall"], evaluation["one_view"]
    return [
        ("UAR, mean of the classes' recalls", *score_and_span(overall, "uar")),
        ("WAR, share of all videos", *score_and_span(overall, "war")),
        ("macro-F1, mean of the classes' F1", wording.percent(overall["macro_f1"]), ""),
        ("UAR from one view", wording.percent(one["uar"]), ""),
        ("guessing", wording.percent(1 / len(evaluation["labels"])), ""),
    ]


def score_and_span(row: Mapping[str, Any], score: str) -> tuple[str, str]:
    """(`84.2 %`, `78.1 to 90.3 %`); the second is empty without an interval."""
    bounds = row[f"{score}_interval"]
    return wording.percent(row[score]), "" if bounds is None else wording.interval(bounds)
