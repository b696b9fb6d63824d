"""A sound of any length, block by block: any file with an audio track, as 16 kHz mono in [-1, 1].

Unlike `prepare.sound`, which puts samples on the clock of pictures, this reads a sound for its own sake, in memory that
does not grow with it: what a talking face is driven by.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from datamodules.prepare.media import DecodeError, choose_audio, decoded, open_media
from model_zoo.functional.mfcc import SAMPLE_RATE

BLOCK = 10 * SAMPLE_RATE  # samples
LOUDEST = 1.0


def sound_blocks(path: Path, block: int = BLOCK, notes: list[str] | None = None) -> Iterator[Float[Tensor, "N"]]:
    """Blocks of `block` samples, the last one shorter.

    Any number of channels is mixed to one, any rate and depth converted; what is no number is silent.

    Args:
        path: a sound file, or a video file with sound.
        block: samples a block.
        notes: takes a line for each thing that is missing.

    Raises:
        DecodeError: there is no readable sound, in one line.
    """
    if not path.exists():
        raise DecodeError(f"{path} does not exist")
    held: list[np.ndarray] = []
    length = 0
    for samples in _samples(path, [] if notes is None else notes):
        held.append(samples)
        length += len(samples)
        if length >= block:
            joined = np.concatenate(held)
            whole = length // block * block
            yield from torch.from_numpy(joined[:whole]).split(block)
            held, length = [joined[whole:]], length - whole
    if length:
        yield torch.from_numpy(np.concatenate(held))


def _samples(path: Path, notes: list[str]) -> Iterator[np.ndarray]:
    heard = lost = silenced = 0
    try:
        with open_media(path, "sound") as container:
            for frame in _resampled(decoded(container, choose_audio(container))):
                if frame is None:
                    lost += 1
                    continue
                samples = frame.to_ndarray()[0]
                finite = np.isfinite(samples)
                heard, silenced = heard + samples.size, silenced + int(samples.size - finite.sum())
                yield np.where(finite, samples, 0).clip(-LOUDEST, LOUDEST).astype(np.float32)
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from None
    if heard == 0:
        raise DecodeError(f"{path}: " + ("sound cannot be decoded" if lost else "no sound"))
    if lost or silenced:
        notes.append(f"{path.name}: {lost} damaged packets left out, {silenced} samples that are no number made silent")


def _resampled(frames: Iterator[av.AudioFrame | None]) -> Iterator[av.AudioFrame | None]:
    """Frames as 16 kHz mono floats, None where one is lost; some files change their kind in the middle."""
    resampler, kind = _resampler(), None
    for frame in frames:
        if frame is None or not frame.samples or not frame.sample_rate:
            if frame is None:
                yield None
            continue
        known, kind = kind, (frame.format.name, frame.layout.name, frame.sample_rate)
        if known not in (None, kind):
            yield from resampler.resample(None)
            resampler = _resampler()
        frame.pts = None  # the resampler counts samples
        yield from resampler.resample(frame)
    if kind is not None:
        yield from resampler.resample(None)


def _resampler() -> av.AudioResampler:
    return av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
