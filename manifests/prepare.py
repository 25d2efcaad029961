"""From a manifest to prepared clips: each take is decoded once, its face found, and one square crop of it stored.

Safe to interrupt, to run twice, to run two at once: a clip is there whole or not at all, under a name that says
what it was made from, and index.csv follows from what is there. So several processes or machines that share the
folder may each take a part of the takes.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manifests.clipfile import PreparedClip, clip_path, read_clip, write_clip
from manifests.clips import (
    Rule,
    claim_folder,
    glimpse_path,
    index_row,
    preparing_in,
    read_index,
    read_rejected,
    update_tables,
)
from manifests.console import track
from manifests.crops import Unfit, crop_face, glimpse
from manifests.errors import UserError
from manifests.faces import DETECTOR, WEIGHTS_SHA256, weights_path
from manifests.files import replacing, sha256_of, writing_to
from manifests.following import STRIDE_SECONDS
from manifests.pool import map_in_processes
from manifests.video import VideoError
from manifests.workers import usable_cores

SAVE_EVERY_SECONDS = 30.0


@dataclass(frozen=True)
class Take:
    """One row of the manifest, as far as preparing needs it; sha256 is "" in a manifest built without verifying."""

    clip_id: str
    actor: str
    path: str
    sha256: str

    def __str__(self) -> str:
        return self.clip_id


@dataclass(frozen=True)
class Outcome:
    """What became of one take: a line for index.csv, or a reason. `made` is False when the clip was there already."""

    take: Take
    key: str = ""  # empty where another run may end otherwise, as with a missing file
    row: dict[str, str] | None = None
    reason: str = ""
    made: bool = False


@dataclass
class Summary:
    """How a run ended; `rejected` holds (clip_id, reason), those of earlier runs included."""

    changed: bool = False  # a clip was made, or one rejected that was not before
    made: int = 0
    kept: int = 0  # clips that were there
    rejected: list[tuple[str, str]] = field(default_factory=list)

    @property
    def prepared(self) -> int:
        return self.made + self.kept

    def sentence(self, out: Path, named: int = 10) -> str:
        """What to tell the user: counts, and the first rejected clips by name."""
        if not self.prepared and not self.rejected:
            head = "nothing to do: there are more parts than takes"
        elif not self.prepared:
            head = f"no clip could be prepared: all {len(self.rejected)} were rejected, see {out / 'rejected.csv'}"
        elif not self.changed:
            head = f"nothing to do: {self.prepared} clips are prepared in {out}"
        else:
            head = f"{self.prepared} clips are prepared in {out}, {self.made} of them now"
        lines = [f"  rejected {clip_id}: {reason}" for clip_id, reason in sorted(self.rejected)[:named]]
        if len(self.rejected) > named:
            lines.append(f"  and {len(self.rejected) - named} more")
        if lines and self.prepared:
            head += f"; {len(self.rejected)} rejected, see {out / 'rejected.csv'}"
        return "\n".join([head, *lines])


def prepare(
    manifest_path: Path,
    root: Path,
    out: Path,
    *,
    size: int = 256,
    margin: float = 0.3,
    no_face: str = "reject",
    roll: bool = False,
    workers: int | None = None,
    part: tuple[int, int] = (1, 1),
) -> Summary:
    """Make the prepared clip of every take of the manifest that `out` does not hold yet; videos lie under `root`.

    `part` (2, 4) is the second of four equal shares of the takes: four such calls do the whole.
    Takes that cannot be prepared are named with the reason in `out`/rejected.csv. Raises UserError when manifest or
    folders do not fit, and when `out` cannot be written to.
    """
    number, parts = part
    takes = _takes(manifest_path)[number - 1 :: parts]
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: give as --root the folder that the manifest's paths start from")
    weights_path()
    rule = crop_rule(size, margin, no_face, roll)
    with writing_to(out), preparing_in(out):
        claim_folder(out, rule)
        known = {row["clip_id"]: (row["key"], row["reason"]) for row in read_rejected(out)}
        summary, todo = _what_is_left(takes, rule, out, known)
        if todo:
            jobs = [(take, root, out, rule, known.get(take.clip_id)) for take in todo]
            count = min(workers or usable_cores(), len(todo))
            outcomes = map_in_processes(prepare_take, jobs, count, _crashed)
            _collect(track(outcomes, "preparing", len(todo), "clips"), out, summary, known)
    return summary


def crop_rule(size: int, margin: float, no_face: str, roll: bool = False) -> Rule:
    """The rule by which this version crops with these settings. Raises UserError for a size or margin out of range."""
    if not 32 <= size <= 1024 or not 0 <= margin <= 2:
        raise UserError(f"--size {size} --margin {margin}: give a size of 32 to 1024 pixels and a margin of 0 to 2")
    return Rule(size, margin, no_face, f"{DETECTOR}-{WEIGHTS_SHA256[:8]}", STRIDE_SECONDS, roll=roll)


def prepare_take(take: Take, root: Path, out: Path, rule: Rule, rejected: tuple[str, str] | None = None) -> Outcome:
    """Prepare one take, unless its clip is there or it was `rejected` before as (key, reason).

    Raises OSError only where `out` cannot be written to.
    """
    source = root / take.path
    try:
        digest = sha256_of(source)
    except OSError as error:
        return Outcome(take, reason=f"the file cannot be read: {error.strerror}")
    if take.sha256 and digest != take.sha256:
        return Outcome(take, reason="the file is not the one the manifest was built from: its sha256 differs")
    key = rule.key(digest)
    if rejected and rejected[0] == key:
        return Outcome(take, key, reason=rejected[1])
    clip = _whole_clip(clip_path(out, key))
    made = clip is None
    if clip is None:
        try:
            jpegs, times, meta = crop_face(source, rule)
        except (VideoError, Unfit) as error:
            _keep_glimpse(take, source, out)
            return Outcome(take, key, reason=str(error))
        meta = {"clip_id": take.clip_id, "source_sha256": digest, **meta}
        clip = read_clip(write_clip(out, key, jpegs, times, meta))
    return Outcome(take, key, index_row(take.clip_id, take.actor, take.path, clip), made=made)


def _crashed(job: tuple[Any, ...]) -> Outcome:
    return Outcome(job[0], reason="preparing it ended the worker process: the decoder crashed or memory ran out")


def _takes(manifest_path: Path) -> list[Take]:
    # Not at the top: worker processes import this module, and pandas takes them a second each.
    from manifests.table import read_manifest

    rows = read_manifest(manifest_path).rows
    return [Take(*map(str, row)) for row in rows[["clip_id", "actor", "path", "sha256"]].itertuples(index=False)]


def _what_is_left(
    takes: list[Take], rule: Rule, out: Path, known: dict[str, tuple[str, str]]
) -> tuple[Summary, list[Take]]:
    """Sort out the takes whose clip is there and the ones rejected before for the same bytes; return the rest."""
    summary = Summary()
    left = []
    indexed = {row["clip_id"]: row["key"] for row in read_index(out)}
    for take in takes:
        key = rule.key(take.sha256) if take.sha256 else ""
        if key and indexed.get(take.clip_id) == key and clip_path(out, key).exists():
            summary.kept += 1
        elif key and known.get(take.clip_id, ("", ""))[0] == key:
            summary.rejected.append((take.clip_id, known[take.clip_id][1]))
        else:
            left.append(take)
    return summary, left


def _collect(outcomes: Iterator[Outcome], out: Path, summary: Summary, known: dict[str, tuple[str, str]]) -> None:
    """Count outcomes and write them to the tables, now and then and at the end, however it comes."""
    fresh: list[Outcome] = []
    saved = time.monotonic()
    try:
        for outcome in outcomes:
            fresh.append(outcome)
            if outcome.row is None:
                summary.rejected.append((outcome.take.clip_id, outcome.reason))
                summary.changed |= known.get(outcome.take.clip_id) != (outcome.key, outcome.reason)
            elif outcome.made:
                summary.made += 1
                summary.changed = True
            else:
                summary.kept += 1
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                _save(fresh, out)
                fresh, saved = [], time.monotonic()
    finally:
        _save(fresh, out)


def _save(outcomes: list[Outcome], out: Path) -> None:
    prepared = [outcome.row for outcome in outcomes if outcome.row is not None]
    rejected = [
        {"clip_id": o.take.clip_id, "actor": o.take.actor, "path": o.take.path, "key": o.key, "reason": o.reason}
        for o in outcomes
        if o.row is None
    ]
    update_tables(out, prepared, rejected)


def _keep_glimpse(take: Take, source: Path, out: Path) -> None:
    picture = glimpse(source)
    if picture is not None:
        with replacing(glimpse_path(out, take.clip_id)) as temporary:
            temporary.write_bytes(picture)


def _whole_clip(path: Path) -> PreparedClip | None:
    try:
        return read_clip(path)
    except (FileNotFoundError, ValueError):
        return None
