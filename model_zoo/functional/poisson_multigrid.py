"""Conjugate gradients with a multigrid preconditioner for Laplace's equation on a mask, in loops compiled for the CPU.

Unknowns are the pixels of the mask. A pixel p has an equation Σ_q (u_p − u_q) = b_p over its neighbours q in the image;
those outside of the mask hold given values, which went into b. So an image border is a natural (Neumann) border.
A coarse cell is 2×2 finer ones. On every level a cell is tied to its unknown neighbours with weight 1, and to given
values with a weight that is the sum over its finer cells, shrunk by their distance; interpolation is bilinear,
restriction its transpose, smoothing two Chebyshev–Jacobi sweeps before and after. The cycle is symmetric and so fit to
precondition conjugate gradients, which mend what a coarse grid can't see of a ragged mask.

The preconditioned residual estimates the error itself, in the image's own units, which is when to stop.

Every grid carries a margin of one cell, and holds zeros wherever there is no unknown: so no loop has a branch, and all
of them run in vector instructions.

Shape legend: C channels, H/W pixels.
"""

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Bool, Float

MAX_ITERATIONS = 30
COARSEST = 4  # cells, of the shorter side
GIVEN_FACTOR = 0.6  # of the summed ties to given values: the cell is twice as wide, its distance to them grows by less
# Chebyshev's best two steps for eigenvalues of D⁻¹A in [1/2, 2]: what the coarse grid can't see.
STEPS = (1 / (1.25 + 0.75 * np.cos(np.pi / 4)), 1 / (1.25 - 0.75 * np.cos(np.pi / 4)))
COARSEST_SWEEPS = 4  # pairs

