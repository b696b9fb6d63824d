"""What a composited mouth may give itself away by: a blurred inside, a visible border.

Both scores are relative to the true frame, 1 where there is nothing to see. Minimising L1 alone predicts the median of
what may be there, which is blurred: PSNR rewards that, sharpness shows it.

Sharpness is a ratio of gradient energies and not CPBD (Narvekar & Karam 2011), which counts edges in blocks of 64 px
over a whole photograph: a mouth region is about one such block, and has too few edges to count. Energy can't tell grain
from detail; Sobel's smoothing across the derivative halves that of white noise.

Shape legend: B batch, C channels, H/W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from model_zoo.metrics.functional import _check_images, _region_mean

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SOBEL = ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))
EPSILON = 1e-12  # keeps flat images finite


def sharpness(
    predicted: Float[Tensor, "B 3 H W"], true: Float[Tensor, "B 3 H W"], region: Bool[Tensor, "B 1 H W"] | None = None
) -> Float[Tensor, "B"]:
    """Gradient energy of each frame over that of the true frame: below 1 blurred, above 1 too sharp or noisy.

    E = mean of |∇Y|² over the region, Y the luma and ∇ Sobel's; the ratio is E(predicted) / E(true).

    Args:
        predicted, true: images in [-1, 1].
        region: pixels that count.

    Raises:
        ValueError: the shapes differ, the images are not RGB, or a region is empty.
    """
    _check_images(predicted, true, region)
    if true.shape[1] != 3:
        raise ValueError(f"sharpness is measured on RGB, got {true.shape[1]} channels")
    energy = [_region_mean(_gradient_energy(image), region) for image in (predicted, true)]
    return (energy[0] + EPSILON) / (energy[1] + EPSILON)


def seam_gradient(
    predicted: Float[Tensor, "B C H W"], true: Float[Tensor, "B C H W"], mask: Float[Tensor, "B 1 H W"]
) -> Float[Tensor, "B"]:
    """Mean absolute jump across the border of the mask, over the true frame's: 1 is seamless.

    The jump is |I_p − I_q| of horizontal and vertical neighbours p inside and q outside of the mask.

    Args:
        predicted, true: images in [-1, 1].
        mask: of compositing; inside is above zero.

    Raises:
        ValueError: the shapes differ, or a mask has no border.
    """
    inside = mask > 0
    _check_images(predicted, true, inside)
    total_B2 = predicted.new_zeros(len(true), 2, dtype=torch.float32)
    pairs_B = inside.new_zeros(len(true), dtype=torch.int64)
    for axis in (-1, -2):
        crossing = inside.diff(dim=axis)  # exclusive or
        jumps = [(image.float().diff(dim=axis).abs().mean(1, keepdim=True) * crossing) for image in (predicted, true)]
        total_B2 = total_B2 + torch.stack(jumps, 1).sum((2, 3, 4))
        pairs_B = pairs_B + crossing.sum((1, 2, 3))
    if not bool((pairs_B > 0).all()):
        raise ValueError("the mask of a sample has no border: it covers its whole frame")
    jump = total_B2 / pairs_B[:, None]
    return (jump[:, 0] + EPSILON) / (jump[:, 1] + EPSILON)


def _gradient_energy(image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B H W"]:
    luma = (image.float() * image.new_tensor(LUMA, dtype=torch.float32)[:, None, None]).sum(1, keepdim=True)
    kernel = luma.new_tensor(SOBEL) / 8
    gradient = F.conv2d(F.pad(luma, (1, 1, 1, 1), mode="replicate"), torch.stack([kernel, kernel.T])[:, None])
    return gradient.square().sum(1)
