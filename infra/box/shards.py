"""Packed clips that the disk cannot hold all at once: those that training reads next are brought, those behind removed.

The trainer says in RUN/wanted.json which shards come next, the first `in_use` of them at once (trainer/wanted.py).
"""

import json
from collections.abc import Callable
from pathlib import Path

from infra.box.transfer import Bucket, Remote, fetch, is_there

LOOK_EVERY = 1.0  # seconds


class Shards:
    """`look` brings the folder a step nearer to what is wanted; `room` are the bytes that shards may take there."""

    def __init__(
        self, bucket: Bucket, shards: list[Remote], folder: Path, wanted: Path, room: int, check: Callable[[], None]
    ) -> None:  # fmt: skip
        self.bucket, self.folder, self.wanted, self.room, self.check = bucket, folder, wanted, room, check
        self.known = {remote.key.rpartition("/")[2]: remote for remote in shards}

    def look(self) -> None:
        """Remove what is not wanted any more, and bring the first that is wanted, fits, and is not here."""
        if (keep := self.to_keep()) is None:
            return
        for name in self.known.keys() - set(keep):
            (self.folder / name).unlink(missing_ok=True)
        for name in keep:
            if not is_there(self.known[name], self.folder / name):
                fetch(self.bucket, self.known[name], self.folder / name, self.check)
                if self.to_keep() != keep:  # the trainer has gone on meanwhile
                    return

    def to_keep(self) -> list[str] | None:
        """Of the newest list the first ones, as many as there is room for and `in_use` at least; None before one."""
        try:
            told = json.loads(self.wanted.read_text())
        except FileNotFoundError:
            return None
        names = [name for name in told["shards"] if name in self.known]
        held, kept = 0, []
        for place, name in enumerate(names):
            held += self.known[name].size
            if held > self.room and place >= told["in_use"]:
                break
            kept.append(name)
        return kept
