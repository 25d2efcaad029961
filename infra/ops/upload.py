"""One file of this machine into the bucket: whole or not at all, with its sha256, and nothing that is there already.

What is there is known by the ETag of its listing, which S3 makes of the MD5 of the content or of its parts, so that a
file that is there costs no call. Where that says nothing (another encryption, other parts) the sha256 decides.
"""

import hashlib
import io
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from infra.box.transfer import PART, Remote, digest_of, digest_of_first, insist
from infra.ops.moving import Wire, side_by_side

PARTS_AT_ONCE = 8

Stamp = tuple[int, int, int]  # a file's size, time and inode


class Changed(Exception):
    """The file is no longer what it was when its reading began."""


class Piece(io.BytesIO):
    """Bytes to send, whose reading stops as soon as the wire does."""

    def __init__(self, data: bytes, check: Callable[[], None]) -> None:
        super().__init__(data)
        self.check = check

    def read(self, size: int | None = -1) -> bytes:
        self.check()
        return super().read(size)


def is_small(size: int) -> bool:
    """Whether a file of so many bytes goes in one piece."""
    return size <= PART


def is_same(wire: Wire, path: Path, remote: Remote) -> bool:
    """Whether the object holds what the file holds now."""
    wire.check()
    if path.stat().st_size != remote.size:
        return False
    if etag_of(path) == remote.etag:
        return True
    return insist(partial(wire.bucket.sha256, remote.key), wire.check) == digest_of(path)


def etag_of(path: Path) -> str:
    """The ETag that S3 gives a file that was sent by `send_small` or `send_large`."""
    if is_small(path.stat().st_size):
        return digest_of(path, "md5")
    parts = b""
    with path.open("rb") as stream:
        while data := stream.read(PART):
            parts += hashlib.md5(data, usedforsecurity=False).digest()
    return f"{hashlib.md5(parts, usedforsecurity=False).hexdigest()}-{len(parts) // 16}"


def send_small(wire: Wire, path: Path, key: str) -> int:
    """Send a file in one piece; returns its bytes. Raises Changed, and OSError if it cannot be read."""
    before = _stamp(path)
    data = path.read_bytes()
    if _stamp(path) != before:
        raise Changed
    where = {"Bucket": wire.bucket.name, "Key": key, "Metadata": {"sha256": hashlib.sha256(data).hexdigest()}}
    insist(lambda: wire.bucket.client.put_object(**where, Body=Piece(data, wire.check)), wire.check)
    return len(data)


def send_large(wire: Wire, path: Path, key: str, arrived: Callable[[int], None]) -> int:
    """Send a file in parts, several at once; those that an earlier call has brought there are not sent again.

    `arrived` is told the bytes of each part. Raises Changed, and OSError if it cannot be read.
    """
    before = _stamp(path)
    size = before[0]
    with path.open("rb") as stream:
        sha256 = digest_of_first(stream, size)
        note = _note_of(f"{wire.bucket.name}/{key}/{sha256}/{PART}")
        place, parts = _begin_or_go_on(wire, key, sha256, note)
        for number in parts:
            arrived(_length(size, number))
        missing = [number for number in range(1, -(-size // PART) + 1) if number not in parts]

        def keep(sent: tuple[int, str]) -> None:
            parts.__setitem__(*sent)
            arrived(_length(size, sent[0]))

        side_by_side(wire, partial(_send_part, wire, place, stream, size), missing, PARTS_AT_ONCE, keep)
    if _stamp(path) != before:
        wire.bucket.client.abort_multipart_upload(**place)
        note.unlink(missing_ok=True)
        raise Changed
    _complete(wire, place, parts, sha256)
    note.unlink(missing_ok=True)
    return size


def _begin_or_go_on(wire: Wire, key: str, sha256: str, note: Path) -> tuple[dict[str, str], dict[int, str]]:
    """The upload that a note of this very content names, and the ETags of its parts by number; else a new one."""
    client, place = wire.bucket.client, {"Bucket": wire.bucket.name, "Key": key}
    with suppress(FileNotFoundError, client.exceptions.NoSuchUpload):
        place["UploadId"] = note.read_text()
        pages = insist(lambda: list(client.get_paginator("list_parts").paginate(**place)), wire.check)
        return place, {part["PartNumber"]: part["ETag"] for page in pages for part in page.get("Parts", ())}
    begun = insist(
        lambda: client.create_multipart_upload(Bucket=wire.bucket.name, Key=key, Metadata={"sha256": sha256}),
        wire.check,
    )
    with suppress(OSError):  # without a note it can be sent all the same, only not gone on with
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(begun["UploadId"])
    return place | {"UploadId": begun["UploadId"]}, {}


def _send_part(wire: Wire, place: dict[str, str], stream: BinaryIO, size: int, number: int) -> tuple[int, str]:
    data = os.pread(stream.fileno(), _length(size, number), (number - 1) * PART)
    sent = insist(
        lambda: wire.bucket.client.upload_part(**place, PartNumber=number, Body=Piece(data, wire.check)), wire.check
    )
    return number, sent["ETag"]


def _complete(wire: Wire, place: dict[str, str], parts: dict[int, str], sha256: str) -> None:
    """The answer to a first attempt may have been lost on its way: then there is no such upload any more."""
    listed: list[dict[str, Any]] = [{"PartNumber": number, "ETag": parts[number]} for number in sorted(parts)]

    def complete() -> None:
        try:
            wire.bucket.client.complete_multipart_upload(**place, MultipartUpload={"Parts": listed})
        except wire.bucket.client.exceptions.NoSuchUpload:
            if wire.bucket.sha256(place["Key"]) != sha256:
                raise

    insist(complete, wire.check)


def _length(size: int, number: int) -> int:
    return min(PART, size - (number - 1) * PART)


def _stamp(path: Path) -> Stamp:
    known = path.stat()
    return known.st_size, known.st_mtime_ns, known.st_ino


def _note_of(what: str) -> Path:
    """Where an upload that was begun is noted: S3 does not tell of which content it was."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return caches / "slowfast-emotion" / "uploads" / hashlib.sha256(what.encode()).hexdigest()
