"""Follows objects of a run. Of one that grows, what has been given out is not given again, nor anything left out.

A machine mirrors a growing file by putting it whole again, torn at any byte, and a replacement goes on from the copy
that it found. So each look asks for a stretch that is known already together with what follows. Where that stretch is
no longer what it was, the object is compared further back, and given out again from the first line that differs.
"""

from typing import Any

from infra.ops.door import client
from infra.outputs import Outputs

OVERLAP = 16 * 2**10  # bytes asked for again at each look
KEPT = 2**20  # bytes remembered, within which a change is found to the byte
PIECE = 4 * 2**20  # bytes asked for at once
FIRST = 64 * 2**10  # bytes from the end in which the last lines are looked for first


class Copy:
    """The bytes of a small object, fetched again only when it has changed; None while there is none."""

    def __init__(self, outputs: Outputs, name: str) -> None:
        self._s3, self._where = client("s3", outputs.region), {"Bucket": outputs.bucket, "Key": name}
        self._etag: str | None = None
        self._known: bytes | None = None

    def read(self) -> bytes | None:
        unless: dict[str, Any] = {"IfNoneMatch": self._etag} if self._etag else {}
        try:
            answer = self._s3.get_object(**self._where, **unless)
        except self._s3.exceptions.NoSuchKey:
            self._etag = self._known = None
            return None
        except self._s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] == "304":
                return self._known
            raise
        self._known, self._etag = bytes(answer["Body"].read()), answer["ETag"]
        return self._known


class Tail:
    """`look` gives the whole lines that are new. `end` is the offset behind the last byte given out."""

    def __init__(self, outputs: Outputs, name: str) -> None:
        self._s3, self._where = client("s3", outputs.region), {"Bucket": outputs.bucket, "Key": name}
        self.end = 0
        self.there = False  # whether the object has been seen at all
        self._seen = b""  # the last bytes before `end`
        self._etag: str | None = None  # of the object that has been read to its end

    def start(self, lines: int) -> None:
        """Begin so many whole lines before the object's present end; without this `look` begins at its first byte."""
        span = FIRST
        while found := self._get(f"-{span}"):
            data, size = found
            # A line that is not whole yet comes on top of those asked for.
            before, *rest = data.rsplit(b"\n", lines + 1)
            if len(rest) > lines or len(data) == size:
                at = len(before) + 1 if len(rest) > lines else 0
                self.end, self._seen, self._etag = size - len(data) + at, data[:at], None
                return
            span *= 4

    def look(self, *, final: bool = False) -> bytes:
        """What has been added: whole lines, at most PIECE bytes. `final`: the last line too, though it has no end.

        Raises what boto3 raises, and has lost nothing then.
        """
        start = self.end - min(OVERLAP, len(self._seen))
        etag = None if final else self._etag
        found = self._get(f"{start}-{start + PIECE - 1}", etag)
        if found is None:
            return b""
        data, size = found
        known = self._seen[len(self._seen) - (self.end - start) :]
        if not data.startswith(known):
            return self.look(final=final) if self._step_back() else b""
        fresh = data[len(known) :]
        is_all = start + len(data) >= size
        if not is_all:
            self._etag = None
        line_end = fresh.rfind(b"\n") + 1
        # A line longer than a piece is given out piece by piece.
        given = fresh if (final and is_all) or (line_end == 0 and not is_all) else fresh[:line_end]
        self.end += len(given)
        self._seen = (self._seen + given)[-KEPT:]
        return given

    def _step_back(self) -> bool:
        """Go back to the first line that is no longer what it was; False if the object is only shorter than it was."""
        start = self.end - len(self._seen)
        found = self._get(f"{start}-{self.end - 1}")
        if found is None or (same := _in_common(self._seen, found[0])) == len(found[0]):
            return False
        same = self._seen.rfind(b"\n", 0, same) + 1
        self.end, self._seen, self._etag = start + same, self._seen[:same], None
        return True

    def _get(self, stretch: str, etag: str | None = None) -> tuple[bytes, int] | None:
        """A stretch of bytes and the object's size; None if there is no object, or if it still is the one of `etag`."""
        unless: dict[str, Any] = {"IfNoneMatch": etag} if etag else {}
        try:
            answer = self._s3.get_object(**self._where, Range=f"bytes={stretch}", **unless)
        except self._s3.exceptions.NoSuchKey:
            return None
        except self._s3.exceptions.ClientError as error:
            told = error.response["Error"]
            if told["Code"] == "304":
                return None
            if told["Code"] in ("InvalidRange", "416"):  # it ends before that
                self.there, self._etag = True, None
                return b"", int(told.get("ActualObjectSize", 0))
            raise
        data = answer["Body"].read()
        self.there, self._etag = True, answer["ETag"]
        size = answer.get("ContentRange", "").rpartition("/")[2]
        return data, int(size or len(data))


def _in_common(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low
