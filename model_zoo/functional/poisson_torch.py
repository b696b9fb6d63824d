"""The multigrid of `poisson_multigrid` in tensor operations, for a batch on any device.

Shape legend: B batch, C channels, H/W pixels of the level.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from model_zoo.functional.poisson_multigrid import COARSEST_SWEEPS, GIVEN_FACTOR, MAX_ITERATIONS, STEPS, level_sizes


class _Level(NamedTuple):
    """Sum of a cell's weights (B, 1, H, W) and one over it; both zero where nothing is unknown."""

    total: Tensor
    inverse: Tensor


def solve_torch(
    inside: Bool[Tensor, "B 1 H W"], values: Float[Tensor, "B C H W"], tolerance: float
) -> Float[Tensor, "B C H W"]:
    """Harmonic continuation of given values into the masks of a batch; zero outside.

    Args:
        inside: the unknown pixels. values: given around the masks.
        tolerance: of the estimated error of any pixel.
    """
    levels = _hierarchy(inside)
    residual = torch.where(inside, _neighbours(torch.where(inside, 0, values)), 0)
    x, direction, product = torch.zeros_like(values), torch.zeros_like(values), None
    tiny = torch.finfo(values.dtype).tiny  # of a channel that is solved already
    for _ in range(MAX_ITERATIONS):
        z = _cycle(levels, residual)
        if product is not None and z.abs().max() < tolerance:
            return x + z
        new = _dot(residual, z)
        ratio = 0 if product is None else new / product.clamp_min(tiny)
        direction, product = z + ratio * direction, new
        image = -_residual(levels[0], direction)
        length = product / _dot(direction, image).clamp_min(tiny)
        x = x + length * direction
        residual = residual - length * image
    return x


def _hierarchy(inside: Bool[Tensor, "B 1 H W"]) -> list[_Level]:
    unknown = inside.float()
    given = unknown * _neighbours(1 - unknown)
    levels = []
    for _ in level_sizes(*inside.shape[-2:]):
        total = unknown * (given + _neighbours(unknown))
        levels.append(_Level(total, torch.where(total > 0, 1 / total.clamp_min(1e-20), 0)))
        unknown, given = (_pad_to_even(part) for part in (unknown, given))
        unknown, given = F.max_pool2d(unknown, 2), GIVEN_FACTOR * 4 * F.avg_pool2d(given, 2)
    return levels


def _cycle(levels: list[_Level], b: Tensor) -> Tensor:
    level, *coarser = levels
    first, second = STEPS
    u = first * level.inverse * b
    u = _sweep(level, u, b, second)
    if not coarser:
        for _ in range(COARSEST_SWEEPS - 1):
            u = _sweep(level, _sweep(level, u, b, first), b, second)
        return u
    correction = _cycle(coarser, _restrict(_residual(level, u, b)))
    u = u + torch.where(level.total > 0, _prolong(correction)[..., : u.shape[-2], : u.shape[-1]], 0)
    return _sweep(level, _sweep(level, u, b, second), b, first)


def _neighbours(u: Tensor) -> Tensor:
    """Sum of the four neighbours, zero beyond the border."""
    padded = F.pad(u, (1, 1, 1, 1))
    rows, columns = padded[..., 1:-1], padded[..., 1:-1, :]
    return rows[..., :-2, :] + rows[..., 2:, :] + columns[..., :-2] + columns[..., 2:]


def _residual(level: _Level, u: Tensor, b: Tensor | float = 0.0) -> Tensor:
    """b − A u."""
    return level.total * (level.inverse * (b + _neighbours(u)) - u)


def _sweep(level: _Level, u: Tensor, b: Tensor, step: float) -> Tensor:
    return (1 - step) * u + step * level.inverse * (b + _neighbours(u))


def _restrict(fine: Tensor) -> Tensor:
    """Transpose of the bilinear interpolation: weights 1/4, 3/4, 3/4, 1/4 along each axis."""
    padded = F.pad(fine, (1, 1 + fine.shape[-1] % 2, 1, 1 + fine.shape[-2] % 2))
    rows = 0.25 * (padded[..., :-3:2, :] + padded[..., 3::2, :])
    rows = rows + 0.75 * (padded[..., 1:-2:2, :] + padded[..., 2:-1:2, :])
    columns = 0.25 * (rows[..., :-3:2] + rows[..., 3::2])
    return columns + 0.75 * (rows[..., 1:-2:2] + rows[..., 2:-1:2])


def _prolong(coarse: Tensor) -> Tensor:
    """Bilinear interpolation to twice the size, zero beyond the border."""
    for axis in (-1, -2):
        before = torch.zeros_like(coarse.narrow(axis, 0, 1))
        shifted_up = torch.cat([before, coarse.narrow(axis, 0, coarse.shape[axis] - 1)], axis)
        shifted_down = torch.cat([coarse.narrow(axis, 1, coarse.shape[axis] - 1), before], axis)
        halves = (0.75 * coarse + 0.25 * shifted_up, 0.75 * coarse + 0.25 * shifted_down)
        axis += coarse.dim()
        coarse = torch.stack(halves, axis + 1).flatten(axis, axis + 1)
    return coarse


def _pad_to_even(part: Tensor) -> Tensor:
    return F.pad(part, (0, part.shape[-1] % 2, 0, part.shape[-2] % 2))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1), keepdim=True)
