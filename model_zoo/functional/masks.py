"""Where the mouth is: what is hidden from the generator, scored and pasted back (§3.3.1 of Song et al. 2020).

The paper occludes "lip, jaw and nasolabial folds" by a square of random noise. Here the box is ONE a clip: a box that
followed the jaw would give away the opening that is to be inferred.

The paper's compositing mask is the polygon of the outermost mouth landmarks, eroded, with a Gaussian edge. Here it is
the hull of mouth, jaw and nose base of the driven AND the original face, grown before it is eroded so that both chin
lines lie inside: with one of them left outside, two chins would show.

Shape legend: B batch, T frames, H/W pixels of the run's crop. Landmarks and boxes are px at 256, pixel centres at
integers; a box is (x0, y0, x1, y1).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from model_zoo.functional.heatmaps import CROP_UNITS, JAW, MOUTH

NOSE_BASE = range(31, 36)  # iBUG 68 order
OUTER_EYES = (36, 45)
BOX_MARGIN = 0.05 * CROP_UNITS  # around the jaw at its widest; the eroded compositing mask needs the room
REGION_MARGIN = 0.10  # outer-eye distances around the mouth
ERODE, BLUR = 6.0, 2.0  # px at 256; an erosion of three sigmas keeps the blur inside the hull and the box
NOISE_FIELDS = 2**20
SUBPIXEL_BITS = 4  # OpenCV's fixed-point polygon corners


def mouth_box(landmarks: Float[Tensor, "T 68 2"]) -> Float[Tensor, "4"]:
    """The box that hides lips, jaw and nasolabial folds, one for the whole clip.

    From the nose base down to below the chin and from jaw landmark 3 to 13, at their widest over the clip, with a
    margin of 5% of the crop's side; clipped to the crop.

    Raises:
        ValueError: a landmark is NaN, or the face is outside of the crop.
    """
    lower_face = torch.cat([landmarks[:, JAW], landmarks[:, NOSE_BASE], landmarks[:, MOUTH]], dim=1)
    return _bounding_box(lower_face, margin=BOX_MARGIN)


def mouth_region(landmarks: Float[Tensor, "T 68 2"]) -> Float[Tensor, "4"]:
    """The box that mouth-only scores cover: landmarks 48..67 over the clip, grown by 0.10 outer-eye distance.

    Raises:
        ValueError: a landmark is NaN, or the mouth is outside of the crop.
    """
    left, right = (landmarks[:, eye] for eye in OUTER_EYES)
    eye_distance = (right - left).norm(dim=-1).mean().item()
    return _bounding_box(landmarks[:, MOUTH], margin=REGION_MARGIN * eye_distance)


def box_mask(box: Float[Tensor, "B 4"], size: int) -> Bool[Tensor, "B 1 H W"]:
    """True where a pixel's centre lies in the box, edges included, on a crop of size × size pixels."""
    box = (box + 0.5) * (size / CROP_UNITS) - 0.5
    pixels = torch.arange(size, device=box.device)
    x0, y0, x1, y1 = box[:, :, None].unbind(1)
    columns = (pixels >= x0) & (pixels <= x1)
    rows = (pixels >= y0) & (pixels <= y1)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def box_bounds(box: Float[Tensor, "*B 4"], size: int) -> Int[Tensor, "*B 4"]:
    """The pixels that `box_mask` marks: first column and row, then those behind the last, all within the crop."""
    box = (box + 0.5) * (size / CROP_UNITS) - 0.5
    first, last = box.split(2, dim=-1)
    return torch.cat([first.ceil(), last.floor() + 1], dim=-1).long().clamp(0, size)


