"""What a task runs, as a process of the courier's: started, asked to save and stop, ended; and what its end means."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OUTPUT = "output.txt"  # everything that the trainer prints; the courier's own lines stand between
LAST_LINES = 40
# The last words of commands that end with a sentence: an error, or that nothing came of it.
ERROR = re.compile(r"(?:\S+: )?error: (?P<why>.+)|(?P<nothing>no clip could be prepared: .+)")


@dataclass(frozen=True)
class Cause:
    """Why the courier ends a run that would go on. `resumes`: a replacement shall take it up."""

    outcome: str
    reason: str
    resumes: bool = False


@dataclass(frozen=True)
class Step:
    """A process that a task runs. The trainer tells of itself in the run directory; others by what they print."""

    phase: str  # as machine.json calls it
    who: str  # as sentences call it
    command: list[str]
    is_trainer: bool = False  # and tells of itself in the run directory
    done: str = ""  # what an end with exit code 0 means, where the process does not say so itself
    minutes: float = math.inf  # that it may last
    environment: dict[str, str] = field(default_factory=dict)
    over: Callable[[], bool] | None = None  # whether it is to be killed, for it is done again


def command_line(words: list[str], processes: int, nodes: int = 1) -> list[str]:
    """The trainer's command; several processes are started, and ended together, by torchrun.

    Of several machines each has to say in place of `--standalone` where the others are.
    """
    if processes == nodes == 1:
        return [sys.executable, "-m", "trainer", *words]
    # Without the `--` torchrun takes the trainer's --run for one of its own options.
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *torchrun, "-m", "--", "trainer", *words]


class Child:
    """A running step, in a session of its own so that a signal reaches it once, and through us."""

    def __init__(self, step: Step, run: Path) -> None:
        self.step, self.run = step, run
        run.mkdir(parents=True, exist_ok=True)
        self._outcome_before = _identity(run / "outcome.json")
        # Straight into the file: what was printed is kept even if the courier itself is killed.
        with (run / OUTPUT).open("ab") as output:
            self.process = subprocess.Popen(
                step.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **step.environment},
            )  # fmt: skip
        self.started = time.time()

    def ask(self) -> None:
        """Ask it to save and stop. Not torchrun: it would kill its processes 30 s after.

        The trainer saves at a SIGTERM; the makers of manifests and clips keep what is complete at a Ctrl-C.
        """
        workers = _children(self.process.pid) if "torch.distributed.run" in self.step.command else []
        for pid in workers or [self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if self.step.is_trainer else signal.SIGINT)

    def kill(self) -> None:
        """End whatever is left of the trainer, its loaders and torchrun's processes too."""
        for group in (self.process.pid, *_children(self.process.pid)):
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self.process.wait()

    def age(self) -> float:
        return time.time() - self.started

    def silence(self) -> float:
        """Seconds since it last said that it lives, the trainer in status.json; since its start if it never has."""
        with suppress(FileNotFoundError):
            sign = self.run / ("status.json" if self.step.is_trainer else OUTPUT)
            return time.time() - max(self.started, sign.stat().st_mtime)
        return self.age()

    def own_outcome(self) -> dict[str, Any] | None:
        """How the step says that it ended, None if it could not.

        Of the trainer the outcome.json of this start, or that of a finished run, which it leaves as it was.
        """
        code = self.process.returncode
        if not self.step.is_trainer:
            by_code = {0: ("finished", self.step.done), 130: ("interrupted", "stopped; what is complete is kept")}
            if code not in by_code:
                return None
            outcome, reason = by_code[code]
            return {"outcome": outcome, "reason": reason, "exit_code": code, "last_lines": last_lines(self.run)}
        path = self.run / "outcome.json"
        if (now := _identity(path)) is None:
            return None
        try:
            told = json.loads(path.read_text())
        except ValueError:  # cut off by a full disk
            return None
        is_new = now != self._outcome_before or (code == 0 and told["outcome"] == "finished")
        return told if is_new else None


def outcome_of(
    told: dict[str, Any] | None, code: int, cause: Cause | None, lines: list[str], out_of_memory: bool,
    who: str = "the trainer",
) -> dict[str, Any]:  # fmt: skip
    """What outcome.json says: the step's own word `told` where it has one, else the truth about its exit code.

    A run that finished has finished, whatever else happened at that moment.
    """
    if told and told["outcome"] == "finished":
        return told
    if cause and told and told["outcome"] == "failed":
        return told | {"reason": f"{told['reason']} (when it was ended: {cause.reason})"}
    if cause:
        saved = "" if told else f"; {who} did not save in time, what it had saved before is what there is"
        last = told or {"exit_code": code, "last_lines": lines}
        return last | {"outcome": cause.outcome, "reason": cause.reason + saved}
    if told:
        return told
    return {
        "outcome": "failed",
        "reason": reason_of(code, lines, out_of_memory, who),
        "exit_code": code,
        "last_lines": lines,
    }


def reason_of(code: int, lines: list[str], out_of_memory: bool, who: str = "the trainer") -> str:
    """One sentence on an end that a step could not explain itself; exit codes below zero are signals."""
    # torchrun ends with 1 whatever its processes died of, and says which; the one that was the first comes last.
    inner = [int(found[1]) for line in lines if (found := re.match(r"\s*exitcode\s*:\s*(-?\d+)", line))]
    code = inner[-1] if inner and code == 1 else code
    if code < 0:
        name = signal.Signals(-code).name
        memory = "; the machine had no memory left, a larger type or fewer data.workers help" if out_of_memory else ""
        return f"{who} was killed by {name}{memory}"
    errors = [found["why"] or found["nothing"] for line in lines if (found := ERROR.match(line))]
    return errors[-1] if errors else f"{who} ended with exit code {code} and said no more"


def last_lines(run: Path) -> list[str]:
    try:
        with (run / OUTPUT).open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 64 * 1024))
            return stream.read().decode(errors="replace").splitlines()[-LAST_LINES:]
    except FileNotFoundError:
        return []


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        known = path.stat()
    except FileNotFoundError:
        return None
    return known.st_ino, known.st_mtime_ns


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
