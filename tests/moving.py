"""What the tests of moving things share: a folder of files, a verb run here or killed in its midst, and what was sent.

Run: pytest tests/test_ops_data.py tests/test_ops_download.py
"""

import importlib
import io
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from faults import Proxy
from watching import Stage

from infra.ops import door

SECONDS = 60.0  # within which what must happen has happened, on a busy machine too


def do(stage: Stage, monkeypatch: pytest.MonkeyPatch, verb: str, *arguments: str) -> tuple[int, str, str]:
    """Run a verb in this process; its exit code, stdout and stderr."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "PULUMI_"))]:
        monkeypatch.delenv(name)
    for name, value in stage.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(stage.folder / "cache"))
    monkeypatch.chdir(stage.folder)
    door.client.cache_clear()
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = importlib.import_module(f"infra.ops.{verb}").main(list(arguments))
    return code, out.getvalue(), err.getvalue()


def start(stage: Stage, verb: str, *arguments: str) -> subprocess.Popen[str]:
    return stage.start(verb, *arguments, env=stage.environment() | {"XDG_CACHE_HOME": str(stage.folder / "cache")})


def wait_for(happened: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < end, f"{what} did not happen within {SECONDS:.0f} s"
        time.sleep(0.02)


def end_by(process: subprocess.Popen[str], how: signal.Signals, faulty: Proxy) -> tuple[int, str]:
    """End a verb whose requests hang; its exit code and stderr, when the cloud has done all that it was asked."""
    process.send_signal(how)
    time.sleep(0.3)
    faulty.mode, faulty.hold = "pass", None
    _, said = process.communicate(timeout=SECONDS)
    known = -1
    while known != len(faulty.seen):
        known = len(faulty.seen)
        time.sleep(0.5)
    return process.returncode, said


class HangAfter(list[Any]):
    """A proxy's `seen` that makes it hang as soon as so many of its requests were uploads."""

    def __init__(self, faulty: Proxy, uploads: int) -> None:
        self.faulty, self.uploads = faulty, uploads

    def append(self, seen: Any) -> None:
        super().append(seen)
        self.uploads -= seen.method == "PUT"
        if self.uploads == 0:
            self.faulty.mode = "hang"


def puts(faulty: Proxy) -> Counter[str]:
    """How often each object, or each part of one, was sent."""
    parts = (("".join(word for word in s.query.split("&") if word.startswith("partNumber")), s) for s in faulty.seen)
    return Counter(f"{seen.path} {part}" for part, seen in parts if seen.method == "PUT")


def content(stage: Stage, prefix: str) -> dict[str, bytes]:
    """What the bucket holds below a prefix."""
    s3 = stage.aws.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=stage.outputs.bucket, Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
    return {
        key.removeprefix(prefix): s3.get_object(Bucket=stage.outputs.bucket, Key=key)["Body"].read() for key in keys
    }


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
