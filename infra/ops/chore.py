"""Work on the data that a machine does in the image, making a manifest or clips: begun as a run is, watched to its end.

What it is made of is noted beside what it makes, so that nobody pays for the same work twice.
"""

import argparse
import hashlib
import json
import sys
from contextlib import redirect_stdout
from typing import Any

from infra.ops import arrival, ending, launch, logs, record
from infra.ops.command import said, say
from infra.ops.errors import EXIT_INTERRUPTED, UserError
from infra.ops.record import Record
from infra.ops.tail import Tail
from infra.outputs import Outputs

DATA = "data/"
CAP = 3.0  # dollars, where neither CAP= nor the stack says less; both corpora are reckoned at an hour of one machine


def add_options(made: argparse.ArgumentParser) -> None:
    """Those of a verb that makes data."""
    add_data_options(made)
    launch.add_options(made, nodes="", cap=f"the stack's, at most ${CAP:.0f}")


def add_data_options(made: argparse.ArgumentParser) -> None:
    """Those that name the data."""
    made.add_argument(
        "--manifest", default=said("MANIFEST") or "all", help="name of the data (MANIFEST=; default: all)"
    )
    made.add_argument("--clips", default=said("CLIPS"), help="name of the prepared clips (CLIPS=; the manifest's)")
    made.add_argument("--force", action="store_true", help="even if it is there, made of these very videos (FORCE=1)")


def refuse_name() -> None:
    """Raise UserError for NAME=, with which somebody may mean the data."""
    if name := said("NAME"):
        raise UserError(f"NAME= is what the id of a training run ends with; MANIFEST={name} names the data")


def keys_of(manifest: str, clips: str | None = None) -> dict[str, str]:
    """Where the manifest and the clips of these names lie, the same if one is given. Raises UserError for no name."""
    for name in (manifest, clips or manifest):
        if not name or set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-_.") or name.startswith("."):
            raise UserError(f"{name!r} is no name: small letters, digits and -_. only; for example MANIFEST=fold1")
    return {"manifest": f"manifests/{manifest}/manifest.csv", "clips": f"clips/{clips or manifest}/", "data": DATA}


def list_videos(outputs: Outputs) -> list[tuple[str, int, str]]:
    """Key, bytes and ETag of all raw data. Raises UserError if there is none."""
    from infra.box.transfer import Bucket
    from infra.ops.door import client

    found = Bucket(outputs.bucket, client("s3", outputs.region)).list(DATA)
    videos = [(remote.key, remote.size, remote.etag) for remote in found if not remote.key.endswith("/")]
    if not videos:
        raise UserError(f"s3://{outputs.bucket}/{DATA} holds no videos; `make data SRC=DIR` brings them")
    return videos


def digest_of(videos: list[tuple[str, int, str]]) -> str:
    """Of the raw data, in the form in which the machine notes it (infra/box/tasks.py)."""
    return hashlib.sha256(json.dumps(videos).encode()).hexdigest()


def join(outputs: Outputs, given: argparse.Namespace, request: dict[str, Any]) -> bool:
    """Watch the active run to its end if it does the same; whether it does.

    To be asked before whether the work is done: what ends meanwhile is then found done.
    """
    active = None if given.dry_run else record.active_run(outputs)
    asked = record.read_json(outputs, record.key(active, "request.json")) if active else None
    if active is None or asked is None or {**asked, **request} != asked:
        return False
    say(f"run {active} is at it already")
    watch(outputs, active)
    return True


def nothing_to_do(outputs: Outputs, key: str) -> bool:
    say(f"nothing to do: s3://{outputs.bucket}/{key} was made of these very videos (FORCE=1 makes it anew)")
    return True


def carry_out(
    outputs: Outputs, given: argparse.Namespace, request: dict[str, Any], note: tuple[str, dict[str, Any]] | None = None
) -> bool:
    """Have a machine do it; whether it has been done, and not only agreed to. Raises UserError if it failed.

    `note` is a key of the bucket and what is noted there, with the run's id.
    """
    if given.nodes not in (None, "1"):
        raise UserError(f"NODES={given.nodes}, but one machine does it; leave NODES away")
    image = launch.require_free(outputs)
    terms, group = launch.settle(outputs, given, min(CAP, outputs.cap_dollars))
    run_id = record.new_run_id(f"{request['task']}-{given.manifest}")
    rows = (("image", image.described()),)
    if not launch.agreed(run_id, f"{request['task']} {given.manifest}", terms, given, rows):
        return False
    if note:
        record.write_json(outputs, note[0], {**note[1], "run": run_id})
    launch.begin(outputs, run_id, request, terms, group)
    if given.no_wait:
        arrival.after(outputs, run_id, terms, group, given)
        return False
    if arrival.follow(outputs, run_id, terms) == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    watch(outputs, run_id)
    return True


def watch(outputs: Outputs, run_id: str) -> Record:
    """Print what the run prints, to stderr, until it is over; raises UserError unless it did its work."""
    with redirect_stdout(sys.stderr):
        found = logs.stream(outputs, run_id, Tail(outputs, record.key(run_id, "output.txt")))
    return demand_finished(found)


def demand_finished(found: Record) -> Record:
    """The run itself; raises UserError that says how it ended otherwise."""
    if found.state != "finished":
        raise UserError(ending.sentence(found))
    return found
