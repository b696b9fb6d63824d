"""Landmarks as one gray image that gradients flow through (§3.3.1 of Song et al. 2020).

The paper draws "Gaussian-like functions centered at landmark locations" and stacks one gray image a frame. Chosen here:
a Gaussian of sigma 2.5 px at 256 around the mouth (48..67) and the jaw (3..13), the maximum over landmarks.

The maximum is that of the nearest landmark, and a Gaussian falls below the floating type's resolution within a few
sigmas, so only small patches are visited: memory is O(pixels), not O(landmarks · pixels), and the backward pass reaches
the nearest landmark of each pixel alone. Where no gradient is asked for, a compiled loop draws the same on the CPU: a
Gaussian is the product of a row and a column, so a landmark takes a few dozen exponentials.

Shape legend: B maps, L landmarks, H/W pixels of the run's crop, N visited pixels.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

CROP_UNITS = 256  # landmarks are in pixels of a crop of this side
MOUTH = range(48, 68)  # iBUG 68 order
JAW = range(3, 14)
HEATMAP_LANDMARKS = (*JAW, *MOUTH)
SIGMA = 2.5  # px at 256
TIE = 64  # rounding steps within which two squared distances count as equal


def landmark_heatmap(
    landmarks: Float[Tensor, "... 68 2"], size: int, sigma: float = SIGMA
) -> Float[Tensor, "... 1 H W"]:
    """Gaussians at mouth and jaw landmarks, the maximum over landmarks, in [0, 1].

    Differentiable once; each pixel's gradient goes to its nearest landmark (shared evenly where several coincide).
    A landmark out of the crop contributes what of its Gaussian reaches into it.

    Args:
        landmarks: px at 256, x right, y down.
        size: side of the run's crop, px.
        sigma: px at 256.

    Raises:
        ValueError: the shape is not (..., 68, 2), or a landmark is not finite (not checked while compiling).
    """
    if not torch.compiler.is_compiling():
        if landmarks.shape[-2:] != (68, 2):
            raise ValueError(f"landmarks must be (..., 68, 2), got {tuple(landmarks.shape)}")
        if not landmarks.isfinite().all():
            raise ValueError("landmarks hold NaN or infinity: use the fitted ones or drop the frames without a face")
    if landmarks.dtype in (torch.bfloat16, torch.float16):
        landmarks = landmarks.float()
    scale = size / CROP_UNITS
    drawn = torch.cat([landmarks[..., JAW.start : JAW.stop, :], landmarks[..., MOUTH.start : MOUTH.stop, :]], dim=-2)
    drawn = (drawn + 0.5) * scale - 0.5
    drawn = drawn.reshape(-1, *drawn.shape[-2:])
    wants_gradient = torch.is_grad_enabled() and drawn.requires_grad
    is_plain = drawn.device.type == "cpu" and drawn.dtype == torch.float32 and not torch.compiler.is_compiling()
    if is_plain and not wants_gradient:
        heat = torch.zeros(len(drawn), size, size)
        _draw_gaussians(drawn.detach().numpy(), sigma * scale, _reach(sigma * scale, drawn.dtype), heat.numpy())
    else:
        heat = _NearestGaussian.apply(drawn, size, sigma * scale)
    return heat.reshape(*landmarks.shape[:-2], 1, size, size)


class _NearestGaussian(torch.autograd.Function):
    """exp(-d² / 2σ²) of the distance d to the nearest landmark: (B, L, 2) px -> (B, H·W)."""

    @staticmethod
    def forward(ctx, landmarks: Tensor, size: int, sigma: float) -> Tensor:
        _, squared, pixel, inside = _patches(landmarks, size, sigma)
        nearest = landmarks.new_full((len(landmarks), size * size), math.inf)
        nearest.scatter_reduce_(1, pixel, squared.masked_fill(~inside, math.inf), "amin")
        ctx.save_for_backward(landmarks, nearest)
        ctx.size, ctx.sigma = size, sigma
        return torch.exp(nearest / (-2 * sigma**2))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_heat: Tensor) -> tuple[Tensor, None, None]:
        landmarks, nearest = ctx.saved_tensors
        offset, squared, pixel, inside = _patches(landmarks, ctx.size, ctx.sigma)
        tolerance = TIE * torch.finfo(squared.dtype).eps * (1 + squared)
        owner = (inside & (squared <= nearest.gather(1, pixel) + tolerance)).to(squared.dtype)
        num_owners = torch.zeros_like(nearest).scatter_add_(1, pixel, owner).clamp_min_(1)
        density = grad_heat * torch.exp(nearest / (-2 * ctx.sigma**2)) / (num_owners * ctx.sigma**2)
        weight = (owner * density.gather(1, pixel)).view(*landmarks.shape[:2], -1, 1)
        return (weight * offset).sum(2), None, None


def _reach(sigma: float, dtype: torch.dtype) -> int:
    """Pixels around a landmark within which its Gaussian exceeds the floating type's resolution."""
    return math.ceil(sigma * math.sqrt(-2 * math.log(torch.finfo(dtype).eps)) + 0.5)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _draw_gaussians(landmarks_BL2: np.ndarray, sigma: float, reach: int, heat_BHW: np.ndarray) -> None:
    """Raise `heat` to the Gaussian of each landmark, within `reach` px of it."""
    size = heat_BHW.shape[1]
    row = np.empty(2 * reach + 1, np.float32)
    for image in range(len(landmarks_BL2)):
        for landmark in range(landmarks_BL2.shape[1]):
            x, y = landmarks_BL2[image, landmark]
            if not (-reach - 1 < x < size + reach and -reach - 1 < y < size + reach):
                continue
            left, top = round(x) - reach, round(y) - reach
            first, last = max(0, left), min(size, left + 2 * reach + 1)
            for column in range(first, last):
                row[column - left] = math.exp(-((column - x) ** 2) / (2 * sigma**2))
            for line in range(max(0, top), min(size, top + 2 * reach + 1)):
                height = np.float32(math.exp(-((line - y) ** 2) / (2 * sigma**2)))
                drawn, weights = heat_BHW[image, line, first:last], row[first - left : last - left]
                for column in range(drawn.size):  # over slices that begin at 0: many pixels at a time
                    value = height * weights[column]
                    drawn[column] = value if value > drawn[column] else drawn[column]


