"""Anatomy of the built-in head: where its landmarks, lips and lids lie, and the surface through them.

The surface is a distance from a capsule: a half-line (the neck's axis) that ends in a point inside the skull. Chart
coordinates are (azimuth u in rad, 0 = straight ahead; v = elevation in rad above that point, height below it). A
triharmonic spline over the chart passes through the landmarks and CONTROL; lips and lids are rings on their contours.

Model frame: x right, y down, z away from the camera, outer-eye distance 1, origin between the outer eye corners. Every
table lists the half x >= 0 and is mirrored. Proportions follow adult anthropometry (outer canthi 88 mm apart: Farkas,
"Anthropometry of the Head and Face", 1994), placed so that the 68 points lie where the iBUG scheme puts them.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline, RBFInterpolator

AXIS = np.array([0.0, -0.05, 0.75])  # end of the capsule's half-line, inside the skull
RING_STEPS = 12  # lip samples from the middle to a corner; landmarks sit at thirds
LID_STEPS = 9  # half the number of lid samples from corner to corner
CONTACT_RING = 6  # of the lip rings, where the closed lips touch
_SEAL = np.array([0.0, 0.004, 0.014])  # of the upper lip behind the contact line

# iBUG points of the half x >= 0, by their index on the image's right. Columns x, y, z.
LANDMARKS = {
    16: (0.800, 0.05, 0.55),
    15: (0.790, 0.27, 0.53),
    14: (0.765, 0.48, 0.47),
    13: (0.720, 0.70, 0.39),
    12: (0.650, 0.91, 0.28),
    11: (0.525, 1.10, 0.13),
    10: (0.370, 1.24, -0.02),
    9: (0.190, 1.33, -0.13),
    8: (0.0, 1.36, -0.17),
    26: (0.655, -0.19, 0.07),
    25: (0.560, -0.275, -0.045),
    24: (0.425, -0.305, -0.135),
    23: (0.275, -0.29, -0.205),
    22: (0.135, -0.245, -0.235),
    27: (0.0, -0.04, -0.235),
    28: (0.0, 0.09, -0.32),
    29: (0.0, 0.215, -0.41),
    30: (0.0, 0.355, -0.50),
    35: (0.150, 0.51, -0.255),
    34: (0.075, 0.525, -0.310),
    33: (0.0, 0.54, -0.335),
    45: (0.5, 0.0, 0.0),
    44: (0.425, -0.052, -0.085),
    43: (0.310, -0.057, -0.105),
    42: (0.207, 0.016, -0.068),
    47: (0.307, 0.038, -0.092),
    46: (0.427, 0.040, -0.070),
    54: (0.285, 0.80, -0.185),
    53: (0.190, 0.728, -0.290),
    52: (0.080, 0.690, -0.350),
    51: (0.0, 0.700, -0.360),
    55: (0.195, 0.877, -0.265),
    56: (0.095, 0.917, -0.320),
    57: (0.0, 0.925, -0.335),
    64: (0.258, 0.80, -0.180),
    63: (0.100, 0.797, -0.285),
    62: (0.0, 0.80, -0.305),
}

# Further points of the skin. Columns x, y, z and how far v runs ahead of y (under the chin the skin is level).
CONTROL = np.array([
    # forehead, crown, nape
    (0.0, -0.50, -0.20, 0), (0.0, -0.75, -0.12, 0), (0.0, -1.00, 0.08, 0), (0.0, -1.20, 0.38, 0),
    (0.0, -1.27, 0.75, 0), (0.0, -1.17, 1.25, 0), (0.0, -0.90, 1.66, 0), (0.0, -0.50, 1.86, 0),
    (0.0, 0.0, 1.90, 0), (0.0, 0.45, 1.76, 0), (0.0, 0.85, 1.58, 0), (0.0, 1.30, 1.45, 0),
    (0.0, 1.90, 1.45, 0), (0.0, 2.50, 1.52, 0), (0.20, -0.50, -0.17, 0), (0.40, -0.50, -0.09, 0),
    (0.58, -0.48, 0.08, 0), (0.72, -0.48, 0.30, 0), (0.30, -0.80, -0.02, 0), (0.52, -0.78, 0.20, 0),
    (0.40, -1.05, 0.38, 0), (0.20, -0.20, -0.22, 0), (0.40, -0.20, -0.15, 0), (0.82, -0.40, 0.65, 0),
    (0.85, -0.40, 1.00, 0), (0.80, -0.40, 1.35, 0), (0.50, -0.40, 1.75, 0), (0.78, -0.80, 0.80, 0),
    (0.74, -0.80, 1.20, 0), (0.45, -0.80, 1.58, 0), (0.50, -1.12, 0.80, 0), (0.42, -1.08, 1.20, 0),
    # temple, cheekbone, cheek, before and behind the ear
    (0.70, -0.18, 0.19, 0), (0.79, -0.10, 0.42, 0), (0.83, -0.05, 0.75, 0), (0.86, 0.0, 1.10, 0),
    (0.72, 0.0, 1.50, 0), (0.62, 0.02, 0.08, 0), (0.60, 0.15, 0.03, 0), (0.72, 0.15, 0.20, 0),
    (0.50, 0.15, -0.055, 0), (0.38, 0.17, -0.085, 0), (0.26, 0.15, -0.100, 0), (0.19, 0.10, -0.125, 0),
    (0.25, 0.30, -0.150, 0), (0.40, 0.30, -0.115, 0), (0.55, 0.32, -0.045, 0), (0.68, 0.32, 0.115, 0),
    (0.30, 0.45, -0.165, 0), (0.45, 0.50, -0.110, 0), (0.60, 0.50, 0.015, 0), (0.70, 0.52, 0.21, 0),
    (0.32, 0.62, -0.180, 0), (0.45, 0.68, -0.100, 0), (0.58, 0.72, 0.055, 0), (0.36, 0.80, -0.140, 0),
    (0.48, 0.88, -0.020, 0), (0.82, 0.20, 0.75, 0), (0.80, 0.48, 0.75, 0), (0.74, 0.75, 0.72, 0),
    (0.80, 0.30, 1.10, 0), (0.60, 0.60, 1.35, 0),
    # nose: bridge flanks, tip, wings, nostril sill
    (0.070, -0.08, -0.195, 0), (0.115, 0.0, -0.150, 0), (0.075, 0.10, -0.270, 0), (0.090, 0.20, -0.325, 0),
    (0.135, 0.20, -0.235, 0), (0.105, 0.30, -0.385, 0), (0.055, 0.33, -0.475, 0), (0.060, 0.40, -0.480, 0),
    (0.0, 0.42, -0.485, 0), (0.0, 0.48, -0.410, 0), (0.160, 0.33, -0.270, 0), (0.130, 0.40, -0.375, 0),
    (0.178, 0.43, -0.285, 0), (0.215, 0.44, -0.195, 0), (0.165, 0.48, -0.290, 0), (0.205, 0.53, -0.200, 0),
    (0.070, 0.475, -0.390, 0),
    # philtrum, lip surround, chin
    (0.0, 0.60, -0.330, 0), (0.045, 0.62, -0.345, 0), (0.14, 0.60, -0.300, 0), (0.24, 0.70, -0.235, 0),
    (0.33, 0.80, -0.160, 0), (0.0, 0.985, -0.285, 0), (0.12, 0.980, -0.265, 0), (0.24, 0.93, -0.205, 0),
    (0.0, 1.08, -0.270, 0), (0.0, 1.18, -0.280, 0), (0.0, 1.28, -0.250, 0), (0.13, 1.10, -0.255, 0),
    (0.13, 1.22, -0.240, 0), (0.27, 1.05, -0.175, 0), (0.27, 1.18, -0.135, 0), (0.40, 1.00, -0.080, 0),
    (0.42, 1.12, -0.010, 0), (0.56, 0.95, 0.110, 0),
    # under the chin, jaw angle, throat, neck
    (0.0, 1.40, -0.06, 0.03), (0.0, 1.43, 0.12, 0.10), (0.0, 1.50, 0.32, 0.18), (0.0, 1.68, 0.41, 0.16),
    (0.0, 1.95, 0.43, 0.08), (0.0, 2.50, 0.38, 0), (0.20, 1.38, 0.02, 0.04), (0.25, 1.44, 0.30, 0.14),
    (0.42, 1.28, 0.20, 0.06), (0.42, 1.40, 0.45, 0.14), (0.58, 1.10, 0.38, 0.04), (0.55, 1.25, 0.60, 0.10),
    (0.66, 0.95, 0.58, 0.02), (0.62, 1.10, 0.80, 0.04), (0.30, 1.80, 0.52, 0.10), (0.50, 1.60, 0.72, 0.08),
    (0.53, 2.00, 0.80, 0), (0.60, 2.50, 0.90, 0), (0.30, 2.50, 0.50, 0), (0.56, 1.50, 1.05, 0),
    (0.56, 2.00, 1.10, 0), (0.58, 2.50, 1.20, 0), (0.40, 1.50, 1.35, 0), (0.40, 2.50, 1.45, 0),
    # lids: the fold above, the bag below
    (0.20, -0.07, -0.120, 0), (0.31, -0.125, -0.105, 0), (0.43, -0.12, -0.085, 0), (0.54, -0.06, -0.005, 0),
    (0.31, 0.095, -0.090, 0), (0.43, 0.095, -0.065, 0), (0.165, 0.02, -0.085, 0), (0.55, 0.02, 0.03, 0),
])  # fmt: skip


def mirror(points: np.ndarray) -> np.ndarray:
    """Reflection of (..., 3) points in the plane x = 0."""
    return points * np.array([-1.0, 1.0, 1.0])


def to_chart(points: np.ndarray) -> np.ndarray:
    """(N, 3) points to (N, 3) chart coordinates u, v and distance r from the capsule's core."""
    d = points - AXIS
    u = np.arctan2(d[:, 0], -d[:, 2])
    below = d[:, 1] > 0
    r = np.where(below, np.hypot(d[:, 0], d[:, 2]), np.linalg.norm(d, axis=1))
    return np.stack([u, np.where(below, d[:, 1], np.arcsin(np.clip(d[:, 1] / r, -1, 1))), r], axis=1)


