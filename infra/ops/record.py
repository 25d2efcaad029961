"""What the bucket tells of runs: what was asked, how far it is, what its machine does, how it ended.

It is read from S3 alone, so it is the same while a machine lives and after it is gone. `active/STACK` names the run
that the stack's machines shall work on; whoever writes it first has the stack.

A run that is taken up again has its request written anew: what is older than the request is of an earlier go.
"""

import json
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from infra.ops.door import client
from infra.ops.errors import UserError
from infra.outputs import Outputs

RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,62}")  # as in infra/documents.py


@dataclass(frozen=True)
class Record:
    """A run's four small objects; None where one is not there (yet)."""

    run_id: str
    request: dict[str, Any]
    status: dict[str, Any] | None
    machine: dict[str, Any] | None
    outcome: dict[str, Any] | None
    active: bool

    @property
    def state(self) -> str:
        """finished, stopped or failed; while the stack still works on it its phase, else `interrupted`."""
        if self.active:
            machine = self.machine or {}
            # The trainer's own word is the newer one while it trains.
            training = machine.get("phase") == "training" and self.status
            return str((self.status or {}).get("phase") if training else machine.get("phase") or "waiting")
        return str((self.outcome or {}).get("outcome", "interrupted"))


def key(run_id: str, name: str) -> str:
    return f"runs/{run_id}/{name}"


def new_run_id(title: str, now: datetime | None = None) -> str:
    """An id that sorts by time and says what it is: 2026-01-31-184502-slowfast-face."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].rstrip("-")
    return f"{now or datetime.now(UTC):%Y-%m-%d-%H%M%S}" + (f"-{words}" if words else "")


def check_run_id(run_id: str) -> str:
    """The id itself; raises UserError if it can be none."""
    if not RUN_ID.fullmatch(run_id):
        raise UserError(f"{run_id!r} is no run: 3 to 63 of a-z, 0-9 and -; `make runs` lists them")
    return run_id


@dataclass(frozen=True)
class Stored:
    """An object of the stack's bucket as it stands."""

    data: bytes
    written: datetime  # by S3's clock, in whole seconds
    etag: str
    mark: str | None  # who has written it, where somebody must know

    @property
    def tree(self) -> dict[str, Any]:
        return dict(json.loads(self.data))


def fetch(outputs: Outputs, name: str) -> Stored | None:
    """An object of the stack's bucket, None if there is none. Raises UserError if the bucket is gone."""
    s3 = client("s3", outputs.region)
    try:
        found = s3.get_object(Bucket=outputs.bucket, Key=name)
    except s3.exceptions.NoSuchKey:
        return None
    except s3.exceptions.NoSuchBucket:
        raise UserError(f"the bucket {outputs.bucket} is gone; `make up` makes it anew") from None
    return Stored(bytes(found["Body"].read()), found["LastModified"], found["ETag"], found["Metadata"].get("mark"))


def read(outputs: Outputs, name: str) -> bytes | None:
    """An object's bytes, None if there is none."""
    return found.data if (found := fetch(outputs, name)) else None


def read_json(outputs: Outputs, name: str) -> dict[str, Any] | None:
    return found.tree if (found := fetch(outputs, name)) else None


def write(outputs: Outputs, name: str, data: bytes) -> None:
    _put(outputs, name, data, new=False)


def write_json(outputs: Outputs, name: str, value: dict[str, Any], *, new: bool = False) -> bool:
    """Write an object; with `new` only if there is none, and return whether it was written."""
    return _put(outputs, name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(), new=new)


def active_run(outputs: Outputs) -> str | None:
    """The run that the stack's machines shall work on."""
    text = read(outputs, f"active/{outputs.stack}")
    return text.decode().strip() if text else None


def new_mark() -> str:
    """What tells one claim from another that names the same run."""
    return uuid.uuid4().hex


def claim(outputs: Outputs, run_id: str, mark: str) -> None:
    """Give the stack to a run. Raises UserError if another has it: of two operators at the same second one wins.

    A claim whose answer was lost and that is made again, by whatever retries it, finds its own mark.
    """
    name = f"active/{outputs.stack}"
    if _put(outputs, name, run_id.encode(), new=True, mark=mark):
        return
    holder = fetch(outputs, name)
    if holder is None:
        raise UserError("another run has ended at this very moment; run the same command again")
    if holder.mark != mark:
        raise UserError(taken(outputs, holder.data.decode().strip()))


def taken(outputs: Outputs, run_id: str) -> str:
    return f"run {run_id} has the stack {outputs.stack}; `make monitor` shows it, `make stop` saves and ends it"


def release(outputs: Outputs, run_id: str, mark: str | None = None) -> bool:
    """Take the note away if it names this run; returns whether it did. From here on no machine takes the run up.

    With a `mark` only the claim that bears it.
    """
    name = f"active/{outputs.stack}"
    note = fetch(outputs, name)
    if note is None or note.data.decode().strip() != run_id or (mark and note.mark != mark):
        return False
    s3 = client("s3", outputs.region)
    try:
        # This very note, and not one that somebody has written since.
        s3.delete_object(Bucket=outputs.bucket, Key=name, IfMatch=note.etag)
    except s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] not in ("PreconditionFailed", "NoSuchKey"):
            raise
        return False
    return True


def read_record(outputs: Outputs, run_id: str, active: str | None = None) -> Record:
    """A run as it stands; raises UserError if there is none. `active`, "" for none, saves a call if known."""
    request = fetch(outputs, key(check_run_id(run_id), "request.json"))
    if request is None:
        raise UserError(f"there is no run {run_id} in s3://{outputs.bucket}/runs/; `make runs` lists them")
    status, machine, outcome = (
        fetch(outputs, key(run_id, name)) for name in ("status.json", "machine.json", "outcome.json")
    )

    def told(found: Stored | None) -> dict[str, Any] | None:
        # Of an earlier go the figures hold, but not where it stands.
        if found is None or found.written >= request.written:
            return found.tree if found else None
        return {**found.tree, "phase": "waiting"}

    ended = outcome.tree if outcome and outcome.written >= request.written else None
    named = (active_run(outputs) if active is None else active) == run_id
    return Record(run_id, request.tree, told(status), told(machine), ended, named)


def run_ids(outputs: Outputs) -> list[str]:
    """Every run of the bucket, newest first (ids begin with their time)."""
    pages = client("s3", outputs.region).get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=outputs.bucket, Prefix="runs/", Delimiter="/")
    names = [part["Prefix"].split("/")[1] for page in found for part in page.get("CommonPrefixes", ())]
    return sorted(names, reverse=True)


def choose_run(outputs: Outputs, run_id: str | None) -> str:
    """The run that is meant: the one named, else the active one, else the newest. Raises UserError if there is none."""
    if run_id:
        return check_run_id(run_id)
    if (active := active_run(outputs)) is not None:
        return active
    if not (known := run_ids(outputs)):
        raise UserError(f"s3://{outputs.bucket}/runs/ holds no run yet; `make train` starts one")
    return known[0]


def _put(outputs: Outputs, name: str, data: bytes, *, new: bool, mark: str | None = None) -> bool:
    s3 = client("s3", outputs.region)
    more: dict[str, Any] = {"IfNoneMatch": "*"} if new else {}
    if mark:
        more["Metadata"] = {"mark": mark}
    try:
        s3.put_object(Bucket=outputs.bucket, Key=name, Body=data, **more)
    except s3.exceptions.ClientError as error:
        # 409: two such requests at the same moment; the other one wins.
        if new and error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"):
            return False
        raise
    return True
