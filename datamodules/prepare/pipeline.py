"""A whole corpus of raw videos to a clip store: in parallel, on several machines, resumable whatever ends it."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import torch

from datamodules.atomic import StoreError, store_error, sweep
from datamodules.clip_store import clip_path
from datamodules.manifest import MANIFEST, ClipRow, read_manifest, write_manifest
from datamodules.prepare.clip import ClipMaker, PrepareSettings
from datamodules.prepare.inventory import Attempt, find_result, remove_outdated, take_inventory, write_skipped
from datamodules.prepare.progress import PreparationProgress
from datamodules.prepare.report import Report, Skipped, SourceResult, write_table
from datamodules.prepare.report_page import write_page
from datamodules.prepare.sources import SourceClip, source_bytes
from datamodules.prepare.workers import WorkerDied, map_in_processes
from model_zoo.face.detector import DlibDetector, FaceDetector
from model_zoo.face.morphable import MorphableFace

ATTEMPTS = 3  # at a source that ends its worker; the second and third with no other worker beside it

Labels = Callable[[Sequence[ClipRow]], Sequence[ClipRow]]  # fills the column `split` of a manifest's rows


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` of a list of sources, 1 to count; each source's part follows from its id alone."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "2/8".

        Raises:
            ValueError: it is not of that form, or there is no such part.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"shard {text!r}: give i/n with i from 1 to n, for example 1/8 to 8/8")
        return cls(int(index), int(count))

    def of(self, sources: Sequence[SourceClip]) -> list[SourceClip]:
        """The sources of this part, in order."""
        return [source for source in sources if self._part(source.id) == self.index]

    def _part(self, identity: str) -> int:
        digest = hashlib.sha1(identity.encode(errors="surrogateescape"), usedforsecurity=False).digest()
        return 1 + int.from_bytes(digest[:8], "big") % self.count


def prepare_corpus(
    sources: Sequence[SourceClip],
    out: Path,
    face: MorphableFace,
    workers: int = 1,
    progress: bool = True,
    settings: PrepareSettings | None = None,
    detector: FaceDetector | None = None,
    shard: Shard | None = None,
    split: Labels | None = None,
) -> Report:
    """Prepare all sources that the store does not hold yet, then write its manifest and report.

    A source that was prepared with other settings, from a file of another size, or of which a clip is cut off is
    prepared again. Complete sources of the same settings that the store holds beside them, whose files are gone or on
    another machine, stay and are indexed too. However it ends, nothing is half written, and the next call goes on: the
    store is then the same, byte for byte, as if it had never been interrupted.

    Args:
        sources: from one of the functions of `sources`.
        out: root of the store; made if missing.
        face: the model to fit.
        workers: processes; 0 works in this one.
        progress: shows a bar with rate and remaining time.
        settings: defaults if None.
        detector: dlib if None.
        shard: only this part of the sources, and no manifest: `merge_store` writes it when all parts are done.
        split: fills the manifest's column `split`.

    Raises:
        ValueError: not one source could be prepared.
        StoreError: the store cannot be written.
    """
    started = time.monotonic()
    maker = clip_maker(out, face, settings, detector)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        sweep(out)
    whole = shard is None or shard.count == 1
    sources = sources if whole else shard.of(sources)  # type: ignore[union-attr]
    sources = [maker.completed(source) for source in sources]
    report, missing = _already_there(sources, out, maker.fingerprint)
    if whole:
        _add_others(report, sources, out, maker.fingerprint)
    try:
        make_missing(maker, missing, report, workers, progress)
    except (StoreError, KeyboardInterrupt):
        with suppress(StoreError):  # what is done can be read all the same
            if whole and report.rows:
                write_manifest(out, report.rows)
        raise
    report.seconds = time.monotonic() - started
    if whole:
        write_index(out, report, split)
        _refuse_nothing(report, len(sources))
    return report


def is_prepared(
    sources: Sequence[SourceClip],
    out: Path,
    face: MorphableFace,
    settings: PrepareSettings | None = None,
    detector: FaceDetector | None = None,
) -> bool:
    """Whether `prepare_corpus` with the same arguments would have nothing to do."""
    if not (out / MANIFEST).is_file():
        return False
    maker = clip_maker(out, face, settings, detector)
    report, missing = _already_there([maker.completed(source) for source in sources], out, maker.fingerprint)
    try:
        manifest = read_manifest(out)
    except ValueError:  # of an older version
        return False
    wanted = {row.id for row in report.rows}
    held = all(
        row.settings == maker.fingerprint and (row.id in wanted or clip_path(out, row.id).is_file()) for row in manifest
    )
    return not missing and held and wanted <= {row.id for row in manifest}


def merge_store(
    out: Path, sources: Sequence[SourceClip] = (), split: Labels | None = None, settings: str | None = None
) -> Report:
    """Write manifest and report of whatever complete sources a folder holds.

    It may have been filled by shards at the same time, or by copying the folders of several stores together.

    Args:
        out: root of the store.
        sources: those of them that are missing are counted.
        split: fills the manifest's column `split`.
        settings: fingerprint that the clips must have; None: one and the same.

    Raises:
        ValueError: the folder holds no clip, or clips of different settings.
        StoreError: the store cannot be written.
    """
    started = time.monotonic()
    if not out.is_dir():
        raise ValueError(f"{out} does not exist: prepare the shards first, with the same data.root and data.cache")
    with writing(out):
        sweep(out)
    inventory = take_inventory(out)
    report = Report(lost=inventory.damaged)
    for result in inventory.results.values():
        report.add(result)
    wanted = {source.id for source in sources} | set(inventory.incomplete)
    report.pending = len(wanted - inventory.results.keys())
    report.reused = len(report.rows)
    made_with = {row.settings for row in report.rows} | {skipped.settings for skipped in report.skipped}
    if len(made_with) > 1 or (settings is not None and made_with - {settings}):
        raise ValueError(
            f"{out} holds sources prepared with {len(made_with)} different settings, face models or detectors: "
            "clips are only comparable within one; keep them in stores of their own"
        )
    report.seconds = time.monotonic() - started
    write_index(out, report, split)
    _refuse_nothing(report, len(wanted) + len(report.skipped))
    return report


def write_index(out: Path, report: Report, split: Labels | None = None) -> None:
    """Write `manifest.parquet`, `report.parquet` and `report.html` from what was found or made.

    Raises:
        StoreError: the store cannot be written.
    """
    report.sort()
    if report.rows:
        write_manifest(out, split(report.rows) if split is not None else report.rows)
    lines = report.lines()
    write_table(out, lines)
    write_page(out, report, lines)


def clip_maker(
    out: Path, face: MorphableFace, settings: PrepareSettings | None, detector: FaceDetector | None
) -> ClipMaker:
    """What prepares a source, with everything that is the same for all of them."""
    settings, detector = settings or PrepareSettings(), detector or DlibDetector()
    face = face.landmark_face().cpu()
    return ClipMaker(out, face, detector, settings, settings.fingerprint(face, detector.name))


def _already_there(sources: Sequence[SourceClip], out: Path, fingerprint: str) -> tuple[Report, list[SourceClip]]:
    """What earlier runs did, and what is left."""
    report, missing = Report(), []
    for source in sources:
        result = find_result(out, source.id, Attempt(fingerprint, source_bytes(source)))
        if result is None:
            missing.append(source)
        else:
            report.add(result)
    report.reused = len(report.rows)
    return report, missing


def _add_others(report: Report, sources: Sequence[SourceClip], out: Path, fingerprint: str) -> None:
    """Add the complete sources in the store that were made alike but are not here: gone, or of another machine."""
    here = {source.id for source in sources}
    for name, result in take_inventory(out).results.items():
        made = result.rows[0] if result.rows else result.skipped[0]
        if name not in here and made.settings == fingerprint:
            report.add(result)
            report.reused += len(result.rows)


def make_missing(maker: ClipMaker, missing: Sequence[SourceClip], report: Report, workers: int, progress: bool) -> None:
    """Prepare the missing sources and add what comes of them to the report."""
    report.workers = min(workers, len(missing))
    sizes = {source.id: source_bytes(source) for source in missing}
    deaths: dict[str, WorkerDied] = {}
    with PreparationProgress("preparing", len(missing), sum(sizes.values()), progress) as shown:
        for attempt in range(ATTEMPTS):
            died = []
            together = report.workers if attempt == 0 else min(1, report.workers)
            for source, result in map_in_processes(_start, (maker,), missing, together):
                if isinstance(result, WorkerDied):
                    deaths[source.id] = result
                    died.append(source)
                    continue
                if isinstance(result, Exception):
                    raise result
                frames = sum(row.frames for row in result.rows)
                report.add(result)
                report.frames_made += frames
                shown.advance(sizes[source.id], frames)
            missing = died
    for source in missing:
        death = deaths[source.id]
        crashed = Skipped(source.id, f"crashes its worker: {death}", sizes[source.id], maker.fingerprint)
        report.skipped.append(crashed)
        if not death.from_outside:  # else the next run tries it again
            write_skipped(maker.out, crashed)


@dataclass(frozen=True)
class _Work:
    """What a worker does with a source."""

    maker: ClipMaker

    def __call__(self, source: SourceClip) -> SourceResult:
        out, attempt = self.maker.out, Attempt(self.maker.fingerprint, source_bytes(source))
        done = find_result(out, source.id, attempt)
        if done is not None:  # by another run on the same folder, in the meantime
            return done
        with writing(out):
            remove_outdated(out, source.id, attempt)
        with _one_thread(), torch.inference_mode():
            result = self.maker(source)
        if not result.rows and result.lasting:
            write_skipped(out, result.skipped[0])
        return result


def _start(maker: ClipMaker) -> _Work:
    """Runs once in every worker: the workers share the cores, so each takes one thread."""
    if multiprocessing.parent_process() is not None:
        cv2.setNumThreads(1)
    return _Work(maker)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread whether in a worker or not: sums over several threads may round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Says of a failure what the user should do."""
    try:
        yield
    except OSError as error:
        raise store_error(error, out) from error


def _refuse_nothing(report: Report, sources: int) -> None:
    if not report.rows:
        first = next((f"; {skipped.id}: {skipped.reason}" for skipped in report.skipped), "")
        raise ValueError(f"none of {sources} sources could be prepared{first}")
