"""Someone's own recordings as a corpus: a CSV of path, emotion and actor, and whatever else is known of each take."""

import difflib
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from manifests.errors import UserError
from manifests.table import EMOTIONS

NEEDED = ("path", "emotion", "actor")
OPTIONAL = ("dataset", "sex", "age", "intensity", "statement", "repetition", "channel")
SYNONYMS = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}
SEXES = {"m": "male", "man": "male", "f": "female", "woman": "female"}


def read_recordings(
    table: Path, prefix: str, labels: tuple[str, ...]
) -> tuple[pd.DataFrame, list[tuple[str, str]], int]:
    """Read the CSV: a frame with a row per usable take, (path, reason) of the others, and the number of repeated rows.

    Paths are relative to the CSV's folder, `prefix` is that folder below the data root ("" or "folder/"). An emotion is
    known if it is one of EMOTIONS, a synonym, or in `labels`. Works on columns, so that a million rows are quick.
    """
    rows = _read(table)
    rows["actor"] = _each(rows["actor"], str.strip)
    rows["emotion"] = _each(rows["emotion"], lambda text: SYNONYMS.get(text.strip().lower(), text.strip().lower()))
    given = rows["path"].str.strip()
    untidy = given.str.contains(r"\\|//|/\.|^\./", regex=True)
    given[untidy] = given[untidy].map(_tidy)
    rows["path"] = prefix + given if prefix else given
    known = sorted({*EMOTIONS, *labels})
    reason = pd.Series("", index=rows.index)
    for bad, why in (
        (given.str.contains(r"[\x00-\x1f\x7f-\x9f]"), "unwritable path: it has control characters"),
        ((given == "") | given.str.startswith("/") | rows["path"].str.startswith("../"), "path outside the data root"),
        (rows["actor"] == "", "no actor: without one it cannot be kept out of another split"),
    ):
        reason = reason.where(~bad | (reason != ""), why)
    strange = {name: _unknown(name, known) for name in rows["emotion"].unique() if name not in known}
    reason = reason.where((reason != "") | ~rows["emotion"].isin(list(strange)), rows["emotion"].map(strange))
    said = rows.groupby("path")[["emotion", "actor"]].transform("nunique").max(axis=1)
    reason = reason.where((reason != "") | (said < 2), "contradiction: listed twice with another emotion or actor")
    refused = list(zip(rows["path"][reason != ""], reason[reason != ""], strict=True))
    good = rows[reason == ""]
    once = good[~good["path"].duplicated()]
    return _as_takes(once), refused, len(good) - len(once)


def _as_takes(rows: pd.DataFrame) -> pd.DataFrame:
    named = rows["dataset"] + "_" + rows["actor"]
    slugs = [f"{name}_{_slug(path)}" for name, path in zip(rows["dataset"], rows["path"], strict=True)]
    return rows.assign(clip_id=slugs, actor=_each(named, str), modality="", etag="")


def _each(texts: pd.Series, tidy: Callable[[str], str]) -> pd.Series:
    """Tidy every text, working on each different one once: rows then share one string, which a million rows feel."""
    return texts.map({text: tidy(text) for text in texts.unique()}).astype("str")


def _read(table: Path) -> pd.DataFrame:
    if not table.is_file():
        raise UserError(f"there is no file {table}: give --csv a table with the columns {', '.join(NEEDED)}")
    try:
        rows = pd.read_csv(
            table,
            dtype="str",
            keep_default_na=False,
            encoding="utf-8-sig",
            usecols=lambda name: name in (*NEEDED, *OPTIONAL),
        )
    except (ValueError, OSError) as error:
        raise UserError(f"{table} is not a CSV in UTF-8 ({error}): save it as one") from None
    absent = [name for name in NEEDED if name not in rows]
    if absent:
        raise UserError(f"{table} lacks the column {' and '.join(absent)}: it needs {', '.join(NEEDED)}")
    for name in OPTIONAL:
        default = "own" if name == "dataset" else "speech" if name == "channel" else ""
        rows[name] = _each(rows[name], str.strip).replace("", default) if name in rows else default
    rows["sex"] = _each(rows["sex"], lambda text: SEXES.get(text.lower(), text.lower()))
    for name in rows["dataset"].unique():
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or name in ("ravdess", "crema"):
            raise UserError(
                f"{table}: a dataset cannot be called {name!r}: use small letters, digits and hyphens; "
                "RAVDESS and CREMA-D are read from their file names, with --ravdess and --crema"
            )
    for name in ("age", "repetition"):
        numbers = pd.to_numeric(rows[name], errors="coerce")
        wrong = rows.index[(rows[name] != "") & (numbers.isna() | (numbers % 1 != 0))]
        if len(wrong):
            raise UserError(f"{table} line {wrong[0] + 2}: {name} {rows.at[wrong[0], name]!r} is no whole number")
        rows[name] = numbers.astype("Int64")
    return rows


def _tidy(path: str) -> str:
    """`a/./b//c` and `a\\b` in the one spelling that a manifest uses; "../" at the front stays, to be refused."""
    parts: list[str] = []
    for part in path.replace("\\", "/").split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return ("/" if path.startswith("/") else "") + "/".join(parts)


def _slug(path: str) -> str:
    """A name for a take that any file system takes: what can be read of its path, and a hash that keeps it apart."""
    stem = path.rpartition("/")[2].rpartition(".")[0]
    return f"{re.sub('[^A-Za-z0-9]+', '-', stem)[:40]}-{hashlib.blake2b(path.encode(), digest_size=6).hexdigest()}"


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"unknown emotion: {name!r}" + (f", did you mean {near[0]}?" if near else f" (known: {', '.join(known)})")
