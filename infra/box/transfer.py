"""Files between S3 and a directory: whole or absent, checked by their content, and only those that are missing.

An object that this project uploads bears the sha256 of its content in its metadata. What others have put there is
checked by its ETag where that is an MD5 (objects uploaded in one piece), else by its size.

S3 may be away: `insist` goes on where botocore's own retries end.
"""

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from urllib3.exceptions import HTTPError

T = TypeVar("T")

THREADS = 16
BLOCK = 2**20
PART = 16 * 2**20  # bytes of a part; S3 takes 10,000 of them at most, so files up to 160 GB
PARTS_AT_ONCE = 4
LONGEST_PAUSE = 15.0  # seconds between two attempts
MINUTES_AWAY = 30.0  # how long S3 may be away before a download is given up
DAMAGED_AT_MOST = 3  # times that one thing may arrive damaged: then it is so in S3
# Answers below 500 that are worth another try; credentials are renewed by botocore.
PASSING = {"ExpiredToken", "RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "Throttling"}


class Damaged(Exception):
    """What arrived is not what was sent."""


class Cut(Exception):
    """The transfer ended before its end."""


@dataclass(frozen=True)
class Remote:
    """An object as a listing shows it."""

    key: str
    size: int
    etag: str
    modified: float  # seconds since 1970


@dataclass(frozen=True)
class Bucket:
    name: str
    client: Any

    def list(self, prefix: str) -> list[Remote]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [
            Remote(found["Key"], found["Size"], found["ETag"].strip('"'), found["LastModified"].timestamp())
            for page in pages
            for found in page.get("Contents", ())
        ]

    def read(self, key: str) -> bytes | None:
        """An object's bytes, None if there is none."""
        try:
            answer = self.client.get_object(Bucket=self.name, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        return bytes(answer["Body"].read())

    def write(self, key: str, data: bytes) -> None:
        digest = hashlib.sha256(data).hexdigest()
        self.client.put_object(Bucket=self.name, Key=key, Body=data, Metadata={"sha256": digest})

    def sha256(self, key: str) -> str | None:
        """What an object's metadata says of its content."""
        found: str | None = self.client.head_object(Bucket=self.name, Key=key)["Metadata"].get("sha256")
        return found


def open_bucket(name: str, region: str) -> Bucket:
    """The bucket, through a client that waits for no answer longer than 20 s; obeys AWS_ENDPOINT_URL."""
    patience = Config(
        connect_timeout=5, read_timeout=15, max_pool_connections=2 * THREADS, retries={"total_max_attempts": 2}
    )
    return Bucket(name, boto3.client("s3", region_name=region, config=patience))


def is_passing(error: BaseException) -> bool:
    """Whether another try may do: S3 is away or busy, a connection was cut, credentials are being renewed."""
    if isinstance(error, ClientError):
        answer = error.response
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429 or answer["Error"]["Code"] in PASSING
    if isinstance(error, ParamValidationError):
        return False
    return isinstance(error, (BotoCoreError, HTTPError, Damaged, Cut, ConnectionError, TimeoutError))


def nothing() -> None:
    """Nobody asks us to stop."""


def insist(action: Callable[[], T], check: Callable[[], None] = nothing, minutes: float = MINUTES_AWAY) -> T:
    """Do it, again and again with growing pauses while it fails in ways that pass; then raise what it raised.

    `check` is called before each attempt and every second of a pause: it raises when waiting makes no sense any more.
    """
    end, pause, damaged = time.monotonic() + minutes * 60, 0.5, 0
    while True:
        check()
        try:
            return action()
        except Exception as error:
            damaged += isinstance(error, Damaged)
            if not is_passing(error) or damaged == DAMAGED_AT_MOST or time.monotonic() + pause > end:
                raise
        until = time.monotonic() + pause * random.uniform(0.7, 1.3)
        while (left := until - time.monotonic()) > 0:
            check()
            time.sleep(min(left, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE)


def is_there(remote: Remote, path: Path) -> bool:
    """Whether this very object was brought here before: `fetch` gives a file the object's size and time."""
    try:
        known = path.stat()
    except FileNotFoundError:
        return False
    return known.st_size == remote.size and abs(known.st_mtime - remote.modified) < 1


def fetch_all(
    bucket: Bucket, wanted: Iterable[tuple[Remote, Path]], check: Callable[[], None] = nothing
) -> Iterator[int]:  # fmt: skip
    """Bring objects to their paths, several at once; yields the size of each as it arrives.

    Raises what `check` raises, and what S3 answers when it does not pass.
    """
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="fetch")
    try:
        jobs = [pool.submit(fetch, bucket, remote, path, check) for remote, path in wanted]
        for job in jobs:
            yield job.result()
    finally:
        pool.shutdown(cancel_futures=True)


def fetch(bucket: Bucket, remote: Remote, path: Path, check: Callable[[], None] = nothing) -> int:
    """Bring one object; what an attempt, or a courier that was killed, has brought of it is not brought again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".part-{hashlib.sha256((path.name + remote.etag).encode()).hexdigest()[:24]}"
    insist(lambda: _fetch_rest(bucket, remote, part, check), check)
    os.utime(part, (remote.modified, remote.modified))
    part.replace(path)
    return remote.size


def _fetch_rest(bucket: Bucket, remote: Remote, part: Path, check: Callable[[], None]) -> None:
    have = part.stat().st_size if part.exists() else 0
    # The last byte is asked for again if all are here: the answer tells the content's sha256.
    start = min(have, max(remote.size - 1, 0))
    span = {"Range": f"bytes={start}-"} if start else {}
    answer = bucket.client.get_object(Bucket=bucket.name, Key=remote.key, IfMatch=f'"{remote.etag}"', **span)
    with part.open("r+b" if have else "wb") as stream:
        stream.truncate(start)
        stream.seek(start)
        for block in answer["Body"].iter_chunks(BLOCK):
            stream.write(block)
            check()
    if part.stat().st_size < remote.size:
        raise Cut(remote.key)
    if not _is_sound(part, remote, answer["Metadata"].get("sha256")):
        part.unlink()
        raise Damaged(f"{remote.key} did not arrive as it was sent")


def _is_sound(path: Path, remote: Remote, sha256: str | None) -> bool:
    if path.stat().st_size != remote.size:
        return False
    if sha256:
        return digest_of(path) == sha256
    is_md5 = len(remote.etag) == 32 and set(remote.etag) <= set("0123456789abcdef")
    return not is_md5 or digest_of(path, "md5") == remote.etag


def digest_of(path: Path, kind: str = "sha256") -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def digest_of_first(stream: BinaryIO, size: int) -> str:
    """Hex sha256 of the first `size` bytes of a file, which may be growing."""
    digest = hashlib.sha256()
    for start in range(0, size, BLOCK):
        digest.update(os.pread(stream.fileno(), min(BLOCK, size - start), start))
    return digest.hexdigest()


def send_large(
    bucket: Bucket, key: str, stream: BinaryIO, size: int, sha256: str, check: Callable[[], None] = nothing
) -> None:  # fmt: skip
    """Upload a file's first `size` bytes in parts, several at once, each until it has arrived: none is sent again.

    The file may grow or be deleted meanwhile. Raises what `check` raises, and what does not pass.
    """
    place = {"Bucket": bucket.name, "Key": key}
    with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="send") as pool:
        starts = range(0, size, PART)
        started = insist(lambda: bucket.client.create_multipart_upload(**place, Metadata={"sha256": sha256}), check)
        place["UploadId"] = started["UploadId"]

        def send(number: int, start: int) -> dict[str, Any]:
            data = os.pread(stream.fileno(), min(PART, size - start), start)
            sent = insist(lambda: bucket.client.upload_part(**place, PartNumber=number, Body=data), check)
            return {"PartNumber": number, "ETag": sent["ETag"]}

        try:
            parts = list(pool.map(send, range(1, len(starts) + 1), starts))
            _complete(bucket, key, place, parts, sha256, check)
        except BaseException:
            # What is left of it costs money for days; a bucket that is away drops it by its own rule.
            pool.shutdown(cancel_futures=True)
            with suppress(BotoCoreError, ClientError):
                bucket.client.abort_multipart_upload(**place)
            raise


def _complete(
    bucket: Bucket, key: str, place: dict[str, str], parts: list[dict[str, Any]], sha256: str, check: Callable[[], None]
) -> None:  # fmt: skip
    """The answer to a first attempt may have been lost on its way: then there is no such upload any more."""

    def complete() -> None:
        try:
            bucket.client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchUpload" or bucket.sha256(key) != sha256:
                raise

    insist(complete, check)