def from_chart(u: np.ndarray, v: np.ndarray, r: np.ndarray | float = 1.0) -> np.ndarray:
    """Inverse of `to_chart`: (N,) each to (N, 3). With r = 1 the unit capsule, on which distances are measured."""
    dome = np.minimum(v, 0)
    normal = np.stack([np.sin(u) * np.cos(dome), np.sin(dome), -np.cos(u) * np.cos(dome)], axis=1)
    return AXIS + np.maximum(v, 0)[:, None] * np.array([0.0, 1.0, 0.0]) + np.asarray(r)[..., None] * normal


class Skin:
    """Triharmonic spline through the control points: chart (u, v) -> surface."""

    def __init__(self) -> None:
        table = np.concatenate([np.array([(*p, 0.0) for i, p in LANDMARKS.items() if i not in (62, 63, 64)]), CONTROL])
        both = np.concatenate([table, (table * [-1, 1, 1, 1])[table[:, 0] > 0]])
        u, v, r = to_chart(both[:, :3]).T
        self._spline = RBFInterpolator(
            from_chart(u, v + both[:, 3]), np.stack([r - 1, both[:, 3]], axis=1), kernel="cubic", degree=1
        )

    def __call__(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """(N,) chart coordinates to (N, 3) points."""
        offset, ahead = self._spline(from_chart(u, v)).T
        return from_chart(u, v, 1 + offset) - ahead[:, None] * np.array([0.0, 1.0, 0.0])


def _arc(indices: tuple[int, ...], steps: int, symmetric: bool) -> np.ndarray:
    """Smooth curve through landmarks: a symmetric one over t in [-1, 1] from its half, else from first to last."""
    points = np.array([LANDMARKS[i] for i in indices])
    if symmetric:
        points = np.concatenate([mirror(points[:0:-1]), points])
    knots = np.linspace(-1, 1, len(points))
    return CubicSpline(knots, points, bc_type="natural")(np.linspace(-1, 1, 2 * steps + 1))


def _closed(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Ring (2 n - 2) of two arcs with shared ends: the upper one from left to right, the lower one back."""
    return np.concatenate([upper, lower[-2:0:-1]])


def _inner_lip_arc() -> np.ndarray:
    points = np.array([LANDMARKS[i] for i in (62, 63, 64)])
    points = np.concatenate([mirror(points[:0:-1]), points])
    return CubicSpline([-1, -1 / 3, 0, 1 / 3, 1], points)(np.linspace(-1, 1, 2 * RING_STEPS + 1))


def lip_rings() -> np.ndarray:
    """(R, 4 RING_STEPS, 3): vermilion border, lip surface, contact line, seal, inner face, vestibule, throat."""
    t = np.linspace(-1, 1, 2 * RING_STEPS + 1)
    borders = _arc((51, 52, 53, 54), RING_STEPS, True), _arc((57, 56, 55, 54), RING_STEPS, True)
    contact = _inner_lip_arc()
    fullness = np.stack([0 * t, 0 * t, -((1 - t**2) ** 0.75)], axis=1)
    rings = []
    for s in (0.0, 0.2, 0.4, 0.6, 0.8, 0.93):
        halves = [
            (1 - s) * border + s * contact + bulge * np.sin(np.pi * s**0.8) * fullness
            for border, bulge in zip(borders, (0.032, 0.042), strict=True)
        ]
        rings.append(_closed(*halves))
    rings.append(_closed(contact, contact))
    # Just behind it the lips overlap by a hair, so that nothing shows between closed lips.
    rings.append(_closed(contact + _SEAL, contact + _SEAL * [1, -1, 1]))
    # Inside: y half-height, x factor and z of the middle; the arch is that of the teeth, k x^2.
    for height, width, depth, curvature in (
        (0.02, 0.97, -0.265, 2.4),
        (0.10, 1.0, -0.255, 3.2),
        (0.16, 1.15, 0.0, 1.5),
        (0.10, 0.6, 0.35, 0),
    ):
        x = contact[:, 0] * width
        profile = np.sqrt(np.clip(1 - t**2, 0, 1)) ** 0.7
        halves = [np.stack([x, 0.80 + sign * height * profile, depth + curvature * x**2], axis=1) for sign in (-1, 1)]
        rings.append(_closed(*halves))
    return np.stack(rings)


def lid_rings() -> np.ndarray:
    """(R, 4 LID_STEPS, 3) of the eye x > 0: margin, wet edge, tuck beside the eyeball; the inner corner first."""
    upper, lower = _arc((42, 43, 44, 45), LID_STEPS, False), _arc((42, 47, 46, 45), LID_STEPS, False)
    margin = _closed(upper, lower)
    centre = margin.mean(axis=0)
    inward = margin - centre
    return np.stack([
        margin,
        centre + inward * [0.985, 0.93, 1.0] + [0, 0, 0.016],
        centre + inward * [1.02, 1.05, 1.0] + [0, 0, 0.075],
    ])  # fmt: skip
