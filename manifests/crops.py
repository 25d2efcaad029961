"""One video -> one face: the frames of a prepared clip, cropped to the square in which the face stays."""

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests.clipfile import encode_frame
from manifests.clips import Rule
from manifests.faces import FaceDetector, Square, centre_square, crop_square, static_square
from manifests.following import FaceFollower, FaceTrack
from manifests.roll import track_roll
from manifests.video import Picture, VideoError, read_pictures

SHORTEST_SECONDS = 0.25  # less is an error picture or a broken take, no act
MOST_MISSED = 0.75  # a face missing from more of the looks than this is not what the clip shows
KEEP_BYTES = 384 * 2**20  # decoded pictures held until the face is known; a longer video is decoded twice


class Unfit(Exception):
    """A sound video that is no clip of a face; str(error) is the reason."""


def crop_face(source: Path, rule: Rule) -> tuple[list[bytes], list[float], dict[str, Any]]:
    """The clip of one video: JPEG frames, their source times, and what is to be known about it.

    Raises VideoError for a video that is not sound and Unfit for one that is no clip of a face.
    """
    face, pictures = _watch(source, rule.stride, rule.roll)
    seconds = _seconds(face.times)
    if seconds < SHORTEST_SECONDS:
        raise Unfit(f"too short to be a clip: {len(face.times)} frames, {seconds:.2f} s")
    missed, looks = int((face.looked & ~face.detected).sum()), int(face.looked.sum())
    found = face.found and face.miss_rate <= MOST_MISSED
    if not found and rule.no_face == "reject":
        raise Unfit(f"no face found in {missed} of {looks} frames looked at")
    chosen = _thinned(face.times, rule.max_fps)
    square = static_square(face.boxes, rule.margin) if found else None
    roll = track_roll(face) if rule.roll and found else None
    angles = roll.angles if roll else np.zeros(len(face.times))
    jpegs = []
    for picture, wanted, angle in zip(pictures or read_pictures(source), chosen, angles, strict=True):
        square = square or centre_square(*picture.size)
        if wanted:
            jpegs.append(encode_frame(crop_square(picture.rgb(), square, rule.size, angle), rule.quality))
    assert square is not None
    about = {"rule": rule.as_dict(), "frames": len(jpegs), "seconds": round(seconds, 3)}
    about |= _facts(face, square, picture, found)
    if roll:
        about["roll"] = roll.facts()
    return jpegs, face.times[chosen].tolist(), about


def glimpse(source: Path, height: int = 160) -> bytes | None:
    """A JPEG of the first, middle and last frame that decode, side by side, for a person to see why not."""
    pictures = []
    try:
        for picture in read_pictures(source):
            pictures.append(picture)
            # Thinning keeps a film of any length in the memory of a few frames.
            if len(pictures) > 60:
                del pictures[1:-1:2]
    except VideoError:
        pass
    if not pictures:
        return None
    places = sorted({0, len(pictures) // 2, len(pictures) - 1})
    shown = [pictures[place].rgb() for place in places]
    width = max(1, round(height * shown[0].shape[1] / shown[0].shape[0]))
    small = [cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in shown]
    return encode_frame(np.hstack(small), quality=80)


def _facts(face: FaceTrack, square: Square, picture: Picture, found: bool) -> dict[str, Any]:
    return {
        "source_frames": len(face.times),
        "source_width": picture.size[0],
        "source_height": picture.size[1],
        "box_x": square.x,
        "box_y": square.y,
        "box_side": square.side,
        "face_size": round(float(np.median(face.boxes[:, 2:].max(axis=1))), 1) if found else 0.0,
        "score": round(face.mean_score, 4),
        "miss_rate": round(face.miss_rate, 4),
    }


def _watch(source: Path, stride: float, roll: bool) -> tuple[FaceTrack, list[Picture] | None]:
    """Decode once, following the face; hand back the pictures too, unless they are too many to hold."""
    follower = FaceFollower(_detector(), stride, roll)
    pictures: list[Picture] | None = []
    held = 0
    for picture in read_pictures(source):
        if follower.due(picture.time):
            follower.look(picture.time, picture.rgb())
        else:
            follower.skip(picture.time)
        if pictures is not None:
            pictures.append(picture)
            held += picture.held_bytes
            if held > KEEP_BYTES:
                pictures = None
    return follower.track(), pictures


@cache
def _detector() -> FaceDetector:
    return FaceDetector()


def _seconds(times: np.ndarray) -> float:
    """Length of a clip, the last frame's own time on screen included."""
    return float(times[-1] - times[0]) * len(times) / max(len(times) - 1, 1)


def _thinned(times: np.ndarray, max_fps: float) -> np.ndarray:
    """(N,) bool: every frame of a video up to `max_fps` (and a thirtieth over it), about `max_fps` of a faster one."""
    step = 1 / max_fps
    if len(times) < 2 or np.median(np.diff(times)) > step * 0.97:
        return np.ones(len(times), bool)
    # The first frame at or after each tick of a clock that runs at max_fps.
    ticks = np.floor((times - times[0]) / step + 1e-3)
    return np.concatenate([[True], np.diff(ticks) > 0])
