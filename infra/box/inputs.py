"""What a run needs on the machine: its own directory as far as it has come, and whatever else of the bucket."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from infra.box.mirror import worth_bringing
from infra.box.request import Request
from infra.box.transfer import Bucket, Remote, fetch_all, insist, is_there

SAID_EVERY = 10.0  # seconds
KEPT_FREE = 2 * 2**30  # bytes of the disk that the run directory will want

Check = Callable[[], None]


class Missing(Exception):
    """One sentence: what the run needs and cannot have."""


def bring_run(bucket: Bucket, request: Request, run: Path, check: Check, own: bool = True) -> None:
    """Make `run` what the run directory was when it was last mirrored; what is here already and newer stays.

    A machine that trained this very run has it all, and perhaps more than S3 knows, unless another machine has gone on
    with it since: the trainer's heartbeat tells. What is not its `own`, another machine's, is brought as S3 has it.
    What the run was asked for is the operator's, and no part of it; nor is what its machines tell each other.
    """
    prefix = f"runs/{run.name}/"
    foreign = {*request.keys, prefix + "request.json", prefix + "machine.json", prefix + "round.json"}
    there = insist(lambda: bucket.read(prefix + "status.json"), check)
    last = insist(lambda: bucket.read(prefix + "checkpoints/last.json"), check)
    here = run / "status.json"
    behind = not own or not here.is_file() or heartbeat(there) > heartbeat(here.read_bytes())
    wanted = []
    for remote in worth_bringing(insist(lambda: bucket.list(prefix), check), prefix, last):
        path = run / remote.key.removeprefix(prefix)
        if remote.key in foreign or remote.key.startswith(prefix + "nodes/"):
            continue
        if not path.exists() or (behind and not is_there(remote, path)):
            wanted.append((remote, path))
    for _ in fetch_all(bucket, wanted, check):
        pass


def heartbeat(status: bytes | None) -> str:
    """When the trainer last said that it lives, as sortable text; "" if it never has."""
    return str(json.loads(status or b"{}").get("heartbeat", ""))


def find(bucket: Bucket, keys: list[str], check: Check) -> list[Remote]:
    """The single objects of these keys. Raises Missing."""
    found = []
    for key in keys:
        at_key = [remote for remote in insist(lambda key=key: bucket.list(key), check) if remote.key == key]  # type: ignore[misc]
        if not at_key:
            raise Missing(f"s3://{bucket.name}/{key} is not there, and the run's request names it")
        found += at_key
    return found


def find_all(bucket: Bucket, prefix: str, check: Check, otherwise: str = "") -> list[Remote]:
    """All objects below a prefix. If there is none, raises Missing that says what to do `otherwise`, if anything."""
    found = [r for r in insist(lambda: bucket.list(prefix), check) if not r.key.endswith("/")]
    if not found and otherwise:
        raise Missing(f"s3://{bucket.name}/{prefix} holds {otherwise}")
    return found


def bring(
    wanted: list[tuple[Remote, Path]], bucket: Bucket, scratch: Path, check: Check, say: Callable[[str], None]
) -> None:  # fmt: skip
    """Bring what is not here yet, saying how far it is. Raises Missing if the disk cannot hold it."""
    wanted = [(remote, path) for remote, path in wanted if not is_there(remote, path)]
    total = sum(remote.size for remote, _ in wanted)
    free = shutil.disk_usage(scratch).free
    if total and total + KEPT_FREE > free:
        raise Missing(
            f"{scratch} has {free / 1e9:.1f} GB free, and the run needs {(total + KEPT_FREE) / 1e9:.1f} GB: "
            "take a type with a larger disk, or set a larger root volume"
        )
    done, began = 0, time.monotonic()
    said = began
    for size in fetch_all(bucket, wanted, check):
        done += size
        if time.monotonic() - said > SAID_EVERY:
            said = time.monotonic()
            say(f"brought {done / 1e9:.2f} of {total / 1e9:.2f} GB")
    say(f"brought {len(wanted)} files, {total / 1e9:.2f} GB, in {time.monotonic() - began:.1f} s")
