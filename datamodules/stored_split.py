"""Splits that are kept beside the manifest, so that runs on a corpus that has grown still know what they held out.

`<store>/splits/<name>.json` gives the frames of every clip on each side. What a clip was used for it stays used for:
only clips that are not in the file are split anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import fsspec

from datamodules.atomic import StoreError, atomic_file
from datamodules.manifest import ClipRow
from datamodules.splits import Sides, Split, split_clips
from datamodules.tensor_file import is_url

SPLIT_FOLDER = "splits"


def split_name(name: str, **choices: object) -> str:
    """Name under which a split is stored; other choices make another one."""
    made = {choice: value for choice, value in choices.items() if value}
    if not made:
        return name
    return f"{name}-{hashlib.sha1(json.dumps(made, sort_keys=True).encode(), usedforsecurity=False).hexdigest()[:8]}"


def store_split(root: Path, name: str, sides: Sides) -> Path:
    """Write a split, whole or not at all.

    Raises:
        StoreError: the store cannot be written.
    """
    content = {
        side: {clip: [frames.start, frames.stop] for clip, frames in clips.items()}
        for side, clips in sides._asdict().items()
    }
    path = root / SPLIT_FOLDER / f"{name}.json"
    with atomic_file(root, path) as file:
        file.write(json.dumps(content, indent=0, sort_keys=True).encode())
    return path


def read_split(root: Path | str, name: str) -> Sides | None:
    """A stored split, or None if there is none of that name."""
    try:
        with fsspec.open(f"{str(root).rstrip('/')}/{SPLIT_FOLDER}/{name}.json", "rb") as file:
            content = json.load(file)
    except FileNotFoundError:
        return None
    return Sides(**{side: {clip: range(*ends) for clip, ends in clips.items()} for side, clips in content.items()})


def settle_split(root: Path | str, name: str, rows: Sequence[ClipRow], split: Split) -> Sides:
    """The stored split with the clips of today: clips that it knows stay where they are, others are split, and stored.

    Clips that are gone from the manifest stay in the file. A store that cannot be written is split all the same.

    Raises:
        ValueError: nothing is left to train or to test on.
    """
    known = read_split(root, name)
    if known is not None and all(row.id in known.train or row.id in known.test for row in rows):
        return _present(rows, known)
    sides = split_clips(rows, split)
    if known is not None:
        new = {row.id for row in rows} - known.train.keys() - known.test.keys()
        added = (({clip: side[clip] for clip in side if clip in new}) for side in sides)
        sides = Sides(*(old | more for old, more in zip(known, added, strict=True)))
    if not is_url(root):
        with suppress(StoreError):  # shared and read-only: whoever may write it stores the same
            store_split(Path(root), name, sides)
    return _present(rows, sides)


def label_rows(rows: Sequence[ClipRow], sides: Sides) -> list[ClipRow]:
    """Manifest rows whose `split` says "train", "test", "train+test" for a divided clip, or nothing."""
    labels = {row.id: "+".join(name for name, side in sides._asdict().items() if row.id in side) for row in rows}
    return [replace(row, split=labels[row.id]) for row in rows]


def _present(rows: Sequence[ClipRow], sides: Sides) -> Sides:
    """The clips of a split that the manifest has, in its order, no longer than they are."""

    def side(clips: Mapping[str, range]) -> dict[str, range]:
        frames = {row.id: clips[row.id][: max(0, row.frames - clips[row.id].start)] for row in rows if row.id in clips}
        return {clip: each for clip, each in frames.items() if each}

    return Sides(*map(side, sides))
