"""One run from its inputs to its report: which clips it sees, what run.json says of it, and its stages in order."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from manifests.clips import ClipStore, read_rejected
from manifests.errors import UserError
from manifests.table import Manifest
from trainer.config import Config, change_config
from trainer.dataset import Clips
from trainer.evaluate import evaluate, result_line
from trainer.modelcard import write_card
from trainer.processes import Processes, joined
from trainer.report import write_report
from trainer.run import Run, describe_surroundings, differences, is_finished, read_json
from trainer.train import fit
from trainer.twins import compare_twins, twins_line
from trainer.votes import soft_targets
from trainer.wanted import ask_one_by_one, wait_for
from trainer.watchdog import watching

# What a run may be tested with that it was not trained with; the other settings would do nothing, or harm.
EVALUATION_SETTINGS = ("evaluation.", "data.batch", "data.workers", "data.shard_window", "device")


def run_recipe(config: Config, manifest: Manifest, store: ClipStore, path: Path) -> dict[str, Any]:
    """Train, test and report the run directory `path`; return what its evaluation.json holds.

    Does nothing to a run that is finished; goes on with one that was stopped. Raises UserError when the inputs cannot
    be trained on or the directory holds another run.
    """
    store.wait = wait_for if config.data.shard_window else None
    splits, rows, skipped = choose_clips(manifest, store)
    facts = describe_run(config, manifest, store, splits, path)
    if config.optim.human_votes:
        facts["votes"] = teach_votes(splits["train"], manifest, config.optim.human_votes)
    with joined(config.device) as processes:
        if processes.leader_says(is_finished(path, facts)):
            result: dict[str, Any] = read_json(path / "evaluation.json")
            if processes.leader:
                print(f"nothing to do: {path} is finished; {result_line(result)}")
            return result
        if processes.leader:
            announce(manifest, splits, skipped)
        with Run(path, facts, leader=processes.leader) as run, watching(run, config.stall_minutes):
            fit(config, splits, manifest.labels, run, processes)
            result = conclude(run, config, splits, rows, skipped, processes)
    if processes.leader:
        print(f"{config.model.arch}: {result_line(result)}")
        print(f"report: {path / 'report.html'}")
    return result


def evaluate_run(
    path: Path, settings: list[str], manifest: Manifest, store: ClipStore, twins: ClipStore | None
) -> None:
    """Test the trained run `path` on its own inputs, as `settings` want it looked at, and report and print the result.

    `twins` has the test takes prepared from their other files. Raises UserError for what is no trained run, for other
    inputs than the run's own, and for settings that would have to change the training.
    """
    facts = read_json(path / "run.json")
    if facts is None:
        raise UserError(f"{path} is no run directory; train first: python -m trainer fit --help")
    config = change_config(facts["config"], settings)
    if fixed := [setting.partition("=")[0] for setting in settings if not setting.startswith(EVALUATION_SETTINGS)]:
        allowed = ", ".join(f"{start}*" if start.endswith(".") else start for start in EVALUATION_SETTINGS)
        raise UserError(f"{fixed[0]} is the run's own; evaluating can change {allowed}, and fit trains another run")
    if manifest.sha256 != facts["manifest"]["sha256"]:
        raise UserError(f"{manifest.path} is not the manifest that {path} was trained on; give that one")
    if difference := differences({"clips": facts["clips"]}, {"clips": store.rule.as_dict()}):
        raise UserError(
            f"{store.root} was not prepared as the clips that {path} was trained on: {difference}; give those, or "
            "prepare them in the same way"
        )
    store.wait = wait_for if config.data.shard_window else None
    splits, rows, skipped = choose_clips(manifest, store)
    if not (path / "model.safetensors").is_file():
        raise UserError(f"{path} has no weights yet; finish its training: python -m trainer fit --help")
    known = read_json(path / "evaluation.json")
    with joined(config.device) as processes, Run(path, facts, leader=processes.leader) as run:
        result = conclude(run, config, splits, rows, skipped, processes, twins)
    if processes.leader:
        print(("nothing to do: " if result == known else "") + result_line(result))
        if twins:
            print(twins_line(result["twins"]))


def conclude(
    run: Run, config: Config, splits: dict[str, Clips], rows: pd.DataFrame, skipped: list[dict[str, str]],
    processes: Processes, twins: ClipStore | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The last stages of a run: judge its weights, then write report and card; return what evaluation.json holds."""
    result = evaluate(run, config, splits, rows, skipped, processes)
    if processes.leader:
        if twins:
            result = {**result, "twins": compare_twins(run, config, splits["test"], twins)}
        run.report("reporting", force=True)
        store = splits["test"].store
        ask_one_by_one(run, store)
        write_report(run.path, store)
        write_card(run.path)
    return result


