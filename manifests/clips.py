"""The folder of prepared clips: one rule, the tables of what is in it, and the store that finds a clip in it.

`index.csv` says which file is which clip, `rejected.csv` which takes are none and why. Both follow from the files and
the manifest: losing them costs a run of prepare, and no decoding.
"""

import csv
import fcntl
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manifests.clipfile import JPEG_QUALITY, PreparedClip, clip_path, read_clip
from manifests.errors import UserError
from manifests.files import write_json, write_text

FORMAT_VERSION = 1
MAX_FPS = 30.0

INDEX_COLUMNS = (
    "clip_id",
    "actor",
    "path",
    "key",
    "frames",
    "seconds",
    "box_x",
    "box_y",
    "box_side",
    "face_size",
    "score",
    "miss_rate",
)
REJECTED_COLUMNS = ("clip_id", "actor", "path", "key", "reason")
SHARD_TABLE = "shards.csv"
SHARD_COLUMNS = ("key", "shard", "start", "bytes")


@dataclass(frozen=True)
class Rule:
    """Everything besides the source's bytes that shapes a prepared clip."""

    size: int = 256
    margin: float = 0.3
    no_face: str = "reject"  # or "crop": the middle of the picture
    detector: str = ""
    stride: float = 0.5  # seconds between looks of the detector
    max_fps: float = MAX_FPS
    quality: int = JPEG_QUALITY
    version: int = FORMAT_VERSION
    roll: bool = False  # heads are held upright, by a smooth angle

    def as_dict(self) -> dict[str, Any]:
        """The rule as JSON has it. `roll` is named only where it is on: clips from before it was known stay valid."""
        return {name: value for name, value in asdict(self).items() if name != "roll" or value}

    def key(self, source_sha256: str) -> str:
        """Hex sha256 that names the clip made from these source bytes by this rule."""
        text = json.dumps({"source": source_sha256, **self.as_dict()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def glimpse_path(root: Path, clip_id: str) -> Path:
    """Where a rejected clip's picture is, if any of it decodes."""
    return Path(root) / "rejected" / f"{clip_id}.jpg"


class ClipStore:
    """A folder of prepared clips, found by clip_id through index.csv. Small, picklable, cheap to fork: no file is held.

    `wait`, if set, is called with the path of a shard that is not there and returns when it is: for a folder that
    somebody fills and empties while it is read.
    Raises UserError when the folder holds no prepared clips, and when a clip is asked for that is not there.
    """

    wait: Callable[[Path], None] | None = None

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        if not (self.root / "index.csv").is_file():
            raise UserError(f"{root} holds no prepared clips: make them with {_PREPARE.format(root)}")
        self.rule = read_rule(self.root)
        # Arrays sorted by clip_id: a million clips take 100 MB once, shared by workers, where dicts would be copied.
        ids, keys = _id_and_key(self.root)
        if not len(ids):
            raise UserError(f"{root} holds no prepared clip, all were rejected: see {self.root / 'rejected.csv'}")
        order = np.argsort(ids)
        self._ids, self._keys = ids[order], keys[order]
        self._shards = Shards(self.root, self._keys) if (self.root / SHARD_TABLE).exists() else None

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, clip_id: object) -> bool:
        return isinstance(clip_id, str) and self._find(clip_id) is not None

    def open(self, clip_id: str) -> PreparedClip:
        place = self._find(clip_id)
        if place is None:
            raise UserError(f"{self.root} has no prepared clip {clip_id}: run {_PREPARE.format(self.root)} again")
        try:
            if self._shards and (span := self._shards.span(place)):
                return self._read_from_shard(*span)
            return read_clip(clip_path(self.root, self._keys[place].tobytes().hex()))
        except (OSError, ValueError) as error:
            raise UserError(f"{error}: delete it and run {_PREPARE.format(self.root)} again") from error

    def from_other_files(self, clip_ids: Iterable[str], digests: Iterable[str]) -> list[str]:
        """Those of the clips in the store that were prepared from other bytes than a manifest's sha256 says.

        Where the manifest knows no sha256 ("", it was built without verifying) there is nothing to compare with.
        """
        other = []
        for clip_id, digest in zip(clip_ids, digests, strict=True):
            place = self._find(clip_id)
            if digest and place is not None and self._keys[place].tobytes().hex() != self.rule.key(digest):
                other.append(clip_id)
        return other

    @property
    def shards(self) -> list[str]:
        """The names of the shards, in the order of their numbers."""
        return [path.name for path in self._shards.paths] if self._shards else []

    def shard_numbers(self, clip_ids: np.ndarray) -> np.ndarray:
        """`(N,)` number of the shard that each of these clips of the store lies in, -1 for a file of its own."""
        places = np.searchsorted(self._ids, clip_ids.astype(self._ids.dtype))
        return self._shards.spans[places, 0] if self._shards else np.full(len(clip_ids), -1)

    def _read_from_shard(self, path: Path, start: int, length: int) -> PreparedClip:
        while True:
            try:
                return read_clip(path, start, length)
            except FileNotFoundError:
                if self.wait is None:
                    raise
                self.wait(path)

    def _find(self, clip_id: str) -> int | None:
        wanted = clip_id.encode()
        place = int(np.searchsorted(self._ids, wanted))
        return place if place < len(self._ids) and self._ids[place] == wanted else None


_PREPARE = "`python -m manifests prepare MANIFEST --root DIR --out {}`"


class Shards:
    """Where packed clips lie: for each key of a store the shard it is in, its first byte there and its length."""

    def __init__(self, root: Path, keys: np.ndarray) -> None:
        spans: dict[bytes, tuple[int, int, int]] = {}
        numbers: dict[str, int] = {}
        for key, name, start, length in _rows(root / SHARD_TABLE, SHARD_COLUMNS):
            spans[bytes.fromhex(key)] = (numbers.setdefault(name, len(numbers)), int(start), int(length))
        self.paths = [root / name for name in numbers]
        unpacked = (-1, 0, 0)
        self.spans = np.array([spans.get(key.tobytes(), unpacked) for key in keys], np.int64)

    def span(self, place: int) -> tuple[Path, int, int] | None:
        """(shard, first byte, length) of the clip at this place among the keys; None if it is a file of its own."""
        number, start, length = self.spans[place].tolist()
        return (self.paths[number], start, length) if number >= 0 else None


def index_row(clip_id: str, actor: str, path: str, clip: PreparedClip) -> dict[str, str]:
    """The line of index.csv for a clip: whose it is, and what the clip's own header says."""
    return {"clip_id": clip_id, "actor": actor, "path": path, **{n: str(clip.meta[n]) for n in INDEX_COLUMNS[3:]}}


def read_index(root: Path) -> list[dict[str, str]]:
    return _read_table(Path(root) / "index.csv", INDEX_COLUMNS)


def read_rejected(root: Path) -> list[dict[str, str]]:
    return _read_table(Path(root) / "rejected.csv", REJECTED_COLUMNS)


def read_shards(root: Path) -> list[dict[str, str]]:
    return _read_table(Path(root) / SHARD_TABLE, SHARD_COLUMNS)


def write_shards(root: Path, rows: Iterable[dict[str, str]]) -> None:
    _write_table(Path(root) / SHARD_TABLE, SHARD_COLUMNS, rows)


def read_rule(root: Path) -> Rule:
    """The rule that every clip in this folder was made by. Raises UserError when it is not readable."""
    path = Path(root) / "rule.json"
    try:
        return Rule(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not readable ({error}): prepare into a new folder") from error


def claim_folder(root: Path, rule: Rule) -> None:
    """Make the folder, or check that what it holds was made by the same rule: one folder, one rule."""
    root = Path(root)
    with locked(root):
        if not (root / "rule.json").exists():
            write_json(root / "rule.json", rule.as_dict())
        elif (old := read_rule(root)) != rule:
            differs = ", ".join(f"{k} {v}" for k, v in asdict(old).items() if v != getattr(rule, k))
            raise UserError(f"{root} holds clips prepared with {differs}: give another --out, or remove that folder")


def update_tables(root: Path, prepared: Iterable[dict[str, str]], rejected: Iterable[dict[str, str]]) -> None:
    """Merge rows into index.csv and rejected.csv by clip_id, under a lock: two prepares at once lose nothing."""
    root = Path(root)
    with locked(root):
        index = {row["clip_id"]: row for row in read_index(root)}
        refused = {row["clip_id"]: row for row in read_rejected(root)}
        for row in prepared:
            index[row["clip_id"]] = row
            refused.pop(row["clip_id"], None)
        for row in rejected:
            refused[row["clip_id"]] = row
            index.pop(row["clip_id"], None)
        _write_table(root / "index.csv", INDEX_COLUMNS, (index[name] for name in sorted(index)))
        _write_table(root / "rejected.csv", REJECTED_COLUMNS, (refused[name] for name in sorted(refused)))


@contextmanager
def preparing_in(root: Path) -> Iterator[None]:
    """Mark the folder as being worked in. Who is alone in it first removes what killed runs left half-written."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".preparing").open("w") as handle:
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in (*root.glob(".tmp-*"), *root.glob("*/.tmp-*")):
                left.unlink(missing_ok=True)
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    return [dict(zip(columns, row, strict=True)) for row in _rows(path, columns)]


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[list[str]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        if tuple(next(reader, ())) != columns:
            raise UserError(f"{path} has other columns than this version writes: remove it and run prepare again")
        yield from reader


def _id_and_key(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """clip_id and key of every line of index.csv, as bytes."""
    at = INDEX_COLUMNS.index("key")
    pairs = [(row[0].encode(), bytes.fromhex(row[at])) for row in _rows(root / "index.csv", INDEX_COLUMNS)]
    return np.array([name for name, _ in pairs], np.bytes_), np.array([key for _, key in pairs], "V32")


def _write_table(path: Path, columns: tuple[str, ...], rows: Iterable[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
