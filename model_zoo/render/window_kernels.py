"""The generator's input in one pass over its memory, in loops compiled for the CPU.

What limits it is memory: a window of seven frames at 256 px reads 1.4 MB of bytes and writes 2.8 MB of bfloat16. Images
that were converted beforehand would be read at twice the size of bytes, and of a heatmap only the rows that hold
something are read. numba knows no bfloat16, which is written here as the upper halves of float32.

Shape legend: N frames of a bank, M <= N of them with a heatmap, B windows, T frames of each, H/W pixels, C >= 4T
channels, R random numbers.
"""

from __future__ import annotations

import numba
import numpy as np

_compile = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compile
def write_masked_frames(crops_N3HW, rows_BT, boxes_B4, noise_R, numbers_B, out_BCHW):
    """Frames of each window in [-1, 1], their box filled with the window's noise field, as the first 3T channels.

    Args:
        crops_N3HW: RGB bytes.
        rows_BT: frames of each window.
        boxes_B4: first column and row, and those behind the last, within the crop.
        noise_R: of which field n of three planes begins at number n; of the type of `out`.
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
                _copy(noise_R[start + left : start + right], plane[row, left:right])


@_compile
def write_heatmaps(heatmaps_MHW, bands_M2, rows_BT, out_BCHW):
    """The heatmap of each frame of each window, as channels 3T to 4T.

    Args:
        heatmaps_MHW: of the type of `out`.
        bands_M2: of each, as `occupied_rows` gives them.
        rows_BT: frames of each window.
        out_BCHW: of any type.
    """
    length = rows_BT.shape[1]
    for window in range(rows_BT.shape[0]):
        for frame in range(length):
            heatmap, plane = heatmaps_MHW[rows_BT[window, frame]], out_BCHW[window, 3 * length + frame]
            top, bottom = bands_M2[rows_BT[window, frame]]
            plane[:top] = 0
            _copy(heatmap[top:bottom].reshape(-1), plane[top:bottom].reshape(-1))
            plane[bottom:] = 0


@_compile
def occupied_rows(heatmaps_MHW):
    """First row that is not zero throughout and the one behind the last such row, (M, 2); 0, 0 if there is none."""
    bands_M2 = np.zeros((heatmaps_MHW.shape[0], 2), np.int64)
    for image in range(heatmaps_MHW.shape[0]):
        for row in range(heatmaps_MHW.shape[1]):
            if heatmaps_MHW[image, row].any():
                bands_M2[image, 0] = row
                break
        for row in range(heatmaps_MHW.shape[1], 0, -1):
            if heatmaps_MHW[image, row - 1].any():
                bands_M2[image, 1] = row
                break
    return bands_M2


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
