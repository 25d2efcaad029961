"""The videos that a run read wrong and was most sure of: which they are, and what they look like."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from manifests.clips import ClipStore
from trainer import charts, wording
from trainer.record import Prediction

CARDS = 12
MOMENTS = 5
SIDE = 120  # pixels; twelve strips of five come to about 300 kB
JPEG_QUALITY = 82
DIM = 0.28  # how much of the picture is left where the model found nothing
GLOW = np.array([1.0, 0.82, 0.35])  # warm: dark hair and shade light up as well
RANKS = 3  # the likeliest classes, which a card shows beside the played one


def hardest(predictions: Sequence[Prediction], most: int = CARDS) -> list[Prediction]:
    """The misread videos of which the model was most sure, surest first; ties in order of their names."""
    wrong = [p for p in predictions if p.predicted != p.label]
    return sorted(wrong, key=lambda p: (-p.confidence, p.clip_id))[:most]


def card(prediction: Prediction, store: ClipStore | None, seen: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the page shows of one video; `strip` is None if its prepared clip is not at hand.

    `seen` is the video's entry in attention.json; without it there is no `heat`, the strip of where the model looked.
    """
    strip = filmstrip(store, prediction.clip_id) if store is not None and prediction.clip_id in store else None
    return {
        "prediction": prediction,
        "strip": None if strip is None else data_uri(strip),
        "heat": None if strip is None or seen is None else data_uri(heatstrip(strip, seen["maps"])),
        "bars": [
            {
                "label": label,
                "played": label == prediction.label,
                "text": wording.percent(share),
                "drawing": charts.bar(share),
            }
            for label, share in told_classes(prediction)
        ],
    }


def told_classes(prediction: Prediction) -> list[tuple[str, float]]:
    """The likeliest three classes, and the played one wherever it ranks; likeliest first."""
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
    return [item for rank, item in enumerate(ranked) if rank < RANKS or item[0] == prediction.label]


def moments_of(times: np.ndarray) -> np.ndarray:
    """The seconds that stand for a video: `(MOMENTS,)`, evenly over the `(N,)` times of its frames."""
    start, end = times[0], times[-1]
    return start + (end - start) * (np.arange(MOMENTS) + 0.5) / MOMENTS


def filmstrip(store: ClipStore, clip_id: str) -> np.ndarray:
    """(SIDE, MOMENTS * SIDE, 3) uint8 RGB: moments of a prepared clip, evenly over its time, side by side."""
    clip = store.open(clip_id)
    frames = clip.frames(np.searchsorted(clip.times, moments_of(clip.times)))
    return np.hstack([cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in frames])


def heatstrip(strip: np.ndarray, maps: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
    """The film strip with a light on what counted: `maps` `(MOMENTS, h, w)` in per cent, dark where there is none.

    Brightness tells it, not hue, so that it is read alike by everyone and on grey paper.
    """
    heat = np.hstack([
        cv2.resize(np.array(cells, np.float32) / 100, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        for cells in maps
    ])[..., None]  # fmt: skip
    light = DIM + (1 - DIM) * heat
    return np.rint(strip * light + GLOW * (heat * (1 - strip / 255.0)) * 255 * 0.5).clip(0, 255).astype(np.uint8)


def data_uri(picture: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB -> a JPEG that a page carries inside itself."""
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
