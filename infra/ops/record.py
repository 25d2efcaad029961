"""What the bucket tells of runs: what was asked, how far it is, what its machine does, how it ended.

It is read from S3 alone, so it is the same while a machine lives and after it is gone. `active/STACK` names the run
that the stack's machines shall work on; whoever writes it first has the stack.
"""

import json
import re
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


def read(outputs: Outputs, name: str) -> bytes | None:
    """An object of the stack's bucket, None if there is none."""
    s3 = client("s3", outputs.region)
    try:
        return bytes(s3.get_object(Bucket=outputs.bucket, Key=name)["Body"].read())
    except s3.exceptions.NoSuchKey:
        return None


def read_json(outputs: Outputs, name: str) -> dict[str, Any] | None:
    text = read(outputs, name)
    return None if text is None else json.loads(text)


def write_json(outputs: Outputs, name: str, value: dict[str, Any], *, new: bool = False) -> bool:
    """Write an object; with `new` only if there is none, and return whether it was written."""
    return _put(outputs, name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(), new=new)


def active_run(outputs: Outputs) -> str | None:
    """The run that the stack's machines shall work on."""
    text = read(outputs, f"active/{outputs.stack}")
    return text.decode().strip() if text else None


def claim(outputs: Outputs, run_id: str) -> None:
    """Give the stack to a run. Raises UserError if another has it: of two operators at the same second one wins."""
    if not _put(outputs, f"active/{outputs.stack}", run_id.encode(), new=True) and (
        (other := active_run(outputs)) != run_id
    ):
        raise UserError(
            f"run {other} has the stack {outputs.stack}; `make monitor` shows it, `make stop` saves and ends it"
        )


def release(outputs: Outputs, run_id: str) -> bool:
    """Take the note away if it names this run; returns whether it did. From here on no machine takes the run up."""
    if active_run(outputs) != run_id:
        return False
    client("s3", outputs.region).delete_object(Bucket=outputs.bucket, Key=f"active/{outputs.stack}")
    return True


def read_record(outputs: Outputs, run_id: str, active: str | None = None) -> Record:
    """A run as it stands; `active` saves a call where it is known. Raises UserError if there is no such run."""
    request = read_json(outputs, key(check_run_id(run_id), "request.json"))
    if request is None:
        raise UserError(f"there is no run {run_id} in s3://{outputs.bucket}/runs/; `make runs` lists them")
    status, machine, outcome = (
        read_json(outputs, key(run_id, name)) for name in ("status.json", "machine.json", "outcome.json")
    )
    return Record(run_id, request, status, machine, outcome, (active or active_run(outputs)) == run_id)


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


def _put(outputs: Outputs, name: str, data: bytes, *, new: bool) -> bool:
    s3, only = client("s3", outputs.region), {"IfNoneMatch": "*"} if new else {}
    try:
        s3.put_object(Bucket=outputs.bucket, Key=name, Body=data, **only)
    except s3.exceptions.ClientError as error:
        # 409: two such requests at the same moment; the other one wins.
        if new and error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"):
            return False
        raise
    return True
