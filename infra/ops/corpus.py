"""A folder of raw videos as it lies on this machine: what of it belongs in the bucket, and what cannot be a video.

A file is opened only if it is too small for a video. `python -m manifests build` decodes every one of them.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from infra.ops.errors import UserError

# as in manifests/corpora.py, which the commands do not import
VIDEOS = frozenset(
    f".{kind}"
    for kind in (
        *("mp4", "flv", "avi", "mov", "mkv", "webm", "m4v", "mpg", "mpeg", "wmv"),
        *("3gp", "ogv", "ts", "mts", "m2ts", "mxf", "asf", "vob", "divx", "f4v"),
    )
)
# What describes videos: CREMA-D's tables of actors and votes, a CSV of your own recordings, the note of a drawn corpus.
TABLES = frozenset([".csv", ".json", ".txt", ".md"])
ARCHIVES = frozenset([".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"])
POINTER = b"version https://git-lfs"
SMALLEST_VIDEO = 1000  # bytes, as in manifests/build.py
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class File(NamedTuple):
    name: str  # below the folder, "/"-separated
    size: int  # bytes


@dataclass(frozen=True)
class Survey:
    """What lies in a folder. `broken` has the name and the reason of each that should be a video and cannot be one."""

    folder: Path
    videos: list[File]
    tables: list[File]
    broken: list[tuple[str, str]]
    left: dict[str, int]  # files that are neither videos nor tables, by suffix

    @property
    def files(self) -> list[File]:
        return [*self.videos, *self.tables]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def survey(folder: Path) -> Survey:
    """List a folder to any depth. Raises UserError if it cannot be listed or holds no video."""
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {printable(str(folder))}; `make data SRC=DIR` wants the one with the videos"
        )
    videos: list[File] = []
    tables: list[File] = []
    broken, left = [], Counter[str]()
    for name, path in sorted(_walk(folder)):
        suffix = os.path.splitext(name)[1].lower()
        if suffix not in VIDEOS and suffix not in TABLES:
            left[suffix or "without suffix"] += 1
        elif reason := _why_broken(name, path, suffix in VIDEOS):
            broken.append((printable(name), reason))
        else:
            (videos if suffix in VIDEOS else tables).append(File(name, os.path.getsize(path)))
    found = Survey(folder, videos, tables, broken, dict(left.most_common()))
    if not videos:
        raise UserError(_no_video(found))
    return found


def printable(name: str) -> str:
    """`name` in one line of UTF-8: a line break as \\x0a, a byte that is no UTF-8 as \\xff."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _walk(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and path of every visible file; linked folders are followed, once. Hidden ones are droppings of programs."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        known = os.stat(parent)
        if (known.st_dev, known.st_ino) in seen:
            folders.clear()
            continue
        seen.add((known.st_dev, known.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                path = os.path.join(parent, name)
                yield os.path.relpath(path, folder).replace(os.sep, "/"), path


def _refuse(error: OSError) -> None:
    # By default os.walk passes over what it may not read, and videos would be missing in silence.
    raise UserError(f"cannot list {error.filename} ({error.strerror}); make it readable, or move it away")


def _why_broken(name: str, path: str, is_video: bool) -> str | None:
    """Why a file cannot be what its name says, None if it can."""
    if _UNPRINTABLE.search(name):  # no manifest can name it
        return "its name has control characters, or is not UTF-8"
    if not os.path.isfile(path):
        return "no regular file: a pipe, a device or a broken link"
    if not os.access(path, os.R_OK):
        return "not readable"
    if not is_video or (size := os.path.getsize(path)) >= SMALLEST_VIDEO:
        return None
    if size == 0:
        return "empty"
    with open(path, "rb") as stream:
        pointer = stream.read(len(POINTER)) == POINTER
    return "a Git-LFS pointer, not the video; `git lfs pull` fetches it" if pointer else f"only {size} bytes"


def _no_video(found: Survey) -> str:
    where = f"there is no video in {printable(str(found.folder))}"
    if found.broken:
        name, reason = found.broken[0]
        return f"{where} but {len(found.broken)} that are broken, such as {name}: {reason}"
    if packed := sum(number for suffix, number in found.left.items() if suffix in ARCHIVES):
        return f"{where} but {packed} archives; unpack them first"
    return f"{where}; `make data SRC=DIR` wants the folder that holds them"
