"""A whole corpus of raw clips to a clip store, in parallel and resumable."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from datamodules.clip_store import read_row
from datamodules.manifest import MANIFEST, read_manifest, write_manifest
from datamodules.prepare.clip import ClipMaker, PrepareSettings, source_bytes
from datamodules.prepare.report import Report, Skipped, SourceResult, read_skipped
from datamodules.prepare.sources import SourceClip
from datamodules.prepare.workers import WorkerDied, map_in_processes
from model_zoo.face.detector import DlibDetector, FaceDetector
from model_zoo.face.morphable import MorphableFace


def prepare_corpus(
    sources: Sequence[SourceClip],
    out: Path,
    face: MorphableFace,
    workers: int = 1,
    progress: bool = True,
    settings: PrepareSettings | None = None,
    detector: FaceDetector | None = None,
) -> Report:
    """Prepare all clips that the store does not hold yet, then write its manifest and report.

    A clip that was prepared with other settings, from a file of another size, or that is damaged is prepared again.
    Interrupt it at any time: nothing is half written, and the next call goes on.

    Args:
        sources: from `scan_grid` or `scan_collected`.
        out: root of the store; made if missing.
        face: the model to fit.
        workers: processes; 0 works in this one.
        progress: shows a bar with rate and remaining time.
        settings: defaults if None.
        detector: dlib if None.

    Raises:
        ValueError: not one clip could be prepared.
        OSError: the store cannot be written.
    """
    started = time.monotonic()
    settings, detector = settings or PrepareSettings(), detector or DlibDetector()
    face = face.landmark_face().cpu()
    fingerprint = settings.fingerprint(face, detector.name)
    out.mkdir(parents=True, exist_ok=True)
    report, missing = _already_there(sources, out, fingerprint)
    maker = ClipMaker(out, face, detector, settings, fingerprint)
    with _progress_bar(progress) as bar:
        task = bar.add_task("preparing", total=len(missing), rate="")
        frames = 0
        for source, result in map_in_processes(_one_thread, (maker,), missing, min(workers, len(missing))):
            if isinstance(result, WorkerDied):
                crashed = Skipped(source.id, f"crashes its worker: {result}", source_bytes(source), fingerprint)
                result = SourceResult(source.id, skipped=[crashed])
            if isinstance(result, Exception):
                raise result
            report.rows += result.rows
            report.skipped += result.skipped
            frames += sum(row.frames for row in result.rows)
            bar.update(task, advance=1, rate=f"{frames / (time.monotonic() - started):.0f} frames/s")
    report.seconds = time.monotonic() - started
    report.write(out)
    if not report.rows:
        first = report.skipped[0]
        raise ValueError(f"none of {len(sources)} clips could be prepared; {first.id}: {first.reason}")
    write_manifest(out, report.rows)
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
    fingerprint = (settings or PrepareSettings()).fingerprint(face, (detector or DlibDetector()).name)
    report, missing = _already_there(sources, out, fingerprint)
    return not missing and {row.id for row in report.rows} == {row.id for row in read_manifest(out)}


def _one_thread(maker: ClipMaker) -> ClipMaker:
    """Runs once in every worker: the workers share the cores, so each takes one thread."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
    return maker


def _already_there(sources: Sequence[SourceClip], out: Path, fingerprint: str) -> tuple[Report, list[SourceClip]]:
    """What an earlier run did, and what is left."""
    given_up = {skipped.id: skipped for skipped in read_skipped(out)}
    report, missing = Report(), []
    for source in sources:
        tried = (fingerprint, source_bytes(source))
        row, skipped = read_row(out, source.id), given_up.get(source.id)
        if row is not None and (row.settings, row.source_bytes) == tried:
            report.rows.append(row)
        elif skipped is not None and (skipped.settings, skipped.source_bytes) == tried:
            report.skipped.append(skipped)
        else:
            missing.append(source)
    report.reused = len(report.rows)
    return report, missing


def _progress_bar(shown: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), disable=not shown)
