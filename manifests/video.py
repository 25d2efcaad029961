"""Reading videos strictly: every frame, upright and with its true time, or a VideoError that says what is wrong.

Decoders hand over a cut or damaged file without a word. So one thread (slice threading loses FFmpeg's corruption
flag), no frame flagged corrupt, and what comes out is held against what the container promised.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

# A container whose header says how long its streams are; for others (raw streams, MPEG-TS) FFmpeg only guesses.
PROMISING_FORMATS = ("mov", "flv", "avi", "matroska")
SHORT_BY_FRAMES = 2.5  # a file may end this much before its promise: rounding, the last frame's unknown length
SHORT_BY_SECONDS = 0.5  # the picture may end this much before the sound when the file itself is whole
MISSING_FRAMES = 3  # frames that a header may count and a decoder not give, as edit lists do


class VideoError(Exception):
    """A file that cannot be trusted as a video; str(error) is a short phrase with the cause and the frame."""


@dataclass(frozen=True)
class VideoFacts:
    """What decoding every frame has shown; width and height are upright: `rotation` (degrees) is applied."""

    frames: int
    fps: float  # average
    width: int
    height: int
    duration: float  # seconds, the last frame's own time on screen included
    codec: str
    variable_rate: bool
    rotation: int


@dataclass(frozen=True)
class Picture:
    """One decoded frame, not yet converted: `time` is seconds since the first frame."""

    time: float
    frame: VideoFrame
    converter: VideoReformatter  # shared by a file's pictures: setting one up costs as much as a conversion

    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright."""
        array = self.converter.reformat(self.frame, format="rgb24").to_ndarray()
        return np.ascontiguousarray(np.rot90(array, self.turns)) if self.turns else array

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), upright."""
        size = (self.frame.width, self.frame.height)
        return size[::-1] if self.turns % 2 else size

    @property
    def held_bytes(self) -> int:
        """Memory that this picture holds while it is kept."""
        return sum(plane.buffer_size for plane in self.frame.planes)

    @property
    def turns(self) -> int:
        """Quarter turns counter-clockwise that make the frame upright."""
        return round(self.frame.rotation / 90) % 4


def verify_video(path: Path) -> VideoFacts:
    """Decode every frame and say what the video is. Raises VideoError with the true reason."""
    times = []
    with _open(path) as container:
        codec = _video_stream(container).codec_context.name
        for picture in _pictures(container):  # at least one, or it raises
            times.append(picture.time)
    steps = np.diff(times)
    step = _seconds_per_frame(times, picture.frame)
    width, height = picture.size
    return VideoFacts(
        frames=len(times),
        fps=1 / step,
        width=width,
        height=height,
        duration=times[-1] + step,
        codec=codec,
        variable_rate=bool(len(steps) and np.abs(steps - np.median(steps)).max() > 0.25 * np.median(steps)),
        rotation=picture.turns * 90,
    )


def read_frames(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (seconds from the first frame, (H, W, 3) uint8 RGB upright). Raises VideoError."""
    for picture in read_pictures(path):
        yield picture.time, picture.rgb()


def read_pictures(path: Path) -> Iterator[Picture]:
    """As read_frames, but each frame is converted only when asked: cheaper where not every frame is looked at."""
    with _open(path) as container:
        yield from _pictures(container)


def _open(path: Path) -> InputContainer:
    path = Path(path)
    if not path.is_file():
        raise VideoError("there is no such file")
    with path.open("rb") as stream:
        head = stream.read(256)
    if not head:
        raise VideoError("the file is empty")
    if head.startswith(b"version https://git-lfs"):
        raise VideoError("a git-lfs pointer stands in for the video: run `git lfs pull` where it came from")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise VideoError("a web page was saved in place of the video")
    try:
        return av.open(str(path))
    except av.FFmpegError as error:
        raise VideoError(f"not a video: {_cause(error)}") from error


def _video_stream(container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise VideoError("there is no video stream, only " + (_kinds(container) or "nothing"))
    return stream


def _kinds(container: InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams}))


