"""An edited crop back into its frame, at the frame's own resolution (§3.3.1 of Song et al. 2020: compositing).

A crop of a large face has lost detail that its frame still has. Where the edit changed nothing, that detail is kept;
where it did, the frame's detail would be the ghost of the old mouth, and goes.

Shape legend: H/W pixels of the frame, S side of the crop.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from model_zoo.functional.heatmaps import CROP_UNITS

UNCHANGED = 6 * 2 / 255  # an edit by as much (6 grey levels; noise of the crop's JPEG is 2) keeps 1/e of the detail
SPREAD = 5  # px of the crop over which the size of the edit is averaged


@torch.no_grad()
def paste_crop(
    frame: Float[Tensor, "3 H W"],
    edited_crop: Float[Tensor, "3 S S"],
    transform: Float[Tensor, "2 3"],
    mask: Float[Tensor, "1 S S"],
) -> Float[Tensor, "3 H W"]:
    """The frame with the masked part of a crop put back.

    A crop that is `sample_crop` of the frame (rounded, where they are bytes) gives the frame back exactly; pixels that
    the mask doesn't reach are the frame's own bit for bit whatever the crop.

    Args:
        frame: RGB, float in [-1, 1] or uint8; of any size, smaller than the crop too.
        edited_crop: of any side, in the frame's type.
        transform: the stored similarity, frame px -> px of the 256-pixel crop.
        mask: in [0, 1]; weights of the crop.

    Returns:
        A new frame of the same type.

    Raises:
        ValueError: not RGB, types or sides differ, values that are not finite, or a transform that can't be inverted.
    """
    _check(frame, edited_crop, transform, mask)
    size = edited_crop.shape[-1]
    pasted = frame.clone()
    region = _reach(mask, transform, frame.shape[-2:])
    if region is None:
        return pasted
    rows, columns = region
    is_bytes = not frame.is_floating_point()
    whole, edited = (_to_unit(image) for image in (frame, edited_crop))
    original = _sample_frame(whole, transform, size)
    if is_bytes:
        original = _to_unit(_to_bytes(original))  # rounded as the crop was
    change = F.avg_pool2d((edited - original).square().mean(0, keepdim=True), SPREAD, 1, SPREAD // 2)
    lost = 1 - torch.exp(-change / UNCHANGED**2)  # share of the frame's own detail that goes
    y, x = torch.meshgrid(
        torch.arange(rows.start, rows.stop, device=frame.device, dtype=torch.float64),
        torch.arange(columns.start, columns.stop, device=frame.device, dtype=torch.float64),
        indexing="ij",
    )
    points = _apply(_to_size(transform, size), torch.stack([x, y], -1))
    difference, original = _sample(torch.cat([edited - original, original]), points, "bicubic").split(3)
    lost, weight = _sample(torch.cat([lost, mask.float()]), points, "bilinear").split(1)
    # Outside of the crop there is nothing to paste.
    weight = weight * ((points > -0.5) & (points < size - 0.5)).all(-1)
    here = whole[:, rows, columns]
    blended = torch.lerp(here, here + difference - lost * (here - original), weight)
    if is_bytes:
        blended = _to_bytes(blended)
    pasted[:, rows, columns] = torch.where(weight > 0, blended.to(frame.dtype), pasted[:, rows, columns])
    return pasted


@torch.no_grad()
def sample_crop(
    frame: Float[Tensor, "3 H W"], transform: Float[Tensor, "2 3"], size: int = CROP_UNITS
) -> Float[Tensor, "3 S S"]:
    """The crop of a frame, float in [-1, 1]; the border is replicated beyond the frame's edge.

    Args:
        frame: RGB, float in [-1, 1] or uint8.
        transform: frame px -> px of the 256-pixel crop.
        size: side of the result, px.
    """
    return _sample_frame(_to_unit(frame), transform, size)


def _sample_frame(frame: Tensor, transform: Tensor, size: int) -> Tensor:
    matrix = _to_size(transform, size)
    scale = torch.linalg.vector_norm(matrix[:, 0]).item()  # px of the crop a px of the frame
    step = max(1, int(1 / scale))
    # Shrinking averages first: interpolation alone would skip pixels and alias.
    if step > 1:
        frame = F.avg_pool2d(frame[None], step, ceil_mode=True, count_include_pad=False)[0]
    steps = torch.arange(size, device=frame.device, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    points = (_apply(_inverse(matrix), points) - (step - 1) / 2) / step
    return _sample(frame, points, "bicubic")


def _sample(image: Tensor, points: Tensor, mode: str) -> Tensor:
    """Values (C, H, W) of an image at points (H, W, 2), px with centres at integers; its border goes on beyond it."""
    extent = torch.tensor(image.shape[:0:-1], device=image.device, dtype=torch.float64)
    grid = ((2 * points + 1) / extent - 1).to(image.dtype)
    return F.grid_sample(image[None], grid[None], mode, padding_mode="border", align_corners=False)[0]


def _reach(mask: Tensor, transform: Tensor, frame: torch.Size) -> tuple[slice, slice] | None:
    """Rows and columns of the frame that a mask reaches; None where it is empty or lies outside."""
    size = mask.shape[-1]
    rows, columns = (mask[0].amax(axis).nonzero() for axis in (1, 0))
    if not len(rows):
        return None
    x = torch.stack([columns[0, 0] - 1, columns[-1, 0] + 1]).double()
    y = torch.stack([rows[0, 0] - 1, rows[-1, 0] + 1]).double()
    corners = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    corners = _apply(_inverse(_to_size(transform, size)), corners).flatten(0, 1)
    (left, top), (right, bottom) = corners.amin(0).floor().int().tolist(), corners.amax(0).ceil().int().tolist()
    top, left, bottom, right = max(0, top), max(0, left), min(frame[0], bottom + 1), min(frame[1], right + 1)
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def _to_size(transform: Tensor, size: int) -> Tensor:
    """The transform to px of a crop of another side, in float64."""
    matrix = transform.double().clone()
    scale = size / CROP_UNITS
    matrix[:, 2] = (matrix[:, 2] + 0.5) * scale - 0.5
    matrix[:, :2] *= scale
    return matrix


def _inverse(matrix: Tensor) -> Tensor:
    linear = torch.linalg.inv(matrix[:, :2])
    return torch.cat([linear, -linear @ matrix[:, 2:]], 1)


def _apply(matrix: Tensor, points: Tensor) -> Tensor:
    return points @ matrix[:, :2].T + matrix[:, 2]


def _to_unit(image: Tensor) -> Tensor:
    return image.float() if image.is_floating_point() else image.float() / 127.5 - 1


def _to_bytes(image: Tensor) -> Tensor:
    return ((image + 1) * 127.5).round().clamp(0, 255).byte()


def _check(frame: Tensor, crop: Tensor, transform: Tensor, mask: Tensor) -> None:
    for name, image in (("frame", frame), ("crop", crop)):
        if image.dim() != 3 or image.shape[0] != 3:
            raise ValueError(
                f"{name} must be RGB, (3, H, W), got {tuple(image.shape)}: convert grayscale and RGBA first"
            )
        if image.is_floating_point() and not image.isfinite().all():
            raise ValueError(f"{name} holds values that are not finite: drop it")
    if crop.shape[1] != crop.shape[2] or mask.shape != (1, *crop.shape[1:]):
        raise ValueError(f"crop and mask must be squares alike, got {tuple(crop.shape)} and {tuple(mask.shape)}")
    if frame.is_floating_point() != crop.is_floating_point():
        raise ValueError(f"frame and crop must both be float or uint8, got {frame.dtype} and {crop.dtype}")
    if not (mask.float().nan_to_num(-1) >= 0).all() or mask.amax() > 1:
        raise ValueError("mask must lie in [0, 1] and hold no NaN")
    if not transform.isfinite().all() or transform[:, :2].double().det().abs() < 1e-12:
        raise ValueError("the crop's transform must be finite and invertible: this frame was not fitted")
