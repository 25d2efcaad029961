"""Any video -> emotion probabilities over time: JSON, a plot, an annotated video and a page that plays it.

The video is read four times, each time as a stream: to see that it is whole, to follow the face, to fill the clips of
all windows, and to draw. A window sees one static square, as in training; only the drawn box moves with the face.
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

from manifests.clips import Rule
from manifests.console import track
from manifests.errors import UserError
from manifests.faces import FaceDetector, Square, crop_square, static_square
from manifests.files import replacing, sha256_of, write_json
from manifests.following import FaceTrack, follow_face
from manifests.roll import track_roll
from manifests.video import VideoError, read_frames, verify_video
from trainer.dataset import resize_to, to_tensor
from trainer.film import Picture, write_video
from trainer.formats import Network, load_network
from trainer.overlay import draw_frame, plot_timeline, strip_height
from trainer.playback import covered, write_playback
from trainer.run import read_json
from trainer.sampling import duration_of, spread_frames
from trainer.temperature import tempered

BATCH = 8


@dataclass(frozen=True)
class Model:
    """A trained network and what is to be known of it, loaded once for any number of videos."""

    name: str  # of its file
    sha256: str  # of its file
    network: Network
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Window:
    """One prediction's share of a video: its middle (s), the frames that it shows `(T,)`, and the face's place.

    `angles` `(T,)` are the degrees that the frames are turned back by, as training clips were; 0 if those were not.
    """

    middle: float
    frames: NDArray[np.integer]
    square: Square
    angles: NDArray[np.floating]


def load(path: Path, device: str) -> Model:
    """The model in a file of any of the three formats, or a run's own; raises UserError as `load_network` does."""
    path = path / "model.safetensors" if path.is_dir() else path
    network, metadata = load_network(path, device)
    if metadata["synthetic"]:
        print("this model learned from drawn faces: what it says of people means nothing", file=sys.stderr)
    return Model(path.name, sha256_of(path), network, metadata)


def predict(video: Path, model: Model, out: Path, stride: float) -> str:
    """Write `NAME.json`, `.png`, `.mp4` and `.html` into `out`; return one line that tells the result.

    There is an answer for each window, and `overall` for the video: the temperature was fitted on means over a video's
    views, so that `overall` is the tempered mean of the windows' untempered answers, and not the mean of what is shown.
    Does nothing if they are there already. Raises UserError if the video cannot be read or shows no face.
    """
    if video.is_dir():
        raise UserError(f"{video} is a folder; give the videos in it: {video}/*.mp4")
    if not video.is_file():
        raise UserError(f"there is no video at {video}; check the path")
    metadata = model.metadata
    asked = {
        "video_sha256": sha256_of(video),
        "model_sha256": model.sha256,
        "stride": stride,
        # what the probabilities were divided by, in their logarithm, to be as sure as they may be; null: left as raw
        "temperature": metadata["temperature"],
    }
    known = read_json(out / f"{video.stem}.json")
    if known is not None and asked.items() <= known.items():
        return f"nothing to do: {out / video.stem}.html .mp4 .png .json are this model's view of {video.name}"
    labels = metadata["labels"]
    try:
        facts = verify_video(video)
        if facts.frames == 1:
            raise UserError(f"{video} is a single picture; emotions are read from movement, so give a video")
        rule = Rule(**metadata["clips"])
        frames = track(read_frames(video), f"{video.name}: following the face", facts.frames, "frames")
        face = follow_face(frames, roll=rule.roll)
        windows, faceless = plan_windows(face, metadata["data"], rule, stride)
        if not windows:
            raise UserError(f"no face found in {video}; give a video in which one can be seen")
        raw = classify(video, facts.frames, windows, model)
    except VideoError as error:
        raise UserError(f"{video} cannot be used: {error}") from None
    temperature = metadata["temperature"] or 1.0
    probabilities, overall = tempered(raw, temperature), tempered(raw.mean(axis=0), temperature)
    middles, seen = np.array([window.middle for window in windows]), min(metadata["data"]["span"], facts.duration)
    spans = covered(middles.tolist(), seen / 2, facts.duration)
    with replacing(out / f"{video.stem}.png") as temporary:
        plot_timeline(temporary, middles, spans, probabilities, labels, facts.duration)
    with replacing(out / f"{video.stem}.mp4") as temporary:
        write_video(temporary, annotated(video, facts.frames, face, middles, probabilities, labels), facts.fps)
    drawn_height = facts.height + strip_height(facts.width)
    result = {
        "video": video.name,
        "model": model.name,
        "weights_sha256": metadata["weights_sha256"],
        **asked,
        "learned_from_drawn_faces": metadata["synthetic"],
        "labels": labels,
        "duration": round(facts.duration, 3),
        "size": [facts.width + facts.width % 2, drawn_height + drawn_height % 2],
        "overall": as_shares(labels, overall),
        "seconds_per_window": round(seen, 3),
        "windows_without_face": faceless,
        "windows": [
            {
                "seconds": round(window.middle, 3),
                "box": [round(float(value), 1) for value in (window.square.x, window.square.y, window.square.side)],
                "probabilities": as_shares(labels, shares),
            }
            for window, shares in zip(windows, probabilities, strict=True)
        ],
    }
    write_playback(out / f"{video.stem}.html", result)
    # last: it says that the others are whole
    write_json(out / f"{video.stem}.json", result)
    top, count = int(overall.argmax()), "1 window" if len(windows) == 1 else f"{len(windows)} windows"
    gap = f", {faceless} without a face left out" if faceless else ""
    return (
        f"{video.name}: {labels[top]} {overall[top]:.0%} on average over {count}{gap} -> "
        f"{out / video.stem}.html .mp4 .png .json"
    )


