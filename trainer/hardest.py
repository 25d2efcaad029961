"""The videos that a run read wrong and was most sure of: which they are, and what they look like."""

import base64
from collections.abc import Sequence
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
RANKS = 3  # the likeliest classes, which a card shows beside the played one


def hardest(predictions: Sequence[Prediction], most: int = CARDS) -> list[Prediction]:
    """The misread videos of which the model was most sure, surest first; ties in order of their names."""
    wrong = [p for p in predictions if p.predicted != p.label]
    return sorted(wrong, key=lambda p: (-p.confidence, p.clip_id))[:most]


def card(prediction: Prediction, store: ClipStore | None) -> dict[str, Any]:
    """What the page shows of one video; `strip` is None if its prepared clip is not at hand."""
    at_hand = store is not None and prediction.clip_id in store
    return {
        "prediction": prediction,
        "strip": data_uri(filmstrip(store, prediction.clip_id)) if store is not None and at_hand else None,
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


def filmstrip(store: ClipStore, clip_id: str) -> np.ndarray:
    """(SIDE, MOMENTS * SIDE, 3) uint8 RGB: moments of a prepared clip, evenly over its time, side by side."""
    clip = store.open(clip_id)
    start, end = clip.times[0], clip.times[-1]
    moments = start + (end - start) * (np.arange(MOMENTS) + 0.5) / MOMENTS
    frames = clip.frames(np.searchsorted(clip.times, moments))
    return np.hstack([cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in frames])


def data_uri(picture: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB -> a JPEG that a page carries inside itself."""
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
