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

_BLOCK = 1024  # frames that are worked on at once where none needs the others


class Given(NamedTuple):
    """What was detected in the frames to be fitted.

    The points are those of the caller, in px, of any precision and of any value where they are not present: of a long
    clip there is no copy in float64.
    """

    points: Float[Tensor, "N 2 L"]
    present: Bool[Tensor, "N L"]
    trust: Float[Tensor, "N L"]  # weights for a first pose
    time: Int[Tensor, "N"]  # number of the frame in its clip

    def take(self, which: Int[Tensor, "n"] | slice) -> Given:
        """Some of the frames."""
        return Given(*(value[which] for value in self))

    def exact(self) -> Given:
        """In float64, and at 0 what is not present."""
        return self._replace(points=self.points.double().where(self.present[:, None], 0))


class EyeDistances(NamedTuple):
    """The unit of length of each clip, in which a fit is done, and its zero."""

    unit: Float[Tensor, "C"]  # px
    origin: Float[Tensor, "C 2"]  # px

    @classmethod
    def of(cls, mean: Float[Tensor, "3 L"], given: Given, clips: Clips) -> EyeDistances:
        """Distance and place of the posed mean face: the median and the mean over the frames."""
        blocks = (given.take(block).exact() for block in blocks_of(len(given.points)))
        middle, log_scale = map(
            torch.cat, zip(*(initial_pose(mean, block.points, block.trust)[1:] for block in blocks), strict=True)
        )
        unit = torch.stack([own.median() for own in log_scale.split(clips.lengths)]).exp()
        return cls(unit, clips.sum(middle) / torch.tensor(clips.lengths, device=unit.device)[:, None])

    def measure(self, given: Given, clip: Int[Tensor, "N"]) -> Given:
        """Frames of these clips in eye distances, exact."""
        given = given.exact()
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


def in_blocks(given: Given, clips: Clips, state: ClipState) -> Iterator[tuple[Given, Clips, ClipState]]:
    """Successive frames of all clips, for what needs much memory a frame."""
    for block in blocks_of(len(given.points)):
        clip = clips.clip[block]
        counts = torch.bincount(clip, minlength=len(clips.lengths)).tolist()
        yield (
            given.take(block),
            Clips(tuple(counts), clip),
            ClipState(state.shape, *(value[block] for value in state[1:])),
        )
