"""Other pictures of the same frames: colours, mirror image, small moves of the crop, alike for frames and landmarks.

Shape legend: N frames, H/W pixels of the run's crop. Landmarks and boxes in px of a 256-pixel crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from model_zoo.functional.heatmaps import CROP_UNITS

# The same place on the other side of the face, iBUG 68 order.
MIRRORED = (
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    *range(27, 31),  # bridge of the nose
    *range(35, 30, -1),  # its base
    *(45, 44, 43, 42, 47, 46),  # right eye
    *(39, 38, 37, 36, 41, 40),  # left eye
    *range(54, 47, -1),  # upper lip, outer
    *range(59, 54, -1),  # lower lip, outer
    *range(64, 59, -1),  # upper lip, inner
    *range(67, 64, -1),  # lower lip, inner
)


@dataclass(frozen=True)
class PictureAugmentation:
    """What may be done to a stretch of frames.

    Attributes:
        flip: share of the stretches that are mirrored.
        colour: deviation of the factor of each colour channel, and of a common shift as a share of the range.
        rotate: largest turn, degrees. zoom: largest change of scale, share. shift: largest move, px at 256.
    """

    flip: float = 0.0
    colour: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0

    def draw(self, rng: np.random.Generator) -> PictureChange:
        """One change."""
        mirrored = bool(rng.random() < self.flip)
        turn, scale, move_x, move_y = rng.uniform(-1, 1, 4) * (self.rotate, self.zoom, self.shift, self.shift)
        centre = (CROP_UNITS - 1) / 2
        matrix = cv2.getRotationMatrix2D((centre, centre), turn, 1 + scale) + np.array([[0, 0, move_x], [0, 0, move_y]])
        if mirrored:
            matrix = matrix @ np.array([[-1, 0, CROP_UNITS - 1], [0, 1, 0], [0, 0, 1]])
        factors, common = 1 + self.colour * rng.standard_normal(3), 255 * self.colour * rng.standard_normal()
        table = np.arange(256)[:, None] * factors * (1 + self.colour * rng.standard_normal()) + common
        return PictureChange(matrix, mirrored, np.clip(table.round(), 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class PictureChange:
    """What is done to frames, landmarks and boxes of one stretch.

    Attributes:
        matrix: place in the old crop (px at 256) to place in the new one, (2, 3).
        mirrored: whether left and right change places.
        table: new value of each value of each channel, (256, 3).
    """

    matrix: Float[np.ndarray, "2 3"]
    mirrored: bool
    table: UInt8[np.ndarray, "256 3"]

    def picture(self, crop: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """A frame; what comes in at the border is reflected."""
        size = crop.shape[0]
        turn, half = self.matrix[:, :2], np.full(2, 0.5)
        move = turn @ half + size / CROP_UNITS * (self.matrix[:, 2] + half - turn @ half) - half  # in its own pixels
        if not np.array_equal(self.matrix, np.eye(2, 3)):
            matrix = np.concatenate([turn, move[:, None]], axis=1)
            # Cubic: a target that interpolation has softened would teach the generator to blur.
            crop = cv2.warpAffine(crop, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        return cv2.LUT(crop, self.table[None])

    def landmarks(self, landmarks: Float[Tensor, "N 68 2"]) -> Float[Tensor, "N 68 2"]:
        """Landmarks of frames."""
        named = landmarks[:, list(MIRRORED)] if self.mirrored else landmarks
        return self._moved(named)

    def box(self, box: Float[Tensor, "4"]) -> Float[Tensor, "4"]:
        """The upright box around a box, clipped to the crop."""
        x0, y0, x1, y1 = box.tolist()
        corners = self._moved(torch.tensor([[x0, y0], [x1, y0], [x0, y1], [x1, y1]]))
        return torch.cat([corners.amin(0), corners.amax(0)]).clamp(0, CROP_UNITS - 1)

    def _moved(self, points: Float[Tensor, "*N 2"]) -> Float[Tensor, "*N 2"]:
        matrix = torch.from_numpy(self.matrix).to(points)
        return points @ matrix[:, :2].T + matrix[:, 2]
