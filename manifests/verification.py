"""Every file decoded and judged: in parallel, remembered in a cache, resumable after any kind of end.

The cache is a text file of one JSON line per judged file, appended as verdicts come. A file of known (path, size,
mtime) is not read again; a file of known content (sha256) is hashed but not decoded again. Verdicts hold for one
version of the decoder and of our own rules, which are part of the key.
"""

import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av

from manifests import video
from manifests.console import track
from manifests.files import sha256_of
from manifests.video import VideoError, verify_video
from manifests.workers import start_worker, usable_cores

CACHE_NAME = "verified.jsonl"
# The slow pathway of a SlowFast sees 8 frames: a video with fewer is not a clip.
FEWEST_FRAMES = 8
IN_FLIGHT_PER_WORKER = 4


@dataclass(frozen=True)
class Verdict:
    """What is known of a file's content: `facts` as in VideoFacts if it is good, else None and the reason.

    A verdict that is not about the content (no permission, changed meanwhile) has no sha256 and is not remembered.
    """

    sha256: str
    facts: dict[str, Any] | None
    reason: str


class Cache:
    """Verdicts of earlier runs. A last line torn by a kill is skipped; later lines win."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rules = f"{sha256_of(Path(video.__file__))[:12]} av {av.__version__} frames {FEWEST_FRAMES}"
        self.by_stat: dict[tuple[str, int, int], str] = {}
        self.by_content: dict[str, Verdict] = {}
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        # A line torn by a kill must not swallow the next.
        self.unended = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                verdict = Verdict(entry["sha256"], entry["facts"], entry["reason"])
                stat = (entry["path"], entry["size"], entry["mtime_ns"])
            except (ValueError, KeyError, TypeError):
                continue
            self.by_stat[stat] = verdict.sha256
            if entry["rules"] == self.rules:
                self.by_content[verdict.sha256] = verdict

    def find(self, path: Path) -> Verdict | None:
        try:
            return self.by_content.get(self.by_stat.get(_stat_key(path), ""))
        except OSError:
            return None

    def add(self, path: Path, stat: tuple[str, int, int], verdict: Verdict) -> None:
        self.by_stat[stat] = verdict.sha256
        self.by_content[verdict.sha256] = verdict
        entry = dict(zip(("path", "size", "mtime_ns"), stat, strict=True), rules=self.rules, **asdict(verdict))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(("\n" if self.unended else "") + json.dumps(entry) + "\n")
        self.unended = False


def verify_files(paths: list[Path], cache_path: Path, workers: int | None) -> tuple[dict[Path, Verdict], int]:
    """Judge every file, showing progress; return the verdicts and how many files had to be decoded."""
    cache = Cache(cache_path)
    verdicts = {path: verdict for path in paths if (verdict := cache.find(path))}
    waiting = [path for path in paths if path not in verdicts]
    decoded = 0
    judged = _judge_all(waiting, frozenset(cache.by_content), workers or usable_cores())
    for path, stat, found in track(judged, "verifying", len(waiting)) if waiting else ():
        decoded += bool(found.sha256) and found.sha256 not in cache.by_content
        # Content that the cache knew was only hashed: its worker returned no facts.
        verdict = cache.by_content.get(found.sha256, found)
        verdicts[path] = verdict
        if stat and verdict.sha256:
            cache.add(path, stat, verdict)
    return verdicts, decoded


Judged = tuple[Path, tuple[str, int, int] | None, Verdict]


def _judge_all(paths: list[Path], known: frozenset[str], workers: int) -> Iterator[Judged]:
    """Judge files in worker processes; one that a file crashes is replaced, and the file named."""
    waiting = deque(paths)
    while waiting:
        flying: dict[Future[Judged], Path] = {}
        pool = _pool(min(workers, len(waiting)), known)
        try:
            while waiting or flying:
                while waiting and len(flying) < IN_FLIGHT_PER_WORKER * workers:
                    path = waiting.popleft()
                    flying[pool.submit(_judge, path)] = path
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    judged = future.result()
                    del flying[future]
                    yield judged
        except BrokenProcessPool:
            # One of those in flight ended a worker, and took the pool with it: each is tried by itself.
            for path in flying.values():
                yield _judge_alone(path, known)
        finally:
            pool.shutdown(cancel_futures=True)


def _judge_alone(path: Path, known: frozenset[str]) -> Judged:
    with _pool(1, known) as pool:
        try:
            return pool.submit(_judge, path).result()
        except BrokenProcessPool:
            return path, None, Verdict("", None, "decoder crashed: the file ended the process that read it")


def _pool(workers: int, known: frozenset[str]) -> ProcessPoolExecutor:
    # Spawned, not forked: the parent may hold threads (a progress bar's), which a fork would copy in mid-step.
    return ProcessPoolExecutor(workers, get_context("spawn"), _begin, (known,))


_known: frozenset[str] = frozenset()


def _begin(known: frozenset[str]) -> None:
    global _known
    _known = known
    start_worker()


def _judge(path: Path) -> Judged:
    try:
        before = _stat_key(path)
        digest = sha256_of(path)
        verdict = Verdict(digest, None, "") if digest in _known else _look(path, digest)
        if _stat_key(path) != before:
            return path, None, Verdict("", None, "changed while it was read: build again when it is whole")
    except OSError as error:
        return path, None, Verdict("", None, f"unreadable: {error.strerror or error}")
    return path, before, verdict


def _look(path: Path, digest: str) -> Verdict:
    try:
        facts = asdict(verify_video(path))
    except VideoError as error:
        return Verdict(digest, None, str(error))
    if facts["frames"] < FEWEST_FRAMES:
        noun = "frame" if facts["frames"] == 1 else "frames"
        return Verdict(digest, None, f"too short: {facts['frames']} {noun}, a clip needs {FEWEST_FRAMES}")
    return Verdict(digest, facts, "")


def _stat_key(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return os.path.abspath(path), status.st_size, status.st_mtime_ns
