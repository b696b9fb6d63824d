"""The jawline as a contour that slides over the cheek as the head turns.

People and detectors place the far jaw's landmarks on the visible outline of the face. At frontal pose that is where the
model's own landmarks are; with growing yaw it lies further and further in front of them. So every jaw landmark has a
row of candidate vertices at its height, from itself to the middle of the face, and the one that lies furthest out in
the image is what was seen ("landmark marching": Zhu et al. 2015, High-Fidelity Pose and Expression Normalization).

Shape legend: V vertices, C clips, N frames, R candidates of all jaw landmarks.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from model_zoo.face.clip_solver import Clips, ClipState, LandmarkModel, view
from model_zoo.face.morphable import CONTOUR_SLOTS, MorphableFace

LEFT_JAW, RIGHT_JAW = slice(0, 8), slice(9, 17)  # iBUG 68 order; 8 is the chin, where the sides meet
SLIDING_YAW = 10.0  # degrees from which on the far side slides


class Contour(NamedTuple):
    """Candidates of the 16 jaw landmarks beside the chin, one after the other."""

    model: LandmarkModel
    owner: Int[Tensor, "R"]  # landmark that a candidate may stand for

    @classmethod
    def of(cls, face: MorphableFace, dtype: torch.dtype, device: torch.device) -> Contour | None:
        """The candidates of `face`; None where it has none but the landmarks themselves."""
        index = face.contour_index
        if bool((index == index[:, :1]).all()):
            return None
        owner = torch.tensor([*range(8), *range(9, 17)], device=index.device)
        model = LandmarkModel.of(face, dtype, device, index[owner].flatten())
        return cls(model, owner.to(device).repeat_interleave(CONTOUR_SLOTS))

    def choose(self, state: ClipState, clips: Clips) -> Bool[Tensor, "N R"]:
        """Which candidates stand for their landmarks: one for each of the far jaw of a head that is turned."""
        away = turned_away(state.rotation)
        far = torch.stack((away, -away), 1) > math.sin(math.radians(SLIDING_YAW))  # (N, 2): left, right
        across = state.rotation[:, :2, 1]  # where the head's own vertical points in the image
        outwards = torch.stack((-across[:, 1], across[:, 0]), 1)[..., None]  # to the left of it
        extent = (view(self.model, state, clips).projected * outwards).sum(1).unflatten(1, (2, 8, CONTOUR_SLOTS))
        sides = torch.tensor([1.0, -1.0], dtype=extent.dtype, device=extent.device)[:, None, None]
        furthest = torch.nn.functional.one_hot((sides * extent).argmax(-1), CONTOUR_SLOTS).bool()
        return (furthest & far[..., None, None]).flatten(1)


def turned_away(rotation: Float[Tensor, "N 3 3"]) -> Float[Tensor, "N"]:
    """Sine of the yaw, whatever the roll; positive hides the left side of an upright image."""
    return -rotation[:, 2, 0]
