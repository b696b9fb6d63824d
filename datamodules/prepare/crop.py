"""The crop that follows the head and cannot follow the mouth (DESIGN §2).

Centre, scale and roll come from the rigid part of the fit alone, smoothed so slowly that nothing at the rate of speech
is left in them; what still runs parallel to the mouth's opening, by chance or by an imperfect fit, is taken out. The
crop is a similarity per frame, stored exactly, so an edited crop can be put back.

Shape legend: T frames, E expression, P pose.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from model_zoo.face.morphable import MorphableFace
from model_zoo.functional.camera import project, rotation_matrix, transform_pose

CROP_SIZE = 256  # px, the side of every stored crop
EYE_DISTANCE = 0.30  # of the side: outer-eye distance of the neutral head seen from the front
EYE_CENTRE = (0.50, 0.38)  # of the side: where the midpoint of the outer eye corners goes
OUTER_EYES = (36, 45)
INNER_LIPS = (62, 66)  # the middle of each

# Frames. Syllables come at 3 to 6 Hz; a Gaussian this wide passes 4% of 1 Hz and nothing above.
SMOOTHING = 10.0
_BLOCK = 1024  # frames whose 68 landmarks are made at once

Frame = UInt8[np.ndarray, "H W 3"]


class Crop(NamedTuple):
    """Crop of a clip.

    Attributes:
        transform: frame px -> crop px, a similarity per frame.
        pose: the pose of the fit, in crop px.
    """

    transform: Float[Tensor, "T 2 3"]
    pose: Float[Tensor, "T 6"]


def crop_from_fit(
    face: MorphableFace,
    shape: Float[Tensor, "199"],
    expression: Float[Tensor, "T 29"],
    pose: Float[Tensor, "T 6"],
    valid: Bool[Tensor, "T"],
    smoothing: float = SMOOTHING,
) -> Crop:
    """Crop transforms from the rigid fit.

    Args:
        face: the model that was fitted.
        shape: identity of the clip.
        expression: of every frame; says how far the mouth is open.
        pose: in frame px.
        valid: frames with a fit; the others are interpolated.
        smoothing: standard deviation of the Gaussian over time, frames.

    Raises:
        ValueError: no frame is valid.
    """
    if not valid.any():
        raise ValueError("no frame of the clip was fitted: nothing to crop")
    pose = fill_gaps(pose.double(), valid)
    neutral = face.landmarks(shape, torch.zeros(29))[list(OUTER_EYES)]
    eye_distance = (neutral[1] - neutral[0])[:2].norm()
    midpoint = neutral.double().mean(dim=0, keepdim=True)

    centre = project(midpoint, pose)[:, 0]
    rotation = rotation_matrix(pose[:, :3])
    roll = torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0])  # of the ear-to-ear axis in the image
    rigid = torch.cat([centre, pose[:, 5:], roll.sin()[:, None], roll.cos()[:, None]], dim=1)
    rigid = smooth_over_time(rigid, smoothing)
    lips = inner_lips(face, shape, expression).double()
    opening = fill_gaps((lips[:, 1] - lips[:, 0]).norm(dim=-1, keepdim=True), valid)
    rigid = without_component(rigid, smooth_over_time(opening, smoothing), opening)

    factor = EYE_DISTANCE * CROP_SIZE / (eye_distance.double() * rigid[:, 2].exp())
    roll = torch.atan2(rigid[:, 3], rigid[:, 4])
    cosine, sine = factor * roll.cos(), factor * roll.sin()
    linear = torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)], dim=1)  # turns by -roll
    target = torch.tensor(EYE_CENTRE, dtype=torch.float64) * CROP_SIZE - 0.5  # pixel centres at integers
    offset = target - (linear @ rigid[:, :2, None])[..., 0]
    transform = torch.cat([linear, offset[..., None]], dim=-1)
    return Crop(transform.float(), transform_pose(transform, pose).float())


def inner_lips(
    face: MorphableFace, shape: Float[Tensor, "199"], expression: Float[Tensor, "T 29"]
) -> Float[Tensor, "T 2 3"]:
    """The middle of the upper and of the lower inner lip in every frame, model units."""
    blocks = expression.split(_BLOCK)
    return torch.cat([face.landmarks(shape, block)[:, list(INNER_LIPS)] for block in blocks])


def fill_gaps(values: Float[Tensor, "T D"], valid: Bool[Tensor, "T"]) -> Float[Tensor, "T D"]:
    """Rows that are not valid, interpolated from those that are; held constant at the ends."""
    time = np.arange(len(values))
    used = valid.numpy()
    columns = [np.interp(time, time[used], column) for column in values.numpy()[used].T]
    return torch.from_numpy(np.stack(columns, axis=1)).to(values.dtype)


def smooth_over_time(values: Float[Tensor, "T D"], sigma: float = SMOOTHING) -> Float[Tensor, "T D"]:
    """Gaussian-weighted fit of a line around every frame: a Gaussian filter that does not lag at the ends of a clip."""
    radius = int(4 * sigma)
    offset = torch.arange(-radius, radius + 1, dtype=values.dtype)
    weight = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernels = torch.stack([weight, weight * offset, weight * offset**2])[:, None]  # (3, 1, 2 radius + 1)
    ones = torch.ones(1, 1, len(values), dtype=values.dtype)
    s0, s1, s2 = _correlate(ones, kernels)[0]
    y0, y1, _ = _correlate(values.T[:, None], kernels).unbind(1)  # each (D, T)
    determinant = s2 * s0 - s1**2
    if len(values) < 2:
        return values.clone()
    return ((s2 * y0 - s1 * y1) / determinant).T


def _correlate(values: Float[Tensor, "D 1 T"], kernels: Float[Tensor, "K 1 W"]) -> Float[Tensor, "D K T"]:
    """Products of kernels with their middle at every frame and what lies around it, zeros beyond the ends."""
    radius = kernels.shape[-1] // 2
    padded = F.pad(values, (radius, radius))
    blocks = (padded[..., start : start + _BLOCK + 2 * radius] for start in range(0, values.shape[-1], _BLOCK))
    return torch.cat([F.conv1d(block, kernels) for block in blocks], -1)  # it copies every frame's neighbours


def without_component(
    values: Float[Tensor, "T D"], slow: Float[Tensor, "T 1"], signal: Float[Tensor, "T 1"]
) -> Float[Tensor, "T D"]:
    """Values less that multiple of `slow`, the smoothed signal, which leaves them uncorrelated with `signal`."""
    centred = signal - signal.mean()
    shared = (centred * (slow - slow.mean())).sum()
    if shared <= 1e-9 * len(signal):  # nothing moves
        return values
    return values - (centred.T @ (values - values.mean(0))) / shared * (slow - slow.mean())


def warp_crop(frame: Frame, transform: Float[np.ndarray, "2 3"], size: int = CROP_SIZE) -> UInt8[np.ndarray, "S S 3"]:
    """The crop of a frame; the border is replicated beyond its edge.

    Args:
        frame: RGB.
        transform: frame px -> px of the 256-pixel crop.
        size: side of the result, px.
    """
    matrix = np.asarray(transform, np.float64).copy()
    matrix[:, 2] = (matrix[:, 2] + 0.5) * size / CROP_SIZE - 0.5
    matrix[:, :2] *= size / CROP_SIZE
    factor = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    step = 2 ** max(0, int(np.floor(np.log2(1 / factor))))
    rows, columns = _looked_at(matrix, size, step, frame.shape)
    frame = frame[rows, columns]
    matrix[:, 2] += matrix[:, :2] @ (columns.start, rows.start)
    if step > 1:
        # shrink by averaging first: interpolation alone would skip pixels and alias
        height, width = frame.shape[0] // step, frame.shape[1] // step
        frame = cv2.resize(frame[: height * step, : width * step], (width, height), interpolation=cv2.INTER_AREA)
        matrix[:, 2] = matrix[:, 2] + matrix[:, :2] @ np.full(2, (step - 1) / 2)
        matrix[:, :2] *= step
    flags = cv2.INTER_CUBIC if factor >= 1 else cv2.INTER_LINEAR
    # In floating point OpenCV interpolates in two thirds of the time that it takes with bytes, and rounds but once.
    crop = cv2.warpAffine(frame.astype(np.float32), matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.rint(crop, out=crop).clip(0, 255, out=crop).astype(np.uint8)


def _looked_at(matrix: Float[np.ndarray, "2 3"], size: int, step: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a frame that a crop needs, from a multiple of `step` on; at least one step of each."""
    inverse = cv2.invertAffineTransform(matrix)
    corners = np.array([[x, y, 1] for x in (0, size - 1) for y in (0, size - 1)]) @ inverse.T
    ranges = []
    for low, high, end in zip(corners.min(0), corners.max(0), shape[1::-1], strict=True):
        first, last = int(np.clip(low, 0, end - 1)) - 2 * step, int(np.clip(high, 0, end - 1)) + 4 * step
        ranges.append(slice(max(0, first // step * step), min(end, last)))
    return ranges[1], ranges[0]
