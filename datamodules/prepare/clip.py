"""One raw source to finished clips of the store: decode, track, fit, crop, encode, with sound and words beside.

A source is gone through twice, once to find the face and once to cut it out; what is kept in between grows with its
length only by landmarks, coefficients and the sound. Whatever is wrong with a source ends as a `Skipped` with a reason,
never as the end of the run.

Shape legend: T frames of the source or of a clip of it, N samples, A audio frames, C cepstra.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from torch import Tensor

from datamodules.atomic import StoreError
from datamodules.batch import NUM_FRAMES
from datamodules.clip_store import FORMAT, ClipData, CropSpool, write_clip
from datamodules.crop_codec import JPEG_QUALITY, encode_crop
from datamodules.manifest import ClipRow
from datamodules.prepare.align import read_alignment, transcript
from datamodules.prepare.clip_frames import ClipFrames
from datamodules.prepare.clip_sound import SourceSound, sound_mfcc
from datamodules.prepare.crop import CROP_SIZE, SMOOTHING, crop_from_fit, warp_crop
from datamodules.prepare.cuts import CutFinder
from datamodules.prepare.decode import FRAME_RATE, Frame, raw_size, read_audio, video_start
from datamodules.prepare.fitted_spans import FittedSpan, fit_spans, mouth_opening
from datamodules.prepare.inventory import part_ids
from datamodules.prepare.media import DecodeError
from datamodules.prepare.people import Choice, chosen_face
from datamodules.prepare.report import Skipped, SourceResult
from datamodules.prepare.sources import SourceClip, source_bytes, source_sha256
from datamodules.prepare.spans import LeftOut
from datamodules.prepare.sync import sound_offset
from datamodules.prepare.track import FaceTracker
from model_zoo.face.detector import FaceDetector
from model_zoo.face.landmark_files import LandmarkFiles
from model_zoo.face.morphable import MorphableFace
from model_zoo.functional.camera import apply_similarity
from model_zoo.functional.masks import mouth_box, mouth_region

PIPELINE = 5  # raised with every change that changes what is stored, so that old clips are prepared again
MIN_CONFIDENCE = 0.5  # of an offset that is corrected
_STATEMENTS = ("consent", "consent_reference")  # settings that change no pixel
_BLOCK = 1024  # frames
THUMBNAILS, THUMBNAIL_SIDE, THUMBNAIL_QUALITY = 8, 64, 85  # crops in the strip of the report, px, JPEG


@dataclass(frozen=True)
class PrepareSettings:
    """What preparation may be asked to do differently.

    Attributes:
        consent: on what basis the faces may be processed, recorded with every clip. consent_reference: the licence,
            name or document that it is found by.
        num_cepstra: of the MFCC.
        jpeg_quality: of the crops.
        smoothing: of the crop over time, frames.
        image_rate: frames a second of clips that are folders of images.
        choice: whom to keep where a source shows several people: `largest`, `central` or `talking`.
        correct_offset: moves the sound by the offset that was found, where it was found with confidence.
    """

    consent: str = "not stated"
    consent_reference: str = ""
    num_cepstra: int = 13
    jpeg_quality: int = JPEG_QUALITY
    smoothing: float = SMOOTHING
    image_rate: float = FRAME_RATE
    choice: str = Choice.largest.value
    correct_offset: bool = False

    def __post_init__(self) -> None:
        if self.choice not in list(Choice):
            raise ValueError(f"choice={self.choice}: whom to keep is one of {', '.join(Choice)}")

    def fingerprint(self, face: MorphableFace, detector_name: str) -> str:
        """Changes with anything that changes the prepared clips but the consent: a clip keeps what was stated first."""
        choices = {name: value for name, value in asdict(self).items() if name not in _STATEMENTS}
        digest = hashlib.sha256(repr((FORMAT, PIPELINE, choices, detector_name)).encode())
        for tensor in (face.landmark_mean, face.landmark_shape, face.landmark_expression):
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class ClipMaker:
    """Everything that is the same for all clips of a corpus; picklable, so that workers can have one each.

    Attributes:
        out: root of the store.
        face: the model to fit.
        detector: finds faces and their landmarks.
        settings: of the preparation.
        fingerprint: of settings, face and detector.
    """

    out: Path
    face: MorphableFace
    detector: FaceDetector
    settings: PrepareSettings
    fingerprint: str

    def __call__(self, source: SourceClip) -> SourceResult:
        """Prepare one source and write its clips into the store.

        Raises:
            StoreError: the store cannot be written.
        """
        source = self.completed(source)
        tracker = FaceTracker(self.detector, CutFinder())
        try:
            return SourceResult(source.id, self._prepare(source, tracker))
        except StoreError:
            raise
        except Exception as error:  # whatever a broken file provokes is the file's fault and not the run's
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            frames = tracker.found.num_frames
            skipped = Skipped(
                source.id,
                " ".join(reason.split())[:200].encode(errors="replace").decode(),  # it may name a file
                source_bytes(source),
                self.fingerprint,
                frames,
                tracker.found.most_faces(0, frames),
            )
            return SourceResult(source.id, skipped=[skipped], lasting=not _of_surroundings(error, source))

    def completed(self, source: SourceClip) -> SourceClip:
        """The source with its file of landmarks, where these are taken from files."""
        if not isinstance(self.detector, LandmarkFiles):
            return source
        return replace(source, landmarks=self.detector.file_of(source.video, source.id))

    def _prepare(self, source: SourceClip, tracker: FaceTracker) -> list[ClipRow]:
        """Write the clips of a source; the tracker is led through it on the way.

        Raises:
            ValueError: with what is wrong with the source.
        """
        notes: list[str] = []
        since = 0.0 if source.audio else video_start(source.video)
        samples = read_audio(source.audio or source.video, since, notes)
        words = read_alignment(source.alignment) if source.alignment else []
        frames = ClipFrames(source.video, self.settings.image_rate, notes=notes)
        for frame in frames:
            tracker.update(frame)
        seen = tracker.found
        if seen.num_frames < NUM_FRAMES:
            raise ValueError(f"too short: {seen.num_frames} frames at 25 a second, at least {NUM_FRAMES} are needed")
        if isinstance(self.detector, LandmarkFiles):
            width, height = raw_size(source.video)
            scale = seen.width / width, seen.height / height
            landmarks = self.detector.of(source.video, source.id, seen.num_frames, scale)
        else:
            landmarks = chosen_face(seen, self.settings.choice, samples)
        seen.forget_landmarks()
        frames.return_memory()
        parts, left_out = fit_spans(self.face, landmarks, seen.cuts)
        sync = sound_offset(mouth_opening(self.face, parts, seen.num_frames), samples)
        sure = self.settings.correct_offset and sync.confidence >= MIN_CONFIDENCE
        heard = SourceSound(samples, words, sync.offset if sure else 0.0)
        about = {
            "source": source.id,
            "parts": len(parts),
            "speaker": source.speaker,
            "view": source.view,
            "sha256": source_sha256(source),
            "source_bytes": source_bytes(source),
            "offset": sync.offset,
            "offset_confidence": sync.confidence,
            "consent": self.settings.consent,
            "consent_reference": self.settings.consent_reference,
            "settings": self.fingerprint,
            "versions": tool_versions(),
            "jpeg_quality": self.settings.jpeg_quality,
            "frame_width": seen.width,
            "frame_height": seen.height,
        }
        dropped = [*left_out, *(LeftOut(0, 0, note) for note in notes)]
        rows = []
        pictures, position = iter(frames), 0
        for number, (part, identity) in enumerate(zip(parts, part_ids(source.id, len(parts)), strict=True), 1):
            row = ClipRow(
                id=identity,
                part=number,
                start=part.span.start / FRAME_RATE,
                frames=part.span.frames,
                valid_frames=int(part.fit.valid.sum()),
                transcript=transcript(heard.words_of(part.span)),
                residual=float(part.fit.residual[part.fit.valid].mean()),
                noise=float(part.fit.noise),
                faces=max(1, seen.most_faces(*part.span)),
                dropped=json.dumps(dropped, ensure_ascii=False) if dropped and number == 1 else "",
                **about,
            )
            self._write(row, part, islice(pictures, part.span.start - position, part.span.stop - position), heard)
            rows.append(row)
            position = part.span.stop
        return rows

    def _write(self, row: ClipRow, part: FittedSpan, frames: Iterable[Frame], heard: SourceSound) -> None:
        """Cut a clip out of its frames and write it."""
        fit, quality = part.fit, self.settings.jpeg_quality
        crop = crop_from_fit(self.face, fit.shape, fit.expression, fit.pose, fit.valid, self.settings.smoothing)
        landmarks = _in_blocks(
            lambda expression, pose: self.face.project_landmarks(fit.shape, expression, pose), fit.expression, crop.pose
        )
        shown = set(np.linspace(0, row.frames - 1, THUMBNAILS).round().astype(int).tolist())
        strip, total = [], np.zeros((CROP_SIZE, CROP_SIZE, 3))
        with CropSpool(self.out) as spool:
            for number, (frame, transform) in enumerate(zip(frames, crop.transform.numpy(), strict=True)):
                image = warp_crop(frame, transform)
                spool.append(encode_crop(image, quality))
                if fit.valid[number]:
                    cv2.accumulate(image, total)
                if number in shown:
                    strip.append(cv2.resize(image, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA))
            mean = np.round(total / row.valid_frames).astype(np.uint8)
            sound = heard.of(part.span)
            data = ClipData(
                crops=spool,
                mean_crop=encode_crop(mean, quality),
                thumbnail=encode_crop(np.hstack(strip), THUMBNAIL_QUALITY),
                landmarks=landmarks,
                landmarks_detected=_in_blocks(apply_similarity, crop.transform, part.detected),
                expression=fit.expression,
                pose=crop.pose,
                shape=fit.shape,
                valid=fit.valid,
                sound=sound,
                mfcc=sound_mfcc(sound, self.settings.num_cepstra),
                crop_transform=crop.transform,
                mouth_box=mouth_box(landmarks),
                mouth_region=mouth_region(landmarks),
                words=heard.words_of(part.span),
            )
            write_clip(self.out, row, data)


def prepare_clip(
    source: SourceClip,
    out: Path,
    face: MorphableFace,
    detector: FaceDetector,
    settings: PrepareSettings | None = None,
) -> SourceResult:
    """Prepare one source and write its clips into the store.

    Args:
        source: where the raw clip is.
        out: root of the store.
        face: the model to fit.
        detector: finds the face and its landmarks.
        settings: defaults if None.

    Raises:
        StoreError: the store cannot be written.
    """
    settings = settings or PrepareSettings()
    return ClipMaker(out, face, detector, settings, settings.fingerprint(face, detector.name))(source)


def _in_blocks(function: Callable[..., Tensor], *of_frames: Tensor) -> Tensor:
    """A function of every frame, without what it needs in between for all frames of a long clip at once."""
    return torch.cat([function(*block) for block in zip(*(value.split(_BLOCK) for value in of_frames), strict=True)])


def _of_surroundings(error: BaseException, source: SourceClip) -> bool:
    """Whether a failure lies in the machine, its disks or rights, or a file beside the source, and may pass."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError | OSError) and not isinstance(cause, av.FFmpegError):
            return True
        cause = cause.__cause__
    if not isinstance(error, DecodeError) or not (source.video.is_file() or source.video.is_dir()):
        return False
    try:
        source_sha256(source)  # decoders call a bad disk by the names of a bad file
    except OSError:
        return True
    return False


@lru_cache
def tool_versions() -> str:
    """Versions of what the prepared numbers depend on."""
    tools = ("av", "dlib-bin", "opencv-python-headless", "torch", "numpy")
    return " ".join(f"{tool}={version(tool)}" for tool in tools)