def choose_clips(manifest: Manifest, store: ClipStore) -> tuple[dict[str, Clips], pd.DataFrame, list[dict[str, str]]]:
    """(clips per split, manifest rows of the test clips, clips without a prepared face and why).

    Raises UserError when a class or a split has nobody to learn from or to judge.
    """
    rejected = {row["clip_id"]: row["reason"] for row in read_rejected(store.root)}
    rows = manifest.rows
    there = rows["clip_id"].map(lambda clip_id: clip_id in store).astype(bool)
    skipped = [
        {"clip_id": clip_id, "reason": rejected.get(clip_id, "not prepared")} for clip_id in rows["clip_id"][~there]
    ]
    unprepared = [clip["clip_id"] for clip in skipped if clip["reason"] == "not prepared"]
    if unprepared:
        raise UserError(
            f"{len(unprepared)} clips of the manifest are not in {store.root}, the first is {unprepared[0]}; "
            f"run python -m manifests prepare {manifest.path} --root DATA --out {store.root}"
        )
    rows = rows[there].reset_index(drop=True)
    if stale := store.from_other_files(rows["clip_id"], rows["sha256"]):
        raise UserError(
            f"{len(stale)} clips in {store.root} were made from other files than the manifest's, the first is "
            f"{stale[0]}; run python -m manifests prepare {manifest.path} --root DATA --out {store.root}"
        )
    index = {label: number for number, label in enumerate(manifest.labels)}
    parts = {split: rows[rows["split"] == split].reset_index(drop=True) for split in ("train", "val", "test")}
    for split in ("val", "test"):
        # Looked at in the order in which they are packed, each shard is read once.
        packed = store.shard_numbers(parts[split]["clip_id"].to_numpy(np.str_)).argsort(kind="stable")
        parts[split] = parts[split].iloc[packed].reset_index(drop=True)
    for split, part in parts.items():
        absent = sorted(set(manifest.labels) - set(part["emotion"]))
        if part.empty:
            raise UserError(
                f"the {split} split has no clip at all ({manifest.path}); python -m manifests build gives each split "
                "its actors with shares such as --split 70/15/15"
            )
        if split == "train" and absent:
            raise UserError(
                f"the train split has no clip of {', '.join(absent)} ({manifest.path}); use more actors or another "
                "--labels"
            )
    splits = {
        split: Clips(store, part["clip_id"].tolist(), part["emotion"].map(index).tolist(), part["dataset"].tolist())
        for split, part in parts.items()
    }
    return splits, parts["test"], skipped


def teach_votes(train: Clips, manifest: Manifest, share: float) -> dict[str, int]:
    """Let the training clips teach `share` of their raters' votes; return how many do, and the votes left out."""
    rows = manifest.rows.set_index("clip_id").loc[list(train.clip_ids)].reset_index()
    soft = soft_targets(rows, manifest.labels, share)
    train.targets = soft.targets
    return {"softened": soft.softened, "dropped": soft.dropped}


def describe_run(
    config: Config, manifest: Manifest, store: ClipStore, splits: dict[str, Clips], path: Path
) -> dict[str, Any]:
    """What run.json holds."""
    rows = manifest.rows.set_index("clip_id")
    return {
        "run_id": path.resolve().name,
        "config": config.model_dump(mode="json"),
        "labels": list(manifest.labels),
        "manifest": {
            "path": str(manifest.path),
            "sha256": manifest.sha256,
            "leaky": manifest.leaky,
            "synthetic": manifest.synthetic,
            "counts": {split: count(rows.loc[list(clips.clip_ids)]) for split, clips in splits.items()},
        },
        "clips": store.rule.as_dict(),
        "seed": config.seed,
        **describe_surroundings(config.device),
    }


def count(rows: pd.DataFrame) -> dict[str, Any]:
    """Clips and actors of manifest rows, in all and of each corpus."""
    whole = {"clips": len(rows), "actors": rows["actor"].nunique()}
    datasets = {
        str(name): {"clips": len(part), "actors": part["actor"].nunique()} for name, part in rows.groupby("dataset")
    }
    return {**whole, "datasets": datasets}


def announce(manifest: Manifest, splits: dict[str, Clips], skipped: list[dict[str, str]]) -> None:
    sizes = ", ".join(f"{len(clips)} {split}" for split, clips in splits.items())
    print(f"{manifest.path}: {sizes} videos of {len(manifest.labels)} classes", file=sys.stderr)
    if manifest.synthetic:
        print("drawn faces, a test corpus: results say nothing about people", file=sys.stderr)
    if manifest.leaky:
        print("LEAKY SPLIT: actors are on both sides; results are inflated on purpose", file=sys.stderr)
    if skipped:
        print(f"{len(skipped)} videos without a prepared face are left out, named in evaluation.json", file=sys.stderr)