_compile = numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Cells of every level, from fine to coarse."""
    sizes = [(height, width)]
    while min(sizes[-1]) > COARSEST:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


@_compile
def _finest(inside, unknown, given):
    """Unknown pixels and the number of given neighbours of each."""
    height, width = inside.shape
    for y in range(height):
        for x in range(width):
            if inside[y, x]:
                unknown[y + 1, x + 1] = 1
                for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                    v, w = y + dy, x + dx
                    if 0 <= v < height and 0 <= w < width and not inside[v, w]:
                        given[y + 1, x + 1] += np.float32(1)


@_compile
def _coarsen(unknown, given, coarse_unknown, coarse_given):
    for y in range(unknown.shape[0] - 2):
        for x in range(unknown.shape[1] - 2):
            Y, X = y // 2 + 1, x // 2 + 1
            coarse_unknown[Y, X] = max(coarse_unknown[Y, X], unknown[y + 1, x + 1])
            coarse_given[Y, X] += np.float32(GIVEN_FACTOR) * given[y + 1, x + 1]


@_compile
def _sum_weights(unknown, given, total, inverse):
    for y in range(1, unknown.shape[0] - 1):
        for x in range(1, unknown.shape[1] - 1):
            around = unknown[y, x + 1] + unknown[y, x - 1] + unknown[y + 1, x] + unknown[y - 1, x]
            weight = unknown[y, x] * (given[y, x] + around)
            total[y, x] = weight
            inverse[y, x] = 1 / weight if weight > 0 else 0


@_compile
def _sweep(u, b, inverse, step, out):
    """One Jacobi sweep: out = u + step · D⁻¹ (b − A u)."""
    keep = np.float32(1) - step
    for y in range(1, u.shape[0] - 1):
        here, before, after, above, below = u[y, 1:-1], u[y, :-2], u[y, 2:], u[y - 1, 1:-1], u[y + 1, 1:-1]
        given, share, o = b[y, 1:-1], inverse[y, 1:-1], out[y, 1:-1]
        for x in range(u.shape[1] - 2):
            around = (before[x] + after[x]) + (above[x] + below[x])
            o[x] = keep * here[x] + step * share[x] * (given[x] + around)


@_compile
def _residual(u, b, factor, total, inverse, out):
    """out = factor · b − A u."""
    for y in range(1, u.shape[0] - 1):
        here, before, after, above, below = u[y, 1:-1], u[y, :-2], u[y, 2:], u[y - 1, 1:-1], u[y + 1, 1:-1]
        given, weight, share, o = b[y, 1:-1], total[y, 1:-1], inverse[y, 1:-1], out[y, 1:-1]
        for x in range(u.shape[1] - 2):
            around = (before[x] + after[x]) + (above[x] + below[x])
            o[x] = weight[x] * (share[x] * (factor * given[x] + around) - here[x])


@_compile
def _restrict(fine, coarse, row):
    """Transpose of the bilinear interpolation: weights 1/4, 3/4, 3/4, 1/4 along each axis."""
    near, far = np.float32(0.75), np.float32(0.25)
    row[:] = 0
    for y in range(coarse.shape[0] - 2):
        one, two = 2 * y + 1, 2 * y + 2
        last = two == fine.shape[0] - 1  # an odd height has no second row; the margin is zero
        a, b, c, d = fine[one - 1], fine[one], fine[two], fine[two if last else two + 1]
        for x in range(fine.shape[1]):
            row[x] = far * (a[x] + d[x]) + near * (b[x] + c[x])
        out = coarse[y + 1, 1:-1]
        for x in range(coarse.shape[1] - 2):
            out[x] = far * (row[2 * x] + row[2 * x + 3]) + near * (row[2 * x + 1] + row[2 * x + 2])


@_compile
def _prolong(coarse, fine, inverse, row, wide):
    """Add the bilinear interpolation of a coarse correction at the unknown cells."""
    near, far = np.float32(0.75), np.float32(0.25)
    for y in range(fine.shape[0] - 2):
        here, other = coarse[y // 2 + 1], coarse[y // 2 + (2 if y % 2 else 0)]
        for x in range(coarse.shape[1]):
            row[x] = near * here[x] + far * other[x]
        for x in range(coarse.shape[1] - 2):
            wide[2 * x] = near * row[x + 1] + far * row[x]
            wide[2 * x + 1] = near * row[x + 1] + far * row[x + 2]
        out, share = fine[y + 1, 1:-1], inverse[y + 1, 1:-1]
        for x in range(fine.shape[1] - 2):
            out[x] += wide[x] if share[x] > 0 else np.float32(0)


@_compile
def _cycle(b, u, scratch, total, inverse, sizes, offsets, row, wide):
    """u = M b by one V-cycle; the grids of all levels lie in a row in each of the flat arrays."""
    levels = len(sizes)
    first, second, one = np.float32(STEPS[0]), np.float32(STEPS[1]), np.float32(1)
    for index in range(2 * levels - 1):
        level = index if index < levels else 2 * levels - 2 - index
        shape = (sizes[level, 0] + 2, sizes[level, 1] + 2)
        cut = slice(offsets[level], offsets[level + 1])
        b_l, u_l, s_l = b[cut].reshape(shape), u[cut].reshape(shape), scratch[cut].reshape(shape)
        t_l, i_l = total[cut].reshape(shape), inverse[cut].reshape(shape)
        if level < levels - 1:
            shape = (sizes[level + 1, 0] + 2, sizes[level + 1, 1] + 2)
            cut = slice(offsets[level + 1], offsets[level + 2])
            coarse_b, coarse_u = b[cut].reshape(shape), u[cut].reshape(shape)
        if index < levels:
            for i in range(offsets[level], offsets[level + 1]):
                scratch[i] = first * inverse[i] * b[i]
            _sweep(s_l, b_l, i_l, second, u_l)
            if level < levels - 1:
                _residual(u_l, b_l, one, t_l, i_l, s_l)
                _restrict(s_l, coarse_b, row)
            else:
                for _ in range(COARSEST_SWEEPS - 1):
                    _sweep(u_l, b_l, i_l, first, s_l)
                    _sweep(s_l, b_l, i_l, second, u_l)
        else:
            _prolong(coarse_u, u_l, i_l, row, wide)
            _sweep(u_l, b_l, i_l, second, s_l)
            _sweep(s_l, b_l, i_l, first, u_l)


@_compile
def _dot(a, b):
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@_compile
def _largest(a):
    largest = np.float32(0)
    for i in range(len(a)):
        square = a[i] * a[i]
        largest = square if square > largest else largest
    return np.sqrt(largest)


@_compile
def _right_hand_side(inside, border, b):
    """Sum over the given neighbours of each unknown pixel, into a grid with a margin of zeros."""
    height, width = inside.shape
    for y in range(height):
        for x in range(width):
            total = np.float32(0)
            if inside[y, x]:
                if y > 0 and not inside[y - 1, x]:
                    total += border[y - 1, x]
                if y < height - 1 and not inside[y + 1, x]:
                    total += border[y + 1, x]
                if x > 0 and not inside[y, x - 1]:
                    total += border[y, x - 1]
                if x < width - 1 and not inside[y, x + 1]:
                    total += border[y, x + 1]
            b[y + 1, x + 1] = total


@_compile
def _solve(inside, values, sizes, tolerance):
    levels = len(sizes)
    offsets = np.zeros(levels + 1, np.int64)
    for level in range(levels):
        offsets[level + 1] = offsets[level] + (sizes[level, 0] + 2) * (sizes[level, 1] + 2)
    grids = np.zeros((7, offsets[-1]), np.float32)
    unknown, given, total, inverse = grids[0], grids[1], grids[2], grids[3]
    residual, z, scratch = grids[4], grids[5], grids[6]  # the residual is the cycle's right-hand side
    shape, size = (sizes[0, 0] + 2, sizes[0, 1] + 2), offsets[1]
    total_0, inverse_0 = total[:size].reshape(shape), inverse[:size].reshape(shape)
    fine_unknown, fine_given = unknown[:size].reshape(shape), given[:size].reshape(shape)
    _finest(inside, fine_unknown, fine_given)
    for level in range(levels):
        coarse = (sizes[level, 0] + 2, sizes[level, 1] + 2)
        cut = slice(offsets[level], offsets[level + 1])
        if level:
            u, g = unknown[cut].reshape(coarse), given[cut].reshape(coarse)
            _coarsen(fine_unknown, fine_given, u, g)
            fine_unknown, fine_given = u, g
        _sum_weights(fine_unknown, fine_given, total[cut].reshape(coarse), inverse[cut].reshape(coarse))

    vectors = np.zeros((3, size), np.float32)
    direction, image, x = vectors[0], vectors[1], vectors[2]
    row, wide = np.zeros(2 * max(shape) + 4, np.float32), np.zeros(2 * max(shape) + 4, np.float32)
    for channel in range(len(values)):
        residual_0, z_0 = residual[:size], z[:size]
        _right_hand_side(inside, values[channel], residual_0.reshape(shape))
        x[:] = 0
        product = np.float32(0)
        for iteration in range(MAX_ITERATIONS):
            _cycle(residual, z, scratch, total, inverse, sizes, offsets, row, wide)
            if iteration and _largest(z_0) < tolerance:
                for i in range(size):
                    x[i] += z_0[i]
                break
            new = _dot(residual_0, z_0)
            if not new > 0:
                break
            ratio = new / product if iteration else np.float32(0)
            product = new
            for i in range(size):
                direction[i] = z_0[i] + ratio * direction[i]
            grid = direction.reshape(shape)
            _residual(grid, grid, np.float32(0), total_0, inverse_0, image.reshape(shape))
            length = product / -_dot(direction, image)
            for i in range(size):
                x[i] += length * direction[i]
                residual_0[i] += length * image[i]
        solution = x.reshape(shape)
        for y in range(inside.shape[0]):
            for w in range(inside.shape[1]):
                values[channel, y, w] = solution[y + 1, w + 1]


def solve_numba(inside: Bool[np.ndarray, "H W"], values: Float[np.ndarray, "C H W"], tolerance: float) -> None:
    """Harmonic continuation of given values into a mask; compiled once, then read from numba's cache.

    Args:
        inside: the unknown pixels.
        values: C-contiguous float32, given around the mask; overwritten by the solution, zero outside of the mask.
        tolerance: of the estimated error of any pixel.
    """
    _solve(inside, values, np.array(level_sizes(*inside.shape)), np.float32(tolerance))
