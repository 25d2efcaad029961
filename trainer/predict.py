"""Any video -> emotion probabilities over time: JSON, a plot and an annotated video.

The video is read three times, each time as a stream: to follow the face, to fill the clips of all windows, and to draw.
A window sees one static square, as in training; only the drawn box moves with the face.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from manifests.console import track
from manifests.errors import UserError
from manifests.faces import FaceTrack, Square, crop_square, follow_face, static_square
from manifests.files import replacing, sha256_of, write_json
from manifests.video import VideoError, read_frames, verify_video
from trainer.dataset import resize_to, to_tensor
from trainer.evaluate import load_model
from trainer.overlay import draw_frame, plot_timeline, write_video
from trainer.run import read_json
from trainer.sampling import duration_of, nearest_frames
from trainer.slowfast import to_input

BATCH = 8


@dataclass(frozen=True)
class Window:
    """One prediction's share of a video: its middle (s), the frames that it shows `(T,)`, and the face's place."""

    middle: float
    frames: NDArray[np.integer]
    square: Square


def predict(video: Path, model_path: Path, out: Path, stride: float, device: str) -> str:
    """Write `NAME.json`, `NAME.png` and `NAME.mp4` into `out`; return one line that tells the result.

    Does nothing if they are there already. Raises UserError if the video cannot be read or shows no face.
    """
    if not video.is_file():
        raise UserError(f"there is no video at {video}; check the path")
    model, metadata = load_model(model_path, device)
    asked = {"video_sha256": sha256_of(video), "weights_sha256": sha256_of(model_path), "stride": stride}
    known = read_json(out / f"{video.stem}.json")
    if known is not None and asked.items() <= known.items():
        return f"nothing to do: {out / video.stem}.json .png .mp4 are this model's view of {video.name}"
    if metadata["synthetic"]:
        print("this model learned from drawn faces: what it says of people means nothing", file=sys.stderr)
    labels = metadata["labels"]
    try:
        facts = verify_video(video)
        face = follow_face(track(read_frames(video), f"{video.name}: following the face", facts.frames, "frames"))
        windows, faceless = plan_windows(face, metadata["data"], metadata["clips"]["margin"], stride)
        if not windows:
            raise UserError(f"no face found in {video}; give a video in which one can be seen")
        probabilities = classify(video, facts.frames, windows, model, metadata, device)
    except VideoError as error:
        raise UserError(f"{video} cannot be used: {error}") from None
    overall = probabilities.mean(axis=0)
    middles = np.array([window.middle for window in windows])
    with replacing(out / f"{video.stem}.png") as temporary:
        plot_timeline(temporary, middles, probabilities, labels)
    with replacing(out / f"{video.stem}.mp4") as temporary:
        write_video(temporary, annotated(video, facts.frames, face, middles, probabilities, labels), facts.fps)
    # last: it says that the other two are whole
    write_json(
        out / f"{video.stem}.json",
        {
            "video": video.name,
            **asked,
            "learned_from_drawn_faces": metadata["synthetic"],
            "labels": labels,
            "overall": as_shares(labels, overall),
            "windows_without_face": faceless,
            "windows": [
                {
                    "seconds": round(window.middle, 3),
                    "box": [round(float(value), 1) for value in (window.square.x, window.square.y, window.square.side)],
                    "probabilities": as_shares(labels, shares),
                }
                for window, shares in zip(windows, probabilities, strict=True)
            ],
        },
    )
    top = int(overall.argmax())
    gap = f", {faceless} windows without a face left out" if faceless else ""
    return (
        f"{video.name}: {labels[top]} {overall[top]:.0%} on average over {len(windows)} windows{gap} -> "
        f"{out / video.stem}.json .png .mp4"
    )


def as_shares(labels: list[str], probabilities: NDArray[np.floating]) -> dict[str, float]:
    return {label: round(float(share), 4) for label, share in zip(labels, probabilities, strict=True)}


def plan_windows(face: FaceTrack, data: dict[str, Any], margin: float, stride: float) -> tuple[list[Window], int]:
    """(windows with a face, number of windows without one): one every `stride` seconds, each `span` seconds long.

    A video shorter than the span is one window.
    """
    length, span = duration_of(face.times), data["span"]
    window = min(span, length)
    count = 1 + math.floor(max(length - window, 0) / stride + 1e-6)
    windows = []
    for start in face.times[0] + np.arange(count) * stride:
        inside = (face.times >= start) & (face.times < start + window)
        if not face.detected[inside].any():
            continue
        wanted = start + (np.arange(data["frames"]) + 0.5) * window / data["frames"]
        square = static_square(face.boxes[inside], margin)
        windows.append(Window(float(start + window / 2), nearest_frames(face.times, wanted), square))
    return windows, count - len(windows)


@torch.inference_mode()
def classify(
    video: Path, frames: int, windows: list[Window], model: nn.Module, metadata: dict[str, Any], device: str
) -> NDArray[np.floating]:
    """Probabilities `(windows, classes)`, each the mean over the clip and its mirror image."""
    resize = resize_to(metadata["data"]["size"])
    shares = []
    for clips in batches(fill_windows(video, frames, windows, metadata["clips"]["size"])):
        inputs = to_input(torch.stack([resize(to_tensor(clip)) for clip in clips]).to(device))
        both = torch.stack([model(inputs), model(inputs.flip(-1))])
        shares.append(both.double().softmax(-1).mean(0).cpu().numpy())
    return np.concatenate(shares)


def fill_windows(video: Path, frames: int, windows: list[Window], size: int) -> Iterator[NDArray[np.uint8]]:
    """The clips `(T, size, size, 3)` of the windows, in order, holding only the windows that are under way."""
    waiting = list(windows)
    open_clips: list[tuple[Window, NDArray[np.uint8]]] = []
    for number, (_, frame) in enumerate(track(read_frames(video), f"{video.name}: classifying", frames, "frames")):
        while waiting and waiting[0].frames[0] <= number:
            window = waiting.pop(0)
            open_clips.append((window, np.zeros((len(window.frames), size, size, 3), np.uint8)))
        for window, clip in open_clips:
            places = window.frames == number
            if places.any():
                clip[places] = crop_square(frame, window.square, size)
        while open_clips and open_clips[0][0].frames[-1] <= number:
            yield open_clips.pop(0)[1]


def batches(clips: Iterator[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    batch = []
    for clip in clips:
        batch.append(clip)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def annotated(
    video: Path,
    frames: int,
    face: FaceTrack,
    middles: NDArray[np.floating],
    probabilities: NDArray[np.floating],
    labels: list[str],
) -> Iterator[NDArray[np.uint8]]:
    """The frames with the box and the probabilities of the moment, interpolated between windows."""
    seen = face_near(face)
    drawing = track(read_frames(video), f"{video.name}: drawing", frames, "frames")
    for number, (seconds, frame) in enumerate(drawing):
        if not seen[number]:
            yield draw_frame(frame, None, {})
            continue
        shares = {label: float(np.interp(seconds, middles, probabilities[:, k])) for k, label in enumerate(labels)}
        yield draw_frame(frame, face.boxes[number], shares)


def face_near(face: FaceTrack, seconds: float = 0.7) -> NDArray[np.bool_]:
    """`(N,)`: whether the detector saw the face within `seconds` of each frame; elsewhere its box is a guess."""
    seen = face.times[face.detected]
    if len(seen) == 0:
        return np.zeros(len(face.times), bool)
    nearest = seen[np.clip(nearest_frames(seen, face.times), 0, len(seen) - 1)] if len(seen) > 1 else seen
    return np.abs(nearest - face.times) <= seconds
