"""Proof that a store is what was written: every clip is hashed, and every source that is still there."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from datamodules.atomic import sweep
from datamodules.clip_store import clip_path, verify_clip
from datamodules.manifest import ClipRow
from datamodules.prepare.clip import PrepareSettings
from datamodules.prepare.inventory import Inventory, remove_skipped, take_inventory
from datamodules.prepare.pipeline import Labels, clip_maker, make_missing, write_index, writing
from datamodules.prepare.progress import PreparationProgress
from datamodules.prepare.report import Report, Skipped, SourceResult
from datamodules.prepare.sources import SourceClip, source_bytes, source_sha256
from datamodules.prepare.workers import map_in_processes
from model_zoo.face.detector import FaceDetector
from model_zoo.face.morphable import MorphableFace


def verify_store(
    sources: Sequence[SourceClip],
    out: Path,
    face: MorphableFace,
    workers: int = 1,
    progress: bool = True,
    settings: PrepareSettings | None = None,
    detector: FaceDetector | None = None,
    split: Labels | None = None,
) -> Report:
    """Hash all clips and sources of a store, prepare again what is damaged, missing or outdated, and index it anew.

    Sources that were skipped are tried again. A whole clip whose source is gone stays. A damaged one whose source is
    gone is named as lost and left out.

    Args:
        sources, out, face, workers, progress, settings, detector, split: as of `prepare_corpus`.

    Raises:
        ValueError: the store does not exist, or nothing in it or of the sources can be used.
        StoreError: the store cannot be written.
    """
    started = time.monotonic()
    if not out.is_dir():
        raise ValueError(f"{out} does not exist: there is nothing to verify, prepare the corpus first")
    maker = clip_maker(out, face, settings, detector)
    with writing(out):
        sweep(out)
    sources = [maker.completed(source) for source in sources]
    present = {source.id: source for source in sources}
    inventory = take_inventory(out)
    good = _hashed(out, inventory, present, maker.fingerprint, workers, progress)

    report = Report(lost=sorted(_lost(inventory, good, present)))
    for result in good.values():
        report.add(result)
    report.reused = len(report.rows)
    missing = [source for source in sources if source.id not in good]
    with_clips = [name for name, result in inventory.results.items() if result.rows]
    held = {*with_clips, *inventory.incomplete, *map(_source_of, inventory.damaged), *inventory.damaged}
    report.repaired = [source.id for source in missing if source.id in held]
    with writing(out):
        for source in missing:
            _remove(out, source.id, inventory)
    make_missing(maker, missing, report, workers, progress)
    report.seconds = time.monotonic() - started
    write_index(out, report, split)
    return report


class _Held(NamedTuple):
    """Clips that a store holds of a source, and the source if it is still there."""

    id: str
    paths: list[Path]
    sha256: str
    source: SourceClip | None


def _hashed(
    out: Path,
    inventory: Inventory,
    present: dict[str, SourceClip],
    fingerprint: str,
    workers: int,
    progress: bool,
) -> dict[str, SourceResult]:
    """The sources of which everything is as it was written."""
    held, good = [], {}
    for name, result in inventory.results.items():
        made: ClipRow | Skipped = result.rows[0] if result.rows else result.skipped[0]
        source = present.get(name)
        if made.settings != fingerprint or (source is not None and source_bytes(source) != made.source_bytes):
            continue
        if result.rows:
            paths = [clip_path(out, row.id) for row in result.rows]
            held.append(_Held(name, paths, result.rows[0].sha256, source))
        elif source is None:
            good[name] = result  # what there was to say of it; one that is still there is tried again
    sizes = {each.id: sum(path.stat().st_size for path in each.paths) for each in held}
    with PreparationProgress("verifying", len(held), sum(sizes.values()), progress) as shown:
        for each, whole in map_in_processes(_start, (), held, min(workers, len(held))):
            if isinstance(whole, Exception):
                raise whole
            if whole:
                good[each.id] = inventory.results[each.id]
            shown.advance(sizes[each.id], 0)
    return good


def _start() -> Callable[[_Held], bool]:
    return _is_whole


def _is_whole(held: _Held) -> bool:
    if not all(verify_clip(path) for path in held.paths):
        return False
    try:
        return held.source is None or source_sha256(held.source) == held.sha256
    except OSError:
        return True  # the source cannot be read at present, which is no reason to give up its clips


def _lost(inventory: Inventory, good: dict[str, SourceResult], present: dict[str, SourceClip]) -> set[str]:
    """Clips that are no longer to be had: they, or others of their source, are damaged, and it is gone."""
    rows: list[ClipRow] = [row for result in inventory.results.values() for row in result.rows]
    lost = {row.id for row in rows if row.source not in good and row.source not in present}
    lost |= {source for source in inventory.incomplete if source not in present}
    return lost | {clip for clip in inventory.damaged if not {clip, _source_of(clip)} & present.keys()}


def _remove(out: Path, source: str, inventory: Inventory) -> None:
    """Delete what there is of a source: what it is prepared to anew may have other parts."""
    result = inventory.results.get(source)
    clips = [row.id for row in result.rows] if result is not None else []
    for clip in [*clips, *(clip for clip in inventory.damaged if source in (clip, _source_of(clip)))]:
        clip_path(out, clip).unlink(missing_ok=True)
    remove_skipped(out, source)


def _source_of(clip: str) -> str:
    """The source that a clip is of, by its name, if it is one part of several."""
    return re.sub(r"-\d{3,}$", "", clip)