def as_shares(labels: list[str], probabilities: NDArray[np.floating]) -> dict[str, float]:
    return {label: round(float(share), 6) for label, share in zip(labels, probabilities, strict=True)}


def plan_windows(face: FaceTrack, data: dict[str, Any], rule: Rule, stride: float) -> tuple[list[Window], int]:
    """(windows with a face, number of windows without one): one every `stride` seconds, each `span` seconds long.

    A video shorter than the span is one window. A window in most of whose looks the detector saw no face has none.
    """
    length, span = duration_of(face.times), data["span"]
    window = min(span, length)
    count = 1 + math.floor(max(length - window, 0) / stride + 1e-6)
    angles = track_roll(face).angles if rule.roll and face.found else np.zeros(len(face.times))
    windows = []
    for start in face.times[0] + np.arange(count) * stride:
        inside = (face.times >= start) & (face.times < start + window)
        seen = face.detected[inside].sum()
        if seen == 0 or seen < face.looked[inside].sum() / 2:
            continue
        square = static_square(face.boxes[inside], rule.margin)
        frames = spread_frames(face.times, start, window, data["frames"])
        windows.append(Window(float(start + window / 2), frames, square, angles[frames]))
    return windows, count - len(windows)


@torch.inference_mode()
def classify(video: Path, frames: int, windows: list[Window], model: Model) -> NDArray[np.floating]:
    """Probabilities `(windows, classes)` as the network states them, each the mean over a clip and its mirror image."""
    resize = resize_to(model.metadata["data"]["size"])
    shares = []
    for clips in batches(fill_windows(video, frames, windows, model.metadata["clips"]["size"])):
        pictures = torch.stack([resize(to_tensor(clip)) for clip in clips])
        both = torch.stack([model.network(pictures), model.network(pictures.flip(-1))])
        shares.append(both.double().softmax(-1).mean(0).numpy())
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
                clip[places] = crop_square(frame, window.square, size, window.angles[places][0])
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
) -> Iterator[tuple[float, Picture]]:
    """The frames and their seconds, with the box and the probabilities of the moment, interpolated between windows."""
    seen, doubtful = in_view(face)
    detector = FaceDetector()
    drawing = track(read_frames(video), f"{video.name}: drawing", frames, "frames")
    for number, (seconds, frame) in enumerate(drawing):
        box = face.boxes[number] if seen[number] else None
        if doubtful[number]:
            box = find_again(detector.detect(frame), face.boxes[number])
        shares = {label: float(np.interp(seconds, middles, probabilities[:, k])) for k, label in enumerate(labels)}
        yield seconds, draw_frame(frame, box, shares)


def in_view(face: FaceTrack) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Frames `(N,)` between two looks that saw the face, and frames between one that did and one that did not.

    In the first the face is where its box is. Somewhere in the second it comes or goes, at a cut from one frame to the
    next: only another look tells. After the last look nothing is known, so that a face seen there needs another too.
    """
    looks = np.flatnonzero(face.looked)
    frames = np.arange(len(face.times))
    place = np.searchsorted(looks, frames, side="right") - 1
    before = face.detected[looks[place]]
    after = np.append(face.detected[looks[1:]], False)[place]
    seen = (before & after) | face.detected
    return seen, (before | after) & ~seen & ~face.looked


def find_again(faces: NDArray[np.floating], box: NDArray[np.floating]) -> NDArray[np.floating] | None:
    """Of detected faces `(n, 5)` the one nearest to where a face `(4,)` should be; None if it is not the same."""
    apart = np.hypot(*(faces[:, :2] + faces[:, 2:4] / 2 - box[:2] - box[2:] / 2).T)
    sizes = np.sqrt(faces[:, 2] * faces[:, 3]) / np.sqrt(box[2] * box[3])
    same = (apart < box[2:].max()) & (sizes > 0.5) & (sizes < 2)
    return faces[same][apart[same].argmin(), :4] if same.any() else None
