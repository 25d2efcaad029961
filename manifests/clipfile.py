"""One prepared clip as a file: a square face crop as JPEG frames, read at random, whole or absent.

The file is `magic, length of header, header (JSON), JPEG, JPEG, ...`; the header holds the frames' source times and
byte offsets, so that any few frames cost one small read. Its name is a hash of everything that shaped its bytes.
"""

import json
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from manifests.files import replacing

MAGIC = b"FACECLIP"
SUFFIX = ".clip"
# 95 would take 40 % more bytes and a tenth more time to decode, and bring the mean error from 1.2 to 0.9 of 255; a
# trained network judges alike with both (tests/bench_loader.py).
JPEG_QUALITY = 90
# How to decode at a fraction of the size. OpenCV names the flags for BGR only, which the lowest bit stands for.
READ_AS = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2 ^ cv2.IMREAD_COLOR | cv2.IMREAD_COLOR_RGB,
    4: cv2.IMREAD_REDUCED_COLOR_4 ^ cv2.IMREAD_COLOR | cv2.IMREAD_COLOR_RGB,
    8: cv2.IMREAD_REDUCED_COLOR_8 ^ cv2.IMREAD_COLOR | cv2.IMREAD_COLOR_RGB,
}


def encode_frame(frame: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """(size, size, 3) uint8 RGB -> JPEG bytes.

    Colour at half resolution, as in the sources: full resolution adds a sixth to the bytes and half to the decoding
    time, and brings the mean error from 1.2 to 1.1 of 255.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def clip_path(root: Path, key: str) -> Path:
    return Path(root) / key[:2] / f"{key}{SUFFIX}"


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

    def frames(self, indices: Iterable[int], at_least: int | None = None) -> np.ndarray:
        """(n, size, size, 3) uint8 RGB, in the order asked for; an index may come twice and is decoded once.

        With `at_least` (pixels a side) frames come at the smallest of the whole, half, quarter and eighth size that is
        no smaller: quicker to decode, and free of the aliasing of shrinking them later.
        """
        wanted = [int(i) for i in indices]
        size = int(self.meta["rule"]["size"])
        parts = max((n for n in READ_AS if size % n == 0 and size // n >= (at_least or size)), default=1)
        out = np.empty((len(wanted), size // parts, size // parts, 3), np.uint8)
        slots: dict[int, int] = {}
        with self.path.open("rb", buffering=0) as stream:
            for slot, index in enumerate(wanted):
                if slots.setdefault(index, slot) != slot:
                    out[slot] = out[slots[index]]
                    continue
                start, end = self.offsets[index], self.offsets[index + 1]
                data = np.frombuffer(os.pread(stream.fileno(), end - start, start), np.uint8)
                frame = cv2.imdecode(data, READ_AS[parts])
                if frame is None:
                    raise ValueError(f"{self.path}: frame {index} is damaged")
                out[slot] = frame
        return out


def read_clip(path: Path, start: int = 0, length: int | None = None) -> PreparedClip:
    """Read a clip's header, from a file of its own or a span of a shard. Raises ValueError when it is not whole."""
    path = Path(path)
    with path.open("rb") as stream:
        stream.seek(start)
        header, header_bytes = _read_header(stream, path)
        size = os.fstat(stream.fileno()).st_size
    times = np.array(header.pop("times"), float)
    offsets = np.array(header.pop("offsets"), np.int64) + start + header_bytes
    end = size if length is None else start + length
    if offsets[-1] != end or end > size:
        raise ValueError(f"{path} is not whole: a clip should end at byte {offsets[-1]}, not {min(end, size)}")
    return PreparedClip(path, header, times, offsets)


def _read_header(stream: BinaryIO, path: Path) -> tuple[dict[str, Any], int]:
    start = stream.read(len(MAGIC) + 4)
    if len(start) < len(MAGIC) + 4 or not start.startswith(MAGIC):
        raise ValueError(f"{path} is not a prepared clip")
    (length,) = struct.unpack("<I", start[len(MAGIC) :])
    return json.loads(stream.read(length)), len(start) + length
