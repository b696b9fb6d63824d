"""What a clip store holds of which source: the files alone say it, so no process needs to tell another.

A source is complete when its clips, parts 1 to n, are all there with the present settings and the source's present
size, or when a record beside them, `<source>.skipped.json`, says why there are none.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from datamodules.atomic import atomic_file
from datamodules.clip_store import clip_path, read_row
from datamodules.manifest import ClipRow
from datamodules.prepare.report import Skipped, SourceResult

_CLIP, _SKIPPED = ".safetensors", ".skipped.json"


class Attempt(NamedTuple):
    """What a result must have been made with to count: the settings' fingerprint, and the source's size in bytes."""

    settings: str
    source_bytes: int


def part_ids(source: str, parts: int) -> list[str]:
    """Ids of the clips of a source: its own if there is one clip, numbered from -001 if there are more."""
    return [source] if parts == 1 else [f"{source}-{part:03d}" for part in range(1, parts + 1)]


def find_result(out: Path, source: str, attempt: Attempt) -> SourceResult | None:
    """What an earlier run made of a source; None if that is not complete, or was made differently."""
    first = _row_of(out, source, source) or _row_of(out, f"{source}-001", source)
    if first is not None:
        rows = [_row_of(out, clip, source) for clip in part_ids(source, first.parts)]
        whole = [row for row in rows if row is not None and _attempt(row) == attempt]
        return SourceResult(source, whole) if len(whole) == first.parts else None
    skipped = read_skipped(out, source)
    return None if skipped is None or _attempt(skipped) != attempt else SourceResult(source, skipped=[skipped])


def remove_outdated(out: Path, source: str, attempt: Attempt) -> None:
    """Delete clips and record of a source that were made with other settings, or from another file."""
    stem = clip_path(out, source)
    for path in [stem, *stem.parent.glob(f"{_escaped(stem.stem)}-[0-9][0-9][0-9]*{_CLIP}")]:
        row = _row_of(out, _identity(out, path, _CLIP), source)
        if row is not None and _attempt(row) != attempt:
            path.unlink(missing_ok=True)
    remove_skipped(out, source)


def remove_skipped(out: Path, source: str) -> None:
    """Forget that there is no clip of a source."""
    _skipped_path(out, source).unlink(missing_ok=True)


def write_skipped(out: Path, skipped: Skipped) -> None:
    """Record that there is no clip of a source, and why.

    Raises:
        StoreError: the store cannot be written.
    """
    with atomic_file(out, _skipped_path(out, skipped.id)) as file:
        file.write(json.dumps(asdict(skipped), ensure_ascii=False).encode())


def read_skipped(out: Path, source: str) -> Skipped | None:
    """The record of a source without clips, if there is one."""
    with suppress(OSError, ValueError, TypeError):
        return Skipped(**json.loads(_skipped_path(out, source).read_bytes()))
    return None


class Inventory(NamedTuple):
    """Everything that a store holds.

    Attributes:
        results: of the complete sources, by id.
        incomplete: sources of which clips are missing, or were made with different settings.
        damaged: ids of clips that cannot be read.
    """

    results: dict[str, SourceResult]
    incomplete: list[str]
    damaged: list[str]


def take_inventory(out: Path) -> Inventory:
    """Go through all files of a store, reading the clips' headers."""
    rows: dict[str, list[ClipRow]] = defaultdict(list)
    results: dict[str, SourceResult] = {}
    damaged = []
    for clip in _walk(out, _CLIP):
        row = read_row(out, clip)
        if row is None or row.id != clip:
            damaged.append(clip)
        else:
            rows[row.source].append(row)
    for source in _walk(out, _SKIPPED):
        skipped = read_skipped(out, source)
        if skipped is not None and skipped.id == source and source not in rows:
            results[source] = SourceResult(source, skipped=[skipped])
    incomplete = []
    for source, found in sorted(rows.items()):
        found.sort(key=lambda row: row.part)
        expected = part_ids(source, found[0].parts)
        if [row.id for row in found] == expected and len({_attempt(row) for row in found}) == 1:
            results[source] = SourceResult(source, found)
        else:
            incomplete.append(source)
    return Inventory(results, incomplete, damaged)


def _walk(out: Path, suffix: str) -> Iterator[str]:
    """Ids of the files of a kind, sorted; hidden folders are left out."""
    for folder, below, names in os.walk(out):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(suffix):
                yield _identity(out, Path(folder) / name, suffix)


def _identity(out: Path, path: Path, suffix: str) -> str:
    return path.relative_to(out).as_posix().removesuffix(suffix)


def _row_of(out: Path, clip: str, source: str) -> ClipRow | None:
    """Row of a clip, if it is one of that source: other sources may have names that end in numbers."""
    row = read_row(out, clip)
    return row if row is not None and row.source == source else None


def _attempt(made: ClipRow | Skipped) -> Attempt:
    return Attempt(made.settings, made.source_bytes)


def _skipped_path(out: Path, source: str) -> Path:
    return out / f"{source}{_SKIPPED}"


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "[]*?" else letter for letter in name)
