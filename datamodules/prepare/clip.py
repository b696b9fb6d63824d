"""One raw clip to a finished clip of the store: decode, track, fit, crop, encode, with sound and words beside.

Whatever is wrong with a source ends as a `Skipped` with a reason, never as the end of the run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int16
from torch import Tensor

from datamodules.atomic import StoreError
from datamodules.batch import NUM_FRAMES
from datamodules.clip_store import FORMAT, ClipData, Word, write_clip
from datamodules.crop_codec import JPEG_QUALITY, encode_crop
from datamodules.manifest import ClipRow
from datamodules.prepare.align import read_alignment, transcript
from datamodules.prepare.crop import SMOOTHING, crop_from_fit, warp_crop
from datamodules.prepare.decode import FRAME_RATE, Frame, fit_length, read_audio, read_frames, video_start
from datamodules.prepare.report import Skipped, SourceResult
from datamodules.prepare.sources import SourceClip
from datamodules.prepare.track import track_landmarks
from model_zoo.face.detector import FaceDetector
from model_zoo.face.fitting import FaceFit, fit_clip
from model_zoo.face.morphable import MorphableFace
from model_zoo.functional.camera import apply_similarity
from model_zoo.functional.masks import mouth_box, mouth_region
from model_zoo.functional.mfcc import mfcc

PIPELINE = 1  # raised with every change that changes what is stored, so that old clips are prepared again
FRAME_MEMORY = 512 * 2**20  # bytes; decoded clips up to this size are held, longer ones decoded a second time
MIN_VALID = 0.5  # share of the frames that must show the face
_INT16 = 32768.0


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
    """

    consent: str = "not stated"
    consent_reference: str = ""
    num_cepstra: int = 13
    jpeg_quality: int = JPEG_QUALITY
    smoothing: float = SMOOTHING
    image_rate: float = FRAME_RATE

    def fingerprint(self, face: MorphableFace, detector_name: str) -> str:
        """Changes with anything that changes the prepared clips."""
        digest = hashlib.sha256(repr((FORMAT, PIPELINE, asdict(self), detector_name)).encode())
        for tensor in (face.landmark_mean, face.landmark_shape, face.landmark_expression):
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class ClipMaker:
    """Everything that is the same for all clips of a corpus; picklable, so that workers can have one each.

    Attributes:
        out: root of the store.
        face: the model to fit.
        detector: finds the face and its landmarks.
        settings: of the preparation.
        fingerprint: of settings, face and detector.
    """

    out: Path
    face: MorphableFace
    detector: FaceDetector
    settings: PrepareSettings
    fingerprint: str

    def __call__(self, source: SourceClip) -> SourceResult:
        """Prepare one clip and write it into the store.

        Raises:
            StoreError: the store cannot be written.
        """
        try:
            row, data = self.make(source)
        except StoreError:
            raise
        except Exception as error:  # whatever a broken file provokes is the file's fault and not the run's
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            skipped = Skipped(source.id, " ".join(reason.split())[:200], source_bytes(source), self.fingerprint)
            return SourceResult(source.id, skipped=[skipped])
        write_clip(self.out, row, data)
        return SourceResult(source.id, [row])

    def make(self, source: SourceClip) -> tuple[ClipRow, ClipData]:
        """The clip in memory.

        Raises:
            ValueError: with what is wrong with the source.
        """
        samples = read_audio(source.audio or source.video, 0.0 if source.audio else video_start(source.video))
        words = read_alignment(source.alignment) if source.alignment else []
        frames = ClipFrames(source.video, self.settings.image_rate)
        detected = torch.from_numpy(track_landmarks(frames, self.detector))
        if len(detected) < NUM_FRAMES:
            raise ValueError(f"too short: {len(detected)} frames at 25 a second, at least {NUM_FRAMES} are needed")
        _refuse_few(~detected.isnan().any(-1).any(-1), "no face found")
        fit = fit_clip(self.face, detected)
        _refuse_few(fit.valid, "the face model does not fit")
        data = self._data(frames, to_int16(fit_length(samples, len(detected))), detected, fit, words)
        return self._row(source, fit, words), data

    def _data(
        self,
        frames: ClipFrames,
        sound: Int16[Tensor, "N"],
        detected: Float[Tensor, "T 68 2"],
        fit: FaceFit,
        words: list[Word],
    ) -> ClipData:
        crop = crop_from_fit(self.face, fit.shape, fit.expression, fit.pose, fit.valid, self.settings.smoothing)
        landmarks = self.face.project_landmarks(fit.shape, fit.expression, crop.pose)
        jpegs, total = [], np.zeros(())
        for frame, transform, valid in zip(frames, crop.transform.numpy(), fit.valid.tolist(), strict=True):
            image = warp_crop(frame, transform)
            jpegs.append(encode_crop(image, self.settings.jpeg_quality))
            total = total + image * valid
        mean = np.round(total / int(fit.valid.sum())).astype(np.uint8)
        return ClipData(
            crops=jpegs,
            mean_crop=encode_crop(mean, self.settings.jpeg_quality),
            landmarks=landmarks,
            landmarks_detected=apply_similarity(crop.transform, detected),
            expression=fit.expression,
            pose=crop.pose,
            shape=fit.shape,
            valid=fit.valid,
            sound=sound,
            mfcc=mfcc(sound.to(torch.float32) / _INT16, self.settings.num_cepstra),
            crop_transform=crop.transform,
            mouth_box=mouth_box(landmarks),
            mouth_region=mouth_region(landmarks),
            words=words,
        )

    def _row(self, source: SourceClip, fit: FaceFit, words: list[Word]) -> ClipRow:
        return ClipRow(
            id=source.id,
            source=source.id,
            part=1,
            parts=1,
            start=0.0,
            faces=1,
            offset=math.nan,
            offset_confidence=0.0,
            consent_reference=self.settings.consent_reference,
            speaker=source.speaker,
            view=source.view,
            frames=len(fit.valid),
            valid_frames=int(fit.valid.sum()),
            transcript=transcript(words),
            sha256=sha256(source),
            source_bytes=source_bytes(source),
            residual=float(fit.residual[fit.valid].mean()),
            noise=float(fit.noise),
            consent=self.settings.consent,
            settings=self.fingerprint,
            versions=tool_versions(),
            jpeg_quality=self.settings.jpeg_quality,
        )


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


