"""The manifest as a table: a row per take in a CSV of reproducible bytes, and facts about it in a JSON beside it."""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from manifests.errors import UserError
from manifests.files import replacing, sha256_of, write_json

SPLITS = ("train", "val", "test")
EMOTIONS = ("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise")
VOTES = tuple(f"votes_{name}" for name in ("angry", "disgust", "fear", "happy", "neutral", "sad"))

# dtype of each column, in the order of the file. Empty text is "", an empty number is NA.
COLUMN_TYPES: dict[str, str] = {
    "clip_id": "str",  # names the take, whichever of its files is used
    "path": "str",  # below the data root, "/"-separated
    "dataset": "str",  # ravdess, crema, or the name of own recordings
    "emotion": "str",  # the class: one of the manifest's labels
    "split": "str",  # train, val or test
    "fold": "Int64",  # the fold, from 1, that tests this actor; NA without folds
    "actor": "str",  # with the dataset in front: ravdess_01, crema_1001
    "sex": "str",  # female, male, or "" for unknown
    "age": "Int64",  # years
    "intensity": "str",  # RAVDESS normal or strong; CREMA-D low, medium, high or unspecified
    "statement": "str",  # RAVDESS kids or dogs; CREMA-D the sentence's code
    "repetition": "Int64",
    "channel": "str",  # speech or song
    "frames": "Int64",  # decoded, not promised; as all up to duration NA if nothing was decoded
    "fps": "float64",  # average
    "width": "Int64",  # px, upright
    "height": "Int64",
    "duration": "float64",  # s
    "sha256": "str",  # of the file
    "bytes": "Int64",
    "etag": "str",  # S3's, "" for a local file
    "modality": "str",  # video-only or audio-video
    "acted_emotion": "str",  # what the actor was asked for; differs from emotion where calm is merged into neutral
    "codec": "str",
    "variable_rate": "boolean",
    "rotation": "Int64",  # degrees that the file asks a player to turn it; width and height have it applied
    "race": "str",  # as CREMA-D's demographics say it
    "ethnicity": "str",
    **dict.fromkeys(VOTES, "Int64"),  # CREMA-D raters who chose each emotion, shown the face alone
    "split_rule": "str",  # how split was decided, so that no row can be taken for what it is not
}
COLUMNS = tuple(COLUMN_TYPES)


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read and found sound.

    rows has COLUMNS in order and an index 0..n-1; labels is the class order; sha256 is that of the CSV's bytes; leaky
    means that actors cross splits on purpose (the leakage probe); synthetic that the clips are drawn, not people;
    facts is all of the JSON.
    """

    path: Path
    rows: pd.DataFrame
    labels: tuple[str, ...]
    sha256: str
    leaky: bool
    synthetic: bool
    facts: dict[str, Any]


def facts_path(path: Path) -> Path:
    return path.with_suffix(".json")


def rejected_path(path: Path) -> Path:
    return path.with_suffix(".rejected.csv")


def card_path(path: Path) -> Path:
    return path.with_suffix(".md")


def as_table(takes: pd.DataFrame) -> pd.DataFrame:
    """COLUMNS of `takes` in order, typed, with an index 0..n-1; a column that it lacks is empty."""
    empty = {"str": "", "float64": float("nan")}
    typed = {}
    for name, kind in COLUMN_TYPES.items():
        values = takes[name] if name in takes else pd.Series(empty.get(kind, pd.NA), index=takes.index, dtype=kind)
        typed[name] = values.astype(kind).array  # type: ignore[call-overload]
    return pd.DataFrame(typed)


def write_csv(path: Path, rows: pd.DataFrame) -> bool:
    """Write CSV (UTF-8, LF, three decimals); leave the file alone and return False if its bytes are these already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as folder:
        fresh = Path(folder) / path.name
        rows.to_csv(fresh, index=False, lineterminator="\n", float_format="%.3f", encoding="utf-8")
        if path.is_file() and sha256_of(path) == sha256_of(fresh):
            return False
        with replacing(path) as temporary:
            os.replace(fresh, temporary)
    return True


def write_manifest(path: Path, rows: pd.DataFrame, facts: dict[str, Any]) -> bool:
    """Write the CSV and, last, the JSON that vouches for it; return whether anything changed.

    facts must hold "labels" (class order), "leaky" and "synthetic"; the row count and the sha256 of the CSV and of the
    rejected CSV, if that is there, are added here.
    """
    changed = write_csv(path, rows)
    known = {**facts, "rows": len(rows), "sha256": sha256_of(path)}
    if rejected_path(path).is_file():
        known["rejected_sha256"] = sha256_of(rejected_path(path))
    beside = facts_path(path)
    if beside.exists() and json.loads(beside.read_text(encoding="utf-8")) == known:
        return changed
    write_json(beside, known)
    return True


