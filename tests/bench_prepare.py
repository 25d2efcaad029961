"""What preparing costs, on real footage, in processor seconds of one core: `python tests/bench_prepare.py`.

One table: decoding alone, preparing, and their ratio; face finding against a detection on every frame and how well the
boxes agree; bytes stored; and how many clips of 32 frames a core reads back.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import cv2
import films
import numpy as np
from rich.console import Console
from rich.table import Table

from manifests.clipfile import clip_path, read_clip
from manifests.faces import FaceDetector
from manifests.files import sha256_of
from manifests.following import FaceTrack, follow_face
from manifests.prepare import Take, crop_rule, prepare_take
from manifests.video import read_frames

T = TypeVar("T")
REPEATS = 3


@dataclass(frozen=True)
class Figures:
    name: str
    seconds: float
    frames: int
    decode: float  # processor seconds, as are the next
    prepare: float
    follow: float
    every: float
    agreement: float  # median IoU of the boxes with those of a detection on every frame
    stored: int  # bytes
    clips_per_second: float


def cost(work: Callable[[], T], repeats: int = REPEATS) -> tuple[float, T]:
    """Least processor time of a few runs, which other processes disturb less than the clock on the wall."""
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        result = work()
        best = min(best, time.process_time() - started)
    return best, result


def count(path: Path) -> int:
    return sum(1 for _ in read_frames(path))


def measure(path: Path, out: Path) -> Figures:
    rule = crop_rule(256, 0.3, "reject")
    take = Take(path.stem, "actor", path.name, "")
    digest = sha256_of(path)
    clip_file = clip_path(out, rule.key(digest))

    def prepare() -> None:
        clip_file.unlink(missing_ok=True)
        prepare_take(replace(take, sha256=digest), path.parent, out, rule)

    prepare()  # once before, so that the detector is loaded
    decode, _ = cost(lambda: count(path))
    spent, _ = cost(prepare)
    clip = read_clip(clip_file)
    frames = list(read_frames(path))[:600]
    detector = FaceDetector()
    follow, track = cost(lambda: follow_face(frames, detector), 2)
    every, truth = cost(lambda: [detector.detect(frame) for _, frame in frames], 1)
    rng = np.random.default_rng(0)

    def read() -> None:
        for _ in range(20):
            for frame in clip.frames(np.sort(rng.integers(0, len(clip), 32))):
                cv2.resize(frame, (224, 224), interpolation=cv2.INTER_LINEAR)

    reading, _ = cost(read)
    return Figures(
        path.name,
        float(clip.meta["seconds"]),
        len(clip),
        decode,
        spent,
        follow,
        every,
        agreement(track, truth),
        clip_file.stat().st_size,
        20 / reading,
    )


def agreement(track: FaceTrack, truth: list[np.ndarray]) -> float:
    """Median IoU, over the frames with a face, of a track's box with the detection that it fits best."""
    best = []
    for box, faces in zip(track.boxes, truth, strict=True):
        if not len(faces):
            continue
        low = np.maximum(box[:2], faces[:, :2])
        high = np.minimum(box[:2] + box[2:], faces[:, :2] + faces[:, 2:4])
        common = np.clip(high - low, 0, None).prod(axis=1)
        best.append((common / (box[2:].prod() + faces[:, 2:4].prod(axis=1) - common)).max())
    return float(np.median(best))


def main() -> int:
    if not films.MEDIA.is_dir():
        print("the films to measure on are not here: set SLOWFAST_TEST_DATA", file=sys.stderr)
        return 2
    cv2.setNumThreads(1)
    table = Table(title="preparing, in processor seconds of one core")
    for heading in (
        "film",
        "video",
        "decode",
        "prepare",
        "ratio",
        "video s/s",
        "of every-frame",
        "IoU",
        "KB",
        "clips/s",
    ):
        table.add_column(heading, justify="left" if heading == "film" else "right")
    with tempfile.TemporaryDirectory() as out:
        for name in ("r_woman_a.mp4", "r_single.mp4", "WolfgangLanger_Pexels.mp4", "single_face.mp4", "c_woman.flv"):
            f = measure(films.MEDIA / name, Path(out))
            table.add_row(
                f.name,
                f"{f.seconds:.1f} s",
                f"{f.decode:.3f}",
                f"{f.prepare:.3f}",
                f"{f.prepare / f.decode:.2f}",
                f"{f.seconds / f.prepare:.1f}",
                f"1/{f.every / f.follow:.1f}",
                f"{f.agreement:.3f}",
                f"{f.stored / 1000:.0f}",
                f"{f.clips_per_second:.0f}",
            )
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
