"""What a camera makes of a puppet: pictures with sensor noise, encoded as RAVDESS and CREMA-D are, and sound."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from manifests.acting import Performance
from manifests.puppet import Puppet
from manifests.strokes import Image

AUDIO_RATE = 48_000
GREY_NOISE = 64  # what noise is stored around, as it has no sign there


def film(puppet: Puppet, performance: Performance, noise: float, rng: np.random.Generator) -> Iterator[Image]:
    """Planar YUV 4:2:0 pictures, (height * 3 / 2, width) uint8; `noise` is a standard deviation, of 255."""
    height, width = puppet.portrait.backdrop.shape[:2]
    # One strip of noise, seen through a window that jumps, costs less than fresh noise and looks the same.
    strip = np.clip(rng.normal(GREY_NOISE, noise, (height + 61, width)), 0, 255).astype(np.uint8)
    for action, pose, gain in zip(performance.actions, performance.poses, performance.brightness, strict=True):
        picture = cv2.cvtColor(puppet.draw(action, pose), cv2.COLOR_RGB2YUV_I420)
        shift = int(rng.integers(61))
        luma = cv2.addWeighted(picture[:height], float(gain), strip[shift : shift + height], 1.0, -GREY_NOISE)
        picture[:height] = luma
        yield np.asarray(picture, np.uint8)


def encode(path: Path, pictures: Iterator[Image], size: tuple[int, int], rate: Fraction) -> None:
    """Write the pictures as .flv (FLV1) or .mp4 (H.264, or MPEG-4 Part 2 where no H.264 encoder is at hand)."""
    with av.open(str(path), "w") as container:
        if path.suffix == ".flv":
            stream = container.add_stream("flv", rate=rate, bit_rate=1_200_000)
        elif "libx264" in av.codecs_available:
            stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "24"})
        else:
            stream = container.add_stream("mpeg4", rate=rate, bit_rate=1_500_000)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # more threads may cut the picture elsewhere, and give other bytes
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def add_sound(source: Path, path: Path, voice: NDArray[np.floating], rate: Fraction, pitch: float) -> None:
    """Copy the encoded pictures of `source` and add AAC: a hum of `pitch` hertz, as loud as the mouth is open."""
    with av.open(str(source)) as before, av.open(str(path), "w") as after:
        pictures = before.streams.video[0]
        video = after.add_stream_from_template(pictures)
        audio = after.add_stream("aac", rate=AUDIO_RATE, layout="mono")
        for packet in before.demux(pictures):
            if packet.dts is not None:  # the demuxer's last packet is empty
                packet.stream = video
                after.mux(packet)
        seconds = np.arange(int(len(voice) / rate * AUDIO_RATE)) / AUDIO_RATE
        loudness = np.interp(seconds * float(rate), np.arange(len(voice)), voice)
        hum = (0.2 * loudness * np.sin(2 * np.pi * pitch * seconds)).astype(np.float32)
        for start in range(0, len(hum), 1024):
            frame = av.AudioFrame.from_ndarray(hum[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, start, Fraction(1, AUDIO_RATE)
            after.mux(audio.encode(frame))
        after.mux(audio.encode())
