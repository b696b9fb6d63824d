"""dlib's 68-landmark regression trees (Kazemi & Sullivan 2014), with landmarks and pixels between whole pixels.

dlib rounds the landmarks that it returns and every place that it looks at, and rounding is nearly all of the jitter of
its landmarks; to enlarge the face first makes both finer, at a cost. Here the trees are read from dlib's file and run
as they are on pixels interpolated where they are looked at.

Shape legend: H/W pixels, C cascades (15), R trees of each (500), Q splits of a tree (15), F places looked at in a
cascade (500), L landmarks (68).
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple, Self

import numba
import numpy as np
from jaxtyping import Float32, Int64, UInt8, UInt16

_LUMA = (np.float32(0.299), np.float32(0.587), np.float32(0.114))  # ITU-R BT.601, by which OpenCV and dlib weigh RGB
_compile = numba.njit(cache=True, nogil=True, error_model="numpy")

Frame = UInt8[np.ndarray, "H W 3"]


class ShapePredictor(NamedTuple):
    """The trees; coordinates in units of the box, (0, 0) its left top and (1, 1) its right bottom.

    Attributes:
        mean: the shape to start from.
        anchors, deltas: where to look: beside which landmark, and how far from it in the mean shape.
        pairs, thresholds: of every split: left if the first place is brighter than the second by more.
        leaves: what is added to the shape.
    """

    mean: Float32[np.ndarray, "L 2"]
    anchors: UInt16[np.ndarray, "C F"]
    deltas: Float32[np.ndarray, "C F 2"]
    pairs: UInt16[np.ndarray, "C R Q 2"]
    thresholds: Float32[np.ndarray, "C R Q"]
    leaves: Float32[np.ndarray, "C R Q+1 2L"]

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file as `dlib.shape_predictor` reads it.

        Raises:
            ValueError: it is of another version than 1.
        """
        file = _Numbers(path)
        if file.next() != 1:
            raise ValueError(f"{path} is no shape predictor of version 1")
        length, _ = -file.next(), file.next()  # dlib's matrices open with their negated height and width
        mean = _floats(file.take(length, 2))
        levels: list[np.ndarray] = []
        num_levels = file.next()
        for level in range(num_levels):
            num_trees, num_splits = file.next(), file.next()
            file.back()  # it opens every tree
            size = 2 + 4 * num_splits + (num_splits + 1) * (2 + 2 * length)
            trees = file.take(num_trees, size)
            splits = trees[:, 1 : 1 + 4 * num_splits].reshape(num_trees, num_splits, 4)
            ends = trees[:, 2 + 4 * num_splits :].reshape(num_trees, num_splits + 1, 2 + 2 * length)
            leaves = _floats(ends[..., 2:].reshape(num_trees, num_splits + 1, length, 2))
            parts = splits[..., :2].astype(np.uint16), _floats(splits[..., 2:]), leaves
            levels = levels or [np.empty((num_levels, *part.shape), part.dtype) for part in parts]
            for whole, part in zip(levels, parts, strict=True):
                whole[level] = part
        anchors = [file.take(file.next()) for _ in range(file.next())]
        deltas = [_floats(file.take(file.next(), 2, 2)) for _ in range(file.next())]
        return cls(mean.reshape(-1, 2), np.stack(anchors).astype(np.uint16), np.stack(deltas), *levels)

    def landmarks(self, frame: Frame, box: Float32[np.ndarray, "4"]) -> Float32[np.ndarray, "L 2"]:
        """Landmarks of the face in a box, px of the frame, pixel centres at integers.

        Args:
            frame: RGB, C-contiguous; beyond its edge it goes on as its border.
            box: (left, top, right, bottom), px.
        """
        assert np.isfinite(box).all(), f"no box: {box}"
        corner, end = np.asarray(box, np.float32).reshape(2, 2)
        extent, shape = end - corner, self.mean.ravel().copy()
        _descend(frame, corner, extent, *self, shape)
        return shape.reshape(-1, 2) * extent + corner


