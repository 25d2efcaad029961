"""How a manifest is made: list, read the names, decode, keep one file per take, label, split, write."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from manifests import splits, table
from manifests.card import write_card
from manifests.corpora import LABEL_SETS, label_set
from manifests.errors import UserError
from manifests.files import writing_to
from manifests.gather import Gathered, describe_actors, gather
from manifests.sources import is_s3
from manifests.takes import Rejected, choose_classes, compare_twins, keep_one_file, reject_same_bytes

# Smaller S3 objects cannot be clips; the pointer that git-lfs leaves in a file's place has some 130 bytes.
SMALLEST_VIDEO = 1000
VIDEO_COLUMNS = ("frames", "fps", "width", "height", "duration", "codec", "variable_rate", "rotation")


@dataclass(frozen=True)
class Request:
    """What is asked of a build; the defaults are the command line's. Places are folders or s3:// prefixes."""

    out: Path
    ravdess: str | Path | None = None
    crema: str | Path | None = None
    csv: str | Path | None = None
    root: str | Path | None = None
    labels: str = "common6"
    calm: str = "drop"
    channel: str = "speech"
    twins: str = "video-only"
    split: str = "70/15/15"
    folds: str | None = None
    fold: int | None = None
    test_on: str | None = None
    leaky: bool = False
    seed: int = 0
    verify: bool = True
    workers: int | None = None


@dataclass(frozen=True)
class Built:
    """What a build made. `decoded` counts the files that had to be read; `changed` says whether any output is new."""

    rows: pd.DataFrame
    facts: dict[str, Any]
    rejected: pd.DataFrame
    decoded: int
    changed: bool


def build(request: Request) -> Built:
    """Make the manifest that `request` asks for and write it with its companions. Raises UserError."""
    if request.out.suffix != ".csv":
        raise UserError(f"--out {request.out} is no .csv: the manifest is a CSV, and its companions are named after it")
    labels = label_set(request.labels)
    shares = splits.parse_shares(request.split)
    _refuse_contradictions(request)
    takes, gathered = gather(request.ravdess, request.crema, request.csv, request.root, labels)
    files = len(takes) + len(gathered.rejected)
    takes, dropped = choose_classes(takes, labels, request.calm, request.channel)
    takes, decoded, verification = _verify(takes, request, gathered)
    twins: dict[str, Any] = compare_twins(takes) if verification == "decoded" else {"compared": 0, "differ": []}
    takes, same = reject_same_bytes(takes)
    takes, spare = keep_one_file(takes, request.twins)
    gathered.rejected += same + spare
    _demand_classes(takes, labels, gathered.rejected)
    takes = describe_actors(takes, gathered)
    # The order of rows must not depend on the order of files, nor decide who goes where.
    takes = takes.sort_values(["dataset", "clip_id"], kind="stable")
    takes, rule = _split(takes, request, shares)
    rows = table.as_table(takes)
    del takes  # of a million rows two copies are one too many
    gathered.notes += _thin_splits(rows, labels)
    if unlike := twins["differ"]:
        gathered.notes.append(
            f"{len(unlike)} of {twins['compared']} pairs of twins differ, the first being {unlike[0]}"
        )
    rejected = pd.DataFrame(sorted(gathered.rejected), columns=["path", "reason"])
    facts = {
        "format": 1,
        **_facts_of_request(request, gathered, labels),
        "verification": verification,
        "split_rule": rule,
        "notes": gathered.notes,
        "files": files,
        "dropped": dropped,
        "rejected": kinds_of(rejected["reason"]),
        "twins": twins,
        "counts": table.counts_of(rows),
        "actors": {name: sorted(rows.loc[rows["split"] == name, "actor"].unique()) for name in table.SPLITS},
    }
    with writing_to(request.out.parent):
        changed = table.write_csv(table.rejected_path(request.out), rejected)
        changed = write_card(request.out, rows, facts, rejected) or changed
        # Last the table and the JSON that vouches for it: a build that is killed leaves no JSON that lies.
        changed = table.write_manifest(request.out, rows, facts) or changed
    return Built(rows, facts, rejected, decoded, changed)


def kinds_of(reasons: pd.Series) -> dict[str, int]:
    """Count reasons by what stands before their first colon."""
    return dict(sorted(Counter(reason.partition(":")[0] for reason in reasons).items()))


def _refuse_contradictions(request: Request) -> None:
    if request.folds is None and request.fold is not None:
        raise UserError("--fold belongs to --folds: add `--folds ravdess6`, crema5 or a number")
    chosen = [name for name in ("folds", "test_on", "leaky") if getattr(request, name)]
    if len(chosen) > 1:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in chosen)
        raise UserError(f"{names} contradict each other: each is a way to split, choose one")


