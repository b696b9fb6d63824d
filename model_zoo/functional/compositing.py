"""A generated mouth into its true frame, §3.3.1 of Song et al. 2020: hull, erode, Gaussian edge, Poisson blending.

The one way in which frames are composited, wherever they are scored, shown or dubbed. A frame that can't be composited
is the true frame, flagged: one bad frame of a video is no reason to lose the others.

Shape legend: B batch, H/W pixels of the run's crop. Landmarks and boxes are px at 256.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from model_zoo.functional.heatmaps import CROP_UNITS, MOUTH
from model_zoo.functional.masks import box_mask, hull_mask
from model_zoo.functional.poisson import poisson_blend


class Composite(NamedTuple):
    """Composited frames.

    Attributes:
        frame: in [-1, 1]; outside of the mask those of the true frame bit for bit.
        mask: weights of the generated frame, zero outside of the mouth box.
        flagged: frames that could not be composited and are the true ones.
    """

    frame: Float[Tensor, "B 3 H W"]
    mask: Float[Tensor, "B 1 H W"]
    flagged: Bool[Tensor, "B"]


@torch.no_grad()
def composite_mouth(
    target: Float[Tensor, "B 3 H W"],
    generated: Float[Tensor, "B 3 H W"],
    driven: Float[Tensor, "B 68 2"],
    original: Float[Tensor, "B 68 2"],
    box: Float[Tensor, "B 4"],
) -> Composite:
    """Blend the generated mouth into the true frame under the soft hull of both faces.

    A frame is flagged where generated pixels are not finite, where a landmark is not or lies more than a side away from
    the crop, where the driven mouth has its centre outside of the mouth box (what was generated is not all shown), and
    where the mask is empty or covers the crop.

    Args:
        target: true frames in [-1, 1]. generated: with the generated mouth.
        driven: landmarks that the generated mouth follows. original: those of the true frames.
        box: mouth boxes.

    Raises:
        ValueError: the shapes differ, or the frames are not RGB.
    """
    count, size = len(target), target.shape[-1]
    if target.shape != generated.shape or target.shape[1:] != (3, size, size):
        raise ValueError(
            f"frames must be square RGB crops, (B, 3, H, H) alike, got {tuple(target.shape)} and "
            f"{tuple(generated.shape)}: convert grayscale and RGBA frames first"
        )
    if driven.shape != (count, 68, 2) or original.shape != driven.shape or box.shape != (count, 4):
        raise ValueError(
            f"{count} frames need landmarks (B, 68, 2) and boxes (B, 4) alike, got {tuple(driven.shape)}, "
            f"{tuple(original.shape)} and {tuple(box.shape)}"
        )
    usable = is_drivable(driven, box) & _near(original)
    usable &= torch.stack([image.isfinite().flatten(1).all(1) for image in (target, generated)]).all(0)
    frame, mask = target.clone(), target.new_zeros(count, 1, size, size)
    if usable.any():
        soft = hull_mask(driven[usable], original[usable], box[usable], size) * _within(box[usable], size)
        mask[usable] = soft.to(mask)
        inside = (mask > 0).flatten(1)
        usable &= inside.any(1) & ~inside.all(1)
        mask[~usable] = 0
        frame[usable] = poisson_blend(target[usable], generated[usable], mask[usable]).clamp(-1, 1)
    return Composite(frame, mask, ~usable)


def is_drivable(landmarks: Float[Tensor, "B 68 2"], box: Float[Tensor, "B 4"]) -> Bool[Tensor, "B"]:
    """Whether landmarks can drive a mouth within its box: its centre is there, and no landmark is far from the crop."""
    centre = landmarks[:, MOUTH.start : MOUTH.stop].mean(1)
    inside = (centre >= box[:, :2]).all(1) & (centre <= box[:, 2:]).all(1)
    return inside & _near(landmarks)


def _near(landmarks: Float[Tensor, "B 68 2"]) -> Bool[Tensor, "B"]:
    """All landmarks within a side of the crop around it; false for NaN."""
    return ((landmarks > -CROP_UNITS) & (landmarks < 2 * CROP_UNITS)).all(2).all(1)


def _within(box: Float[Tensor, "B 4"], size: int) -> Float[Tensor, "B 1 H W"]:
    """1 where a pixel and all of its neighbours in the crop lie in the box.

    Poisson blending keeps the gradient between a pixel of the mask and its neighbour outside: across the border of the
    box, where generated and true pixels meet, that would be the seam itself.
    """
    return 1 - F.max_pool2d(1 - box_mask(box, size).float(), 3, stride=1, padding=1)
