"""Frames of a source that can be gone through twice."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from datamodules.prepare.decode import Frame, read_frames

# Bytes. A GRID clip takes 23 MB; 2.9 s of 640x480 and 0.4 s of 1080p take as much as this. Longer sources are decoded
# twice, which takes a fraction of finding the face.
FRAME_MEMORY = 64 * 2**20

_PROCESS = ctypes.CDLL(None)


class ClipFrames:
    """Frames of a source: held in memory if they fit, else decoded again each time.

    Args:
        source: video file or folder of images.
        rate: frames a second of a folder of images.
        memory: bytes that may be held.
        notes: takes a line for each thing that is missing, once.
    """

    def __init__(self, source: Path, rate: float, memory: int = FRAME_MEMORY, notes: list[str] | None = None) -> None:
        self._decode: Callable[..., Iterator[Frame]] = partial(read_frames, source, rate)
        self._memory, self._notes = memory, notes
        self._held: list[Frame] | None = None
        self._too_long = False

    def __iter__(self) -> Iterator[Frame]:
        if self._held is not None:
            yield from self._held
            return
        held: list[Frame] | None = None if self._too_long else []
        size = 0
        if self._too_long:
            self.return_memory()
        notes, self._notes = self._notes, None
        for frame in self._decode(notes=notes):
            size += frame.nbytes
            if size > self._memory:
                held, size, self._too_long = None, 0, True
                self.return_memory()
            if held is not None:
                held.append(frame)
            yield frame
        self._held = held

    def return_memory(self) -> None:
        """Give back to the system what frames took that are no longer held, before others need as much.

        glibc keeps freed blocks of up to 32 MB, frames of full HD among them, for more of the same size. As whatever
        small is kept of a frame may settle in one of them, and the next frame then needs another, by chance hundreds of
        MB are kept; so this is done on the way as well.
        """
        if self._held is None:
            getattr(_PROCESS, "malloc_trim", bool)(0)  # glibc's alone
