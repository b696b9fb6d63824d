"""Decode a clip to 25 frames a second and 16 kHz mono, whatever it was recorded at.

Frame t of the result is what the source showed at t/25 s after its first frame; sample n of the sound is what was heard
n/16000 s after the same instant, by the presentation times of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from model_zoo.functional.mfcc import SAMPLE_RATE

FRAME_RATE = 25  # frames a second after decoding; DESIGN's time convention
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE

VIDEO_SUFFIXES = (".mpg", ".mp4", ".mkv", ".mov", ".avi", ".webm")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")

Frame = UInt8[np.ndarray, "H W 3"]


class DecodeError(ValueError):
    """The source cannot be read; the message is one line for the report."""


def read_frames(source: Path, source_rate: float = FRAME_RATE) -> Iterator[Frame]:
    """Frames of a video file, or of a folder of images, at 25 frames a second.

    Args:
        source: video file, or folder whose images in natural order are the frames.
        source_rate: frames a second of a folder of images (a video file brings its own times).

    Yields:
        RGB frames, C-contiguous.

    Raises:
        DecodeError: if the source is not readable video.
    """
    timed = _image_frames(source, source_rate) if source.is_dir() else _video_frames(source)
    return resample_frames(timed)


def resample_frames(timed: Iterable[tuple[float, Frame]]) -> Iterator[Frame]:
    """The frame nearest to each t/25 s, from (seconds, frame) pairs in rising order.

    The first frame's time counts as 0. Lasts as long as the source, its last frame counted as long as the one before.
    """
    previous: tuple[float, Frame] | None = None
    start, step, index = 0.0, 1 / FRAME_RATE, 0
    for time, frame in timed:
        if previous is None:
            start = time
        else:
            step = time - start - previous[0]
            # output times before the midpoint of two source frames belong to the earlier one
            while index / FRAME_RATE < previous[0] + step / 2 - 1e-6:
                yield previous[1]
                index += 1
        previous = (time - start, frame)
    while previous is not None and index / FRAME_RATE < previous[0] + step / 2 - 1e-6:
        yield previous[1]
        index += 1


def read_audio(source: Path, since: float) -> Float32[np.ndarray, "N"]:
    """Sound as 16 kHz mono in [-1, 1], sample 0 at `since` on the file's own clock (s): that of its first frame.

    Raises:
        DecodeError: if there is no readable sound.
    """
    chunks, start = [], None
    try:
        with av.open(str(source)) as container:
            if not container.streams.audio:
                raise DecodeError("no sound")
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            for frame in container.decode(stream):
                if start is None:
                    start = float(frame.time or 0.0)
                chunks += [out.to_ndarray()[0] for out in resampler.resample(frame)]
            chunks += [out.to_ndarray()[0] for out in resampler.resample(None)]
    except (av.FFmpegError, OSError) as error:
        raise DecodeError(f"sound cannot be decoded ({_reason(error)})") from error
    if not chunks:
        raise DecodeError("no sound")
    samples = np.concatenate(chunks).astype(np.float32)
    lag = round(((start or 0.0) - since) * SAMPLE_RATE)
    return np.pad(samples, (lag, 0)) if lag > 0 else samples[-lag:]


def video_start(source: Path) -> float:
    """Presentation time of the first video frame, seconds; 0 for a folder of images."""
    if source.is_dir():
        return 0.0
    for time, _ in _video_frames(source):
        return time
    return 0.0


def fit_length(samples: Float32[np.ndarray, "N"], num_frames: int) -> Float32[np.ndarray, "M"]:
    """Cut or zero-padded to exactly `num_frames` video frames, 640 samples each."""
    wanted = num_frames * SAMPLES_PER_FRAME
    return np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))


def _video_frames(source: Path) -> Iterator[tuple[float, Frame]]:
    count = 0
    try:
        with av.open(str(source)) as container:
            if not container.streams.video:
                raise DecodeError("no video stream")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.guessed_rate or FRAME_RATE)
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise DecodeError(f"damaged or cut off at frame {count}")
                time = count / rate if frame.time is None else float(frame.time)
                # One thread: starting more for each frame takes longer than the conversion. Not contiguous where the
                # width is no multiple of 32, and dlib then reads garbage.
                yield time, np.ascontiguousarray(frame.to_ndarray(format="rgb24", threads=1))
                count += 1
    except (av.FFmpegError, OSError) as error:
        where = f"damaged at frame {count}" if count else "not readable as video"
        raise DecodeError(f"{where} ({_reason(error)})") from error


def _image_frames(folder: Path, rate: float) -> Iterator[tuple[float, Frame]]:
    images = sorted((p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=_natural_key)
    for index, path in enumerate(images):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise DecodeError(f"{path.name} is not a readable image")
        yield index / rate, np.ascontiguousarray(image[..., ::-1])


def _natural_key(path: Path) -> tuple[int, str]:
    """Orders frame2 before frame10."""
    digits = "".join(character for character in path.stem if character.isdigit())
    return int(digits or 0), path.name


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
