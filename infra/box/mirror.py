"""A run directory's mirror in S3, kept while the directory grows.

Small files go up whole at each look, if they changed. Large ones, checkpoints and weights, go up one after the other in
a thread of their own, so that no line of log waits for them, and no content goes up twice. A file that names others
(`pointers`) goes up when they are there, so whoever reads it in S3 finds them.

What is deleted here stays there, but for checkpoints that none goes on from any more: half a gigabyte each.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from infra.box.transfer import Bucket, Remote, digest_of_first, is_passing, is_there, send_large

LARGE = 8 * 2**20
LAST = "checkpoints/last.json"  # names the checkpoints to go on from
POINTERS = (LAST,)
# Written by the courier itself, straight to S3, where a full disk cannot keep them from being known.
OWN = ("outcome.json", "machine.json")
PATIENCE_AT_END = 30.0  # minutes that S3 may be away before the rest is given up

Stamp = tuple[int, int, int]  # a file's size, time and inode


def pause(age: float, size: int) -> float:
    """Seconds between two looks: 2 for half an hour, 4 after an hour, 15 in the end; more if `size` bytes of small
    files change each time, so that they take no more than 1 MB/s."""
    return max(min(max(2.0, age / 900), 15.0), size / 1e6)


class Mirror:
    """`start` it, `finish` it; between them it looks after itself. `say` is told when S3 goes away and comes back."""

    def __init__(
        self,
        bucket: Bucket,
        folder: Path,
        prefix: str,
        say: Callable[[str], None],
        pointers: tuple[str, ...] = POINTERS,
    ) -> None:
        self.bucket, self.folder, self.prefix, self.say, self.pointers = bucket, folder, prefix, say, pointers
        self.sent: dict[str, Stamp] = {}  # what is in S3 as it is here
        self.digests: dict[str, str] = {}  # sha256 of large content -> its key
        self.bytes_sent = 0
        self.trouble: Exception | None = None  # why the last look was in vain
        self._there: dict[str, int] | None = None  # name -> bytes in S3, before we sent any
        self._large: dict[str, tuple[Stamp, Future[None]]] = {}
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="large")
        self._one_at_a_time = threading.Lock()
        self._over = threading.Event()
        self._given_up = threading.Event()
        self._looking = threading.Thread(target=self._keep_looking, name="mirror", daemon=True)
        self._started = time.monotonic()

    def start(self) -> None:
        self._looking.start()

    def trust(self, brought: list[Remote]) -> None:
        """Know of these objects that they are here as they are in S3, where they were brought from before."""
        for remote in brought:
            name = remote.key.removeprefix(self.prefix)
            if is_there(remote, self.folder / name):
                self.sent[name] = stamp_of(self.folder / name)

    def finish(self, minutes: float = PATIENCE_AT_END) -> bool:
        """Send what is left; whether all of it arrived. Nothing may write into the directory any more."""
        self._over.set()
        if self._looking.ident is not None:
            self._looking.join()
        end = time.monotonic() + minutes * 60
        while not (done := self.look() and not self._large and not any(self._changed())):
            hopeless = self.trouble is not None and not is_passing(self.trouble)
            if hopeless or time.monotonic() > end:
                self._given_up.set()
                break
            time.sleep(0.2 if self.trouble is None else 2.0)
        self._lane.shutdown(cancel_futures=True)
        return done

    def flush(self, check: Callable[[], None]) -> None:
        """Return when all that is here now is in S3, while nothing writes into the directory."""
        while not (self.look() and not self._large and not any(self._changed())):
            check()
            time.sleep(0.2)

    def _keep_looking(self) -> None:
        changed = 0
        while not self._over.wait(pause(time.monotonic() - self._started, changed)):
            before = self.bytes_sent
            self.look()
            changed = self.bytes_sent - before

    def look(self) -> bool:
        """Send what has changed; whether all that is small was sent. Never raises what S3 answers."""
        try:
            with self._one_at_a_time:
                self._look()
        except Exception as error:
            if self.trouble is None:
                self.say(f"S3 does not take the run's files, trying on: {' '.join(str(error).split())}")
            self.trouble = error
            return False
        if self.trouble is not None:
            self.say("S3 takes the run's files again")
        self.trouble = None
        return True

    def _look(self) -> None:
        if self._there is None:
            self._there = {found.key: found.size for found in self.bucket.list(self.prefix)}
        # Read first and sent last: what they name was whole before they named it.
        pointers = {name: read for name in self.pointers if (read := self._read(name))}
        for name, stamp in self._changed():
            if name in self.pointers:
                continue
            if stamp[0] > LARGE:
                self._begin_large(name, stamp)
            elif read := self._read(name):
                self._send_small(name, *read)
        self._end_large()
        if not self._large:
            for name, (stamp, data) in pointers.items():
                if self.sent.get(name) != stamp:
                    self._send_small(name, stamp, data)
                    if name == LAST:
                        self._drop_old(data)

    def _drop_old(self, last: bytes) -> None:
        """Delete the checkpoints in S3 that `last` does not name; the bucket's versions hold them a while longer."""
        found = self.bucket.list(self.prefix + "checkpoints/")
        for remote in set(found) - set(worth_bringing(found, self.prefix, last)):
            self.bucket.client.delete_object(Bucket=self.bucket.name, Key=remote.key)
            self.digests = {digest: key for digest, key in self.digests.items() if key != remote.key}

    def _changed(self) -> Iterator[tuple[str, Stamp]]:
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.name.startswith(".") or name in OWN:
                continue
            with suppress(FileNotFoundError):
                if path.is_file() and (stamp := stamp_of(path)) != self.sent.get(name):
                    yield name, stamp

    def _read(self, name: str) -> tuple[Stamp, bytes] | None:
        """A file and its stamp before it was read: what is appended meanwhile shows at the next look."""
        path = self.folder / name
        try:
            return stamp_of(path), path.read_bytes()
        except FileNotFoundError:
            return None

    def _send_small(self, name: str, stamp: Stamp, data: bytes) -> None:
        if not self._is_known(name, len(data), lambda: hashlib.sha256(data).hexdigest()):
            self.bucket.write(self.prefix + name, data)
            self.bytes_sent += len(data)
        self.sent[name] = stamp

    def _is_known(self, name: str, size: int, digest: Callable[[], str]) -> bool:
        """Whether S3 had this content under this name before this mirror began."""
        assert self._there is not None
        there = self._there.get(self.prefix + name)
        known = there == size and self.bucket.sha256(self.prefix + name) == digest()
        self._there.pop(self.prefix + name, None)
        return known

    def _begin_large(self, name: str, stamp: Stamp) -> None:
        if name not in self._large:
            self._large[name] = stamp, self._lane.submit(self._send_large, name)

    def _end_large(self) -> None:
        """Note what has arrived; raises the first thing that went wrong, after which it is begun again."""
        for name, (stamp, job) in list(self._large.items()):
            if job.done():
                del self._large[name]
                job.result()
                self.sent[name] = stamp

    def _send_large(self, name: str) -> None:
        key = self.prefix + name
        try:
            stream = (self.folder / name).open("rb")
        except FileNotFoundError:  # an old checkpoint, deleted before its turn came
            return
        with stream:
            size = os.fstat(stream.fileno()).st_size
            digest = digest_of_first(stream, size)
            if digest in self.digests:
                if self.digests[digest] != key:
                    source = {"Bucket": self.bucket.name, "Key": self.digests[digest]}
                    self.bucket.client.copy_object(Bucket=self.bucket.name, Key=key, CopySource=source)
                return
            if not self._is_known(name, size, lambda: digest):
                send_large(self.bucket, key, stream, size, digest, self._check)
                self.bytes_sent += size
            self.digests[digest] = key

    def _check(self) -> None:
        if self._given_up.is_set():
            raise TimeoutError("S3 was away for too long")


def stamp_of(path: Path) -> Stamp:
    known = path.stat()
    return known.st_size, known.st_mtime_ns, known.st_ino


def worth_bringing(found: list[Remote], prefix: str, last: bytes | None) -> list[Remote]:
    """Of a run in S3, what it needs to go on: all but the checkpoints that last.json does not name."""
    named = {entry["file"] for entry in json.loads(last or b"[]")}
    old = prefix + "checkpoints/step-"
    return [r for r in found if not r.key.startswith(old) or r.key.removeprefix(prefix + "checkpoints/") in named]
