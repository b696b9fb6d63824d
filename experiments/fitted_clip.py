"""A clip with its fitted face, from a raw video or from a clip store; one form for whatever wants to look at it.

Shape legend: T frames, N samples of sound, S shape, E expression, P pose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from datamodules.clip_store import Clip, Word
from datamodules.prepare.clip_frames import ClipFrames
from datamodules.prepare.decode import FRAME_RATE, DecodeError, fit_length, read_audio, video_start
from datamodules.prepare.sound import to_float
from datamodules.prepare.track import track_landmarks
from experiments.command_line import UserError
from model_zoo.face.detector import FaceDetector
from model_zoo.face.fitting import fit_clip
from model_zoo.face.morphable import MorphableFace

_SAME_FACE = 0.5  # px of the crop; by how much the stored landmarks may differ from those of the face that fitted them

Frame = UInt8[np.ndarray, "H W 3"]
Item = TypeVar("Item")
Progress = Callable[[Iterable[Item], int, str], Iterable[Item]]  # items, how many, what is being done


@dataclass(frozen=True)
class FittedClip:
    """Frames, sound and fit of a clip. Landmarks and poses in px of `frames`.

    Attributes:
        name: of the clip, for folders and titles.
        frames: RGB at 25 a second; can be gone through again and again.
        detected: what the detector saw, NaN where it saw nothing.
        landmarks: projected from the fit.
        valid: frames with a fit of their own; expression and pose of the others are interpolated.
        sound: 16 kHz mono in [-1, 1], 640 samples a frame; None for a silent video.
        words: of the transcript, where one is known.
    """

    name: str
    frames: Iterable[Frame]
    detected: Float[Tensor, "T 68 2"]
    landmarks: Float[Tensor, "T 68 2"]
    shape: Float[Tensor, "S"]
    expression: Float[Tensor, "T E"]
    pose: Float[Tensor, "T P"]
    valid: Bool[Tensor, "T"]
    sound: Float[np.ndarray, "N"] | None
    words: tuple[Word, ...] = ()

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.valid)


def read_prepared(path: Path, face: MorphableFace) -> FittedClip:
    """A clip of a clip store.

    Args:
        path: <store>/<clip id>.safetensors.
        face: the model that it was prepared with.

    Raises:
        UserError: the file is no prepared clip, is damaged, or was prepared with another face model.
    """
    try:
        clip = Clip(path)
        landmarks = clip.landmarks
        fitted = FittedClip(
            name=clip.id.replace("/", "_"),
            frames=_Crops(clip),
            detected=clip.landmarks_detected,
            landmarks=landmarks,
            shape=clip.shape,
            expression=clip.expression,
            pose=clip.pose,
            valid=clip.valid,
            sound=clip.waveform().numpy(),
            words=clip.words,
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is not a whole prepared clip: give <store>/<speaker>/<clip>.safetensors, prepared by this version"
        ) from error
    projected = face.project_landmarks(fitted.shape, fitted.expression, fitted.pose)
    if (projected - landmarks).abs().max() > _SAME_FACE:
        raise UserError(f"{path} was prepared with another face model: name that one with face=<model>")
    return fitted


def fit_video(
    path: Path, face: MorphableFace, detector: FaceDetector, wanted: Sequence[int], progress: Progress
) -> FittedClip:
    """Detect and fit the face of a raw video as preparation does, in the pixels of its own frames.

    Args:
        path: a video that PyAV can read, with or without sound.
        face: the model to fit.
        detector: finds the face and its landmarks.
        wanted: frames that the clip must have, said before the slow part.
        progress: shows how far it is.

    Raises:
        UserError: the file cannot be read as video, is too short for the wanted frames, or shows no face.
    """
    frames = ClipFrames(path, FRAME_RATE)
    try:
        count = sum(1 for _ in frames)
    except DecodeError as error:
        raise UserError(f"{path}: {error}; give a video file or a prepared clip (.safetensors)") from error
    check_frames(wanted, count)
    detected = torch.from_numpy(track_landmarks(progress(frames, count, "finding the face"), detector))
    if bool(detected.isnan().all()):
        raise UserError(f"{path}: no face found in {count} frames; give a clip whose face looks towards the camera")
    try:
        fit = fit_clip(face, detected)
    except ValueError as error:
        raise UserError(f"{path}: {error}; give a clip whose face looks towards the camera") from error
    return FittedClip(
        name=path.stem,
        frames=frames,
        detected=detected,
        landmarks=face.project_landmarks(fit.shape, fit.expression, fit.pose),
        shape=fit.shape,
        expression=fit.expression,
        pose=fit.pose,
        valid=fit.valid,
        sound=_sound(path, count),
    )


def check_frames(wanted: Sequence[int], num_frames: int) -> None:
    """Refuse frames that a clip does not have.

    Raises:
        UserError: naming the first of them, and which there are.
    """
    for frame in wanted:
        if not 0 <= frame < num_frames:
            raise UserError(f"frames={frame}: the clip has frames 0 to {num_frames - 1} (25 a second)")


def _sound(path: Path, num_frames: int) -> Float[np.ndarray, "N"] | None:
    try:
        return fit_length(to_float(read_audio(path, video_start(path))), num_frames)
    except DecodeError:  # a silent video is worth looking at too
        return None


@dataclass(frozen=True)
class _Crops:
    """Crops of a prepared clip, decoded one by one."""

    clip: Clip

    def __iter__(self) -> Iterator[Frame]:
        return (self.clip.crop(frame) for frame in range(self.clip.num_frames))
