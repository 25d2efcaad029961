"""Small real videos for the tests: a drawn face that moves over a background, encoded by the real encoders."""

import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd

from manifests.table import as_table, write_manifest

SHARED = Path(os.environ.get("SLOWFAST_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
MEDIA, BROKEN = SHARED / "media", SHARED / "broken"
WIDTH, HEIGHT = 480, 360
Colour = tuple[int, int, int]
Image = np.ndarray


SKIN, HAIR, LIPS, WHITE = (224, 182, 155), (60, 40, 30), (180, 90, 90), (250, 250, 250)


@cache
def portrait(
    unit: float = 60.0, centre: tuple[int, int] = (WIDTH // 2, HEIGHT // 2), skin: Colour = SKIN
) -> np.ndarray:
    """(360, 480, 3) uint8 RGB: a drawn face that the detector takes for one, its box about 2.2 units high."""
    picture = np.full((HEIGHT, WIDTH, 3), (90, 110, 120), np.uint8)
    dark = (int(0.75 * skin[0]), int(0.75 * skin[1]), int(0.75 * skin[2]))

    def ellipse(x: float, y: float, wide: float, high: float, colour: Colour, arc: tuple[int, int] = (0, 360)) -> None:
        middle = (round(centre[0] + x * unit), round(centre[1] + y * unit))
        thickness = -1 if arc == (0, 360) else max(1, round(unit / 20))
        cv2.ellipse(picture, middle, (round(wide * unit), round(high * unit)), 0, *arc, colour, thickness, cv2.LINE_AA)

    ellipse(0, -0.25, 1.0, 1.15, HAIR)
    ellipse(0, 1.2, 0.38, 0.5, dark)
    ellipse(0, 0, 0.85, 1.15, skin)
    ellipse(0, -0.95, 0.75, 0.38, HAIR)
    for side in (-0.36, 0.36):
        ellipse(side, -0.2, 0.17, 0.08, WHITE)
        ellipse(side, -0.2, 0.075, 0.08, HAIR)
        ellipse(side, -0.25, 0.2, 0.09, HAIR, (190, 350))
        ellipse(side, -0.36, 0.23, 0.1, HAIR, (200, 340))
        ellipse(side / 4, 0.24, 0.05, 0.03, dark)
    ellipse(0, 0.18, 0.13, 0.1, dark, (20, 160))
    ellipse(0, 0.52, 0.3, 0.1, LIPS)
    ellipse(0, 0.52, 0.3, 0.03, HAIR)
    return cv2.GaussianBlur(picture, (0, 0), 1.0)


def moved(picture: np.ndarray, right: int, down: int) -> np.ndarray:
    """The picture shifted; what comes in is its edge, repeated."""
    height, width = picture.shape[:2]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return picture[rows][:, columns]


def face_frames(count: int, sway: int = 20, skin: Colour = SKIN) -> list[np.ndarray]:
    """A face that sways to and fro by `sway` pixels, one turn in 60 frames."""
    return [moved(portrait(skin=skin), round(sway * np.sin(2 * np.pi * n / 60)), 0) for n in range(count)]


def empty_frames(count: int) -> list[np.ndarray]:
    """A soft gradient that drifts: a picture that changes and shows nobody."""
    ramp = np.linspace(40, 200, WIDTH, dtype=np.float32)[None, :, None] * np.ones((HEIGHT, 1, 3), np.float32)
    return [np.roll(ramp, 3 * n, axis=1).astype(np.uint8) for n in range(count)]


def write_film(
    path: Path,
    frames: Iterable[np.ndarray],
    rate: Fraction | int = 30,
    codec: str = "mpeg4",
    times: Sequence[float] | None = None,
    sound_seconds: float = 0.0,
) -> Path:
    """Encode (H, W, 3) uint8 RGB frames; `times` (seconds) instead of a constant rate makes it variable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = list(frames)
    base = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, bit_rate=1_500_000)
        sound = container.add_stream("aac", rate=16_000, layout="mono") if sound_seconds else None
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = frames[0].shape[:2]
        stream.codec_context.time_base = base if times is not None else 1 / Fraction(rate)
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = number if times is None else round(times[number] / base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            for start in range(0, int(sound_seconds * 16_000), 1024):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                samples.sample_rate, samples.pts, samples.time_base = 16_000, start, Fraction(1, 16_000)
                container.mux(sound.encode(samples))
            container.mux(sound.encode())
    return path


def write_small_manifest(path: Path, files: dict[str, str], digests: dict[str, str] | None = None) -> Path:
    """A manifest of clip_id -> path; the actor is the clip_id's first two parts, all in the train split."""
    rows = [
        {
            "clip_id": clip_id,
            "path": name,
            "dataset": "crema",
            "emotion": "happy",
            "split": "train",
            "actor": "_".join(clip_id.split("_")[:2]),
            "sha256": (digests or {}).get(clip_id, ""),
        }
        for clip_id, name in files.items()
    ]
    write_manifest(path, as_table(pd.DataFrame(rows)), {"labels": ["happy"], "leaky": False, "synthetic": True})
    return path
