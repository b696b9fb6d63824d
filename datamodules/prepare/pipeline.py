"""Raw video to a finished clip of the store, and a whole corpus of them.

decode -> track -> fit -> crop -> encode, with MFCC and words beside. Stages pass plain arrays; whatever is wrong with a
source ends as a `Skipped` with a reason, never as the end of the run.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from datamodules.batch import NUM_FRAMES
from datamodules.clip_store import (
    FORMAT,
    JPEG_QUALITY,
    MANIFEST,
    ClipData,
    ClipRow,
    encode_crop,
    read_row,
    write_clip,
    write_manifest,
)
from datamodules.prepare.align import read_alignment, transcript
from datamodules.prepare.crop import SMOOTHING, crop_from_fit, warp_crop
from datamodules.prepare.decode import (
    FRAME_RATE,
    SAMPLES_PER_FRAME,
    Frame,
    fit_length,
    read_audio,
    read_frames,
    video_start,
)
from datamodules.prepare.report import Report, Skipped, read_skipped
from datamodules.prepare.sources import SourceClip
from datamodules.prepare.track import track_landmarks
from datamodules.prepare.workers import WorkerDied, map_in_processes
from model_zoo.face.detector import DlibDetector, FaceDetector
from model_zoo.face.fitting import fit_clip
from model_zoo.face.morphable import MorphableFace
from model_zoo.functional.camera import apply_similarity
from model_zoo.functional.masks import mouth_box, mouth_region
from model_zoo.functional.mfcc import mfcc

PIPELINE = 1  # to be raised with every change that changes what is stored
FRAME_MEMORY = 512 * 2**20  # bytes; decoded clips up to this size are held, longer ones decoded a second time
MIN_VALID = 0.5  # share of the frames that must show the face


@dataclass(frozen=True)
class PrepareSettings:
    """What preparation may be asked to do differently.

    Attributes:
        consent: on what basis the faces may be processed, recorded with every clip.
        num_cepstra: of the MFCC.
        jpeg_quality: of the crops.
        smoothing: of the crop over time, frames.
        image_rate: frames a second of clips that are folders of images.
    """

    consent: str = "not stated"
    num_cepstra: int = 13
    jpeg_quality: int = JPEG_QUALITY
    smoothing: float = SMOOTHING
    image_rate: float = FRAME_RATE

    def fingerprint(self, face: MorphableFace, detector: FaceDetector) -> str:
        """Changes with anything that changes the prepared clips."""
        digest = hashlib.sha256(repr((FORMAT, PIPELINE, asdict(self), detector.name)).encode())
        for tensor in (face.landmark_mean, face.landmark_shape, face.landmark_expression):
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]


class ClipFrames:
    """Frames of a source that can be gone through twice: held in memory if they fit, else decoded again."""

    def __init__(self, source: Path, rate: float, memory: int = FRAME_MEMORY) -> None:
        self._decode: Callable[[], Iterator[Frame]] = partial(read_frames, source, rate)
        self._memory = memory
        self._held: list[Frame] | None = None

    def __iter__(self) -> Iterator[Frame]:
        if self._held is not None:
            yield from self._held
            return
        held: list[Frame] | None = []
        size = 0
        for frame in self._decode():
            size += frame.nbytes
            if size > self._memory:
                held = None
            if held is not None:
                held.append(frame)
            yield frame
        self._held = held


def prepare_clip(
    source: SourceClip,
    out: Path,
    face: MorphableFace,
    detector: FaceDetector,
    settings: PrepareSettings | None = None,
    fingerprint: str | None = None,
) -> ClipRow | Skipped:
    """Prepare one clip and write it into the store.

    Args:
        source: where the raw clip is.
        out: root of the store.
        face: the model to fit.
        detector: finds the face and its landmarks.
        settings: defaults if None.
        fingerprint: of settings, face and detector; computed if None.

    Returns:
        The clip's row, or why there is none.

    Raises:
        OSError: the store cannot be written.
    """
    settings = settings or PrepareSettings()
    fingerprint = fingerprint or settings.fingerprint(face, detector)
    size = source_bytes(source)
    try:
        row, data = _prepare(source, face, detector, settings, fingerprint, size)
    except Exception as error:  # whatever a broken file provokes, it is the file's fault and not the run's
        named = isinstance(error, ValueError)
        reason = str(error) if named else f"{type(error).__name__}: {error}"
        return Skipped(source.id, " ".join(reason.split())[:200], size, fingerprint)
    write_clip(out, row, data)
    return row


def _prepare(
    source: SourceClip,
    face: MorphableFace,
    detector: FaceDetector,
    settings: PrepareSettings,
    fingerprint: str,
    size: int,
) -> tuple[ClipRow, ClipData]:
    samples = read_audio(source.audio or source.video, 0.0 if source.audio else video_start(source.video))
    words = read_alignment(source.alignment) if source.alignment else []
    frames = ClipFrames(source.video, settings.image_rate)
    detected = torch.from_numpy(track_landmarks(frames, detector))
    if len(detected) < NUM_FRAMES:
        raise ValueError(f"too short: {len(detected)} frames at 25 a second, at least {NUM_FRAMES} are needed")
    if len(samples) < SAMPLES_PER_FRAME:
        raise ValueError("no sound during the video")
    _refuse_few(~detected.isnan().any(-1).any(-1), "no face found")
    fit = fit_clip(face, detected)
    _refuse_few(fit.valid, "face model does not fit")

    crop = crop_from_fit(face, fit.shape, fit.pose, fit.valid, settings.smoothing)
    landmarks = face.project_landmarks(fit.shape, fit.expression, crop.pose)
    samples = fit_length(samples, len(detected))
    jpegs, total = [], 0.0
    for frame, transform in zip(frames, crop.transform.numpy(), strict=True):
        image = warp_crop(frame, transform)
        jpegs.append(encode_crop(image, settings.jpeg_quality))
        total = total + image.astype(np.float32)
    mean = np.round(total / len(jpegs)).astype(np.uint8)

    row = ClipRow(
        id=source.id,
        speaker=source.speaker,
        view=source.view,
        frames=len(jpegs),
        valid_frames=int(fit.valid.sum()),
        transcript=transcript(words),
        sha256=_sha256(source),
        source_bytes=size,
        residual=float(fit.residual[fit.valid].mean()),
        noise=float(fit.noise),
        consent=settings.consent,
        settings=fingerprint,
        versions=tool_versions(),
        jpeg_quality=settings.jpeg_quality,
    )
    data = ClipData(
        crops=jpegs,
        mean_crop=encode_crop(mean, settings.jpeg_quality),
        landmarks=landmarks,
        landmarks_detected=apply_similarity(crop.transform, detected),
        expression=fit.expression,
        pose=crop.pose,
        shape=fit.shape,
        valid=fit.valid,
        mfcc=mfcc(torch.from_numpy(samples), settings.num_cepstra),
        sound=torch.from_numpy(np.round(samples * 32767).clip(-32768, 32767).astype(np.int16)),
        crop_transform=crop.transform,
        mouth_box=mouth_box(landmarks),
        mouth_region=mouth_region(landmarks),
        words=words,
    )
    return row, data


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
    fingerprint = settings.fingerprint(face, detector)
    out.mkdir(parents=True, exist_ok=True)
    report, missing = _already_there(sources, out, fingerprint)
    with _progress_bar(progress) as bar:
        task = bar.add_task("preparing", total=len(missing), rate="")
        frames = 0
        arguments = (out, face, detector, settings, fingerprint)
        for source, result in map_in_processes(_start, arguments, missing, workers):
            if isinstance(result, WorkerDied):
                result = Skipped(source.id, "crashes the decoder or detector", source_bytes(source), fingerprint)
            if isinstance(result, Exception):
                raise result
            if isinstance(result, Skipped):
                report.skipped.append(result)
            else:
                report.rows.append(result)
                frames += result.frames
            rate = f"{frames / (time.monotonic() - started):.0f} frames/s"
            bar.update(task, advance=1, rate=rate)
    report.seconds = time.monotonic() - started
    report.write(out)
    if not report.rows:
        first = report.skipped[0]
        raise ValueError(f"none of {len(sources)} clips could be prepared; {first.id}: {first.reason}")
    write_manifest(out, report.rows)
    return report


def is_prepared(sources: Sequence[SourceClip], out: Path, face: MorphableFace, settings: PrepareSettings) -> bool:
    """Whether `prepare_corpus` with dlib would have nothing to do."""
    if not (out / MANIFEST).is_file():
        return False
    _, missing = _already_there(sources, out, settings.fingerprint(face, DlibDetector()))
    return not missing


def source_bytes(source: SourceClip) -> int:
    """Size of the raw clip; 0 if it is gone."""
    return sum(path.stat().st_size for path in _source_files(source) if path.exists())


@lru_cache
def tool_versions() -> str:
    """Versions of what the prepared numbers depend on."""
    tools = ("av", "dlib-bin", "opencv-python-headless", "torch", "numpy")
    return " ".join(f"{tool}={version(tool)}" for tool in tools)


def _start(
    out: Path, face: MorphableFace, detector: FaceDetector, settings: PrepareSettings, fingerprint: str
) -> Callable[[SourceClip], ClipRow | Skipped]:
    """Runs once in every worker: one thread each, for the workers share the cores."""
    import multiprocessing

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
    return partial(prepare_clip, out=out, face=face, detector=detector, settings=settings, fingerprint=fingerprint)


def _already_there(sources: Sequence[SourceClip], out: Path, fingerprint: str) -> tuple[Report, list[SourceClip]]:
    """What an earlier run did, and what is left."""
    given_up = {skipped.id: skipped for skipped in read_skipped(out)}
    report, missing = Report(), []
    for source in sources:
        size = source_bytes(source)
        row, skipped = read_row(out, source.id), given_up.get(source.id)
        if row is not None and (row.settings, row.source_bytes) == (fingerprint, size):
            report.rows.append(row)
        elif skipped is not None and (skipped.settings, skipped.source_bytes) == (fingerprint, size):
            report.skipped.append(skipped)
        else:
            missing.append(source)
    report.reused = len(report.rows)
    return report, missing


def _source_files(source: SourceClip) -> list[Path]:
    files = sorted(source.video.iterdir()) if source.video.is_dir() else [source.video]
    return files + [path for path in (source.audio, source.alignment) if path is not None]


def _sha256(source: SourceClip) -> str:
    digest = hashlib.sha256()
    files = sorted(source.video.iterdir()) if source.video.is_dir() else [source.video]
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _refuse_few(good: torch.Tensor, what: str) -> None:
    missing = int((~good).sum())
    if missing > (1 - MIN_VALID) * len(good):
        raise ValueError(f"{what} in {missing} of {len(good)} frames")


def _progress_bar(shown: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, disable=not shown)
