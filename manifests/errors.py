"""The one error class for mistakes that a user can mend, and the door that makes it a sentence and an exit code."""

import os
import sys
from collections.abc import Callable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
OURS = ("manifests", "trainer", "infra")


class UserError(Exception):
    """A mistake that the user can correct: one sentence says what is wrong and what to do next; never a traceback."""


def run_command(command: Callable[[], int | None]) -> int:
    """Run a command line's work; return its exit code. Our own bugs are not caught: they deserve the full traceback."""
    try:
        return command() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OURS:
            raise
        print(
            f"error: {error.name} is not installed in this Python ({sys.executable}); say .venv/bin/python instead of "
            "python, or `source .venv/bin/activate` first (`make setup` makes .venv)",
            file=sys.stderr,
        )
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("\ninterrupted: what is complete is kept; run the same command again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; point stdout elsewhere so that the exit flush stays silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
