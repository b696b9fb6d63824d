"""How far a preparation is: a bar on a terminal, a line a minute in a log file."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

_LINE_EVERY = 60.0  # s
_SETTLING = 5.0  # s, before which a remaining time would be a guess


class PreparationProgress:
    """Context that shows sources done, frames a second and the remaining time.

    The remaining time goes by bytes of raw video, for sources differ in length, and only by what this run has done
    itself: what was there before, and what other shards do, has no part in it.

    Args:
        what: is being done, one word.
        sources: to do in this run. size: bytes of them all.
        shown: False for silence.
    """

    def __init__(self, what: str, sources: int, size: int, shown: bool) -> None:
        self._what, self._sources, self._size, self._shown = what, sources, max(1, size), shown
        self._done = self._bytes = self._frames = 0
        self._console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
        )  # fmt: skip
        on_terminal = shown and self._console.is_terminal
        self._bar = Progress(*columns, console=self._console, disable=not on_terminal)
        self._task = self._bar.add_task(what, total=self._size, status=f"0/{sources}")

    def __enter__(self) -> Self:
        self._started = self._last_line = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.stop()

    def advance(self, size: int, frames: int) -> None:
        """A source is done: its bytes, and the frames that came of it."""
        self._done, self._bytes, self._frames = self._done + 1, self._bytes + size, self._frames + frames
        self._bar.update(self._task, completed=self._bytes, status=self.status())
        now = time.monotonic()
        if self._shown and self._bar.disable and now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            self._console.print(f"{self._what}: {self.status()}")

    def status(self) -> str:
        """Sources done, rate and remaining time, as text."""
        seconds = time.monotonic() - self._started
        text = f"{self._done}/{self._sources}"
        if self._frames:
            text += f", {self._frames / seconds:.0f} frames/s"
        if seconds > _SETTLING and 0 < self._bytes < self._size:
            text += f", {_clock(seconds * (self._size - self._bytes) / self._bytes)} left"
        return text


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
