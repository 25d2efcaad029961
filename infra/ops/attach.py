"""make attach: the run's live terminal on its machine, through an SSM session that is opened again when it drops.

`q` or Ctrl-C detaches. Nothing that is typed reaches the machine, so nothing here can stop the run.
"""

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time
import tty
from contextlib import suppress
from typing import Any

from infra.ops import ending
from infra.ops.command import outputs_of, parser, run, said, say
from infra.ops.errors import EXIT_INTERRUPTED
from infra.ops.keyboard import Keyboard
from infra.ops.logs import patiently
from infra.ops.record import Record, choose_run, read_record
from infra.ops.session import Session, close_session, find_machine, find_plugin, open_session, require_terminal
from infra.outputs import Outputs

EXAMPLES = """
make attach
make attach RUN=2026-01-31-184502-slowfast-face STACK=team
python -m infra.ops.attach --stack team
"""
LOOK_EVERY = 0.3  # seconds in which a key or a new size of the terminal is seen
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 15.0  # seconds before a session is opened again
LASTING = 30.0  # seconds after which a session that drops is not the sign of some trouble
DETACHED = "detached; the run goes on (`make attach` comes back, `make stop` would end it)"


def main(arguments: list[str] | None = None) -> int:
    options = parser("attach", f"{__doc__}\nOf a run that ends meanwhile {ending.IN_WORDS}.", EXAMPLES)
    options.add_argument("--run", default=said("RUN"), help="which run (RUN=; default: the active or newest)")
    given = options.parse_args(arguments)
    return run(lambda: attach(given.stack, given.run))


def attach(stack: str, wanted: str | None) -> int:
    require_terminal("`make logs` prints the same without one")
    plugin = find_plugin()
    outputs = outputs_of(stack)
    try:
        run_id = patiently(lambda: choose_run(outputs, wanted))
        record = keep_attached(outputs, run_id, plugin)
    except KeyboardInterrupt:
        say(f"\n{DETACHED}")
        return EXIT_INTERRUPTED
    if record is None:
        say(f"\n{DETACHED}")
        return 0
    say(ending.sentence(record))
    return ending.exit_code(record)


def keep_attached(outputs: Outputs, run_id: str, plugin: str) -> Record | None:
    """Show one session after the other until the run is over; None if `q` is pressed before."""
    pause, waiting = SHORTEST_PAUSE, False
    while True:
        record, session = patiently(lambda: find_session(outputs, run_id, plugin))
        if ending.is_over(record):
            return record
        if session:
            say(f"attached to {run_id} on {session.machine}; q or Ctrl-C detaches, the run goes on")
            began, waiting = time.monotonic(), False
            if show(outputs, session):
                return None
            pause = SHORTEST_PAUSE if time.monotonic() - began > LASTING else min(2 * pause, LONGEST_PAUSE)
            say(f"the session has ended; looking after the run in {pause:.0f} s")
        elif not waiting:
            waiting = True
            say("no machine takes sessions yet; waiting for one (`make logs` shows how it boots)")
        with Keyboard() as keyboard:
            if keyboard.wait(pause) == "q":
                return None


def find_session(outputs: Outputs, run_id: str, plugin: str) -> tuple[Record, Session | None]:
    """How the run stands, and a session on its machine if it goes on and there is one."""
    record = read_record(outputs, run_id)
    if ending.is_over(record):
        return record, None
    machine = find_machine(outputs, (record.machine or {}).get("instance"))
    if machine is None:
        return record, None
    return record, open_session(outputs, plugin, machine, outputs.document_attach, run_id=run_id)


def show(outputs: Outputs, session: Session) -> bool:
    """Show what the session shows until it ends, or until a key detaches; returns whether it was that.

    The plugin has a terminal of its own, on which nobody types.
    """
    ours, its = pty.openpty()
    try:
        tty.setraw(its)  # lines are ended once, by our own terminal
        size = copy_size(None, its)
        plugin = subprocess.Popen(
            session.line, env=session.environment, stdin=its, stdout=its, stderr=its, start_new_session=True
        )
        os.close(its)
        try:
            with Keyboard() as keyboard:
                return relay(plugin, ours, keyboard, size)
        finally:
            plugin.terminate()
            plugin.wait()
            # It has ended by itself, or SSM will end it for want of anybody; no reason to leave with an error.
            with suppress(Exception):
                close_session(outputs, session)
    finally:
        os.close(ours)


def relay(plugin: subprocess.Popen[bytes], ours: int, keyboard: Keyboard, size: bytes) -> bool:
    """From the plugin's terminal to ours until it ends (False), or `q` is pressed (True)."""
    while True:
        ready, _, _ = select.select([ours, sys.stdin], [], [], LOOK_EVERY)
        size = copy_size(size, ours)
        if ours in ready:
            try:
                shown = os.read(ours, 65536)
            except OSError:  # how a pty tells that nobody has its other end any more
                return False
            if not shown:
                return False
            sys.stdout.buffer.write(shown)
            sys.stdout.buffer.flush()
        elif plugin.poll() is not None:
            return False
        if sys.stdin in ready and keyboard.wait(0) == "q":
            return True


def copy_size(known: bytes | None, terminal: Any) -> bytes:
    """Give a terminal the size of ours, if that is not the one known; returns it."""
    size: bytes = fcntl.ioctl(sys.stdout, termios.TIOCGWINSZ, bytes(8))
    if size != known:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
    return size


if __name__ == "__main__":
    sys.exit(main())