@_compile
def _descend(
    frame: np.ndarray,
    corner: np.ndarray,
    extent: np.ndarray,
    mean: np.ndarray,
    anchors: np.ndarray,
    deltas: np.ndarray,
    pairs: np.ndarray,
    thresholds: np.ndarray,
    leaves: np.ndarray,
    shape: np.ndarray,
) -> None:
    """Lead a shape from the mean to the face, in place."""
    num_places, num_trees, num_splits = anchors.shape[1], pairs.shape[1], pairs.shape[2]
    seen = np.empty(num_places, np.float32)
    reached = np.empty(num_trees, np.int64)
    for cascade in range(len(anchors)):
        along, across = _turn(mean, shape)
        for place in range(num_places):
            anchor = 2 * int(anchors[cascade, place])
            dx, dy = deltas[cascade, place]
            x = shape[anchor] + along * dx - across * dy
            y = shape[anchor + 1] + across * dx + along * dy
            seen[place] = _brightness(frame, corner[0] + x * extent[0], corner[1] + y * extent[1])
        for tree in range(num_trees):  # all before the first leaf is read: these are far apart in memory
            node = 0
            while node < num_splits:
                first, second = pairs[cascade, tree, node]
                brighter = seen[first] - seen[second] > thresholds[cascade, tree, node]
                node = 2 * node + 2 - int(brighter)
            reached[tree] = node - num_splits
        for tree in range(num_trees):
            shape += leaves[cascade, tree, reached[tree]]


@_compile
def _turn(mean: np.ndarray, shape: np.ndarray) -> tuple[np.float32, np.float32]:
    """Scale and rotation that take the mean shape to another: scale times cosine, scale times sine."""
    centre_x, centre_y = mean[:, 0].mean(), mean[:, 1].mean()
    along, across, square = np.float32(0), np.float32(0), np.float32(0)
    for landmark in range(len(mean)):
        x, y = mean[landmark, 0] - centre_x, mean[landmark, 1] - centre_y
        along += x * shape[2 * landmark] + y * shape[2 * landmark + 1]
        across += x * shape[2 * landmark + 1] - y * shape[2 * landmark]
        square += x * x + y * y
    return along / square, across / square


@_compile
def _brightness(frame: np.ndarray, x: float, y: float) -> float:
    """Gray level of a frame between its pixels, of its border beyond it."""
    height, width, _ = frame.shape
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    x, y = x - left, y - top
    gray = 0.0
    for channel in range(3):
        upper = (1 - x) * frame[top, left, channel] + x * frame[top, right, channel]
        lower = (1 - x) * frame[bottom, left, channel] + x * frame[bottom, right, channel]
        gray += _LUMA[channel] * ((1 - y) * upper + y * lower)
    return gray


class _Numbers:
    """The numbers of a file that dlib wrote: each a byte with its sign and length, then so many bytes."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._position = self._before = 0

    def next(self) -> int:
        """The next number."""
        return int(self.take(1)[0])

    def back(self) -> None:
        """What was read last is read once more."""
        self._position = self._before

    def take(self, *shape: int) -> Int64[np.ndarray, "..."]:
        """So many numbers."""
        numbers = np.empty(shape, np.int64)
        self._before, self._position = self._position, _decode(self._bytes, self._position, numbers.reshape(-1))
        self._map.madvise(mmap.MADV_DONTNEED, 0, self._position)  # 100 MB that would stay in memory meanwhile
        return numbers


@_compile
def _decode(stream: np.ndarray, position: int, numbers: np.ndarray) -> int:
    """Fill `numbers` from a position on; returns the one after them."""
    for index in range(len(numbers)):
        control = stream[position]
        value = np.int64(0)
        for byte in range(control & 15):
            value |= np.int64(stream[position + 1 + byte]) << (8 * byte)
        numbers[index] = -value if control & 128 else value
        position += 1 + (control & 15)
    return position


def _floats(pairs: Int64[np.ndarray, "... 2"]) -> Float32[np.ndarray, "..."]:
    """dlib writes a floating-point number as a mantissa and a power of two."""
    return np.ldexp(pairs[..., 0].astype(np.float32), pairs[..., 1].astype(np.int32))
