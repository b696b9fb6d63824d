"""Poisson blending of a generated mouth into the true frame, §3.3.1 of Song et al. 2020 (Pérez et al. 2003).

Inside the mask the blended frame has the gradients of the source; at the mask's border it meets the target. What is
solved for is the difference of blended frame and source: it is harmonic inside the mask and equals target − source on
the pixels around it, so the whole right-hand side lives on the border.

On the CPU each sample is solved by compiled loops, elsewhere the batch by tensor operations; the method is the same
(`poisson_multigrid`).

Shape legend: B batch, C channels, H/W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model_zoo.functional.poisson_multigrid import solve_numba
from model_zoo.functional.poisson_torch import solve_torch

TOLERANCE = 0.25  # grey levels, estimated, at the worst pixel; the mean error is a tenth of it or less
GREY_LEVELS = {"float": 2 / 255, "uint8": 1.0}  # one grey level in the units of an image in [-1, 1] and in bytes


@torch.no_grad()
def poisson_blend(
    target: Float[Tensor, "B 3 H W"],
    source: Float[Tensor, "B 3 H W"],
    mask: Float[Tensor, "B 1 H W"],
    tolerance: float = TOLERANCE,
    compiled: bool | None = None,
) -> Float[Tensor, "B 3 H W"]:
    """Blend `source` into `target` where the mask is above zero.

    The pixels with a mask above zero are solved for, with the values of the target around them; where the mask is soft,
    the solution is then mixed with the target by it. Pixels with a mask of zero are those of the target bit for bit.
    At the image's border nothing is prescribed. A sample with an empty mask is returned as it is.

    Args:
        target: frames to blend into, float in [-1, 1] or uint8. source: what is blended in, the same type.
        mask: in [0, 1] or bool.
        tolerance: grey levels, of the solution at any pixel.
        compiled: use the loops compiled for the CPU; by default where the tensors are there.

    Returns:
        A new tensor of the target's type. Floats may leave [-1, 1] where gradients and border ask for it.

    Raises:
        ValueError: not RGB, shapes or types differ, a mask that covers its whole frame or is not in [0, 1], or values
            that are not finite where they are used.
    """
    _check(target, source, mask)
    blended = target.clone()
    if not mask.numel():
        return blended
    compiled = target.device.type == "cpu" if compiled is None else compiled
    unit = GREY_LEVELS["float" if target.is_floating_point() else "uint8"] * tolerance
    batches = [slice(i, i + 1) for i in range(len(target))] if compiled else [slice(None)]
    for samples in batches:
        bounds = _bounds(mask[samples])
        if bounds is None:
            continue
        window = (samples, slice(None), *bounds)
        _blend(blended[window], source[window], mask[window], unit, compiled)
    return blended


def _blend(target: Tensor, source: Tensor, mask: Tensor, tolerance: float, compiled: bool) -> None:
    """Blend a window in place; it holds a margin of one pixel around the mask but where the image ends."""
    inside_B1HW = mask > 0
    if inside_B1HW.flatten(1).all(1).any():
        raise ValueError("the mask covers its whole frame: leave a pixel of the target for the blend to start from")
    source_float = source.float()
    difference = target.float() - source_float
    if not difference.sum().isfinite():  # one value that is not makes the sum so
        raise ValueError("target or source are not finite in or around the mask: drop the frame")
    if compiled:
        solve_numba(inside_B1HW[0, 0].contiguous().numpy(), difference[0].numpy(), tolerance)
        solution = difference
    else:
        solution = solve_torch(inside_B1HW, difference, tolerance)
    result = source_float + solution
    if mask.is_floating_point():
        result = torch.lerp(target.float(), result, mask.float())
    if not target.is_floating_point():
        result = result.round_().clamp_(0, 255)
    target.copy_(torch.where(inside_B1HW, result.to(target.dtype), target))


def _bounds(mask: Bool[Tensor, "B 1 H W"]) -> tuple[slice, slice] | None:
    """Rows and columns of the mask with a margin of one pixel within the image; None where it is empty."""
    inside = (mask > 0).cpu().numpy()  # numpy finds the rows and columns ten times as fast
    rows, columns = (np.flatnonzero(inside.any((0, 1, axis))) for axis in (3, 2))
    if not len(rows):
        return None
    top, bottom, left, right = (int(edge) for edge in (rows[0], rows[-1], columns[0], columns[-1]))
    return slice(max(0, top - 1), bottom + 2), slice(max(0, left - 1), right + 2)


def _check(target: Tensor, source: Tensor, mask: Tensor) -> None:
    if target.dim() != 4 or target.shape[1] != 3 or target.shape != source.shape:
        raise ValueError(
            f"target and source must be RGB, (B, 3, H, W) alike, got {tuple(target.shape)} and {tuple(source.shape)}: "
            "convert grayscale and RGBA frames first"
        )
    if target.dtype != source.dtype or not (target.is_floating_point() or target.dtype == torch.uint8):
        raise ValueError(f"target and source must both be float or uint8, got {target.dtype} and {source.dtype}")
    if mask.shape != (len(target), 1, *target.shape[-2:]):
        raise ValueError(f"mask must be (B, 1, H, W) of the frames, got {tuple(mask.shape)}")
    low, high = mask.aminmax() if mask.numel() else (0.0, 1.0)
    if not (low >= 0 and high <= 1):
        raise ValueError("mask must lie in [0, 1] and hold no NaN")
