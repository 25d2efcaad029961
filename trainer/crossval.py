"""A protocol from one manifest to one table: each fold an ordinary run, then all their predictions pooled.

python -m trainer crossval --protocol ravdess6 --config slowfast_face.yaml --manifest m.csv --clips clips/ --out runs/cv

`OUT/fold-1/manifest.csv` and its neighbours are whole manifests: any fold can be trained again by `fit`. Folds may be
run one by one, on several machines; whoever runs the last one, with all folders in one place, pools them.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from manifests.card import write_card
from manifests.clips import ClipStore
from manifests.errors import UserError
from manifests.files import replacing, write_json, writing_to
from manifests.table import SPLITS, Manifest, counts_of, read_manifest, rejected_path, write_csv, write_manifest
from trainer.compare import codes, deviation, mean_known, read_run
from trainer.config import Config
from trainer.metrics import actor_intervals, confusion_matrix, per_class, summarize
from trainer.processes import joined
from trainer.protocols import PROTOCOLS, SEED, Plan, fold_rows, leaky_rows, plan_folds
from trainer.run import flatten, is_finished, read_json
from trainer.workflow import choose_clips, run_recipe

LEAKY = "leaky"  # the folder of the probe, beside the folds
SCORES = ("war", "uar", "macro_f1")
# Arguments of the base manifest's build that its folds do not follow.
SPLITTING = ("split", "folds", "fold", "val", "test_on", "leaky", "seed")


def crossval(
    protocol: str, config: Config, manifest: Manifest, store: ClipStore, out: Path, *,
    folds: int | None = None, only: str | None = None, leaky: bool = False,
) -> dict[str, Any] | None:  # fmt: skip
    """Run the folds of `protocol` that are not finished, or `only` one ("3", "leaky"); pool them when all are there.

    `leaky` adds the probe: the same recipe with takes dealt at random. Several processes train each fold together; the
    leader pools. Returns what crossval.json holds, or None while folds are missing and in all processes but the leader.
    Raises UserError for inputs that the protocol does not fit, and for a folder of another one.
    """
    plan = plan_folds(protocol, manifest.rows, manifest.labels, folds)
    dealt = {fold_name(fold): fold_rows(plan, fold) for fold in plan.folds}
    if leaky or only == LEAKY or (out / LEAKY / "outcome.json").is_file():
        dealt[LEAKY] = leaky_rows(plan)
    wanted = dealt if only is None else [LEAKY if only == LEAKY else fold_name(only)]
    if unknown := [name for name in wanted if name not in dealt]:
        raise UserError(f"there is no {unknown[0]} in {protocol}; it has {', '.join(dealt)}")
    identity = {"protocol": protocol, "folds": len(plan.folds), "manifest": manifest.sha256}
    with writing_to(out), joined(config.device) as processes:
        if processes.leader:
            claim(out, {**identity, "config": config.model_dump(mode="json")})
            for name, fold in dealt.items():
                write_fold(out / name / "manifest.csv", plan, manifest, *fold)
        processes.leader_says("all is written")
        made = {name: read_manifest(out / name / "manifest.csv") for name in dealt}
        for name in wanted:
            # All of them now: what cannot be trained on is said before the first fold begins, not hours later.
            choose_clips(made[name], store)
        for name in wanted:
            if processes.leader:
                print(f"{out / name}: {made[name].facts['split_rule']}", file=sys.stderr)
            run_recipe(config, made[name], store, out / name)
        if not processes.leader:
            return None
        missing = [name for name in made if not finished(config, made[name], store, out / name)]
        if missing:
            print(f"not finished: {', '.join(missing)}; all is pooled once they are in {out}", file=sys.stderr)
            return None
        return pool(plan, config, manifest, out, list(made))


def fold_name(fold: int | str) -> str:
    return f"fold-{fold}"


def claim(out: Path, identity: dict[str, Any]) -> None:
    """Take the folder for this cross-validation, or raise UserError naming what differs from the one in it."""
    path = out / "protocol.json"
    known = read_json(path)
    if known is None:
        write_json(path, identity)
        return
    old, new = flatten(known), flatten(json.loads(json.dumps(identity)))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise UserError(
                f"{out} holds another cross-validation: {key} is {old.get(key)!r} there and {new.get(key)!r} here; "
                "give another --out, or delete that folder"
            )


def write_fold(path: Path, plan: Plan, base: Manifest, rows: pd.DataFrame, rule: str) -> Manifest:
    """Write one fold's manifest with its companions; the same base gives the same bytes."""
    facts = {key: value for key, value in base.facts.items() if key not in ("rows", "sha256", "rejected_sha256")}
    facts |= {
        "labels": list(plan.labels),
        "leaky": rule.startswith("LEAKY"),
        "split_rule": rule,
        "base_sha256": base.sha256,
        "notes": plan.notes,
        "dropped": {**base.facts.get("dropped", {}), **plan.left_out},
        "counts": counts_of(rows),
        "actors": {name: sorted(rows.loc[rows["split"] == name, "actor"].unique()) for name in SPLITS},
    }
    rejected = rejected_of(base.path)
    write_csv(rejected_path(path), rejected)
    if "arguments" in facts:
        facts["arguments"] = {key: value for key, value in facts["arguments"].items() if key not in SPLITTING}
        write_card(path, rows, facts, rejected)
    write_manifest(path, rows, facts)
    return read_manifest(path)


