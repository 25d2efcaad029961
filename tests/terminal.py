"""A terminal for a command: a real pty, its size, what is typed, and what stands on its screen in the end.

Understands of the control sequences those that rich, a pager and a shell send: colours, the cursor's way home and the
alternate screen.
"""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

ALTERNATE_ON, ALTERNATE_OFF = "\x1b[?1049h", "\x1b[?1049l"
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    def __init__(self, line: list[str], environment: dict[str, str], folder: Path, columns: int, rows: int) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.slave)
        clean = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            line, cwd=folder, env=clean | {"TERM": "xterm-256color"},
            stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True, preexec_fn=self._take,
        )  # fmt: skip
        self.text = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _take(self) -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that a typed Ctrl-C is a SIGINT
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _read(self) -> None:
        held = b""
        while True:
            try:
                held += os.read(self.master, 65536)
            except OSError:  # nobody has the other end open any more
                return
            try:
                text, held = held.decode(), b""
            except UnicodeDecodeError:  # torn within a character
                continue
            self.text += text

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what} did not come; the terminal has: {self.text[-3000:]!r}"
            time.sleep(0.05)

    def screen(self) -> list[str]:
        """The lines of the picture that was drawn last on the alternate screen."""
        return CONTROL.sub("", self.text.rpartition("\x1b[H")[2]).replace("\r", "").split("\n")

    def after(self) -> str:
        """What was printed after the alternate screen was left."""
        return CONTROL.sub("", self.text.rpartition(ALTERNATE_OFF)[2]).replace("\r", "")

    def end(self, seconds: float = 60) -> int:
        """Wait for the command's end; returns its exit code."""
        code = self.process.wait(seconds)
        time.sleep(0.2)  # what is still in the pty
        return code

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.slave)
        os.close(self.master)