def to_int16(samples: Float[np.ndarray, "N"]) -> Int16[Tensor, "N"]:
    """Sound as it is stored: 16-bit integers, -32768 to 32767 for -1 to 1."""
    return torch.from_numpy(np.round(samples * _INT16).clip(-_INT16, _INT16 - 1).astype(np.int16))


def source_bytes(source: SourceClip) -> int:
    """Size of the raw clip with its sound and words; 0 if it is gone."""
    beside = [path for path in (source.audio, source.alignment) if path is not None]
    return sum(path.stat().st_size for path in [*_video_files(source), *beside] if path.exists())


def sha256(source: SourceClip) -> str:
    """Hash of the video, file by file for a folder of images."""
    digest = hashlib.sha256()
    for path in _video_files(source):
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


@lru_cache
def tool_versions() -> str:
    """Versions of what the prepared numbers depend on."""
    tools = ("av", "dlib-bin", "opencv-python-headless", "torch", "numpy")
    return " ".join(f"{tool}={version(tool)}" for tool in tools)


def _video_files(source: SourceClip) -> list[Path]:
    return sorted(source.video.iterdir()) if source.video.is_dir() else [source.video]


def _refuse_few(good: Bool[Tensor, "T"], what: str) -> None:
    missing = int((~good).sum())
    if missing > (1 - MIN_VALID) * len(good):
        raise ValueError(f"{what} in {missing} of {len(good)} frames")
