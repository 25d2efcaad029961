"""What the verbs' command lines share: a parser with examples, exit codes, and errors as one sentence on stderr."""

import argparse
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from infra.ops import door
from infra.ops.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError
from infra.ops.stack import read_settings
from infra.outputs import Outputs


def parser(verb: str, what: str, examples: str) -> argparse.ArgumentParser:
    """A parser for `python -m infra.ops.VERB` that names the stack and closes with examples."""
    made = argparse.ArgumentParser(
        prog=f"python -m infra.ops.{verb}",
        description=what,
        epilog="examples:\n" + "".join(f"  {line.strip()}\n" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stack = os.environ.get("STACK") or "dev"
    made.add_argument("--stack", default=stack, help="which stack (default: STACK of the environment, else dev)")
    return made


def run(work: Callable[[], int | None]) -> int:
    """Do a verb's work; return its exit code. What is no mistake of the operator's keeps its full traceback."""
    try:
        return work() or 0
    except UserError as error:
        return _tell(str(error))
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; point stdout elsewhere so that the exit flush stays silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if (told := door.sentence(error)) is None:
            raise
        return _tell(told)


def said(name: str) -> str | None:
    """What `make` was told by that name, which it passes by environment; None if nothing."""
    return os.environ.get(name) or None


def is_yes(name: str) -> bool:
    """Whether `make` was told that this shall be: NOW=1, but not NOW=0."""
    return said(name) not in (None, "0")


def outputs_of(stack: str) -> Outputs:
    """What a stack published in its region; raises UserError if there is no such region or stack."""
    region = read_settings(stack).region
    if region is None:
        raise UserError("no AWS region is set; `make set SET=aws:region=REGION` or AWS_REGION chooses one")
    return door.stack_outputs(stack, region)


def say(text: str) -> None:
    """Progress and advice: to stderr, so that stdout holds data only."""
    print(text, file=sys.stderr, flush=True)


def agrees(question: str) -> bool:
    """Whether whoever sits at the terminal says yes."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class Line:
    """One line on stderr that tells what is waited for: rewritten on a terminal, elsewhere one per change."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._text, self._since = "", time.monotonic()

    def show(self, text: str) -> None:
        if text != self._text:
            self._text, self._since = text, time.monotonic()
            if not self._terminal:
                say(text)
        if self._terminal:
            width = shutil.get_terminal_size().columns - 9
            seconds = int(time.monotonic() - self._since)
            print(f"\r\033[K{text[:width]} {seconds // 60}:{seconds % 60:02}", end="", file=sys.stderr, flush=True)

    def wait(self, seconds: float) -> None:
        """Sleep, while the clock on the line goes on."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(1.0, left))
            if self._terminal:
                self.show(self._text)

    def close(self) -> None:
        if self._terminal and self._text:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A few calls that put things right, and that no second Ctrl-C shall cut short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def whole(call: Callable[..., Any], *arguments: Any) -> Any:
    """Do a call to its end, and only then obey a Ctrl-C: one that is left in the middle may still take effect later."""
    if threading.current_thread() is not threading.main_thread():
        return call(*arguments)
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        return call(*arguments)
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            raise KeyboardInterrupt


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _tell(text: str) -> int:
    say(f"error: {text}")
    return EXIT_USER_ERROR
