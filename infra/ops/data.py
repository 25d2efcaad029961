"""make data: bring a folder of raw videos into the bucket. Sends only what is not there, goes on where it was stopped,
deletes nothing. Exit code 1 if something that should be a video was left out."""

import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.ops import storage
from infra.ops.command import outputs_of, parser, print_json, run, said, say
from infra.ops.corpus import File, Survey, printable, survey
from infra.ops.errors import EXIT_MISSING, UserError
from infra.ops.moving import Wire, shown, side_by_side
from infra.outputs import Outputs

if TYPE_CHECKING:
    from infra.box.transfer import Remote

EXAMPLES = """
make data SRC=/videos
make data SRC=/videos DRY=1
python -m infra.ops.data --stack team --json "/media/disk 2/corpora"
"""
PREFIX = "data/"
THREADS = 16
NAMED = 20  # files named on the terminal; --json names all


@dataclass
class Tally:
    """What became of the files. `moved` is how many bytes need not be sent (any more)."""

    counts: Counter[str] = field(default_factory=Counter)  # sent, replaced, kept
    sent_bytes: int = 0
    moved: int = 0
    unfit: list[tuple[str, str]] = field(default_factory=list)  # name and reason of what changed or went meanwhile


def main(arguments: list[str] | None = None) -> int:
    options = parser("data", __doc__ or "", EXAMPLES)
    options.add_argument("folder", nargs="?", default=said("SRC") or "", help="the videos, at any depth (SRC=)")
    options.add_argument("--dry-run", action="store_true", help="only say what is there and what would be sent (DRY=1)")
    options.add_argument("--json", action="store_true", help="print what was found and sent as JSON")
    given = options.parse_args(arguments)
    return run(lambda: data(given.stack, given.folder, given.dry_run, given.json))


def data(stack: str, folder: str, dry_run: bool, as_json: bool) -> int:
    found = look_at(folder)
    outputs = outputs_of(stack)
    tally = plan(outputs, found) if dry_run else send(outputs, found)
    if as_json:
        print_json(summary(outputs, found, tally))
    else:
        print(sentence(outputs, tally, dry_run))
    tell_broken(tally.unfit)
    return EXIT_MISSING if found.broken or tally.unfit else 0


def look_at(folder: str) -> Survey:
    """List the folder and tell what is in it. Raises UserError if it is none, or holds no video."""
    if not folder:
        raise UserError("which folder? `make data SRC=DIR` wants the one with the videos")
    if folder.startswith("s3://"):
        raise UserError(f"{folder} is in S3 already; `aws s3 sync {folder} s3://BUCKET/data/` copies it over")
    found = survey(Path(folder).expanduser())
    say(describe(found))
    tell_broken(found.broken)
    return found


def describe(found: Survey) -> str:
    """One line: `1440 videos and 2 tables, 8.1 GiB, about $0.19 a month; 1012 .wav stay here`."""
    stored = storage.describe({"StandardStorage": found.size})
    left = ", ".join(f"{number} {suffix}" for suffix, number in found.left.items())
    return f"{len(found.videos)} videos and {len(found.tables)} tables, {stored}" + (
        f"; {left} stay here" if left else ""
    )


def tell_broken(broken: list[tuple[str, str]]) -> None:
    for name, reason in broken[:NAMED]:
        say(f"left out: {name}: {reason}")
    if len(broken) > NAMED:
        say(f"left out: {len(broken) - NAMED} more; --json names them all")


def known_objects(wire: Wire) -> "dict[str, Remote]":
    return {remote.key: remote for remote in wire.bucket.list(PREFIX)}


def plan(outputs: Outputs, found: Survey) -> Tally:
    """What `send` would do, by names and sizes alone."""
    known = known_objects(Wire(outputs.bucket, outputs.region))
    tally = Tally()
    for file in found.files:
        remote = known.get(PREFIX + file.name)
        kind = "sent" if remote is None else "kept" if remote.size == file.size else "replaced"
        tally.counts[kind] += 1
        tally.sent_bytes += 0 if kind == "kept" else file.size
    return tally


def send(outputs: Outputs, found: Survey) -> Tally:
    """Bring all of it there: the small files side by side, then the large ones, each in parts side by side."""
    from infra.ops.upload import Changed, is_same, is_small, send_large, send_small

    wire = Wire(outputs.bucket, outputs.region)
    known, tally = known_objects(wire), Tally()

    def carry(file: File, large: bool) -> tuple[File, str]:
        """`sent`, `replaced` or `kept`, or why it could be none of them."""
        path, key = found.folder / file.name, PREFIX + file.name
        remote = known.get(key)
        try:
            if remote and is_same(wire, path, remote):
                return file, "kept"
            send_large(wire, path, key, arrived) if large else send_small(wire, path, key)
        except Changed:
            return file, "it changed while it was read; run it again when it is whole"
        except OSError as error:
            if error.filename is None:  # the line's trouble, not the file's
                raise
            return file, f"cannot be read: {error.strerror}"
        return file, "replaced" if remote else "sent"

    def arrived(size: int) -> None:
        tally.moved += size
        show(tally.moved)

    def note(carried: tuple[File, str], large: bool = False) -> None:
        file, fate = carried
        if fate not in ("sent", "replaced", "kept"):
            tally.unfit.append((printable(file.name), fate))
            return
        tally.counts[fate] += 1
        tally.sent_bytes += 0 if fate == "kept" else file.size
        if fate == "kept" or not large:
            arrived(file.size)

    small = [file for file in found.files if is_small(file.size)]
    with shown("sending", found.size) as show:
        side_by_side(wire, partial(carry, large=False), small, THREADS, note, lambda: show(tally.moved))
        for file in found.files:
            if not is_small(file.size):
                note(carry(file, large=True), large=True)
    return tally


def sentence(outputs: Outputs, tally: Tally, dry_run: bool) -> str:
    """What was done, or would be, in one line."""
    new, replaced, kept = (tally.counts[kind] for kind in ("sent", "replaced", "kept"))
    if not new and not replaced and not tally.unfit:
        return f"nothing to do: all {kept} files are in s3://{outputs.bucket}/{PREFIX}"
    what = f"{new} new and {replaced} changed files, {tally.sent_bytes / 1e9:.2f} GB, to s3://{outputs.bucket}/{PREFIX}"
    return f"would send {what}; {kept} seem to be there" if dry_run else f"sent {what}; {kept} were there"


def summary(outputs: Outputs, found: Survey, tally: Tally) -> dict[str, Any]:
    return {
        "place": f"s3://{outputs.bucket}/{PREFIX}",
        "videos": len(found.videos),
        "tables": len(found.tables),
        "bytes": found.size,
        "dollars_a_month": round(storage.monthly_dollars({"StandardStorage": found.size}), 2),
        "new": tally.counts["sent"],
        "changed": tally.counts["replaced"],
        "kept": tally.counts["kept"],
        "bytes_sent": tally.sent_bytes,
        "stays_here": found.left,
        "left_out": [{"path": name, "reason": reason} for name, reason in [*found.broken, *tally.unfit]],
    }


if __name__ == "__main__":
    sys.exit(main())
