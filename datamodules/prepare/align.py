"""Word alignments of GRID: a line a word, `start end word`, 25,000 units a second (1,000 a video frame)."""

from __future__ import annotations

from pathlib import Path

from datamodules.clip_store import Word

UNITS_PER_SECOND = 25_000
SILENCE = ("sil", "sp")


def read_alignment(path: Path) -> list[Word]:
    """Words of an .align file, silences included, in order.

    Raises:
        ValueError: a line is not `start end word`, or ends before it starts.
    """
    words = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split()
        try:
            start, end = int(parts[0]), int(parts[1])
            text = parts[2]
        except (IndexError, ValueError):
            raise ValueError(f"{path.name}, line {number}: expected `start end word`, got {line[:40]!r}") from None
        if end < start:
            raise ValueError(f"{path.name}, line {number}: ends at {end}, before its start {start}")
        words.append(Word(start / UNITS_PER_SECOND, end / UNITS_PER_SECOND, text))
    return words


def transcript(words: list[Word]) -> str:
    """The words without silences, separated by blanks."""
    return " ".join(word.text for word in words if word.text not in SILENCE)
