"""make manifest: have a machine verify the raw videos, name them and deal them out to train, val and test by actor."""

import argparse
import sys
from typing import Any

from infra.ops import chore, record
from infra.ops.command import outputs_of, parser, print_json, run
from infra.outputs import Outputs

EXAMPLES = """
make manifest
make manifest YES=1 CAP=1
make manifest NAME=second FORCE=1
python -m infra.ops.manifest --dry-run --json
"""


def main(arguments: list[str] | None = None) -> int:
    made = parser("manifest", __doc__, EXAMPLES)
    chore.add_options(made, "manifest")
    given = made.parse_args(arguments)
    return run(lambda: manifest(given))


def manifest(given: argparse.Namespace) -> None:
    where = chore.keys_of(given.name)
    outputs = outputs_of(given.stack)
    if not make(outputs, given, where):
        return
    facts = record.read_json(outputs, json_of(where)) or {}
    if given.json:
        print_json({"manifest": f"s3://{outputs.bucket}/{where['manifest']}", **summary(facts)})
    else:
        print(described(f"s3://{outputs.bucket}/{where['manifest']}", facts))


def make(outputs: Outputs, given: argparse.Namespace, where: dict[str, str]) -> bool:
    """Whether the manifest is there in the end: it was, or has been made now. Raises UserError if making it failed."""
    videos = chore.digest_of_videos(outputs)
    request = {"task": "manifest", "manifest": where["manifest"], "data": where["data"]}
    if chore.join(outputs, given, request):
        return True
    if not given.force and is_made(outputs, where, videos):
        return chore.nothing_to_do(outputs, where["manifest"])
    return chore.carry_out(outputs, given, request, (note_of(where), {"videos": videos}))


def is_made(outputs: Outputs, where: dict[str, str], videos: str) -> bool:
    """Whether a manifest of the videos that are there now was asked for, and the run that made it has finished."""
    note = record.read_json(outputs, note_of(where))
    if note is None or note.get("videos") != videos or record.read(outputs, json_of(where)) is None:
        return False
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
    for split, corpora in facts.get("counts", {}).items():
        takes = sum(sum(emotions.values()) for emotions in corpora.values())
        actors = len(facts.get("actors", {}).get(split, ()))
        each = ", ".join(f"{sum(emotions.values())} {corpus}" for corpus, emotions in corpora.items())
        lines.append(f"{split:<6} {takes} takes of {actors} actors ({each})")
    left = ", ".join(f"{number} {reason}" for reason, number in facts.get("rejected", {}).items())
    return "\n".join([*lines, *([f"left out: {left}"] if left else []), *facts.get("notes", ())])


if __name__ == "__main__":
    sys.exit(main())
