"""Writing frames and sound as an mp4 that every browser plays."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

FRAME_RATE = 25  # fps
SAMPLE_RATE = 16_000  # Hz


def write_video(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    sound: NDArray[np.float32] | None = None,
    quality: int = 18,
) -> None:
    """Encode H.264 (and AAC), whole or not at all.

    Args:
        path: ending in .mp4.
        frames: T of (H, W, 3) RGB, even H and W, at 25 fps; an array, or an iterator where they would fill the memory.
        sound: (N,) at 16 kHz in [-1, 1], or None.
        quality: CRF; 18 looks lossless.
    """
    temporary = path.with_suffix(f".{os.getpid()}.tmp.mp4")
    try:
        with av.open(str(temporary), "w", options={"movflags": "faststart"}) as container:
            video = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": str(quality), "preset": "fast"})
            video.pix_fmt = "yuv420p"
            audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if sound is not None else None
            for index, image in enumerate(frames):
                if index == 0:
                    video.height, video.width = image.shape[:2]
                container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
            container.mux(video.encode())
            if audio is not None and sound is not None:
                samples = np.ascontiguousarray(np.clip(sound, -1, 1), dtype=np.float32)[None]
                packet = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                packet.sample_rate, packet.time_base, packet.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), 0
                container.mux(audio.encode(packet))
                container.mux(audio.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