def _verify(takes: pd.DataFrame, request: Request, gathered: Gathered) -> tuple[pd.DataFrame, int, str]:
    """Decode every candidate, or for S3 look at its size; return the good ones, the number decoded, what was done."""
    if not request.verify:
        return takes.assign(sha256=""), 0, "none: names are trusted"
    if is_s3(gathered.root):
        small = takes["bytes"] < SMALLEST_VIDEO
        gathered.rejected += [
            (path, f"too small for a video: {size} bytes, perhaps a git-lfs pointer")
            for path, size in zip(takes.loc[small, "path"], takes.loc[small, "bytes"], strict=True)
        ]
        return takes[~small].assign(sha256=""), 0, "listing: sizes and ETags, nothing was decoded"
    from manifests.verification import CACHE_NAME, verify_files

    root = Path(gathered.root)
    paths = [root / path for path in takes["path"]]
    verdicts, decoded = verify_files(paths, request.out.parent / CACHE_NAME, request.workers)
    judged = [verdicts[path] for path in paths]
    good = np.array([verdict.facts is not None for verdict in judged], dtype=bool)
    gathered.rejected += [
        (path, verdict.reason) for path, verdict in zip(takes["path"], judged, strict=True) if verdict.facts is None
    ]
    facts = [verdict.facts for verdict in judged if verdict.facts is not None]
    known = {name: pd.array([each[name] for each in facts]) for name in VIDEO_COLUMNS}
    hashes = [verdict.sha256 for verdict in judged if verdict.facts is not None]
    sizes = [verdict.size for verdict in judged if verdict.facts is not None]
    return takes[good].assign(**known, sha256=hashes, bytes=sizes), decoded, "decoded"


def _demand_classes(takes: pd.DataFrame, labels: tuple[str, ...], rejected: Rejected) -> None:
    absent = [name for name in labels if name not in set(takes["emotion"])]
    if absent:
        lost = [(path, reason) for path, reason in rejected if not reason.startswith(("copy", "twin"))]
        path, reason = min(lost, default=("", ""))
        some = f" ({len(lost)} files were left out, e.g. {path}: {reason})" if lost else ""
        fits = [name for name, known in LABEL_SETS.items() if set(known) <= set(takes["emotion"])]
        cure = f"use --labels {fits[0]}" if fits else "add takes of it, or give --labels the classes that you have"
        raise UserError(f"no take of {', '.join(absent)}{some}: {cure}")


def _split(takes: pd.DataFrame, request: Request, shares: tuple[float, float, float]) -> tuple[pd.DataFrame, str]:
    """Add the columns split, fold and split_rule."""
    seed = request.seed
    if request.folds is not None:
        fold = 1 if request.fold is None else request.fold
        if request.folds in splits.named_folds():
            number = splits.published_folds(takes, request.folds)
            rule = f"folds {request.folds}, fold {fold}"
        elif request.folds.isdecimal():
            number = splits.fold_by_actor(takes, int(request.folds), seed)
            rule = f"{request.folds} folds by actor, fold {fold}, seed {seed}"
        else:
            raise UserError(f"unknown folds {request.folds!r}: use {', '.join(splits.named_folds())} or a number")
        takes = takes.assign(fold=number, split=splits.split_of_fold(number, fold, validate=True))
    elif request.test_on:
        rule = f"test on {request.test_on}, other actors {request.split} without its test share, seed {seed}"
        takes = takes.assign(split=splits.split_by_dataset(takes, request.test_on, shares, seed))
    elif request.leaky:
        rule = f"LEAKY: takes {request.split}, actors cross splits, seed {seed}"
        takes = takes.assign(split=splits.split_takes(takes, shares, seed))
    else:
        rule = f"actors {request.split}, seed {seed}"
        takes = takes.assign(split=splits.split_by_actor(takes, shares, seed))
    return takes.assign(split_rule=rule), rule


def _thin_splits(rows: pd.DataFrame, labels: tuple[str, ...]) -> list[str]:
    """Say of which classes and corpora a split has nothing: scores on it would not mean what they seem to."""
    notes = []
    for name in table.SPLITS:
        part = rows[rows["split"] == name]
        if part.empty:
            notes.append(f"{name} is empty")
            continue
        absent = [label for label in labels if label not in set(part["emotion"])]
        if absent:
            notes.append(f"{name} has no take of {', '.join(absent)}")
    return notes


def _facts_of_request(request: Request, gathered: Gathered, labels: tuple[str, ...]) -> dict[str, Any]:
    """What was asked for; of the arguments those that shape the manifest: not where it is written, nor how fast."""
    shaping = {name: value for name, value in asdict(request).items() if name not in ("out", "root", "workers")}
    return {
        "arguments": {**shaping, **gathered.inside_root()},
        "labels": list(labels),
        "leaky": request.leaky,
        "synthetic": gathered.is_synthetic(),
    }
