"""make prepare: have a machine find the face in every video of a manifest, and store it as a clip for the training."""

import argparse
import csv
import hashlib
import sys
from typing import Any

from infra.ops import chore, launch, record
from infra.ops.command import outputs_of, parser, print_json, run
from infra.ops.errors import UserError
from infra.outputs import Outputs

EXAMPLES = """
make prepare
make prepare YES=1 SPOT=1
make prepare MANIFEST=fold1 DRY=1
python -m infra.ops.prepare --dry-run --json
"""
NOTE = "prepared.json"  # written by the machine: what the clips were made of (infra/box/tasks.py)


def main(arguments: list[str] | None = None) -> int:
    made = parser("prepare", __doc__, EXAMPLES)
    chore.add_options(made)
    given = made.parse_args(arguments)
    return run(lambda: prepare(given))


def prepare(given: argparse.Namespace) -> None:
    chore.refuse_name()
    launch.check(given)
    where = chore.keys_of(given.manifest, given.clips)
    outputs = outputs_of(given.stack)
    if not make(outputs, given, where):
        return
    found = summary(outputs, where)
    if given.json:
        print_json(found)
    else:
        print("{place}\n{clips} clips, {rejected} takes without one".format(**found))


def make(outputs: Outputs, given: argparse.Namespace, where: dict[str, str]) -> bool:
    """Whether the clips are there in the end: they were, or have been made. Raises UserError if making them failed."""
    request = {"task": "prepare", **where}
    if chore.join(outputs, given, request):
        return True
    sources = made_of(outputs, where)
    if not given.force and is_made(outputs, where, sources):
        return chore.nothing_to_do(outputs, where["clips"])
    if given.force and not given.dry_run:  # or the machine would find nothing to do
        record.write_json(outputs, where["clips"] + NOTE, {})
    return chore.carry_out(outputs, given, request)


def made_of(outputs: Outputs, where: dict[str, str], videos: str | None = None) -> dict[str, str]:
    """What decides which clips there are to be; `videos` is their digest, if it is known.

    Raises UserError if manifest or videos are not there.
    """
    table = record.read(outputs, where["manifest"])
    if table is None:
        raise UserError(f"s3://{outputs.bucket}/{where['manifest']} is not there; `make manifest` makes it")
    return {
        "manifest": hashlib.sha256(table).hexdigest(),
        "videos": videos or chore.digest_of(chore.list_videos(outputs)),
    }


def is_made(outputs: Outputs, where: dict[str, str], sources: dict[str, str]) -> bool:
    """Whether all clips are there, of this manifest and these videos; those of an earlier image hold too."""
    note = record.read_json(outputs, where["clips"] + NOTE)
    return note is not None and {**note, **sources} == note


def summary(outputs: Outputs, where: dict[str, str]) -> dict[str, Any]:
    """How many clips there are, and how many takes that gave none, by the tables beside them."""

    def rows(name: str) -> int:
        text = (record.read(outputs, where["clips"] + name) or b"").decode()
        return max(0, len(list(csv.reader(text.splitlines()))) - 1)

    place = f"s3://{outputs.bucket}/{where['clips']}"
    return {"place": place, "clips": rows("index.csv"), "rejected": rows("rejected.csv")}


if __name__ == "__main__":
    sys.exit(main())