def _patches(
    landmarks: Float[Tensor, "B L 2"], size: int, sigma: float
) -> tuple[Float[Tensor, "B L P 2"], Float[Tensor, "B N"], Int[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """The pixels around each landmark at which its Gaussian exceeds the floating type's resolution.

    Returns:
        offset from landmark to pixel (px), squared distance (px²), flat index of the pixel, and whether it lies inside
        the crop (elsewhere the index is that of some pixel at the border); N = L · P.
    """
    reach = _reach(sigma, landmarks.dtype)
    steps = torch.arange(-reach, reach + 1, device=landmarks.device)
    centre = landmarks.round().clamp(-reach - 1, size + reach).long()  # from there on no pixel is inside
    columns, rows = (centre[..., None] + steps).unbind(2)  # (B, L, 2·reach + 1) each
    x, y = (axis[..., None] for axis in landmarks.unbind(-1))
    dx, dy = columns - x, rows - y
    squared = dy.square()[..., :, None] + dx.square()[..., None, :]
    pixel = rows.clamp(0, size - 1)[..., :, None] * size + columns.clamp(0, size - 1)[..., None, :]
    valid_rows, valid_columns = ((axis >= 0) & (axis < size) for axis in (rows, columns))
    inside = valid_rows[..., :, None] & valid_columns[..., None, :]
    offset = torch.stack(torch.broadcast_tensors(dx[..., None, :], dy[..., :, None]), dim=-1)
    return offset.flatten(2, 3), squared.flatten(1), pixel.flatten(1), inside.flatten(1)
