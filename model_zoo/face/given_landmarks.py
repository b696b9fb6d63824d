"""The landmarks that a fit is given (see fitting.py), of clips of any length.

Shape legend: C clips, N frames of all clips end to end, L landmarks (68).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from model_zoo.face.clip_solver import Clips, ClipState, initial_pose

_BLOCK = 512  # frames that are worked on at once where none needs the others


class Given(NamedTuple):
    """What was detected in frames that are fitted together, in float64; 0 where a landmark is not present."""

    points: Float[Tensor, "N 2 L"]
    present: Bool[Tensor, "N L"]
    trust: Float[Tensor, "N L"]  # weights for a first pose
    time: Int[Tensor, "N"]  # number of the frame in its clip


class Detections(NamedTuple):
    """What was detected in frames of clips, as the caller has it; of a long clip nothing is copied.

    Attributes:
        points: px, of any precision, anything where a landmark is not present.
        present, trust, time: as in `Given`.
        frames: which of all these frames are meant.
    """

    points: Float[Tensor, "M 2 L"]
    present: Bool[Tensor, "M L"]
    trust: Float[Tensor, "M L"]
    time: Int[Tensor, "M"]
    frames: Int[Tensor, "N"]

    def take(self, which: Int[Tensor, "n"] | slice) -> Detections:
        """Some of the frames."""
        return self._replace(frames=self.frames[which])

    def given(self) -> Given:
        """The frames that are meant, px."""
        points, present, trust, time = (value[self.frames] for value in self[:-1])
        return Given(points.double().where(present[:, None], 0), present, trust, time)


class EyeDistances(NamedTuple):
    """The unit of length of each clip, in which a fit is done, and its zero."""

    unit: Float[Tensor, "C"]  # px
    origin: Float[Tensor, "C 2"]  # px

    @classmethod
    def of(cls, mean: Float[Tensor, "3 L"], detections: Detections, clips: Clips) -> EyeDistances:
        """Distance and place of the posed mean face: the median and the mean over the frames."""
        blocks = (detections.take(block).given() for block in blocks_of(len(detections.frames)))
        middle, log_scale = map(
            torch.cat, zip(*(initial_pose(mean, block.points, block.trust)[1:] for block in blocks), strict=True)
        )
        unit = torch.stack([own.median() for own in log_scale.split(clips.lengths)]).exp()
        return cls(unit, clips.sum(middle) / torch.tensor(clips.lengths, device=unit.device)[:, None])

    def measure(self, detections: Detections, clip: Int[Tensor, "N"]) -> Given:
        """Frames of these clips in eye distances."""
        given = detections.given()
        return given._replace(points=(given.points - self.origin[clip, :, None]) / self.unit[clip, None, None])

    def in_pixels(self, state: ClipState, clip: Int[Tensor, "N"]) -> ClipState:
        """A state in px."""
        return state._replace(
            translation=state.translation * self.unit[clip, None] + self.origin[clip],
            log_scale=state.log_scale + self.unit.log()[clip],
        )


def blocks_of(num_frames: int) -> list[slice]:
    """Successive frames."""
    return [slice(start, start + _BLOCK) for start in range(0, num_frames, _BLOCK)]


def in_blocks(detections: Detections, clips: Clips, state: ClipState) -> Iterator[tuple[Detections, Clips, ClipState]]:
    """Successive frames of all clips, for what needs much memory a frame."""
    for block in blocks_of(len(detections.frames)):
        clip = clips.clip[block]
        counts = torch.bincount(clip, minlength=len(clips.lengths)).tolist()
        yield (
            detections.take(block),
            Clips(tuple(counts), clip),
            ClipState(state.shape, *(value[block] for value in state[1:])),
        )
