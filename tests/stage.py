"""The stage of a rehearsal: a project folder and an AWS of its own, `make` as a user types it, and each step told.

Nothing of the user's is touched: state and settings of the stack lie in the rehearsal's folder, the endpoint is the
rehearsal's own cloud, the credentials are "test".
"""

import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud import REGION, ROOT, Cloud
from rich.console import Console
from rich.markup import escape
from rich.table import Table

STACK = "rehearsal"
FILES = ("Makefile", "Pulumi.yaml", "pyproject.toml", "requirements.lock")
FOLDERS = ("infra", "docker", "manifests", "trainer")
PATIENCE = 600.0  # seconds that anything may take on a slow machine


class Refuted(Exception):
    """One sentence: what a step was to prove and has not."""


def claim(holds: object, what: str) -> None:
    if not holds:
        raise Refuted(what)


@dataclass(frozen=True)
class Said:
    """What a verb printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    @property
    def last(self) -> str:
        """The last line of its errors, else of its data; not make's own."""
        lines = [
            line for line in (self.out + self.err).splitlines() if line.strip() and not line.startswith("make: *** [")
        ]
        return lines[-1] if lines else "nothing"


@dataclass
class Stage:
    folder: Path
    cloud: Cloud
    console: Console
    has_pulumi: bool = field(init=False)
    environment: dict[str, str] = field(init=False)
    steps: list[tuple[str, float, str]] = field(default_factory=list)  # title, seconds, what it proved

    def __post_init__(self) -> None:
        self.project = self.folder / "project"
        for name in FOLDERS:
            shutil.copytree(ROOT / name, self.project / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy2(ROOT / name, self.project / name)
        (self.project / ".venv").symlink_to(Path(sys.prefix))
        self.has_pulumi = shutil.which("pulumi") is not None
        programs = self.folder / "bin"
        programs.mkdir()
        if not self.has_pulumi:
            stand_in = programs / "pulumi"
            stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "tests" / "declared.py"} "$@"\n')
            stand_in.chmod(0o755)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MAKE", "MFLAGS"))}
        state = self.folder / "state"
        state.mkdir()
        self.environment = clean | self.cloud.environment()
        self.environment |= {
            "PATH": f"{programs}:{clean['PATH']}",
            "AWS_REGION": REGION,
            "STACK": STACK,
            "PULUMI_BACKEND_URL": f"file://{state}",
            "PULUMI_CONFIG_PASSPHRASE": "",
            # Of the stand-in for the CLI that the project's tests use where it is there.
            "PULUMI_SHIM_HOME": str(state),
            "PYTHONPATH": str(ROOT),
            "BROWSER": "true",
        }

    def client(self, service: str) -> Any:
        return self.cloud.client(service)

    def make(self, verb: str, fails: bool = False, **variables: object) -> Said:
        """Say `make VERB NAME=value` in the project; raises Refuted if it fails (or with `fails`, if it does not)."""
        process = self.start(verb, **variables)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise Refuted(f"`{self.line(verb, variables)}` has not ended in {PATIENCE / 60:.0f} minutes") from None
            raise
        self.note(out + err)
        said = Said(process.returncode, out, err)
        if (said.code != 0) != fails:
            raise Refuted(f"`{self.line(verb, variables)}` ended with {said.code}: {said.last}")
        return said

    def start(self, verb: str, **variables: object) -> subprocess.Popen[str]:
        """The same without waiting for its end, in a process group of its own, as a shell starts it."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return self._popen(verb, variables, text=True, **streams)

    def at_terminal(self, verb: str, until: str, key: str, **variables: object) -> str:
        """Say it at a terminal and press a key once `until` is on the screen; what the screen was sent, as text."""
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (40, 120))
        process = self._popen(verb, variables, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown, end, pressed = "", time.monotonic() + PATIENCE, False
        while time.monotonic() < end and process.poll() is None:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(ours, 65536).decode(errors="replace"))
                except OSError:  # the other end is closed
                    break
            if until in shown and not pressed:
                pressed = bool(os.write(ours, key.encode()))
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None and not pressed else process.wait()
        os.close(ours)
        self.note(shown + "\n")
        claim(pressed, f"`{self.line(verb, variables)}` has not shown {until!r}")
        return shown

    def _popen(self, verb: str, variables: dict[str, object], **how: Any) -> subprocess.Popen[Any]:
        self.note(f"$ {self.line(verb, variables)}\n")
        words = [f"{name}={value}" for name, value in variables.items()]
        line = ["make", "--no-print-directory", verb, *words]
        return subprocess.Popen(line, cwd=self.project, env=self.environment, start_new_session=True, **how)

    def note(self, text: str) -> None:
        """Keep what was said for whoever wants to know why a step failed."""
        with (self.folder / "log").open("a") as log:
            log.write(text)

    @staticmethod
    def line(verb: str, variables: dict[str, object]) -> str:
        return shlex.join(["make", verb, *(f"{name}={value}" for name, value in variables.items())])

    def wait(self, happens: Callable[[], Any], what: str) -> Any:
        """What `happens` returns once it is something; raises Refuted if it never is."""
        end = time.monotonic() + PATIENCE
        while not (found := happens()):
            if time.monotonic() > end:
                raise Refuted(f"waited {PATIENCE / 60:.0f} minutes in vain until {what}")
            time.sleep(0.3)
        return found

    @contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """One step; the sentences put into the list are what it has proved. Told with its seconds."""
        began, proofs = time.monotonic(), list[str]()
        try:
            with self.console.status(title):
                yield proofs
        except Refuted:
            self.console.print(f"[red]✗[/] {time.monotonic() - began:5.1f} s  [bold]{escape(title)}[/]")
            raise
        seconds = time.monotonic() - began
        self.steps.append((title, seconds, "; ".join(proofs)))
        self.console.print(f"[green]✓[/] {seconds:5.1f} s  [bold]{escape(title)}[/]")
        for proof in proofs:
            self.console.print(f"             {escape(proof)}", highlight=False)

    def summary(self) -> Table:
        table = Table("step", "seconds", "proves")
        table.columns[1].justify = "right"
        for title, seconds, proof in self.steps:
            table.add_row(escape(title), f"{seconds:.1f}", escape(proof))
        table.add_row("in all", f"{sum(seconds for _, seconds, _ in self.steps):.1f}", "and not a cent spent")
        return table
