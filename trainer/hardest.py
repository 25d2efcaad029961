"""The videos that a run read wrong and was most sure of: which they are, and how they look, move and are answered."""

import base64
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests.clipfile import PreparedClip
from manifests.clips import ClipStore
from trainer import charts, wording
from trainer.film import Picture, write_video
from trainer.record import Prediction
from trainer.sampling import duration_of

CARDS = 12
MOMENTS = 12  # at which a video is asked for what speaks for an answer, and for the answer
SIDE = 160  # pixels
FPS = 15  # of a film: half of most cameras' rate, and half the size
# Twelve films have to fit into a page of 5 MB, however restless the picture: 200 kB each at most, 60 kB as a rule.
FILM_BITS = 1_600_000
JPEG_QUALITY = 82
DIM = 0.28  # how much of the picture is left where the model found nothing
GLOW = np.array([1.0, 0.82, 0.35])  # warm: dark hair and shade light up as well
RANKS = 3  # the likeliest classes, which a card shows beside the played one


Seen = Mapping[str, Any]  # an entry of attention.json


def hardest(predictions: Sequence[Prediction], most: int = CARDS) -> list[Prediction]:
    """The misread videos of which the model was most sure, surest first; ties in order of their names."""
    wrong = [p for p in predictions if p.predicted != p.label]
    return sorted(wrong, key=lambda p: (-p.confidence, p.clip_id))[:most]


def card(prediction: Prediction, store: ClipStore | None, seen: Seen | None) -> dict[str, Any]:
    """What the page shows of one video; `film` is None if its prepared clip is not at hand.

    `seen` is the video's entry in attention.json; without it there is neither light nor an answer over time.
    """
    video = store.open(prediction.clip_id) if store is not None and prediction.clip_id in store else None
    labels = list(prediction.probabilities)
    length = float(seen["seconds"][-1]) if seen else 0.0
    # The video ends in the answer that counts, which is the mean over all views of the whole.
    shares = [*seen["probabilities"][:-1], list(prediction.probabilities.values())] if seen else []
    notes = {prediction.label: "played", prediction.predicted: "read"}
    rows = []
    for label, share in told_classes(prediction):
        drawing = charts.bar(share)
        if seen:
            *before, last = zip(seen["seconds"], (each[labels.index(label)] for each in shares), strict=True)
            # A mark by itself: a video that is cut short is another video, and no line leads from one to the other.
            drawing = charts.profile([*before, (length, math.nan), last], length)
        rows.append({"label": label, "note": notes.get(label, ""), "text": wording.percent(share), "drawing": drawing})
    return {
        "prediction": prediction,
        "film": film_uri(video, seen) if video else None,
        "still": still_uri(video, seen) if video else None,
        "lit": seen is not None,
        "length": length,
        "rows": rows,
        "told": {"labels": labels, "seconds": seen["seconds"], "shares": shares, "reach": length} if seen else None,
    }


def told_classes(prediction: Prediction) -> list[tuple[str, float]]:
    """The likeliest three classes, and the played one wherever it ranks; likeliest first."""
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
    return [item for rank, item in enumerate(ranked) if rank < RANKS or item[0] == prediction.label]


def moments_of(times: np.ndarray) -> np.ndarray:
    """The seconds that stand for a video: `(MOMENTS,)`, evenly over its frames' `(N,)` times, the last is its end."""
    return times[0] + duration_of(times) * (np.arange(MOMENTS) + 1) / MOMENTS


def film_uri(video: PreparedClip, seen: Seen | None) -> str:
    """The video as an MP4 that a page carries inside itself; beside it, if `seen`, itself again in the light."""
    length = max(duration_of(video.times), 0.1)
    step = max(1, round(len(video) / length / FPS))
    most = str(round(FILM_BITS / max(length, 1)))
    # One thread: the same video gives the same bytes on every machine.
    options = {"crf": "26", "maxrate": most, "bufsize": most, "threads": "1"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_video(path, pictures(video, seen, range(0, len(video), step)), len(video) / step / length, **options)
        return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def still_uri(video: PreparedClip, seen: Seen | None) -> str:
    """The picture of the film at its brightest moment, where the evidence was strongest; else at its middle."""
    number = len(video) // 2
    if seen:
        brightest = int(np.array(seen["maps"]).max(axis=(1, 2)).argmax())
        number = min(int(np.searchsorted(video.times - video.times[0], seen["seconds"][brightest])), len(video) - 1)
    return data_uri(next(pictures(video, seen, [number]))[1])


def pictures(
    video: PreparedClip, seen: Seen | None, numbers: Sequence[int]
) -> Iterator[tuple[float, Picture]]:  # fmt: skip
    """Seconds from the start and (SIDE, SIDE, 3) uint8 RGB of these frames; if `seen`, the lit one at its right."""
    for number, frame in zip(numbers, video.frames(numbers), strict=True):
        second = float(video.times[number] - video.times[0])
        face = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        yield second, np.hstack([face, light(face, map_at(second, seen))]) if seen else face


def map_at(second: float, seen: Seen) -> np.ndarray:
    """The map `(h, w)` of a moment in 0..1, between those of the moments before and after it."""
    maps = np.array(seen["maps"], np.float32) / 100
    place = np.interp(second, seen["seconds"], np.arange(len(maps)))
    before = int(place)
    after = min(before + 1, len(maps) - 1)
    return np.asarray(maps[before] + (place - before) * (maps[after] - maps[before]))


def light(face: Picture, heat: np.ndarray) -> Picture:
    """A face with a light on what counted: `heat` `(h, w)` in 0..1, dark where there is none.

    Brightness tells it, not hue, so that it is read alike by everyone and on grey paper.
    """
    shine = cv2.resize(heat.astype(np.float32), face.shape[1::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)[..., None]
    lit = face * (DIM + (1 - DIM) * shine) + GLOW * (shine * (1 - face / 255.0)) * 255 * 0.5
    return np.rint(lit).clip(0, 255).astype(np.uint8)


def data_uri(picture: Picture) -> str:
    """(H, W, 3) uint8 RGB -> a JPEG that a page carries inside itself."""
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