def box_slices(box: Float[Tensor, "4"], size: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels that `box_mask` marks."""
    x0, y0, x1, y1 = box_bounds(box, size).tolist()
    return slice(y0, y1), slice(x0, x1)


def noise_number(*seed: int | str) -> int:
    """Which noise field belongs to a seed; depends on the seed's parts alone, on no global random state."""
    digest = hashlib.blake2b("\0".join(map(str, seed)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) % NOISE_FIELDS


@lru_cache(maxsize=4)
def noise_sequence(size: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Float[Tensor, "M"]:
    """Random numbers, uniform in [-1, 1], of which the noise fields are pieces: each begins at its number."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(NOISE_FIELDS + 3 * size * size, generator=generator) * 2 - 1
    return noise.to(device, dtype)


def noise_fields(size: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Float[Tensor, "N 3 H W"]:
    """All noise fields, views of one sequence."""
    strides = (1, size * size, size, 1)
    return noise_sequence(size, device, dtype).as_strided((NOISE_FIELDS, 3, size, size), strides)


@torch.no_grad()
def hull_mask(
    driven: Float[Tensor, "B 68 2"],
    original: Float[Tensor, "B 68 2"],
    box: Float[Tensor, "B 4"],
    size: int,
    erode: float = ERODE,
    blur: float = BLUR,
) -> Float[Tensor, "B 1 H W"]:
    """The soft mask by which a generated frame is composited over the original one.

    The convex hull of mouth, jaw 3..13 and nose base of both faces, grown by `erode` + 2 `blur` (at the landmarks the
    mask is then 0.98), clipped to the box, eroded and blurred. With erode >= 3 blur it is zero outside of the box.

    Args:
        driven: landmarks that the generated frame shows. original: landmarks of the frame below it.
        box: the clip's mouth box.
        size: side of the run's crop, px.
        erode: px at 256. blur: sigma of the Gaussian edge, px at 256.

    Returns:
        Weights of the generated frame in [0, 1], on the device of `driven`.

    Raises:
        ValueError: a landmark is NaN.
    """
    scale = size / CROP_UNITS
    points = torch.cat([face[:, part] for face in (driven, original) for part in (JAW, NOSE_BASE, MOUTH)], dim=1)
    _refuse_nan(points)
    polygons = ((points + 0.5) * scale - 0.5).cpu().double().numpy()
    allowed = box_mask(box, size).cpu().numpy()[:, 0]
    masks = [
        _soften(_grown_hull(polygon, size, scale * (erode + 2 * blur)) & inside, scale * erode, scale * blur)
        for polygon, inside in zip(polygons, allowed, strict=True)
    ]
    return torch.from_numpy(np.stack(masks))[:, None].to(driven.device)


def _grown_hull(points: np.ndarray, size: int, grow: float) -> np.ndarray:
    """Pixels (H, W) of the convex hull of points (N, 2) and those within `grow` px of it."""
    corners = np.round(points * 2**SUBPIXEL_BITS).astype(np.int32)
    outside = np.ones((size, size), np.uint8)
    cv2.fillConvexPoly(outside, cv2.convexHull(corners), 0, shift=SUBPIXEL_BITS)
    return cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= grow


def _soften(mask: np.ndarray, erode: float, blur: float) -> np.ndarray:
    """Erode a mask (H, W) by `erode` px, the crop's border included, and blur its edge inwards with sigma `blur` px."""
    padded = np.pad(mask.astype(np.uint8), 1)
    eroded = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > erode
    soft: np.ndarray = eroded.astype(np.float32)
    if blur > 0:
        radius = max(1, round(3 * blur))
        soft = cv2.GaussianBlur(soft, (2 * radius + 1, 2 * radius + 1), blur, borderType=cv2.BORDER_CONSTANT)
    return soft[1:-1, 1:-1].clip(0, 1) * mask


def _bounding_box(points: Float[Tensor, "T N 2"], margin: float) -> Float[Tensor, "4"]:
    _refuse_nan(points)
    low = (points.amin((0, 1)) - margin).clamp_min(0)
    high = (points.amax((0, 1)) + margin).clamp_max(CROP_UNITS - 1)
    if (low >= high).any():
        raise ValueError("the face lies outside of its crop: the landmarks must be px of the 256-pixel crop")
    return torch.cat([low, high])


def _refuse_nan(points: Tensor) -> None:
    if points.isnan().any():
        raise ValueError("landmarks hold NaN: use the fitted ones or drop the frames that were not tracked")
