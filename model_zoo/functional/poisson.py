"""Poisson blending of a generated mouth into the true frame, §3.3.1 of Song et al. 2020 (Pérez et al. 2003).

Inside the mask the blended frame has the gradients of the source; at the mask's border it meets the target. What is
solved for is the difference of blended frame and source: it is harmonic inside the mask and equals target − source on
the pixels around it, so the whole right-hand side lives on the border.

On the CPU each sample is solved by compiled loops, elsewhere the batch by tensor operations; the method is the same
(`poisson_multigrid`).

Shape legend: B batch, C channels, H/W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model_zoo.functional.poisson_multigrid import DONE, NOT_FINITE, WHOLE_FRAME, blend_numba
from model_zoo.functional.poisson_torch import solve_torch

TOLERANCE = 0.25  # grey levels, estimated, at the worst pixel; the mean error is a tenth of it or less
GREY_LEVELS = {"float": 2 / 255, "uint8": 1.0}  # one grey level in the units of an image in [-1, 1] and in bytes
REFUSED = {
    WHOLE_FRAME: "the mask covers its whole frame: leave a pixel of the target for the blend to start from",
    NOT_FINITE: "target or source are not finite in or around the mask: drop the frame",
}


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
    compiled = target.device.type == "cpu" if compiled is None else compiled
    unit = GREY_LEVELS["float" if target.is_floating_point() else "uint8"] * tolerance
    if not mask.numel():
        return target.clone()
    return _blend_compiled(target, source, mask, unit) if compiled else _blend_tensors(target, source, mask, unit)


def _blend_compiled(target: Tensor, source: Tensor, mask: Tensor, tolerance: float) -> Tensor:
    """Sample by sample, in bytes or float32."""
    kind = torch.float32 if target.is_floating_point() else torch.uint8
    blended = target.to(kind, copy=True, memory_format=torch.contiguous_format)
    images, sources = blended.numpy(), source.to(kind).contiguous().numpy()
    weights = mask.float().contiguous().numpy()
    for image, other, weight in zip(images, sources, weights[:, 0], strict=True):
        outcome = blend_numba(image, other, weight, tolerance)
        if outcome != DONE:
            raise ValueError(REFUSED[outcome])
    return blended if kind == target.dtype else torch.where(mask > 0, blended.to(target.dtype), target)


def _blend_tensors(target: Tensor, source: Tensor, mask: Tensor, tolerance: float) -> Tensor:
    """The whole batch within the window that holds all of its masks, and a margin of one pixel."""
    blended, bounds = target.clone(), _bounds(mask)
    if bounds is None:
        return blended
    window = (..., *bounds)
    old, mask = blended[window].float(), mask[window]
    inside = mask > 0
    if inside.flatten(1).all(1).any():
        raise ValueError(REFUSED[WHOLE_FRAME])
    new = source[window].float()
    difference = old - new
    if not difference.sum().isfinite():  # one value that is not makes the sum so
        raise ValueError(REFUSED[NOT_FINITE])
    result = torch.lerp(old, new + solve_torch(inside, difference, tolerance), mask.float())
    if not target.is_floating_point():
        result = result.round_().clamp_(0, 255)
    blended[window] = torch.where(inside, result.to(target.dtype), blended[window])
    return blended


def _bounds(mask: Bool[Tensor, "B 1 H W"]) -> tuple[slice, slice] | None:
    """Rows and columns of the masks with a margin of one pixel within the image; None where all are empty."""
    inside = (mask > 0).any(0)[0]
    rows, columns = (inside.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    if not rows:
        return None
    return slice(max(0, rows[0] - 1), rows[-1] + 2), slice(max(0, columns[0] - 1), columns[-1] + 2)


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
    if mask.dtype == torch.bool or not mask.numel():
        return
    low, high = mask.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError("mask must lie in [0, 1] and hold no NaN")
