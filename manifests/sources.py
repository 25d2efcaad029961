"""Where the files are: a folder, an S3 prefix, or a CSV of someone's own recordings. Lists them; opens none of them."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from manifests.corpora import VIDEO_SUFFIXES, suffix_of
from manifests.errors import UserError

# Control characters, and the surrogates by which Python carries file-name bytes that are not UTF-8.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Found(NamedTuple):
    """A file: its path below the data root ("/"-separated), its size, and S3's ETag ("" for a local file)."""

    path: str
    bytes: int
    etag: str


class Listing(NamedTuple):
    """What lies below a place: videos by suffix, everything else by name, and what could not be listed as either."""

    videos: list[Found]
    others: list[str]
    rejected: list[tuple[str, str]]


def is_s3(place: str) -> bool:
    return place.startswith("s3://")


def common_root(places: list[str]) -> str:
    """The deepest folder (or S3 prefix) that holds all `places`."""
    if len({is_s3(place) for place in places}) > 1:
        raise UserError(
            "one corpus is in S3 and another in a folder: bring both to one side, for one data root must hold all"
        )
    if is_s3(places[0]):
        columns = zip(*(place.rstrip("/").split("/") for place in places), strict=False)
        shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
        if len(shared) < 3:
            raise UserError(
                f"{' and '.join(places)} are in two buckets: bring both into one, for one data root must hold all"
            )
        return "/".join(shared)
    return os.path.commonpath([os.path.abspath(place) for place in places])


def below(place: str, root: str) -> str:
    """`place` relative to `root`, "." for the root itself. Raises UserError if it is not below it."""
    if not is_s3(place):
        place, root = os.path.abspath(place), os.path.abspath(root)
    place, root = place.rstrip("/"), root.rstrip("/")
    if place != root and not place.startswith(f"{root}/"):
        raise UserError(f"{place} is not below the data root {root}: give --root a folder that holds all corpora")
    return place[len(root) + 1 :] or "."


def list_place(place: str, root: str) -> Listing:
    """List every file below `place`, in an order that no file system or locale can change."""
    prefix = "" if (inside := below(place, root)) == "." else f"{inside}/"
    found = _list_s3(place) if is_s3(place) else _list_folder(Path(place))
    videos, others, rejected = [], [], []
    for name, size, etag in sorted(found):
        path = prefix + name
        if size < 0:
            rejected.append((printable(path), "no regular file: a pipe, a device or a broken link"))
        elif _UNWRITABLE.search(path):
            rejected.append((printable(path), "unwritable path: it has control characters or bytes that are not UTF-8"))
        elif suffix_of(name) in VIDEO_SUFFIXES:
            videos.append(Found(path, size, etag))
        else:
            others.append(path)
    return Listing(videos, others, [each for each in rejected if suffix_of(each[0]) in VIDEO_SUFFIXES])


def read_place(root: str, path: str) -> bytes:
    """The content of one small file below the root, be it a folder or an S3 prefix. Raises OSError or UserError."""
    if not is_s3(root):
        return (Path(root) / path).read_bytes()
    bucket, _, prefix = root.removeprefix("s3://").rstrip("/").partition("/")
    with s3_client(f"{root}/{path}") as client:
        content: bytes = client.get_object(Bucket=bucket, Key=f"{prefix}/{path}" if prefix else path)["Body"].read()
    return content


def printable(path: str) -> str:
    """`path` with what no UTF-8 text file can hold written as escapes, e.g. the byte 0xff as \\xff."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _UNWRITABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _list_folder(folder: Path) -> Iterator[Found]:
    """Every visible file below a folder; size -1 marks what is no regular file. Linked folders are followed, once."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give the folder that holds the videos")
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Hidden names are the droppings of programs (.DS_Store, ._twins on exFAT, our own .tmp-* files), never takes.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(parent, folder)
        for name in names:
            if name.startswith("."):
                continue
            path = os.path.join(parent, name)
            size = os.stat(path).st_size if os.path.isfile(path) else -1
            yield Found(name if inside == "." else f"{inside}/{name}", size, "")


def _refuse(error: OSError) -> None:
    # By default os.walk passes over what it may not read, and takes would be missing in silence.
    raise UserError(f"cannot list {error.filename} ({error.strerror}): make it readable, or move it away") from None


def _list_s3(place: str) -> Iterator[Found]:
    """Every object below s3://bucket/prefix, from the listing alone: nothing is downloaded."""
    bucket, _, prefix = place.removeprefix("s3://").rstrip("/").partition("/")
    prefix = f"{prefix}/" if prefix else ""
    with s3_client(place) as client:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                name = item["Key"][len(prefix) :]
                if name and not name.endswith("/") and not any(part.startswith(".") for part in name.split("/")):
                    yield Found(name, item["Size"], item["ETag"].strip('"'))


@contextmanager
def s3_client(place: str) -> Iterator[Any]:
    """An S3 client; what AWS refuses within the block becomes a sentence about `place`."""
    try:
        boto3, exceptions = import_module("boto3"), import_module("botocore.exceptions")
    except ImportError:
        raise UserError(f"reading {place} needs boto3: `pip install boto3`, or give a folder") from None
    try:
        yield boto3.client("s3")
    except (exceptions.BotoCoreError, exceptions.ClientError) as error:
        raise UserError(f"cannot read {place} ({error}): check its name and `aws sts get-caller-identity`") from None
