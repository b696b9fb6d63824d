"""The typed batches that everything above the loaders speaks.

Shape legend: B batch, T frames of a sample (1 for audio alone, 7 for the renderer), A audio frames of a window,
C cepstra, S shape, E expression, P pose, H/W pixels of the run's crop.
Landmarks and boxes are in pixels of a 256-pixel crop whatever the scale of the run.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

CROP_UNITS = 256  # landmarks, boxes and poses are in pixels of a crop of this side
NUM_FRAMES = 7  # t-6..t, §3.3.1 of Song et al. 2020


class _Movable:
    """Moves and pins every tensor of a frozen dataclass, nested ones included."""

    def _map(self, function) -> Self:
        moved = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                value = function(value)
            elif is_dataclass(value):
                value = value._map(function)  # type: ignore[union-attr]
            moved[field.name] = value
        return type(self)(**moved)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Copy of the batch with every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Copy of the batch in page-locked memory (called by the DataLoader)."""
        return self._map(lambda tensor: tensor.pin_memory())


@dataclass(frozen=True)
class SpeechBatch(_Movable):
    """Speech windows with the face that was seen while they were spoken.

    Attributes:
        mfcc: raw (not standardised) MFCC; A = 100 + 4 (T - 1), rows [4(t-T+1)-80, 4t+20) around frame t.
        expression, pose: of frames t-T+1..t. shape: of the clip.
        landmarks: projected from the fit, px at 256.
        speaker: index into the datamodule's list of training speakers; -1 for others.
        clip: index into the datamodule's list of clips. frame: t.
    """

    mfcc: Float[Tensor, "B A C"]
    expression: Float[Tensor, "B T E"]
    pose: Float[Tensor, "B T P"]
    shape: Float[Tensor, "B S"]
    landmarks: Float[Tensor, "B T 68 2"]
    speaker: Int[Tensor, "B"]
    clip: Int[Tensor, "B"]
    frame: Int[Tensor, "B"]


@dataclass(frozen=True)
class VideoBatch(_Movable):
    """Seven frames of a target, with what is needed to mask, score and compare frame t.

    Attributes:
        frames: crops t-6..t in [-1, 1]; before the start frame 0 is repeated.
        landmarks: projected from the fit, px at 256, of the same frames.
        mouth_box: what is masked; one box (x0, y0, x1, y1) a clip, px at 256.
        mouth_region: what mouth-only scores cover; px at 256, independent of the mouth box.
        noise: what fills the box, uniform in [-1, 1].
        mean_frame: mean crop of the clip, the trivial predictor `mean-frame`.
        other_frame: another frame of the same clip, seeded, the trivial predictor `copy-mouth`.
        clip: index into the datamodule's list of clips. frame: t.
    """

    frames: Float[Tensor, "B T 3 H W"]
    landmarks: Float[Tensor, "B T 68 2"]
    mouth_box: Float[Tensor, "B 4"]
    mouth_region: Float[Tensor, "B 4"]
    noise: Float[Tensor, "B 3 H W"]
    mean_frame: Float[Tensor, "B 3 H W"]
    other_frame: Float[Tensor, "B 3 H W"]
    clip: Int[Tensor, "B"]
    frame: Int[Tensor, "B"]


@dataclass(frozen=True)
class JointBatch(_Movable):
    """The same windows as speech and as video: A = 124 audio frames for 7 video frames."""

    speech: SpeechBatch
    video: VideoBatch


def collate(samples: list) -> SpeechBatch | VideoBatch | JointBatch:
    """Stack unbatched samples (the same dataclasses without the B axis) into one batch."""
    first = samples[0]
    stacked = {}
    for field in fields(first):
        values = [getattr(sample, field.name) for sample in samples]
        stacked[field.name] = torch.stack(values) if isinstance(values[0], Tensor) else collate(values)
    return type(first)(**stacked)
