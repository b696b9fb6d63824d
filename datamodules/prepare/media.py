"""Opening a media file whatever its state: which streams count, what cannot be decoded, and when it was to be shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer

LONGEST_GAP = 600.0  # s; presentation times further apart are a clock gone wrong, not a pause
_JITTER = 1.0  # s; times that step back by less are put in order, by more begin another recording

_NO_PICTURE = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
_ASIDE = (
    av.stream.Disposition.comment
    | av.stream.Disposition.hearing_impaired
    | av.stream.Disposition.visual_impaired
    | av.stream.Disposition.descriptions
)


class DecodeError(ValueError):
    """The source cannot be read; the message is one line for the report."""


class ClockJump(Exception):
    """The presentation times jump: what follows belongs to another recording."""


class Clock:
    """Presentation times of a stream as seconds that never fall.

    A missing time follows the one before by `period`. Times that step back a little are held.
    """

    def __init__(self, period: float) -> None:
        self._period, self._last = period, None

    def __call__(self, time: float | None) -> float:
        """Time of the next frame, s.

        Raises:
            ClockJump: it lies more than a second before the last one or more than `LONGEST_GAP` after it.
        """
        if self._last is None:
            self._last = time or 0.0
        elif time is None:
            self._last += self._period
        elif not -_JITTER <= time - self._last <= LONGEST_GAP:
            raise ClockJump(f"the clock jumps from {self._last:.2f} to {time:.2f} s: the rest is left out")
        else:
            self._last = max(self._last, time)
        return self._last


@contextmanager
def open_media(source: Path, what: str) -> Iterator[InputContainer]:
    """The opened file; whatever the decoder says against it within the block becomes a `DecodeError`.

    Args:
        source: regular file.
        what: "video" or "sound", for the message.

    Raises:
        DecodeError: it cannot be read, with the reason.
    """
    if source.exists() and not source.is_file():
        raise DecodeError(f"not readable as {what} (not a regular file)")  # a pipe would block for ever
    try:
        # A playlist named .mp4 must not fetch other files; tags need not be UTF-8.
        options = {"protocol_whitelist": "file"}
        with av.open(f"file:{source}", metadata_errors="ignore", options=options) as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DecodeError(f"not readable as {what} ({reason})") from error


def choose_video(container: InputContainer) -> av.VideoStream:
    """The stream to watch: the default one, then the largest; never the cover picture of a sound file.

    Raises:
        DecodeError: there is none.
    """
    streams = [s for s in container.streams.video if s.codec_context and not s.disposition & _NO_PICTURE]
    if not streams:
        raise DecodeError("no video stream" + (", only a cover picture" if container.streams.video else ""))
    chosen = min(streams, key=lambda s: (not s.disposition & av.stream.Disposition.default, -s.width * s.height))
    chosen.codec_context.thread_count = 1  # a worker has one core, and damaged frames differ from run to run with more
    return chosen


def choose_audio(container: InputContainer) -> av.AudioStream:
    """The stream to hear: no commentary or audio description where there is another, then the default one.

    Raises:
        DecodeError: there is none.
    """
    streams: Sequence[av.AudioStream] = [s for s in container.streams.audio if s.codec_context]
    if not streams:
        raise DecodeError("no sound")
    default = av.stream.Disposition.default
    return min(streams, key=lambda s: (bool(s.disposition & _ASIDE), not s.disposition & default))


def decoded(container: InputContainer, stream: av.VideoStream | av.AudioStream) -> Iterator:
    """Frames of a stream in the order of presentation, None in place of whatever cannot be decoded."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:  # a generator that has raised is at its end
            yield None
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.FFmpegError:
            yield None


def rate_of(stream: av.VideoStream) -> float | None:
    """Frames a second as the file says, None if it says nothing sensible."""
    rate: Fraction | None = stream.average_rate or stream.guessed_rate
    return float(rate) if rate and rate > 0 else None