def read_manifest(path: Path | str) -> Manifest:
    """Read a manifest and refuse one that lies: see `problems_in`. Raises UserError with the first problem."""
    path = Path(path)
    rows, facts = read_parts(path)
    found = next(problems_in(rows, facts), None)
    if found:
        raise UserError(f"{path}: {found}: see `python -m manifests check {path}`, then build the manifest anew")
    digest = sha256_of(path)
    if digest != facts["sha256"]:
        raise UserError(
            f"{path} was changed after it was built (its sha256 is not the one in {facts_path(path).name}): "
            "build it anew with `python -m manifests build`"
        )
    return Manifest(path, rows, tuple(facts["labels"]), digest, bool(facts["leaky"]), bool(facts["synthetic"]), facts)


def read_parts(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows and the facts, well-formed but not judged. Raises UserError if either is missing or malformed."""
    if not path.is_file():
        raise UserError(f"there is no manifest {path}: make one with `python -m manifests build --out {path} ...`")
    beside = facts_path(path)
    if not beside.is_file():
        raise UserError(
            f"{beside} is not beside {path.name}: copy both, or build it anew with `python -m manifests build`"
        )
    try:
        facts = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{beside} is not JSON ({error}): build it anew with `python -m manifests build`") from None
    missing = [key for key in ("labels", "sha256", "leaky", "synthetic") if key not in facts]
    if missing:
        raise UserError(f"{beside} lacks {', '.join(missing)}: build it anew with `python -m manifests build`")
    return _read_csv(path), facts


def _read_csv(path: Path) -> pd.DataFrame:
    numbers = {name: [""] for name, kind in COLUMN_TYPES.items() if kind != "str"}
    try:
        header = pd.read_csv(path, nrows=0).columns
        absent = [name for name in COLUMNS if name not in header]
        if absent:
            raise UserError(f"{path} lacks the columns {', '.join(absent)}: build it with `python -m manifests build`")
        rows = pd.read_csv(path, dtype=COLUMN_TYPES, keep_default_na=False, na_values=numbers, encoding="utf-8")
    except (ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{path} is not a manifest ({reason}): build it with `python -m manifests build`") from None
    return rows[list(COLUMNS)]


def problems_in(rows: pd.DataFrame, facts: dict[str, Any]) -> Iterator[str]:
    """Say what makes a manifest unfit for use: each problem a phrase that names the culprits, gravest first."""
    if rows.empty:
        yield "it has no rows"
        return
    blank = rows.index[(rows["clip_id"] == "") | (rows["path"] == "") | (rows["actor"] == "")]
    if len(blank):
        yield f"line {blank[0] + 2} lacks its clip_id, path or actor"
    for column, allowed in (("split", SPLITS), ("emotion", tuple(facts["labels"]))):
        strange = sorted(set(rows[column].unique()) - set(allowed))
        if strange:
            yield f"unknown {column} {_some(strange)} (known: {', '.join(allowed)})"
    if not facts["leaky"]:
        yield from _in_two_splits(rows, "actor", "actor")
    yield from _in_two_splits(rows, "clip_id", "take")
    yield from _in_two_splits(rows[rows["sha256"] != ""], "sha256", "file content")
    for column, noun in (("clip_id", "take"), ("path", "path")):
        twice = rows.loc[rows[column].duplicated(), column].unique()
        if len(twice):
            yield f"{noun} {_some(twice)} is there twice"


def _in_two_splits(rows: pd.DataFrame, column: str, noun: str) -> Iterator[str]:
    pairs = rows[[column, "split"]].drop_duplicates()
    crossing = sorted(pairs.loc[pairs[column].duplicated(), column].unique())
    if crossing:
        where = " and ".join(sorted(pairs.loc[pairs[column] == crossing[0], "split"]))
        more = f", and {len(crossing) - 1} more like it" if len(crossing) > 1 else ""
        yield f"{noun} {crossing[0]} is in {where}{more}"


def _some(names: Any, most: int = 5) -> str:
    names = list(names)
    return ", ".join(repr(str(name)) for name in names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )


def counts_of(rows: pd.DataFrame) -> dict[str, Any]:
    """Takes by split, dataset and emotion, as nested plain dictionaries."""
    counts: dict[str, Any] = {}
    sizes = rows.groupby(["split", "dataset", "emotion"]).size().reset_index(name="takes")
    for split, dataset, emotion, number in sizes.itertuples(index=False):
        counts.setdefault(split, {}).setdefault(dataset, {})[emotion] = int(number)
    return counts
