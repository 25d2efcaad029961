"""The run directory: what a run is, how far it has come and how it ended, in files that are always whole.

A run is the same run while its config, labels, manifest and clips are the same. Started again it goes on; finished, it
does nothing; asked for with other inputs it is refused.
"""

import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from manifests.errors import UserError
from manifests.files import write_json, write_text

# The inputs that make two runs the same run; the rest of run.json tells where and when.
IDENTITY = ("config", "labels", "manifest.sha256", "clips")
# Settings that change no result: a run may go on with others.
FREE = ("config.data.workers", "config.checkpoint_minutes", "config.stall_minutes")
STATUS_SECONDS = 1.0


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived and everything is saved; `exit_code` is 130 or 143."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class Run:
    """A run directory in use. As a context it turns signals into an orderly end and writes outcome.json last.

    Of several processes that train one run only the `leader` writes; the others read, and stop when it does.
    """

    def __init__(self, path: Path, facts: dict[str, Any], *, leader: bool = True) -> None:
        self.path = path
        self.facts = facts
        self.leader = leader
        self.status: dict[str, Any] = {}
        self._process = os.getpid()
        self._signal: int | None = None
        self._interruptible = False
        self._handlers: dict[int, Any] = {}
        self._started = time.monotonic()
        self._seconds_before = 0.0
        self._status_written = 0.0
        self._wanted: tuple[list[str], int] = ([], 0)
        self.progressed = self._started  # when it last reported, by the monotonic clock

    def __enter__(self) -> Self:
        known = read_json(self.path / "run.json")
        told = known and differences(known, self.facts)
        if told and self._has_learned():
            raise UserError(f"{self.path} holds another run: {told}; give another --run, or delete that directory")
        # A start that was refused before its first step holds its directory for nobody.
        if known is None or told:
            self._write("run.json", self.facts)
        else:
            self.facts |= {"started": known.get("started")}  # the first time
        # What an earlier start knew stays known: a later one may only evaluate.
        self.status = read_json(self.path / "status.json") or {}
        self._seconds_before = self.status.get("seconds", 0.0)
        if self.leader:
            (self.path / "outcome.json").unlink(missing_ok=True)
            # Half a checkpoint that a kill left would lie there for ever. In the run directory itself others write too.
            for left in (*self.path.glob(".tmp-model*"), *self.path.glob("checkpoints/.tmp-*")):
                left.unlink(missing_ok=True)
        self._handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _has_learned(self) -> bool:
        return (self.path / "checkpoints" / "last.json").is_file() or bool(read_metrics(self.path))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        if error is None:
            outcome, reason, code = "finished", "all stages are done", 0
        elif isinstance(error, Interrupted):
            outcome, reason, code = "interrupted", str(error), error.exit_code
        elif isinstance(error, KeyboardInterrupt):
            outcome, reason, code = "interrupted", "stopped by a second signal", 130
        elif isinstance(error, UserError):
            outcome, reason, code = "failed", str(error), 2
        else:
            outcome, reason, code = "failed", "".join(traceback.format_exception_only(error)).strip(), 1
            self.log("".join(traceback.format_exception(error)).rstrip())
        self.end(outcome, reason, code)

    def end(self, outcome: str, reason: str, code: int) -> None:
        """Write how the run ended; nothing is written after that."""
        if not self.leader:
            return
        self.log(f"{outcome}: {reason}")
        self.report(outcome, force=True)
        self._write(
            "outcome.json",
            {
                "outcome": outcome,
                "reason": reason,
                "exit_code": code,
                "seconds": self.status["seconds"],
                "last_lines": self.last_lines(20),
            },
        )

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A loader's worker, forked with this handler: the run decides, and its workers serve until it is done.
            signal.signal(signum, signal.SIG_DFL)
            return
        self._signal = signum
        # The first signal asks for an orderly end; the second one gets Python's own, immediate behaviour.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self.leader:
            print("\nsaving, then stopping; once more to stop at once", file=sys.stderr)
        if self._interruptible:
            raise Interrupted(signum)

    @property
    def signal(self) -> int:
        """The signal that asks this run to end, 0 while there is none."""
        return self._signal or 0

    def check_stop(self) -> None:
        """Raise Interrupted if a signal has arrived; called where everything worth keeping is on disk."""
        if self._signal is not None:
            raise Interrupted(self._signal)

    @contextmanager
    def interruptible(self, really: bool) -> Iterator[None]:
        """While this lasts a signal raises Interrupted at once: for waits, however long, that leave nothing half done.

        Of several processes none may leave alone; there `really` is false, and the wait is seen out.
        """
        self._interruptible = really
        try:
            if really:
                self.check_stop()
            yield
        finally:
            self._interruptible = False

    def tell(self, **facts: Any) -> None:
        """Add facts to run.json that are known only once the run is under way."""
        self.facts |= facts
        self._write("run.json", self.facts)

    def _write(self, name: str, value: dict[str, Any]) -> None:
        if self.leader:
            write_json(self.path / name, value)

    def report(self, phase: str, *, force: bool = False, **facts: Any) -> None:
        """Merge facts into status.json, at most once a second unless forced."""
        self.progressed = time.monotonic()
        # Of all starts; of one that was killed up to its last word.
        seconds = round(self._seconds_before + self.progressed - self._started, 1)
        self.status.update(facts, phase=phase, heartbeat=now(), seconds=seconds)
        if force or time.monotonic() - self._status_written >= STATUS_SECONDS:
            self._write("status.json", self.status)
            self._status_written = time.monotonic()

    def want(self, shards: list[str], in_use: int) -> None:
        """Say in wanted.json which shards come next, the first `in_use` at once; see trainer/wanted.py."""
        if self._wanted != (shards, in_use):
            self._wanted = shards, in_use
            self._write("wanted.json", {"in_use": in_use, "shards": shards})

    def record(self, kind: str, **facts: Any) -> None:
        """Append one line to metrics.jsonl."""
        if not self.leader:
            return
        line = json.dumps({"kind": kind, **facts, "time": now()})
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def forget_after(self, step: int, *, validated: bool = False) -> None:
        """Drop the metrics of what will be done again: steps after this one, and its validation unless `validated`."""
        if not self.leader:
            return
        last = (step, validated)
        kept = [line for line in read_metrics(self.path) if (line["step"], line["kind"] == "evaluation") <= last]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    def log(self, text: str) -> None:
        if not self.leader:
            return
        with (self.path / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write("".join(f"{now()} {line}\n" for line in text.splitlines()))

    def last_lines(self, count: int) -> list[str]:
        return (self.path / "log.txt").read_text(encoding="utf-8").splitlines()[-count:]


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without a last one that a kill has torn: its step will be done again."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    return [json.loads(line) for line in lines[:-1]]


def read_json(path: Path) -> Any:
    """The value in a JSON file, or None when there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def is_finished(path: Path, facts: dict[str, Any]) -> bool:
    """Whether this very run has ended well already."""
    known, outcome = read_json(path / "run.json"), read_json(path / "outcome.json")
    if known is None or outcome is None:
        return False
    return outcome["outcome"] == "finished" and differences(known, facts) is None


def differences(known: dict[str, Any], asked: dict[str, Any]) -> str | None:
    """In which identifying facts two runs differ, as words, three of them at most; None for the same run."""
    old, new = flatten(known), flatten(asked)
    found = [
        f"{key} is {old.get(key)!r} there and {new.get(key)!r} here"
        for key in sorted(old.keys() | new.keys())
        if key.startswith(IDENTITY) and key not in FREE and old.get(key) != new.get(key)
    ]
    more = [f"and {len(found) - 3} more"] if len(found) > 3 else []
    return ", ".join([*found[:3], *more]) or None


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted names, in their order."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def describe_surroundings(device: str) -> dict[str, Any]:
    """Command, revision, versions and hardware, for run.json."""
    import torch  # late: `--help` and settings errors should not wait for it

    return {
        "command": shlex.join(["python", "-m", "trainer", *sys.argv[1:]]),
        "git_revision": _git_revision(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "torchvision", "pytorchvideo", "numpy", "slowfast-emotion")},
        "hardware": {
            "device": torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else device,
            "cpu": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        },
        "started": now(),
    }


def _processor() -> str:
    """The processor's name; Linux tells it in /proc/cpuinfo only."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """The commit of the code that runs, `+changes` if the tree differs from it; None outside a checkout."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("GIT_REVISION")
    return answer.stdout.strip()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
