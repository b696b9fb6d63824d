"""The typed batches that everything above the loaders speaks.

Shape legend: B batch, T frames of a sample (1 for audio alone, 7 for the renderer), A audio frames of a window,
C cepstra, S shape, E expression, P pose, H/W pixels of the run's crop.
Landmarks and boxes are in pixels of a 256-pixel crop whatever the scale of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from model_zoo.functional.masks import noise_fields
from model_zoo.render.frame_windows import FrameWindows

CROP_UNITS = 256  # landmarks, boxes and poses are in pixels of a crop of this side
NUM_FRAMES = 7  # t-6..t, §3.3.1 of Song et al. 2020


class _Batch:
    """Moves, pins and cuts whatever a frozen dataclass holds, nested batches included."""

    def _map(self, function: Callable) -> Self:
        return type(self)(**{field.name: function(getattr(self, field.name)) for field in fields(self)})  # type: ignore[arg-type]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Copy of the batch on `device`."""
        return self._map(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Copy of the batch in page-locked memory (called by the DataLoader)."""
        return self._map(lambda value: value.pin_memory())

    def cut(self, start: int, stop: int) -> Self:
        """Samples start..stop-1; frames stay shared."""
        return self._map(lambda value: value[start:stop] if isinstance(value, Tensor) else value.cut(start, stop))


@dataclass(frozen=True)
class SpeechBatch(_Batch):
    """Speech windows with the face that was seen while they were spoken.

    Attributes:
        mfcc: raw (not standardised) MFCC; A = 100 + 4 (T - 1), rows [4(t-T+1)-80, 4t+20) around frame t.
        expression, pose: of frames t-T+1..t. shape: of the clip.
        landmarks: projected from the fit, px at 256.
        speaker: index into the datamodule's list of training speakers; -1 for others.
        clip: index into the datamodule's list of clips. frame: t.
        silent: whether nobody speaks at these frames. closed_gap: inner-lip gap of the clip's closed mouth, px at 256.
        clip_mean: mean expression of the clip, the oracle predictor `clip-mean-mouth`.
        utterance: rows of the same speech from which ID removal of scope 'clip' infers λ; none (U = 0) otherwise.
    """

    mfcc: Float[Tensor, "B A C"]
    expression: Float[Tensor, "B T E"]
    pose: Float[Tensor, "B T P"]
    shape: Float[Tensor, "B S"]
    landmarks: Float[Tensor, "B T 68 2"]
    speaker: Int[Tensor, "B"]
    clip: Int[Tensor, "B"]
    frame: Int[Tensor, "B"]
    silent: Bool[Tensor, "B T"]
    closed_gap: Float[Tensor, "B"]
    clip_mean: Float[Tensor, "B E"]
    utterance: Float[Tensor, "B U C"]

    def __len__(self) -> int:
        return len(self.clip)


@dataclass(frozen=True)
class VideoBatch(_Batch):
    """Seven frames of a target, with what is needed to mask, score and compare frame t.

    Pixels are bytes of a bank that the samples, and the batches that were decoded together, share; the properties make
    images of them, float32 in [-1, 1], on the batch's device.

    Attributes:
        windows: crops t-6..t; before the start frame 0 is repeated. Their landmarks: projected from the fit, px at 256.
        mouth_box: what is masked; one box (x0, y0, x1, y1) a clip, px at 256.
        mouth_region: what mouth-only scores cover; px at 256, independent of the mouth box.
        noise_number: which noise field fills the box.
        mean_row: where in the bank the clip's mean crop is, the trivial predictor `mean-frame`.
        other_row: another frame of the same clip, seeded, the trivial predictor `copy-mouth`.
        clip: index into the datamodule's list of clips. frame: t.
    """

    windows: FrameWindows
    mouth_box: Float[Tensor, "B 4"]
    mouth_region: Float[Tensor, "B 4"]
    noise_number: Int[Tensor, "B"]
    mean_row: Int[Tensor, "B"]
    other_row: Int[Tensor, "B"]
    clip: Int[Tensor, "B"]
    frame: Int[Tensor, "B"]

    def __len__(self) -> int:
        return len(self.clip)

    @property
    def frames(self) -> Float[Tensor, "B T 3 H W"]:
        """Crops t-6..t."""
        return self.windows.bank.frames(self.windows.rows)

    @property
    def target(self) -> Float[Tensor, "B 3 H W"]:
        """Crop t."""
        return self.windows.last

    @property
    def landmarks(self) -> Float[Tensor, "B T 68 2"]:
        """Of frames t-6..t, px at 256."""
        return self.windows.bank.landmarks[self.windows.rows]

    @property
    def noise(self) -> Float[Tensor, "B 3 H W"]:
        """What fills the box, uniform."""
        return noise_fields(self.windows.bank.size, self.noise_number.device)[self.noise_number]

    @property
    def mean_frame(self) -> Float[Tensor, "B 3 H W"]:
        """Mean crop of the clip."""
        return self.windows.bank.frames(self.mean_row)

    @property
    def other_frame(self) -> Float[Tensor, "B 3 H W"]:
        """Another frame of the clip."""
        return self.windows.bank.frames(self.other_row)


@dataclass(frozen=True)
class JointBatch(_Batch):
    """The same windows as speech and as video: A = 124 audio frames for 7 video frames."""

    speech: SpeechBatch
    video: VideoBatch

    def __len__(self) -> int:
        return len(self.speech)
