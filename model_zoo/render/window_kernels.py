"""The masked frames of windows in one pass over the result, in a loop compiled for the CPU.

What limits it is memory: a window of seven frames at 256 px reads 1.4 MB of bytes and writes 2.8 MB of bfloat16. Images
that were converted beforehand would be read at twice the size of bytes. numba knows no bfloat16, which is written here
as the upper halves of float32.

Shape legend: N frames of a bank, B windows, T frames of each, H/W pixels, C >= 3T channels, M random numbers.
"""

from __future__ import annotations

import numba
import numpy as np

_compile = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compile
def write_masked_frames(crops_N3HW, rows_BT, boxes_B4, noise_M, numbers_B, out_BCHW):
    """Frames of each window in [-1, 1], their box filled with the window's noise field, as the first 3T channels.

    Args:
        crops_N3HW: RGB bytes.
        rows_BT: frames of each window.
        boxes_B4: first column and row, and those behind the last, within the crop.
        noise_M: of which field n of three planes begins at number n; of the type of `out`.
        numbers_B: field of each window.
        out_BCHW: float32, or bfloat16 as uint16.
    """
    height, width = out_BCHW.shape[2:]
    for window in range(rows_BT.shape[0]):
        left, top, right, bottom = boxes_B4[window]
        for channel in range(3 * rows_BT.shape[1]):
            colour = channel % 3
            plane = out_BCHW[window, channel]
            _write_signed(crops_N3HW[rows_BT[window, channel // 3], colour].reshape(-1), plane.reshape(-1))
            for row in range(top, bottom):
                start = numbers_B[window] + (colour * height + row) * width
                _copy(noise_M[start + left : start + right], plane[row, left:right])


@_compile
def _write_signed(pixels, into):
    """Bytes in [-1, 1]: the nearest bfloat16, ties to even, where `into` holds two bytes an element."""
    for index in range(pixels.size):
        value = np.float32(pixels[index]) / np.float32(127.5) - np.float32(1)
        if into.itemsize == 2:
            bits = np.float32(value).view(np.uint32)
            odd = (bits >> np.uint32(16)) & np.uint32(1)
            into[index] = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
        else:
            into[index] = value


@_compile
def _copy(values, into):
    for index in range(values.size):
        into[index] = values[index]
