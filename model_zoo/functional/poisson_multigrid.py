"""Conjugate gradients with a multigrid preconditioner for Laplace's equation on a mask, in loops compiled for the CPU.

Unknowns are the pixels of the mask. A pixel p has an equation Σ_q (u_p − u_q) = b_p over its neighbours q in the image;
those outside of the mask hold given values, which went into b. So an image border is a natural (Neumann) border.
A coarse cell is 2×2 finer ones. On every level a cell is tied to its unknown neighbours with weight 1, and to given
values with a weight that is the sum over its finer cells, shrunk by their distance; interpolation is bilinear,
restriction its transpose, smoothing two Chebyshev–Jacobi sweeps before and after. The cycle is symmetric and so fit to
precondition conjugate gradients, which mend what a coarse grid can't see of a ragged mask.

The preconditioned residual estimates the error itself, in the image's own units, which is when to stop.

Every grid carries a margin of one cell, and holds zeros wherever there is no unknown: so no loop has a branch, a grid
is gone through as one long row, margins and all, and everything runs in vector instructions.

Shape legend: C channels, H/W pixels of the frame, h/w pixels of the window around the mask, N cells of a grid, all its
rows in one.
"""

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Float, UInt8

MAX_ITERATIONS = 30
COARSEST = 4  # cells, of the shorter side
GIVEN_FACTOR = 0.6  # of the summed ties to given values: the cell is twice as wide, its distance to them grows by less
# Chebyshev's best two steps for eigenvalues of D⁻¹A in [1/2, 2]: what the coarse grid can't see.
STEPS = (1 / (1.25 + 0.75 * np.cos(np.pi / 4)), 1 / (1.25 - 0.75 * np.cos(np.pi / 4)))
COARSEST_SWEEPS = 4  # pairs
DONE, NOT_FINITE, WHOLE_FRAME = range(3)  # what comes of a blend

