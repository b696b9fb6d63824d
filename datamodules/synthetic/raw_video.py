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
_MP2_BITS = 256_000
_AUDIO_BLOCK = 1152  # samples of an mp2 frame


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
        video.width, video.height, video.pix_fmt, video.bit_rate = width, height, "yuv420p", _MPEG1_BITS
        video.codec_context.thread_count = 1  # slices of several threads would change the bytes
        video.codec_context.flags |= av.codec.context.Flags.bitexact
        audio = container.add_stream("mp2", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = _MP2_BITS // 2
        audio.codec_context.flags |= av.codec.context.Flags.bitexact
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FRAME_RATE)
            container.mux(video.encode(frame))
            # Sound goes in beside the pictures that it belongs to, or the multiplexer's buffers run over.
            first, last = (round(k * SAMPLE_RATE / FRAME_RATE / _AUDIO_BLOCK) * _AUDIO_BLOCK for k in (i, i + 1))
            _encode_sound(container, audio, sound[first:last], first)
        _encode_sound(container, audio, sound[last:], last)
        container.mux(video.encode())
        container.mux(audio.encode())


def _encode_sound(
    container: av.container.OutputContainer, stream: av.AudioStream, sound: np.ndarray, start: int
) -> None:
    if len(sound) == 0:
        return
    block = np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="s16", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), start
    container.mux(stream.encode(frame))
