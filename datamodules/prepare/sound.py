"""The sound of a file as 16 kHz mono on the clock of its pictures; 16 bits a sample, as it is stored."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from jaxtyping import Float, Float32, Int16

from datamodules.prepare.media import (
    LONGEST_GAP,
    Clock,
    ClockJump,
    DecodeError,
    choose_audio,
    decoded,
    open_media,
)
from model_zoo.functional.mfcc import SAMPLE_RATE

# Times of a stream jitter by some ms from container to container. A difference of a video frame between them and the
# number of samples heard so far is a gap, an overlap or a drift to be made good.
TOLERANCE = 0.04  # s
_BYTES = 2  # of a sample
_FULL_SCALE = 32768.0


def read_audio(source: Path, since: float, notes: list[str] | None = None) -> Int16[np.ndarray, "N"]:
    """Sound as 16 kHz mono, sample 0 at `since` on the file's own clock (s): that of its first frame.

    Gaps and what cannot be decoded are silent, so that the rest stays in its place.

    Args:
        source: file with sound.
        since: s.
        notes: takes a line for each thing that is missing.

    Raises:
        DecodeError: there is no readable sound.
    """
    notes = [] if notes is None else notes
    with open_media(source, "sound") as container:
        stream = choose_audio(container)
        track, lost = _Track(since), 0
        clock = Clock(0.0)
        try:
            for frame in decoded(container, stream):
                if frame is None:
                    lost += 1
                elif frame.samples and frame.sample_rate:
                    track.add(frame, None if frame.time is None else clock(float(frame.time)))
        except ClockJump as jump:
            notes.append(f"sound: {jump}")
        samples = track.finish()
    if not track.heard:
        raise DecodeError("sound cannot be decoded" if lost else "no sound")
    if lost or track.silenced:
        notes.append(f"sound: {lost} damaged packets, {track.silenced} samples that are no number, silent")
    return samples


def to_int16(samples: Float[np.ndarray, "N"]) -> Int16[np.ndarray, "N"]:
    """16-bit integers, -32768 to 32767 for -1 to 1."""
    return np.round(samples * _FULL_SCALE).clip(-_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


def to_float(samples: Int16[np.ndarray, "N"]) -> Float32[np.ndarray, "N"]:
    """Samples in [-1, 1)."""
    return samples.astype(np.float32) / np.float32(_FULL_SCALE)


class _Track:
    """One growing buffer of 2 bytes a sample, into which frames go at their times.

    Args:
        since: time of sample 0, s.
    """

    def __init__(self, since: float) -> None:
        self._since, self._buffer, self._first = since, bytearray(), 0  # _first: number of the buffer's first sample
        self._resampler: av.AudioResampler | None = None
        self._kind: tuple | None = None
        self._end = since  # time at which the next frame is due
        self.heard, self.silenced = False, 0

    def add(self, frame: av.AudioFrame, time: float | None) -> None:
        """Append a frame, or put it where its time says if that is elsewhere."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        moved = time is not None and (not self.heard or abs(time - self._end) > TOLERANCE)
        if moved or kind != self._kind:
            self._flush()
            self._end = time if moved and time is not None else self._end
            self._move_to(round((self._end - self._since) * SAMPLE_RATE))
            # A second at once: what is done to each piece costs a multiple of resampling it.
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE, frame_size=SAMPLE_RATE)
            self._kind, self._resampler = kind, resampler
        self._end += frame.samples / frame.sample_rate
        self.heard = True
        frame.pts = None  # the resampler counts samples
        self._append(self._resampler.resample(frame) if self._resampler else [])

    def finish(self) -> Int16[np.ndarray, "N"]:
        """Everything from sample 0 on."""
        self._flush()
        return np.frombuffer(self._buffer, np.int16)[-self._first :]

    def _move_to(self, sample: int) -> None:
        """Let the next sample be number `sample`: silence before it, or the end is written over."""
        if not self.heard:
            if sample > LONGEST_GAP * SAMPLE_RATE:
                raise DecodeError(f"the sound starts {sample / SAMPLE_RATE:.0f} s after the picture")
            self._first = min(sample, 0)
        missing = (sample - self._first) * _BYTES - len(self._buffer)
        if missing > 0:
            self._buffer += bytes(missing)
        elif missing < 0:
            del self._buffer[max(0, len(self._buffer) + missing) :]

    def _flush(self) -> None:
        if self._resampler is not None:
            self._append(self._resampler.resample(None))
            self._resampler = None

    def _append(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            samples = frame.to_ndarray()[0]
            finite = np.isfinite(samples)
            self.silenced += int(samples.size - finite.sum())
            self._buffer += to_int16(np.where(finite, samples, 0)).tobytes()