def _pictures(container: InputContainer) -> Iterator[Picture]:
    """Decode one opened file; yield its pictures; then hold them against what the header promised."""
    stream = _video_stream(container)
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    if container.format.name == "flv":
        # FLV1 has no checksum: only this makes the decoder report macroblocks that make no sense.
        stream.codec_context.options = {"err_detect": "explode"}
    promised = _promised_seconds(container, stream)
    converter = VideoReformatter()
    times: list[float] = []
    first = 0.0
    sound_end = 0.0
    frame = size = None
    packets = container.demux([stream, *container.streams.audio])
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            if packet.stream is not stream:
                if packet.pts is not None:
                    sound_end = max(sound_end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                continue
            decoded = stream.decode(packet)
        except av.FFmpegError as error:
            raise VideoError(_where_it_broke(packets, stream, times, promised, error)) from error
        for frame in decoded:
            time = _time_of(frame, len(times))
            first = time if not times else first
            size = size or (frame.width, frame.height)
            _judge(frame, time - first, times, size)
            times.append(time - first)
            yield Picture(time - first, frame, converter)
    if frame is None:
        raise VideoError("no frame can be decoded")
    _hold_against_header(stream, times, first, _seconds_per_frame(times, frame), promised, sound_end)


def _judge(frame: VideoFrame, time: float, times: list[float], size: tuple[int, int]) -> None:
    if frame.is_corrupt:
        raise VideoError(f"damaged: frame {len(times)} at {time:.2f} s did not decode cleanly")
    if times and time < times[-1]:
        raise VideoError(f"frame {len(times)} goes back in time: {time:.3f} s after {times[-1]:.3f} s")
    if (frame.width, frame.height) != size:
        changed = f"{size[0]} x {size[1]} to {frame.width} x {frame.height}"
        raise VideoError(f"the picture changes size at frame {len(times)}, {time:.2f} s: {changed}")


def _time_of(frame: VideoFrame, number: int) -> float:
    ticks = frame.pts if frame.pts is not None else frame.dts
    if ticks is None or frame.time_base is None:
        raise VideoError(f"frame {number} has no timestamp")
    return float(ticks * frame.time_base)


def _promised_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds of picture that the header promises: the video stream's own length, else the container's."""
    if not container.format.name.startswith(PROMISING_FORMATS):
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _seconds_per_frame(times: list[float], frame: VideoFrame) -> float:
    if len(times) > 1 and times[-1] > 0:
        return times[-1] / (len(times) - 1)
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 1 / 30


def _hold_against_header(
    stream: VideoStream, times: list[float], first: float, step: float, promised: float | None, sound_end: float
) -> None:
    if promised is None:
        return
    end = max(first, 0.0) + times[-1] + step
    whole = not stream.duration and sound_end >= promised - SHORT_BY_FRAMES * step
    allowed = max(SHORT_BY_FRAMES * step, SHORT_BY_SECONDS if whole else 0.0)
    if end < promised - allowed:
        raise VideoError(f"cut short: {len(times)} frames end at {end:.2f} s of {promised:.2f} s promised")
    if stream.frames and stream.average_rate:
        # An edit list shortens the duration and leaves the header's count, so the smaller of the two is the promise.
        expected = min(stream.frames, int(promised * stream.average_rate))
        if len(times) < expected - MISSING_FRAMES:
            raise VideoError(f"frames are missing: the header promises {stream.frames}, {len(times)} decode")


def _where_it_broke(
    packets: Iterator[av.Packet], stream: VideoStream, times: list[float], promised: float | None, error: av.FFmpegError
) -> str:
    """Tell a cut file (nothing follows the broken frame) from damage inside."""
    of = f" of {promised:.2f} s promised" if promised else ""
    place = f"frame {len(times)} after {times[-1] if times else 0.0:.2f} s{of}"
    try:
        follows = any(packet.stream is stream and packet.size for packet in packets)
    except av.FFmpegError:
        follows = False
    if follows:
        return f"damaged: {place} cannot be decoded ({_cause(error)})"
    return f"cut short: the file ends inside {place}"


def _cause(error: av.FFmpegError) -> str:
    return error.strerror or type(error).__name__
