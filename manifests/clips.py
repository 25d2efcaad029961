"""The store of prepared clips: one square face crop per take as JPEG frames, read at random, whole or absent.

A clip file is `magic, length of header, header (JSON), JPEG, JPEG, ...`; the header holds the frames' source times
and byte offsets, so that any few frames cost one small read. Its name is a hash of everything that shaped its bytes.
`index.csv` says which file is which clip; it can always be made again from the files.
"""

import csv
import fcntl
import hashlib
import io
import json
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from manifests.errors import UserError
from manifests.files import replacing, write_json, write_text

FORMAT_VERSION = 1
MAGIC = b"FACECLIP"
SUFFIX = ".clip"
JPEG_QUALITY = 95
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

    def key(self, source_sha256: str) -> str:
        """Hex sha256 that names the clip made from these source bytes by this rule."""
        text = json.dumps({"source": source_sha256, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def encode_frame(frame: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """(size, size, 3) uint8 RGB -> JPEG bytes.

    Colour at half resolution, as in the sources: full resolution adds a fifth to the bytes and half to the decoding
    time, and brings the mean error from 1.0 to 0.9 of 255.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def clip_path(root: Path, key: str) -> Path:
    return Path(root) / key[:2] / f"{key}{SUFFIX}"


def glimpse_path(root: Path, clip_id: str) -> Path:
    """Where a rejected clip's picture is, if any of it decodes."""
    return Path(root) / "rejected" / f"{clip_id}.jpg"


def write_clip(root: Path, key: str, jpegs: Sequence[bytes], times: Sequence[float], meta: dict[str, Any]) -> Path:
    """Store one clip under its key: temporary name, flush, rename. `meta` is kept as it is, it must be JSON."""
    offsets = np.cumsum([0, *map(len, jpegs)]).tolist()
    header = json.dumps({**meta, "key": key, "times": [round(t, 6) for t in times], "offsets": offsets}).encode()
    path = clip_path(root, key)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(MAGIC + struct.pack("<I", len(header)) + header)
        stream.writelines(jpegs)
    return path


@dataclass(frozen=True)
class PreparedClip:
    """One clip of the store, its header read and its frames still on disk."""

    path: Path
    meta: dict[str, Any]
    times: np.ndarray  # (N,) seconds since the source's first frame
    offsets: np.ndarray  # (N + 1,) bytes from the start of the file

    def __len__(self) -> int:
        return len(self.times)

    def frames(self, indices: Iterable[int]) -> np.ndarray:
        """(n, size, size, 3) uint8 RGB, in the order asked for; an index may come twice."""
        wanted = [int(i) for i in indices]
        size = int(self.meta["rule"]["size"])
        out = np.empty((len(wanted), size, size, 3), np.uint8)
        with self.path.open("rb", buffering=0) as stream:
            for slot, index in enumerate(wanted):
                if slot and index == wanted[slot - 1]:
                    out[slot] = out[slot - 1]
                    continue
                start, end = self.offsets[index], self.offsets[index + 1]
                data = np.frombuffer(os.pread(stream.fileno(), end - start, start), np.uint8)
                frame = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
                if frame is None:
                    raise ValueError(f"{self.path}: frame {index} is damaged")
                out[slot] = frame
        return out


def read_clip(path: Path) -> PreparedClip:
    """Read a clip file's header. Raises ValueError when the file is not a whole clip."""
    path = Path(path)
    with path.open("rb") as stream:
        header, start = _read_header(stream, path)
        length = os.fstat(stream.fileno()).st_size
    times = np.array(header.pop("times"), float)
    offsets = np.array(header.pop("offsets"), np.int64) + start
    if offsets[-1] != length:
        raise ValueError(f"{path} is not whole: {length} bytes instead of {offsets[-1]}")
    return PreparedClip(path, header, times, offsets)


def _read_header(stream: BinaryIO, path: Path) -> tuple[dict[str, Any], int]:
    start = stream.read(len(MAGIC) + 4)
    if len(start) < len(MAGIC) + 4 or not start.startswith(MAGIC):
        raise ValueError(f"{path} is not a prepared clip")
    (length,) = struct.unpack("<I", start[len(MAGIC) :])
    return json.loads(stream.read(length)), len(start) + length


class ClipStore:
    """A folder of prepared clips, found by clip_id through index.csv. Small, picklable, cheap to fork: no file is held.

    Raises UserError when the folder holds no prepared clips, and when a clip is asked for that is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        if not (self.root / "index.csv").is_file():
            raise UserError(f"{root} holds no prepared clips: make them with {_PREPARE.format(root)}")
        self.rule = read_rule(self.root)
        rows = read_index(self.root)
        if not rows:
            raise UserError(f"{root} holds no prepared clip, all were rejected: see {self.root / 'rejected.csv'}")
        # Two sorted byte arrays: a million clips take 100 MB once, shared by all workers, where dicts would be copied.
        ids = np.array([row["clip_id"].encode() for row in rows], dtype=np.bytes_)
        order = np.argsort(ids)
        self._ids = ids[order]
        self._keys = np.array([bytes.fromhex(row["key"]) for row in rows], dtype="V32")[order]

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, clip_id: object) -> bool:
        return isinstance(clip_id, str) and self._find(clip_id) is not None

    def open(self, clip_id: str) -> PreparedClip:
        place = self._find(clip_id)
        if place is None:
            raise UserError(f"{self.root} has no prepared clip {clip_id}: run {_PREPARE.format(self.root)} again")
        path = clip_path(self.root, self._keys[place].tobytes().hex())
        try:
            return read_clip(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{error}: delete it and run {_PREPARE.format(self.root)} again") from error

    def _find(self, clip_id: str) -> int | None:
        wanted = clip_id.encode()
        place = int(np.searchsorted(self._ids, wanted))
        return place if place < len(self._ids) and self._ids[place] == wanted else None


_PREPARE = "`python -m manifests prepare MANIFEST --root DIR --out {}`"


def index_row(clip_id: str, actor: str, path: str, clip: PreparedClip) -> dict[str, str]:
    """The line of index.csv for a clip: whose it is, and what the clip's own header says."""
    return {"clip_id": clip_id, "actor": actor, "path": path, **{n: str(clip.meta[n]) for n in INDEX_COLUMNS[3:]}}


def read_index(root: Path) -> list[dict[str, str]]:
    return _read_table(Path(root) / "index.csv", INDEX_COLUMNS)


def read_rejected(root: Path) -> list[dict[str, str]]:
    return _read_table(Path(root) / "rejected.csv", REJECTED_COLUMNS)


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
            write_json(root / "rule.json", asdict(rule))
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
        _write_table(root / "index.csv", INDEX_COLUMNS, index)
        _write_table(root / "rejected.csv", REJECTED_COLUMNS, refused)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != columns:
            raise UserError(f"{path} has other columns than this version writes: remove it and run prepare again")
        return list(reader)


def _write_table(path: Path, columns: tuple[str, ...], rows: dict[str, dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[name] for name in sorted(rows))
    write_text(path, text.getvalue())
