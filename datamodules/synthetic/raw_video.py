"""Writing raw videos as the cameras of the corpora did: the same frames give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float, UInt8

from datamodules.synthetic.motion import FRAME_RATE
from datamodules.synthetic.speech import SAMPLE_RATE

_MPEG1_BITS = 1_400_000  # a second; the real GRID videos have 1.1 million with their sound
_MP2_BITS = 128_000
_AAC_BITS = 96_000
_AUDIO_BLOCK = 1152  # samples, where the codec names no frame size


def write_mpeg1(
    path: Path,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    sound: Float[np.ndarray, "N"],
    width: int,
    height: int,
) -> None:
    """Write GRID's kind of file: MPEG-1 video at 25 fps, mp2 sound at 44.1 kHz.

    Args:
        path: of the file, overwritten.
        frames: RGB.
        sound: in [-1, 1], 44.1 kHz.
    """
    with av.open(str(path), "w", format="mpeg", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("mpeg1video", rate=FRAME_RATE)
        video.bit_rate = _MPEG1_BITS
        audio = container.add_stream("mp2", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = _MP2_BITS
        _encode(container, video, audio, frames, sound, (width, height))


def write_mp4(
    path: Path,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    sound: Float[np.ndarray, "N"],
    width: int,
    height: int,
) -> None:
    """Write what a present-day camera does: H.264 at 25 fps with AAC sound at 44.1 kHz; arguments as `write_mpeg1`."""
    with av.open(str(path), "w", options={"fflags": "+bitexact", "movflags": "faststart"}) as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "20", "preset": "veryfast"})
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = _AAC_BITS
        _encode(container, video, audio, frames, sound, (width, height))


def _encode(
    container: av.container.OutputContainer,
    video: av.VideoStream,
    audio: av.AudioStream,
    frames: Iterable[np.ndarray],
    sound: np.ndarray,
    size: tuple[int, int],
) -> None:
    video.width, video.height = size
    video.pix_fmt = "yuv420p"
    video.codec_context.thread_count = 1  # several threads may cut a frame differently: other bytes
    for stream in (video, audio):
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
    block = audio.codec_context.frame_size or _AUDIO_BLOCK
    last = 0
    for i, image in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = i, Fraction(1, FRAME_RATE)
        container.mux(video.encode(frame))
        # Sound goes in beside the pictures that it belongs to, or the multiplexer's buffers run over.
        first, last = last, round((i + 1) * SAMPLE_RATE / FRAME_RATE / block) * block
        _encode_sound(container, audio, sound[first:last], first)
    _encode_sound(container, audio, sound[last:], last)
    container.mux(video.encode())
    container.mux(audio.encode())


def _encode_sound(
    container: av.container.OutputContainer, stream: av.AudioStream, sound: np.ndarray, start: int
) -> None:
    if len(sound) == 0:
        return
    samples = np.ascontiguousarray(np.clip(sound, -1, 1), dtype=np.float32)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), start
    container.mux(stream.encode(frame))
