"""What a machine has left that never wrote machine.json: the end of its container in S3, or of its boot in the log."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infra.ops import record
from infra.ops.door import client
from infra.outputs import Outputs


@dataclass(frozen=True)
class Left:
    """`machine-INSTANCE.txt` of a run, which the unit of the machine ships at each end of its container (boot.sh)."""

    written: datetime
    text: str

    @property
    def word(self) -> str:
        return last_word(self.text)


def of_containers(outputs: Outputs, run_id: str, since: datetime) -> dict[str, Left]:
    """By machine, what its container has said that ended last; of those that ended after `since`, the newest last."""
    prefix = record.key(run_id, "machine-")
    pages = client("s3", outputs.region).get_paginator("list_objects_v2")
    listed = [row for page in pages.paginate(Bucket=outputs.bucket, Prefix=prefix) for row in page.get("Contents", ())]
    texts = {
        row["Key"].removeprefix(prefix).removesuffix(".txt"): record.fetch(outputs, row["Key"])
        for row in sorted(listed, key=lambda row: row["LastModified"])
        if row["LastModified"] >= since
    }
    return {name: Left(found.written, found.data.decode(errors="replace")) for name, found in texts.items() if found}


def of_boot(outputs: Outputs, instance: str) -> str | None:
    """The last line of a machine's boot; None if it wrote none."""
    logs = client("logs", outputs.region)
    asked = {"logGroupName": outputs.log_group, "logStreamNamePrefix": f"boot-{instance}"}
    try:
        pages = logs.get_paginator("filter_log_events").paginate(**asked)
        events: list[dict[str, Any]] = [event for page in pages for event in page["events"]]
    except logs.exceptions.ResourceNotFoundException:
        return None
    return str(max(events, key=lambda event: event["timestamp"])["message"]) if events else None


def last_word(text: str) -> str:
    """What a container has said last: of Docker's state as JSON, then its lines. Where there are none, that state."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and lines[0].startswith("{"):
        state = json.loads(lines[0])
        return str(state.get("Error") or f"exit code {state.get('ExitCode')}, without a word")
    return lines[-1].strip() if lines else "without a word"
