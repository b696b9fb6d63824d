"""What lies between two integer convolutions, in loops compiled for the CPU: LeakyReLU, residual sum, quantisation.

The convolutions put out bfloat16, read here as the upper halves of float32 (numba knows no bfloat16). Each loop reads
its operands once and writes bytes, for pixels or rows from `start` to `stop`, so that threads can share them; the
threads are Python's, as numba's own pool forbids to fork afterwards, which data loaders do.

Shape legend: B batch, N pixels of the batch, P pixels of a sample, C channels, H/W pixels.
"""

from __future__ import annotations

import numba
import numpy as np

ZERO = 43  # the byte of 0: LeakyReLU leaves a fifth of a symmetric range below it, 43 : 212
NEGATIVE_SLOPE = 0.2
PLANE_BLOCK = 256  # pixels at once, so that what is written stays in the cache over the channels

_compile = numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")


@_compile
def _widen(upper_half):
    return np.uint32(np.uint32(upper_half) << np.uint32(16)).view(np.float32)


@_compile
def _to_byte(value, factor):
    """LeakyReLU, times factor, rounded."""
    value = max(value, np.float32(NEGATIVE_SLOPE) * value) * factor + np.float32(ZERO + 0.5)
    return np.uint8(np.int32(min(max(value, np.float32(0)), np.float32(255))))


@_compile
def quantise_planes(start, stop, images, scale, zero, out):
    """Planes (B, C, P) of float32 to (B, P, C') bytes, C' ≥ C; the rest stays as it is."""
    blocks = (images.shape[2] + PLANE_BLOCK - 1) // PLANE_BLOCK
    for index in range(start, stop):
        sample, first = index // blocks, index % blocks * PLANE_BLOCK
        for channel in range(images.shape[1]):
            for pixel in range(first, min(first + PLANE_BLOCK, images.shape[2])):
                value = images[sample, channel, pixel] * scale + (zero + np.float32(0.5))
                out[sample, pixel, channel] = np.uint8(np.int32(min(max(value, np.float32(0)), np.float32(255))))


@_compile
def quantise_pixels(start, stop, values, scale, zero, out):
    """Pixels (N, C) of float32 to (N, C') bytes, C' ≥ C; the rest stays as it is."""
    for n in range(start, stop):
        row, o = values[n], out[n]
        for c in range(values.shape[1]):
            value = row[c] * scale + (zero + np.float32(0.5))
            o[c] = np.uint8(np.int32(min(max(value, np.float32(0)), np.float32(255))))


@_compile
def activate(start, stop, values, factors, out):
    """LeakyReLU and quantisation of (N, C)."""
    for n in range(start, stop):
        row, o = values[n], out[n]
        for c in range(values.shape[1]):
            o[c] = _to_byte(_widen(row[c]), factors[c])


@_compile
def activate_twice(start, stop, values, factors, out, skip):
    """The same into `out` and into the last C channels of `skip`."""
    channels = values.shape[1]
    behind = skip.shape[1] - channels
    for n in range(start, stop):
        row, o, s = values[n], out[n], skip[n, behind:]
        for c in range(channels):
            o[c] = _to_byte(_widen(row[c]), factors[c])
        for c in range(channels):
            s[c] = o[c]


@_compile
def activate_sum(start, stop, values, residual, factors, out):
    """LeakyReLU and quantisation of the sum of two (N, C), into the first C channels of `out`."""
    for n in range(start, stop):
        row, other, o = values[n], residual[n], out[n]
        for c in range(values.shape[1]):
            o[c] = _to_byte(_widen(row[c]) + _widen(other[c]), factors[c])


@_compile
def unfold_phases(start, stop, phases, factors, values, out):
    """The four phases of a transposed convolution to their places.

    Args:
        phases: (B, H + 1, W + 1, 4 C); phase (a, b) of pixel (y, x) is at (y + a, x + b).
        values: (B, 2H, 2W, C), as they are. out: the same, activated and quantised.
    """
    height, width, channels = values.shape[1:]
    for index in range(start, stop):
        sample, y = index // height, index % height
        for x in range(width):
            first = ((y % 2) * 2 + x % 2) * channels
            source = phases[sample, y // 2 + y % 2, x // 2 + x % 2, first : first + channels]
            v, o = values[sample, y, x], out[sample, y, x]
            for c in range(channels):
                v[c] = source[c]
                o[c] = _to_byte(_widen(source[c]), factors[c])
