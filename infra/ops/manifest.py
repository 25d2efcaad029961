"""make manifest: have a machine verify the raw videos, name them and deal them out to train, val and test by actor.

LOCAL=FILE brings one instead that `python -m manifests build` has made here, of other folds, labels or recordings.
"""

import argparse
import csv
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from infra.ops import chore, launch, record
from infra.ops.command import outputs_of, parser, print_json, run, said
from infra.ops.errors import UserError
from infra.outputs import Outputs

EXAMPLES = """
make manifest
make manifest YES=1 CAP=1
make manifest MANIFEST=fold1 LOCAL=fold1.csv
python -m infra.ops.manifest --dry-run --json
"""


def main(arguments: list[str] | None = None) -> int:
    made = parser("manifest", __doc__, EXAMPLES)
    made.add_argument("--local", default=said("LOCAL"), metavar="FILE", help="a manifest that was made here (LOCAL=)")
    chore.add_options(made)
    given = made.parse_args(arguments)
    return run(lambda: manifest(given))


def manifest(given: argparse.Namespace) -> None:
    chore.refuse_name()
    launch.check(given)
    where = chore.keys_of(given.manifest)
    outputs = outputs_of(given.stack)
    if given.local and not given.dry_run:
        bring(outputs, Path(given.local).expanduser(), where)
    elif not make(outputs, given, where):
        return
    facts = record.read_json(outputs, json_of(where)) or {}
    if given.json:
        print_json({"manifest": f"s3://{outputs.bucket}/{where['manifest']}", **summary(facts)})
    else:
        print(described(f"s3://{outputs.bucket}/{where['manifest']}", facts))


def make(outputs: Outputs, given: argparse.Namespace, where: dict[str, str]) -> bool:
    """Whether the manifest is there in the end: it was, or has been made now. Raises UserError if making it failed."""
    videos = chore.digest_of(chore.list_videos(outputs))
    request = {"task": "manifest", "manifest": where["manifest"], "data": where["data"]}
    if chore.join(outputs, given, request):
        return True
    if not given.force and is_made(outputs, where, videos):
        return chore.nothing_to_do(outputs, where["manifest"])
    return chore.carry_out(outputs, given, request, (note_of(where), {"videos": videos}))


def bring(outputs: Outputs, table: Path, where: dict[str, str]) -> None:
    """Put a manifest of this machine into the bucket, with what lies beside it, the JSON that vouches for it last.

    Raises UserError if it is none, or names videos that the bucket does not have.
    """
    parts = {suffix: read_part(table.with_suffix(suffix)) for suffix in (".rejected.csv", ".md", ".csv", ".json")}
    rows, facts = parts[".csv"], parts[".json"]
    if rows is None or facts is None or json.loads(facts).get("sha256") != hashlib.sha256(rows).hexdigest():
        raise UserError(f"{table} and the .json beside it are no manifest that `python -m manifests build` has made")
    videos = chore.list_videos(outputs)
    there = {key for key, _, _ in videos}
    named = [where["data"] + row["path"] for row in csv.DictReader(io.StringIO(rows.decode(), newline=""))]
    if absent := [key for key in named if key not in there]:
        raise UserError(
            f"{len(absent)} of its {len(named)} videos are not in the bucket, such as {absent[0]}; "
            "`make data SRC=DIR` with the DIR that was --root, or the folder that held all corpora"
        )
    for suffix, content in parts.items():
        if content is not None:
            record.write(outputs, where["manifest"].removesuffix(".csv") + suffix, content)
    record.write_json(outputs, note_of(where), {"videos": chore.digest_of(videos), "run": None})


def read_part(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); LOCAL= wants a manifest.csv") from None


def is_made(outputs: Outputs, where: dict[str, str], videos: str) -> bool:
    """Whether the manifest is of the videos that are there now: brought, or made by a run that has finished."""
    note = record.read_json(outputs, note_of(where))
    if note is None or note.get("videos") != videos or record.read(outputs, json_of(where)) is None:
        return False
    if note["run"] is None:
        return True
    ended = record.read_json(outputs, record.key(note["run"], "outcome.json"))
    return ended is not None and ended.get("outcome") == "finished"


def note_of(where: dict[str, str]) -> str:
    return where["manifest"].rpartition("/")[0] + "/made-of.json"


def json_of(where: dict[str, str]) -> str:
    """What lies beside the manifest and tells of it (manifests/build.py)."""
    return where["manifest"].removesuffix(".csv") + ".json"


def summary(facts: dict[str, Any]) -> dict[str, Any]:
    """Takes by split, corpus and emotion, actors by split, and how many files were left out, by reason."""
    return {name: facts.get(name, {}) for name in ("counts", "actors", "rejected", "notes")}


def described(place: str, facts: dict[str, Any]) -> str:
    lines = [place]
    for split in ("train", "val", "test"):
        corpora = facts.get("counts", {}).get(split, {})
        takes = sum(sum(emotions.values()) for emotions in corpora.values())
        actors = len(facts.get("actors", {}).get(split, ()))
        each = ", ".join(f"{sum(emotions.values())} {corpus}" for corpus, emotions in corpora.items())
        lines.append(f"{split:<6} {takes} takes of {actors} actors" + (f" ({each})" if each else ""))
    left = ", ".join(f"{number} {reason}" for reason, number in facts.get("rejected", {}).items())
    return "\n".join([*lines, *([f"left out: {left}"] if left else []), *facts.get("notes", ())])


if __name__ == "__main__":
    sys.exit(main())
