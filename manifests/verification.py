"""Every file decoded and judged: in parallel, remembered in a cache, resumable after any kind of end.

The cache is a text file of one JSON line per judged file, appended as verdicts come. A file of known (path, size,
mtime) is not read again; a file of known content (sha256) is hashed but not decoded again. Verdicts hold for one
version of the decoder and of our own rules, which are part of the key.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av

from manifests import video
from manifests.console import track
from manifests.errors import UserError
from manifests.files import sha256_of, writing_to
from manifests.pool import map_in_processes
from manifests.video import VideoError, verify_video
from manifests.workers import usable_cores

CACHE_NAME = "verified.jsonl"
# The slow pathway of a SlowFast sees 8 frames: a video with fewer is not a clip.
FEWEST_FRAMES = 8


@dataclass(frozen=True)
class Verdict:
    """What is known of a file's content: `facts` as in VideoFacts if it is good, else None and the reason.

    A verdict that is not about the content (no permission, changed meanwhile) has neither sha256 nor size and is not
    remembered.
    """

    sha256: str
    size: int  # bytes
    facts: dict[str, Any] | None
    reason: str


Stat = tuple[str, int, int]


def stat_of(path: Path) -> Stat:
    """What changes when a file does: absolute path, size, time of change in ns. Raises OSError."""
    status = path.stat()
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


class Cache:
    """Verdicts of earlier runs. A last line torn by a kill is skipped; later lines win."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rules = f"{sha256_of(Path(video.__file__))[:12]} av {av.__version__} frames {FEWEST_FRAMES}"
        self.by_stat: dict[Stat, str] = {}
        self.by_content: dict[str, Verdict] = {}
        self.sizes: set[int] = set()
        text = _read(path) if path.exists() else ""
        # A line torn by a kill must not swallow the next.
        self.unended = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                if entry["rules"] == self.rules:
                    verdict = Verdict(entry["sha256"], entry["size"], entry["facts"], entry["reason"])
                    self._learn((entry["path"], entry["size"], entry["mtime_ns"]), verdict)
            except (ValueError, KeyError, TypeError):
                continue

    def find(self, path: Path) -> Verdict | None:
        try:
            return self.by_content.get(self.by_stat.get(stat_of(path), ""))
        except OSError:
            return None

    def add(self, stat: Stat, verdict: Verdict) -> None:
        self._learn(stat, verdict)
        entry = {"path": stat[0], "mtime_ns": stat[2], "rules": self.rules, **asdict(verdict)}
        with writing_to(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(("\n" if self.unended else "") + json.dumps(entry) + "\n")
        self.unended = False

    def _learn(self, stat: Stat, verdict: Verdict) -> None:
        self.by_stat[stat] = verdict.sha256
        self.by_content[verdict.sha256] = verdict
        self.sizes.add(stat[1])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): make it readable, or delete it and every video is decoded again"
        ) from error


def verify_files(paths: list[Path], cache_path: Path, workers: int | None) -> tuple[dict[Path, Verdict], int]:
    """Judge every file, showing progress; return the verdicts and how many files had to be decoded.

    Raises UserError where the cache cannot be read or written; a video that cannot be read is a verdict.
    """
    cache = Cache(cache_path)
    verdicts = {path: verdict for path in paths if (verdict := cache.find(path))}
    waiting = [path for path in paths if path not in verdicts]
    fresh = 0
    for judged in track(_judge_all(waiting, cache, workers), "verifying", len(waiting)) if waiting else ():
        verdicts[judged.path] = judged.verdict
        fresh += judged.decoded
        if judged.stat:
            cache.add(judged.stat, judged.verdict)
    return verdicts, fresh


@dataclass(frozen=True)
class _Judged:
    path: Path
    stat: Stat | None  # None: the verdict is not about the content and must not be remembered
    verdict: Verdict
    decoded: bool = True


def _judge_all(paths: list[Path], cache: Cache, workers: int | None) -> Iterator[_Judged]:
    """First what was copied or touched since it was decoded: the hash tells. Then the rest, in worker processes."""
    unknown = []
    for path in paths:
        try:
            stat = stat_of(path)
            known = cache.by_content.get(sha256_of(path)) if stat[1] in cache.sizes else None
        except OSError:
            known = None  # a worker will say why
        if known:
            yield _Judged(path, stat, known, decoded=False)
        else:
            unknown.append((path,))
    yield from map_in_processes(_judge, unknown, workers or usable_cores(), _crashed)


def _judge(path: Path) -> _Judged:
    try:
        before = stat_of(path)
        digest = sha256_of(path)
        verdict = _look(path, digest, before[1])
        if stat_of(path) != before:
            return _Judged(path, None, _unknown("changed while it was read: build again when it is whole"))
    except OSError as error:
        return _Judged(path, None, _unknown(f"unreadable: {error.strerror or error}"))
    return _Judged(path, before, verdict)


def _crashed(job: tuple[Any, ...]) -> _Judged:
    return _Judged(job[0], None, _unknown("decoder crashed: the file ended the process that read it"))


def _unknown(reason: str) -> Verdict:
    return Verdict("", 0, None, reason)


def _look(path: Path, digest: str, size: int) -> Verdict:
    try:
        facts = asdict(verify_video(path))
    except VideoError as error:
        return Verdict(digest, size, None, str(error))
    if facts["frames"] < FEWEST_FRAMES:
        noun = "frame" if facts["frames"] == 1 else "frames"
        return Verdict(digest, size, None, f"too short: {facts['frames']} {noun}, a clip needs {FEWEST_FRAMES}")
    return Verdict(digest, size, facts, "")
