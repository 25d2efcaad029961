"""Single keys of the terminal, unechoed, for as long as the block lasts; Ctrl-C stays what it is."""

import os
import select
import sys
import time
from types import TracebackType
from typing import Self


class Keyboard:
    """`wait` gives the next key; where stdin is no terminal there never is one."""

    def __enter__(self) -> Self:
        self._is_there = sys.stdin.isatty()
        if self._is_there:
            import termios
            import tty

            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin, termios.TCSANOW)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_there:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._before)

    def wait(self, seconds: float) -> str:
        """The key that is pressed within so many seconds, "" if none is."""
        if not self._is_there:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return os.read(sys.stdin.fileno(), 1).decode(errors="replace") if ready else ""