def rejected_of(base: Path) -> pd.DataFrame:
    """What the base manifest left out, (path, reason): it is left out of every fold too."""
    beside = rejected_path(base)
    if not beside.is_file():
        return pd.DataFrame(columns=["path", "reason"])
    return pd.read_csv(beside, dtype="str", keep_default_na=False)


def finished(config: Config, fold: Manifest, store: ClipStore, run: Path) -> bool:
    """Whether this fold has been trained and tested here with this recipe."""
    asked = {
        "config": config.model_dump(mode="json"),
        "labels": list(fold.labels),
        "manifest": {"sha256": fold.sha256},
        "clips": store.rule.as_dict(),
    }
    return is_finished(run, asked)


def pool(plan: Plan, config: Config, base: Manifest, out: Path, names: Sequence[str]) -> dict[str, Any]:
    """Put the folds together: predictions.csv of every video tested once, and crossval.json, which is returned."""
    tested = {name: tested_fold(out / name) for name in names}
    probe = tested.pop(LEAKY, None)
    folds, runs = list(tested.values()), [read_run(out / name) for name in tested]
    pooled = pd.concat([run.predictions for run in runs]).sort_index()
    result = {
        "protocol": plan.protocol,
        "about": PROTOCOLS[plan.protocol].about,
        "labels": list(plan.labels),
        "folds": folds,
        "mean": {name: statistics.fmean(fold[name] for fold in folds) for name in SCORES},
        "sd": {name: deviation([fold[name] for fold in folds]) for name in SCORES},
        "pooled": figures(pooled, plan.labels),
        "per_class": class_figures(pooled, plan.labels),
        "corpora": [{"name": name, **figures(part, plan.labels)} for name, part in pooled.groupby("dataset")],
        "leaky": probe,
        "references": [] if base.synthetic else [asdict(each) for each in PROTOCOLS[plan.protocol].references],
        "left_out": plan.left_out,
        "notes": plan.notes,
        # The same in each fold: a fold's manifest holds all takes of the protocol.
        "skipped": read_json(out / names[0] / "evaluation.json")["skipped"],
        # From here on what `compare` reads of a run.
        "config": config.model_dump(mode="json"),
        "manifest": {"path": str(base.path), "sha256": base.sha256, "leaky": False, "synthetic": base.synthetic},
        **{key: runs[0].facts[key] for key in ("clips", "model", "git_revision", "hardware", "versions")},
        "views": runs[0].views,
        "seconds": sum(run.seconds for run in runs if run.seconds is not None),
        "clips_per_second": mean_known([run.clips_per_second for run in runs]),
    }
    with replacing(out / "predictions.csv") as temporary:
        pooled.to_csv(temporary, float_format="%.6f", lineterminator="\n")
    write_json(out / "crossval.json", result)
    return result


def tested_fold(run: Path) -> dict[str, Any]:
    """A fold's line in crossval.json, from its own evaluation.json."""
    evaluation = read_json(run / "evaluation.json")
    known = {"name": run.name, "clips": evaluation["clips"], "actors": evaluation["actors"]}
    return {**known, **{key: evaluation["overall"][key] for key in (*SCORES, "war_interval", "uar_interval")}}


def figures(predictions: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, Any]:
    """Scores of pooled predictions with their intervals over actors."""
    predicted, truth = (codes(predictions[column], labels) for column in ("predicted", "label"))
    actors = predictions["actor"].to_numpy()
    return {
        "clips": len(predictions),
        "actors": int(predictions["actor"].nunique()),
        **summarize(np.eye(len(labels))[predicted], truth),
        **actor_intervals(predicted, truth, actors, len(labels), SEED),
    }


def class_figures(predictions: pd.DataFrame, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    predicted, truth = (codes(predictions[column], labels) for column in ("predicted", "label"))
    return per_class(confusion_matrix(predicted, truth, len(labels)), labels)
