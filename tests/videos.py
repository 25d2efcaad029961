"""Small real videos for tests, and trees of files that only have the right names."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

RAVDESS_CODES = range(1, 9)


def encode(path: Path, frames: int = 12, seed: int = 0, width: int = 64, height: int = 48) -> Path:
    """Encode moving noise as the suffix says: FLV1 in .flv, H.264 (or MPEG-4 where there is no encoder) in others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    codec = "flv" if path.suffix == ".flv" else "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        blocks = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        picture = blocks.repeat(8, axis=0).repeat(8, axis=1)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 2 * number, axis=1), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def tell_apart(mp4: bytes, number: int) -> bytes:
    """The same MP4 with other bytes: a "free" box at its end, which no player reads, holds the number."""
    return mp4 + (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")


def ravdess_names(actors: Iterable[int], modalities: Iterable[int] = (1, 2), song: bool = True) -> list[str]:
    """All RAVDESS names of these actors, as the archives hold them (actor 18 has no song)."""
    return [
        f"Actor_{actor:02d}/{modality:02d}-{channel:02d}-{emotion:02d}-{intensity:02d}-{statement:02d}-{take:02d}-{actor:02d}.mp4"
        for actor in actors
        for modality in modalities
        for channel, emotions in ((1, range(1, 9)), *(((2, range(1, 7)),) if song and actor != 18 else ()))
        for emotion in emotions
        for intensity in ((1,) if emotion == 1 else (1, 2))
        for statement in (1, 2)
        for take in (1, 2)
    ]


def crema_names(actors: Iterable[int], sentences: Iterable[str] = ("DFA", "TIE"), suffix: str = ".flv") -> list[str]:
    """CREMA-D names of these actors: every emotion in each sentence."""
    return [
        f"VideoFlash/{actor}_{sentence}_{emotion}_XX{suffix}"
        for actor in actors
        for sentence in sentences
        for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
    ]


def plant(root: Path, names: Iterable[str], content: bytes = b"") -> Path:
    """Make files of these names, all with the same content."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root
