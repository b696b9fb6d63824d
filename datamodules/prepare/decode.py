"""Decode a clip to 25 frames a second and 16 kHz mono, whatever it was recorded at.

Frame t of the result is what the source showed at t/25 s after its first frame; sample n of the sound is what was heard
n/16000 s after the same instant, by the presentation times of the file. Frames are upright, in square pixels and at
most `MAX_SIDE` px long; positions in them are in px of these frames. Damaged stretches and pauses of the picture of up
to `LONGEST_HOLD` are bridged by their neighbours, longer ones are black, so that no face is found in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Shaped

from datamodules.prepare.media import DecodeError
from datamodules.prepare.picture import MAX_SIDE, Frame, first_time, fitting_size, stored_size, timed_frames
from datamodules.prepare.sound import read_audio
from model_zoo.functional.mfcc import SAMPLE_RATE

__all__ = [
    "FRAME_RATE", "IMAGE_SUFFIXES", "LONGEST_HOLD", "MAX_SIDE", "SAMPLES_PER_FRAME", "VIDEO_SUFFIXES", "DecodeError",
    "Frame", "fit_length", "raw_size", "read_audio", "read_frames", "resample_frames", "video_start",
]  # fmt: skip

FRAME_RATE = 25  # frames a second after decoding; DESIGN's time convention
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
# s that a frame may stand for missing ones: a frozen face beside running speech teaches nonsense. Twelve frames may be
# missing, as many as the tracker bridges.
LONGEST_HOLD = 13.5 / FRAME_RATE
_SLOW = 4  # a source that usually changes so many times slower than LONGEST_HOLD is slow, not broken

VIDEO_SUFFIXES = (".mpg", ".mp4", ".mkv", ".mov", ".avi", ".webm")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_frames(
    source: Path, source_rate: float = FRAME_RATE, notes: list[str] | None = None, max_side: int = MAX_SIDE
) -> Iterator[Frame]:
    """Frames of a video file, or of a folder of images, at 25 frames a second.

    Args:
        source: video file, or folder whose images in natural order are the frames.
        source_rate: frames a second of a folder of images (a video file brings its own times).
        notes: takes a line for each thing that is missing.
        max_side: longer frames are reduced to it, px.

    Yields:
        RGB frames, C-contiguous.

    Raises:
        DecodeError: if the source is not readable video.
    """
    notes = [] if notes is None else notes
    folder = source.is_dir()
    timed = _image_frames(source, source_rate, notes, max_side) if folder else timed_frames(source, notes, max_side)
    return resample_frames(timed)


def resample_frames(timed: Iterable[tuple[float, Frame]]) -> Iterator[Frame]:
    """The frame nearest to each t/25 s, from (seconds, frame) pairs in rising order.

    The first frame's time counts as 0. Lasts as long as the source, its last frame counted as long as the one before.
    A pause longer than `LONGEST_HOLD`, in a source that usually shows more, is black.
    """
    index, start = 0, 0.0
    shown: Frame | None = None  # since `time`
    time, usual = 0.0, None

    def until(frame: Frame, end: float) -> Iterator[Frame]:
        # output times before the midpoint of two source frames belong to the earlier one
        nonlocal index
        while index / FRAME_RATE < end - 1e-6:
            yield frame
            index += 1

    for moment, frame in timed:
        if shown is None:
            start = moment
        else:
            step = moment - start - time
            if usual is not None and step > max(LONGEST_HOLD, _SLOW * usual):
                yield from until(shown, time + usual / 2)
                yield from until(np.zeros_like(shown), time + step - usual / 2)
            else:
                yield from until(shown, time + step / 2)
                usual = step or usual
        time, shown = moment - start, frame
    if shown is not None:
        yield from until(shown, time + (usual or 1 / FRAME_RATE) / 2)


def video_start(source: Path) -> float:
    """Presentation time of the first video frame, seconds; 0 for a folder of images.

    Raises:
        DecodeError: if the source is not readable video.
    """
    return 0.0 if source.is_dir() else first_time(source)


def raw_size(source: Path) -> tuple[int, int]:
    """Width and height of the first frame of a file or folder, upright, before it is reduced or stretched, px.

    Raises:
        DecodeError: if the source is not readable video.
    """
    if not source.is_dir():
        return stored_size(source)
    pictures = (cv2.imread(str(path), cv2.IMREAD_COLOR) for path in _image_files(source))
    first = next((picture for picture in pictures if picture is not None), None)
    if first is None:
        raise DecodeError("the folder holds no readable picture")
    return first.shape[1], first.shape[0]


def fit_length(samples: Shaped[np.ndarray, "N"], num_frames: int) -> Shaped[np.ndarray, "M"]:
    """Cut or zero-padded to exactly `num_frames` video frames, 640 samples each."""
    wanted = num_frames * SAMPLES_PER_FRAME
    return np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))


def _image_frames(folder: Path, rate: float, notes: list[str], max_side: int) -> Iterator[tuple[float, Frame]]:
    images = _image_files(folder)
    size, lost = None, 0
    for index, path in enumerate(images):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            lost += 1
            continue
        size = size or fitting_size(image.shape[1], image.shape[0], 1.0, max_side)
        if size != image.shape[1::-1]:
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        yield index / rate, np.ascontiguousarray(image[..., ::-1])
    if size is None:
        raise DecodeError(f"the folder holds no readable picture ({len(images)} tried)")
    if lost:
        notes.append(f"{lost} unreadable pictures left out")


def _image_files(folder: Path) -> list[Path]:
    return sorted((p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=_natural_key)


def _natural_key(path: Path) -> tuple[int, str]:
    """Orders frame2 before frame10."""
    digits = "".join(character for character in path.stem if character.isdigit())
    return int(digits or 0), path.name