_compile = numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
# Where it has to be seen whether values are finite, the compiler may not take it for granted.
_compile_checked = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "nsz", "contract"}, error_model="numpy")


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Cells of every level, from fine to coarse."""
    sizes = [(height, width)]
    while min(sizes[-1]) > COARSEST:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


@_compile
def _extent(inside):
    """First and last row and column of a mask, (top, bottom, left, right); top is -1 where it is empty."""
    height, width = inside.shape
    top, bottom = -1, -1
    columns = np.zeros(width, np.uint8)
    for y in range(height):
        row = inside[y]
        found = np.uint8(0)
        for x in range(width):
            found |= row[x]
            columns[x] |= row[x]
        if found:
            top = y if top < 0 else top
            bottom = y
    left, right = width, -1
    for x in range(width):
        if columns[x]:
            left, right = min(left, x), x
    return top, bottom, left, right


@_compile
def _neighbours(grid, factor, out, stride):
    """out = factor · (sum of the four neighbours)."""
    around = grid[stride:-stride]
    before, after = grid[stride - 1 : -stride - 1], grid[stride + 1 : len(grid) - stride + 1]
    above, below = grid[: -2 * stride], grid[2 * stride :]
    f, o = factor[stride:-stride], out[stride:-stride]
    for i in range(len(around)):
        o[i] = f[i] * ((before[i] + after[i]) + (above[i] + below[i]))


@_compile
def _sweep(u, b, inverse, step, out, stride):
    """One Jacobi sweep: out = u + step · D⁻¹ (b − A u)."""
    keep = np.float32(1) - step
    here, given = u[stride:-stride], b[stride:-stride]
    before, after = u[stride - 1 : -stride - 1], u[stride + 1 : len(u) - stride + 1]
    above, below = u[: -2 * stride], u[2 * stride :]
    share, o = inverse[stride:-stride], out[stride:-stride]
    for i in range(len(here)):
        around = (before[i] + after[i]) + (above[i] + below[i])
        o[i] = keep * here[i] + step * share[i] * (given[i] + around)


@_compile
def _residual(u, b, factor, total, inverse, out, stride):
    """out = factor · b − A u."""
    here, given = u[stride:-stride], b[stride:-stride]
    before, after = u[stride - 1 : -stride - 1], u[stride + 1 : len(u) - stride + 1]
    above, below = u[: -2 * stride], u[2 * stride :]
    weight, share, o = total[stride:-stride], inverse[stride:-stride], out[stride:-stride]
    for i in range(len(here)):
        around = (before[i] + after[i]) + (above[i] + below[i])
        o[i] = weight[i] * (share[i] * (factor * given[i] + around) - here[i])


@_compile
def _coarsen(unknown, given, coarse_unknown, coarse_given):
    for y in range(coarse_unknown.shape[0] - 2):
        u, v = unknown[2 * y + 1], unknown[2 * y + 2]  # an odd height has no second row; the margin is zero
        g, h = given[2 * y + 1], given[2 * y + 2]
        out, ties = coarse_unknown[y + 1, 1:-1], coarse_given[y + 1, 1:-1]
        for x in range(coarse_unknown.shape[1] - 2):
            out[x] = max(max(u[2 * x + 1], u[2 * x + 2]), max(v[2 * x + 1], v[2 * x + 2]))
            ties[x] = np.float32(GIVEN_FACTOR) * ((g[2 * x + 1] + g[2 * x + 2]) + (h[2 * x + 1] + h[2 * x + 2]))


@_compile
def _sum_weights(unknown, given, total, inverse, stride):
    here, ties = unknown[stride:-stride], given[stride:-stride]
    before, after = unknown[stride - 1 : -stride - 1], unknown[stride + 1 : len(unknown) - stride + 1]
    above, below = unknown[: -2 * stride], unknown[2 * stride :]
    t, o = total[stride:-stride], inverse[stride:-stride]
    for i in range(len(here)):
        weight = here[i] * (ties[i] + ((before[i] + after[i]) + (above[i] + below[i])))
        t[i] = weight
        o[i] = np.float32(1) / weight if weight > 0 else np.float32(0)


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
        shape, stride = (sizes[level, 0] + 2, sizes[level, 1] + 2), sizes[level, 1] + 2
        cut = slice(offsets[level], offsets[level + 1])
        b_l, u_l, s_l, t_l, i_l = b[cut], u[cut], scratch[cut], total[cut], inverse[cut]
        if level < levels - 1:
            coarse = (sizes[level + 1, 0] + 2, sizes[level + 1, 1] + 2)
            cut = slice(offsets[level + 1], offsets[level + 2])
            coarse_b, coarse_u = b[cut].reshape(coarse), u[cut].reshape(coarse)
        if index < levels:
            for i in range(len(s_l)):
                s_l[i] = first * i_l[i] * b_l[i]
            _sweep(s_l, b_l, i_l, second, u_l, stride)
            if level < levels - 1:
                _residual(u_l, b_l, one, t_l, i_l, s_l, stride)
                _restrict(s_l.reshape(shape), coarse_b, row)
            else:
                for _ in range(COARSEST_SWEEPS - 1):
                    _sweep(u_l, b_l, i_l, first, s_l, stride)
                    _sweep(s_l, b_l, i_l, second, u_l, stride)
        else:
            _prolong(coarse_u, u_l.reshape(shape), i_l.reshape(shape), row, wide)
            _sweep(u_l, b_l, i_l, second, s_l, stride)
            _sweep(s_l, b_l, i_l, first, u_l, stride)


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
def _hierarchy(inside, top, left, sizes, offsets, grids):
    """Unknown cells, ties to given values, sums of weights and one over them on all levels; outside of the mask.

    Returns:
        Number of unknown pixels.
    """
    unknown, given, total, inverse, outside = grids[0], grids[1], grids[2], grids[3], grids[4]
    height, width = sizes[0]
    fine = (height + 2, width + 2)
    size = offsets[1]
    u, o = unknown[:size].reshape(fine), outside[:size].reshape(fine)
    count = 0
    for y in range(height):
        row, u_row, o_row = inside[top + y, left : left + width], u[y + 1, 1:-1], o[y + 1, 1:-1]
        for x in range(width):
            u_row[x] = np.float32(row[x])
            o_row[x] = np.float32(1) - np.float32(row[x])
            count += row[x]
    _neighbours(outside[:size], unknown[:size], given[:size], fine[1])
    for level in range(len(sizes)):
        cut = slice(offsets[level], offsets[level + 1])
        shape = (sizes[level, 0] + 2, sizes[level, 1] + 2)
        if level:
            before = slice(offsets[level - 1], offsets[level])
            u, g = unknown[before].reshape(fine), given[before].reshape(fine)
            _coarsen(u, g, unknown[cut].reshape(shape), given[cut].reshape(shape))
        _sum_weights(unknown[cut], given[cut], total[cut], inverse[cut], shape[1])
        fine = shape
    return count


@_compile
def _solve(residual, z, scratch, total, inverse, sizes, offsets, vectors, row, wide, tolerance):
    """Conjugate gradients from the right-hand side, which becomes the residual; the solution is vectors[2]."""
    size, stride = offsets[1], sizes[0, 1] + 2
    direction, image, x = vectors[0], vectors[1], vectors[2]
    residual_0, z_0, total_0, inverse_0 = residual[:size], z[:size], total[:size], inverse[:size]
    x[:] = 0
    product = np.float32(0)
    for iteration in range(MAX_ITERATIONS):
        _cycle(residual, z, scratch, total, inverse, sizes, offsets, row, wide)
        if iteration and _largest(z_0) < tolerance:
            for i in range(size):
                x[i] += z_0[i]
            return
        new = _dot(residual_0, z_0)
        if not new > 0:
            return
        ratio = new / product if iteration else np.float32(0)
        product = new
        for i in range(size):
            direction[i] = z_0[i] + ratio * direction[i]
        _residual(direction, direction, np.float32(0), total_0, inverse_0, image, stride)
        length = product / -_dot(direction, image)
        for i in range(size):
            x[i] += length * direction[i]
            residual_0[i] += length * image[i]


@_compile_checked
def _difference(target, source, outside, top, left, height, width, out):
    """Target − source outside of the mask, into a grid; returns the sum over all pixels, finite if they are."""
    total = np.float32(0)
    for y in range(height):
        t, s = target[top + y, left : left + width], source[top + y, left : left + width]
        o, keep = out[y + 1, 1:-1], outside[y + 1, 1:-1]
        for x in range(width):
            difference = np.float32(t[x]) - np.float32(s[x])
            total += difference
            o[x] = difference * keep[x]
    return total


@_compile
def _mix(target, source, weight, solution, top, left, height, width, is_bytes):
    """target = target + weight · (source + solution − target) where the weight is above zero."""
    for y in range(height):
        t, s = target[top + y, left : left + width], source[top + y, left : left + width]
        w, added = weight[top + y, left : left + width], solution[y + 1, 1:-1]
        for x in range(width):
            blended = np.float32(s[x]) + added[x]
            mixed = blended - (blended - np.float32(t[x])) * (np.float32(1) - w[x])
            if is_bytes:
                mixed = min(max(np.rint(mixed), np.float32(0)), np.float32(255))
            t[x] = mixed if w[x] > 0 else t[x]


@_compile_checked
def _blend(target, source, inside, weight, bounds, sizes, offsets, tolerance, is_bytes):
    top, bottom, left, right = bounds
    height, width = bottom - top, right - left
    grids = np.zeros((8, offsets[-1]), np.float32)
    total, inverse, outside, residual, z, scratch = grids[2], grids[3], grids[4], grids[5], grids[6], grids[7]
    size, shape = offsets[1], (height + 2, width + 2)
    if _hierarchy(inside, top, left, sizes, offsets, grids) == height * width:
        return WHOLE_FRAME
    vectors = np.zeros((3, size), np.float32)
    row, wide = np.zeros(2 * max(shape) + 4, np.float32), np.zeros(2 * max(shape) + 4, np.float32)
    border = np.zeros(size, np.float32)
    for channel in range(len(target)):
        t, s = target[channel], source[channel]
        found = _difference(t, s, outside[:size].reshape(shape), top, left, height, width, border.reshape(shape))
        if not np.isfinite(found):
            return NOT_FINITE
        _neighbours(border, grids[0, :size], residual[:size], shape[1])
        _solve(residual, z, scratch, total, inverse, sizes, offsets, vectors, row, wide, tolerance)
        _mix(t, s, weight, vectors[2].reshape(shape), top, left, height, width, is_bytes)
    return DONE


def blend_numba(
    target: Float[np.ndarray, "C H W"] | UInt8[np.ndarray, "C H W"],
    source: Float[np.ndarray, "C H W"] | UInt8[np.ndarray, "C H W"],
    weight: Float[np.ndarray, "H W"],
    tolerance: float,
) -> int:
    """Blend `source` into `target`, in place; compiled once, then read from numba's cache.

    Args:
        target, source: C-contiguous, float32 or uint8.
        weight: C-contiguous float32; the pixels above zero are solved for and mixed with the target by it.
        tolerance: of the estimated error of any pixel, in the images' units.

    Returns:
        DONE, NOT_FINITE or WHOLE_FRAME; the target is spoilt where it is not DONE.
    """
    inside = (weight > 0).view(np.uint8)
    top, bottom, left, right = _extent(inside)
    if top < 0:
        return DONE
    height, width = inside.shape
    bounds = (max(0, top - 1), min(height, bottom + 2), max(0, left - 1), min(width, right + 2))
    sizes = np.array(level_sizes(bounds[1] - bounds[0], bounds[3] - bounds[2]))
    offsets = np.concatenate([[0], np.cumsum((sizes + 2).prod(1))])
    is_bytes = target.dtype == np.uint8
    return _blend(target, source, inside, weight, bounds, sizes, offsets, np.float32(tolerance), is_bytes)
