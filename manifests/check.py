"""Whether a manifest is still true: of itself, of the names it holds, and of the files under a root."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from manifests import table
from manifests.console import track
from manifests.corpora import NotATake, read_crema, read_ravdess
from manifests.errors import UserError
from manifests.files import sha256_of
from manifests.sources import is_s3, list_place
from manifests.workers import usable_cores


def check(path: Path, root: str | None, decode: bool) -> Iterator[str]:
    """Yield every problem, gravest first. `root` adds the files (presence, size, sha256), `decode` their pictures.

    Raises UserError when the manifest cannot be read, and for a root that is no folder where one is needed.
    """
    if decode and (root is None or is_s3(root)):
        raise UserError("--decode reads videos from a folder, not from S3: add --root DIR, the folder that holds them")
    rows, facts = table.read_parts(path)
    yield from table.problems_in(rows, facts)
    yield from _against_facts(path, rows, facts)
    yield from _against_names(rows)
    if root is None:
        return
    if is_s3(root):
        yield from _against_listing(rows, root)
        return
    if not Path(root).is_dir():
        raise UserError(f"there is no folder {root}: give --root the folder that the paths in {path} are relative to")
    yield from _against_files(rows, Path(root))
    if decode:
        yield from _against_pictures(rows, Path(root))


def _against_facts(path: Path, rows: pd.DataFrame, facts: dict[str, Any]) -> Iterator[str]:
    name = table.facts_path(path).name
    if sha256_of(path) != facts["sha256"]:
        yield f"its sha256 is not the one in {name}: it was changed after it was built"
    if table.counts_of(rows) != facts.get("counts"):
        yield f"its counts by split, dataset and emotion are not those in {name}"
    rejected = table.rejected_path(path)
    if not rejected.is_file():
        yield f"{rejected.name} is not beside it: what was left out, and why, is lost"
    elif sha256_of(rejected) != facts.get("rejected_sha256"):
        yield f"{rejected.name} was changed after it was built"


def _against_names(rows: pd.DataFrame) -> Iterator[str]:
    """RAVDESS and CREMA-D names say what the take is: a row that says otherwise was tampered with."""
    for dataset, read in (("ravdess", read_ravdess), ("crema", read_crema)):
        part = rows[rows["dataset"] == dataset]
        for path, *said in part[["path", "clip_id", "actor", "acted_emotion"]].itertuples(index=False):
            try:
                take = read(path)
            except NotATake as reason:
                yield f"{path}: {reason}"
                continue
            for noun, ours, named in zip(
                ("take", "actor", "emotion"), said, (take.clip_id, take.actor, take.emotion), strict=True
            ):
                if ours != named:
                    yield f"{path}: its row says {noun} {ours}, its name says {named}"


def _against_listing(rows: pd.DataFrame, root: str) -> Iterator[str]:
    there = {found.path: found for found in list_place(root, root).videos}
    for path, size, etag in rows[["path", "bytes", "etag"]].itertuples(index=False):
        found = there.get(path)
        if found is None:
            yield f"{path}: missing below {root}"
        elif not pd.isna(size) and found.bytes != size:
            yield f"{path}: {found.bytes} bytes there, {size} in the manifest"
        elif etag and found.etag != etag:
            yield f"{path}: its ETag changed, so did its content"


def _against_files(rows: pd.DataFrame, root: Path) -> Iterator[str]:
    """Presence, size and content; hashing releases the interpreter, so threads suffice."""

    def judge(row: tuple[str, Any, str]) -> str:
        path, size, digest = row
        file = root / path
        if not file.is_file():
            return f"{path}: missing below {root}"
        if not pd.isna(size) and file.stat().st_size != size:
            return f"{path}: {file.stat().st_size} bytes there, {size} in the manifest"
        try:
            same = not digest or sha256_of(file) == digest
        except OSError as error:
            return f"{path}: unreadable, {error.strerror}"
        return "" if same else f"{path}: its content is not what it was, the sha256 differs"

    with ThreadPoolExecutor(usable_cores()) as pool:
        judged = pool.map(judge, rows[["path", "bytes", "sha256"]].itertuples(index=False))
        yield from (problem for problem in track(judged, "checking files", len(rows)) if problem)


def _against_pictures(rows: pd.DataFrame, root: Path) -> Iterator[str]:
    """Decode every file anew, whatever any cache says, and compare with what the manifest says of it."""
    from manifests.verification import CACHE_NAME, verify_files

    present = rows[[(root / path).is_file() for path in rows["path"]]]
    paths = [root / path for path in present["path"]]
    with tempfile.TemporaryDirectory() as nowhere:
        verdicts, _ = verify_files(paths, Path(nowhere) / CACHE_NAME, None)
    for path, row in zip(paths, present.to_dict("records"), strict=True):
        verdict = verdicts[path]
        if verdict.facts is None:
            yield f"{row['path']}: {verdict.reason}"
            continue
        for name in ("frames", "width", "height"):
            if not pd.isna(row[name]) and verdict.facts[name] != row[name]:
                yield f"{row['path']}: {verdict.facts[name]} {name} decoded, {row[name]} in the manifest"
