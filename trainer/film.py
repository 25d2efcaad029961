"""A video file from pictures: an MP4 that browsers play, each picture at its own moment."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray

from manifests.errors import UserError

Picture = NDArray[np.uint8]

TICK = Fraction(1, 90_000)  # seconds; frames of all usual rates last a whole number of them
# In order of preference; browsers play each of them from an MP4. Without B-frames: pictures that are stored in another
# order than they are shown in, each at a moment of its own, make FFmpeg call the MP4 shorter than it is.
ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"crf": "20", "preset": "veryfast", "bf": "0"},
    "libopenh264": {},
    "libvpx-vp9": {"crf": "32", "b": "0"},
}


def write_video(path: Path, frames: Iterable[tuple[float, Picture]], fps: float, **options: str) -> None:
    """Encode (seconds, (H, W, 3) uint8 RGB) frames of one size as MP4 that browsers play: H.264, 4:2:0, index in front.

    Each frame keeps its own moment, so that a video of changing rate stays beside its sound; `fps` is the mean rate,
    which the encoder shares its bits out by. A side of odd length, which 4:2:0 cannot have, is made even by repeating
    its last row or column. Raises ValueError if there are no frames or they differ in size, UserError if PyAV came
    without an encoder. `options` are the encoder's own, over those it has here.
    """
    shape: tuple[int, ...] = ()
    tick = -1
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        encoder = available_encoder()
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream(encoder, rate=rate, options={**ENCODERS[encoder], **options})
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.time_base = TICK
        for seconds, frame in frames:
            if not shape:
                shape = frame.shape
                _set_up(stream, *shape[:2])
            if frame.shape != shape:
                raise ValueError(f"a frame of {frame.shape[1]}x{frame.shape[0]} in a video of {shape[1]}x{shape[0]}")
            picture = _to_yuv(frame)
            # A file may give two frames one moment; in an MP4 each has its own.
            tick = max(round(seconds / TICK), tick + 1)
            picture.pts, picture.time_base = tick, TICK
            container.mux(stream.encode(picture))
        if not shape:
            raise ValueError("a video needs at least one frame")
        container.mux(stream.encode(None))


def available_encoder() -> str:
    """The best encoder that this PyAV has; raises UserError if it has none that a browser plays."""
    for name in ENCODERS:
        if name in av.codecs_available:
            return name
    raise UserError(
        "this PyAV has no H.264 or VP9 encoder; install the one that brings its own: pip install --force av"
    )


def _set_up(stream: av.VideoStream, height: int, width: int) -> None:
    stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
    stream.codec_context.color_range = ColorRange.MPEG
    stream.codec_context.colorspace = Colorspace.ITU709
    stream.codec_context.color_primaries = ColorPrimaries.BT709
    stream.codec_context.color_trc = ColorTrc.BT709


def _to_yuv(frame: Picture) -> av.VideoFrame:
    even = np.pad(frame, [(0, side % 2) for side in frame.shape[:2]] + [(0, 0)], mode="edge")
    # Said explicitly: the default conversion is BT.601's, which players take for BT.709 and show in wrong colours.
    return av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )
