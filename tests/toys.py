"""A toy corpus that trains in seconds: a bright square that grows or shrinks, two classes with the very same frames.

Only the order of the frames tells them apart, so a model without time cannot rise above chance.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from manifests.clipfile import encode_frame, read_clip, write_clip
from manifests.clips import Rule, claim_folder, index_row, update_tables
from manifests.table import as_table, write_manifest

LABELS = ("grows", "shrinks")
SIZE = 40
TINY = [
    "model.width=8", "model.beta_inv=4", "data.frames=8", "data.size=32", "data.batch=4", "data.workers=0",
    "data.span=1.0",
    "model.dropout=0.1", "optim.ema=0.9", "optim.lr=5e-3", "optim.backbone_lr=5e-3", "evaluation.clips=1",
    "augment.rotate=0", "augment.translate=0.02", "augment.erase=0", "augment.grayscale=0",
]  # fmt: skip


def make_corpus(folder: Path, actors: int = 8, takes: int = 4) -> tuple[Path, Path]:
    """(manifest, clips): half of the actors train, a quarter each validates and tests."""
    rows = [
        {
            "clip_id": f"toy_{actor:02}_{label}_{take}", "path": f"{actor:02}/{label}_{take}.mp4", "dataset": "ravdess",
            "emotion": label, "split": ("train", "train", "val", "test")[actor % 4], "actor": f"toy_{actor:02}",
            "sex": ("female", "male")[actor // 4 % 2], "intensity": "normal",
        }
        for actor in range(actors) for label in LABELS for take in range(takes)
    ]  # fmt: skip
    table = as_table(pd.DataFrame(rows))
    manifest = folder / "manifest.csv"
    write_manifest(manifest, table, {"labels": list(LABELS), "leaky": False, "synthetic": True})
    write_clips(folder / "clips", rows)
    return manifest, folder / "clips"


def write_clips(root: Path, rows: list[dict[str, str]], rule: Rule = Rule(size=SIZE)) -> None:  # noqa: B008
    claim_folder(root, rule)
    prepared = []
    for number, row in enumerate(rows):
        key = rule.key(f"{number:064x}")
        meta = {
            "clip_id": row["clip_id"], "source_sha256": f"{number:064x}",
            "frames": 12, "seconds": 1.0, "box_x": 0, "box_y": 0, "box_side": SIZE, "face_size": SIZE, "score": 0.9,
            "miss_rate": 0.0, "rule": asdict(rule),
        }  # fmt: skip
        path = write_clip(root, key, [encode_frame(f) for f in film(row["emotion"], number)], np.arange(12) / 12, meta)
        prepared.append(index_row(row["clip_id"], row["actor"], row["path"], read_clip(path)))
    update_tables(root, prepared, [])


def film(label: str, number: int) -> np.ndarray:
    """`(12, SIZE, SIZE, 3)` uint8: a square of an own colour at an own place, growing or shrinking."""
    rng = np.random.default_rng(number)
    frames = np.full((12, SIZE, SIZE, 3), rng.integers(20, 80, 3), np.uint8)
    x, y = rng.integers(14, 26, 2)
    colour = rng.integers(150, 255, 3)
    for index, half in enumerate(np.linspace(2, 13, 12).astype(int)):
        frames[index, y - half : y + half, x - half : x + half] = colour
    return frames if label == "grows" else frames[::-1]


def fit_words(corpus: tuple[Path, Path], run: Path, *settings: str) -> list[str]:
    """The words behind `python -m trainer` that train a tiny SlowFast on a toy corpus."""
    manifest, clips = corpus
    return [
        "fit", "--config", "demo.yaml", "--manifest", str(manifest), "--clips", str(clips), "--run", str(run),
        *TINY, *settings,
    ]  # fmt: skip


def start_training(
    corpus: tuple[Path, Path], run: Path, *settings: str, launcher: tuple[str, ...] = ("-m",)
) -> subprocess.Popen[str]:
    """A training process of its own; `launcher` is what stands between python and the module's name."""
    return subprocess.Popen(
        [sys.executable, *launcher, "trainer", *fit_words(corpus, run, *settings)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.02)
