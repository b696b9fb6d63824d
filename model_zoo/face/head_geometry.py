"""Mean shape of the built-in head: a chart, a table of anatomical control points, and the mesh between them.

The head's surface is written as a distance from a capsule: a half-line (the neck's axis) that ends in a point inside the
skull. Chart coordinates are (azimuth u in rad, 0 = straight ahead; v = elevation in rad above the point, height below it). A
triharmonic spline over the chart passes through CONTROL; lips and lids are rings of vertices along their contours; the
rest is a graded Poisson-disc sample, triangulated by a spherical Delaunay triangulation.

Model frame: x right, y down, z away from the camera, outer-eye distance 1, origin between the outer eye corners. Every
table lists the half x >= 0 and is mirrored. Proportions follow adult anthropometry (outer canthi 88 mm apart: Farkas,
"Anthropometry of the Head and Face", 1994), placed so that the 68 points lie where the iBUG scheme puts them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline, RBFInterpolator
from scipy.spatial import ConvexHull, cKDTree

from model_zoo.face.head_parts import Part, Region, ear, eyeball, teeth, tongue

AXIS = np.array([0.0, -0.05, 0.75])  # end of the capsule's half-line, inside the skull
NECK_END = 2.45  # v at which the mesh ends, below the collar
RING_STEPS = 12  # lip samples from the middle to a corner; landmarks sit at thirds
LID_STEPS = 9  # half the number of lid samples from corner to corner

# iBUG points of the half x >= 0, by their index on the image's right. Columns x, y, z.
LANDMARKS = {
    16: (0.800, 0.05, 0.55), 15: (0.790, 0.27, 0.53), 14: (0.765, 0.48, 0.47), 13: (0.720, 0.70, 0.39),
    12: (0.650, 0.91, 0.28), 11: (0.525, 1.10, 0.13), 10: (0.370, 1.24, -0.02), 9: (0.190, 1.33, -0.13), 8: (0.0, 1.36, -0.17),
    26: (0.655, -0.19, 0.07), 25: (0.560, -0.275, -0.045), 24: (0.425, -0.305, -0.135), 23: (0.275, -0.29, -0.205),
    22: (0.135, -0.245, -0.235),
    27: (0.0, -0.04, -0.235), 28: (0.0, 0.09, -0.32), 29: (0.0, 0.215, -0.41), 30: (0.0, 0.355, -0.50),
    35: (0.150, 0.51, -0.255), 34: (0.075, 0.525, -0.310), 33: (0.0, 0.54, -0.335),
    45: (0.5, 0.0, 0.0), 44: (0.425, -0.052, -0.085), 43: (0.310, -0.057, -0.105), 42: (0.207, 0.016, -0.068),
    47: (0.307, 0.038, -0.092), 46: (0.427, 0.040, -0.070),
    54: (0.285, 0.80, -0.185), 53: (0.190, 0.728, -0.290), 52: (0.080, 0.690, -0.350), 51: (0.0, 0.700, -0.360),
    55: (0.195, 0.877, -0.265), 56: (0.095, 0.917, -0.320), 57: (0.0, 0.925, -0.335),
    64: (0.258, 0.80, -0.180), 63: (0.100, 0.797, -0.285), 62: (0.0, 0.80, -0.305),
}  # fmt: skip

# Further points of the skin. Columns x, y, z and how far v runs ahead of y (under the chin the skin is level).
CONTROL = np.array([
    # forehead, crown, nape
    (0.0, -0.50, -0.20, 0), (0.0, -0.75, -0.12, 0), (0.0, -1.00, 0.08, 0), (0.0, -1.20, 0.38, 0), (0.0, -1.27, 0.75, 0),
    (0.0, -1.17, 1.25, 0), (0.0, -0.90, 1.66, 0), (0.0, -0.50, 1.86, 0), (0.0, 0.0, 1.90, 0), (0.0, 0.45, 1.76, 0),
    (0.0, 0.85, 1.58, 0), (0.0, 1.30, 1.45, 0), (0.0, 1.90, 1.45, 0), (0.0, 2.50, 1.52, 0),
    (0.20, -0.50, -0.17, 0), (0.40, -0.50, -0.09, 0), (0.58, -0.48, 0.08, 0), (0.72, -0.48, 0.30, 0),
    (0.30, -0.80, -0.02, 0), (0.52, -0.78, 0.20, 0), (0.40, -1.05, 0.38, 0), (0.20, -0.20, -0.22, 0), (0.40, -0.20, -0.15, 0),
    (0.82, -0.40, 0.65, 0), (0.85, -0.40, 1.00, 0), (0.80, -0.40, 1.35, 0), (0.50, -0.40, 1.75, 0),
    (0.78, -0.80, 0.80, 0), (0.74, -0.80, 1.20, 0), (0.45, -0.80, 1.58, 0), (0.50, -1.12, 0.80, 0), (0.42, -1.08, 1.20, 0),
    # temple, cheekbone, cheek, before and behind the ear
    (0.70, -0.18, 0.19, 0), (0.79, -0.10, 0.42, 0), (0.83, -0.05, 0.75, 0), (0.86, 0.0, 1.10, 0), (0.72, 0.0, 1.50, 0),
    (0.62, 0.02, 0.08, 0), (0.60, 0.15, 0.03, 0), (0.72, 0.15, 0.20, 0), (0.50, 0.15, -0.055, 0), (0.38, 0.17, -0.085, 0),
    (0.26, 0.15, -0.100, 0), (0.19, 0.10, -0.125, 0), (0.25, 0.30, -0.150, 0), (0.40, 0.30, -0.115, 0), (0.55, 0.32, -0.045, 0),
    (0.68, 0.32, 0.115, 0), (0.30, 0.45, -0.165, 0), (0.45, 0.50, -0.110, 0), (0.60, 0.50, 0.015, 0), (0.70, 0.52, 0.21, 0),
    (0.32, 0.62, -0.180, 0), (0.45, 0.68, -0.100, 0), (0.58, 0.72, 0.055, 0), (0.36, 0.80, -0.140, 0), (0.48, 0.88, -0.020, 0),
    (0.82, 0.20, 0.75, 0), (0.80, 0.48, 0.75, 0), (0.74, 0.75, 0.72, 0), (0.80, 0.30, 1.10, 0), (0.60, 0.60, 1.35, 0),
    # nose: bridge flanks, tip, wings, nostril sill
    (0.070, -0.08, -0.195, 0), (0.115, 0.0, -0.150, 0), (0.075, 0.10, -0.270, 0), (0.090, 0.20, -0.325, 0), (0.135, 0.20, -0.235, 0),
    (0.105, 0.30, -0.385, 0), (0.055, 0.33, -0.475, 0), (0.060, 0.40, -0.480, 0), (0.0, 0.42, -0.485, 0), (0.0, 0.48, -0.410, 0),
    (0.160, 0.33, -0.270, 0), (0.130, 0.40, -0.375, 0), (0.178, 0.43, -0.285, 0), (0.215, 0.44, -0.195, 0), (0.165, 0.48, -0.290, 0),
    (0.205, 0.53, -0.200, 0), (0.070, 0.475, -0.390, 0),
    # philtrum, lip surround, chin
    (0.0, 0.60, -0.330, 0), (0.045, 0.62, -0.345, 0), (0.14, 0.60, -0.300, 0), (0.24, 0.70, -0.235, 0), (0.33, 0.80, -0.160, 0),
    (0.0, 0.985, -0.285, 0), (0.12, 0.980, -0.265, 0), (0.24, 0.93, -0.205, 0), (0.0, 1.08, -0.270, 0), (0.0, 1.18, -0.280, 0),
    (0.0, 1.28, -0.250, 0), (0.13, 1.10, -0.255, 0), (0.13, 1.22, -0.240, 0), (0.27, 1.05, -0.175, 0), (0.27, 1.18, -0.135, 0),
    (0.40, 1.00, -0.080, 0), (0.42, 1.12, -0.010, 0), (0.56, 0.95, 0.110, 0),
    # under the chin, jaw angle, throat, neck
    (0.0, 1.40, -0.06, 0.03), (0.0, 1.43, 0.12, 0.10), (0.0, 1.50, 0.32, 0.18), (0.0, 1.68, 0.41, 0.16), (0.0, 1.95, 0.43, 0.08),
    (0.0, 2.50, 0.38, 0), (0.20, 1.38, 0.02, 0.04), (0.25, 1.44, 0.30, 0.14), (0.42, 1.28, 0.20, 0.06), (0.42, 1.40, 0.45, 0.14),
    (0.58, 1.10, 0.38, 0.04), (0.55, 1.25, 0.60, 0.10), (0.66, 0.95, 0.58, 0.02), (0.62, 1.10, 0.80, 0.04),
    (0.30, 1.80, 0.52, 0.10), (0.50, 1.60, 0.72, 0.08), (0.53, 2.00, 0.80, 0), (0.60, 2.50, 0.90, 0), (0.30, 2.50, 0.50, 0),
    (0.56, 1.50, 1.05, 0), (0.56, 2.00, 1.10, 0), (0.58, 2.50, 1.20, 0), (0.40, 1.50, 1.35, 0), (0.40, 2.50, 1.45, 0),
    # lids: the fold above, the bag below
    (0.20, -0.07, -0.120, 0), (0.31, -0.125, -0.105, 0), (0.43, -0.12, -0.085, 0), (0.54, -0.06, -0.005, 0),
    (0.31, 0.095, -0.090, 0), (0.43, 0.095, -0.065, 0), (0.165, 0.02, -0.085, 0), (0.55, 0.02, 0.03, 0),
])  # fmt: skip

# Where the skin is sampled most finely, half x >= 0: along the brow, and about the tip of the nose.
_BROW_LINE = np.array([(0.655, -0.20, 0.07), (0.43, -0.30, -0.13), (0.135, -0.25, -0.235)])
_NOSE_TIP = np.array([(0.08, 0.48, -0.35), (0.0, 0.35, -0.5)])
# Distance of neighbouring samples: at those places and at lips and lids, elsewhere on the face, on the skull; and growth.
_FINEST, _FACE_SPACING, _SKULL_SPACING, _GRADING = 0.025, 0.045, 0.085, 0.25


@dataclass(frozen=True)
class HeadGeometry:
    """Mean head with what the actions and the renderer need to know of it.

    Attributes:
        vertices: (V, 3) float64, model frame. triangles: (F, 3) int64, outward by the right-hand rule of the model frame.
        region: (V,) uint8 of Region. chart: (V, 2) of the skin, NaN on other parts.
        landmark_index: (68,) int64 rows of `vertices`, iBUG order.
        lip_rings: (R, 4 RING_STEPS) rows, from the vermilion border inwards; upper arc first, from the image's left.
        lid_rings: for the image's (left, right) eye, (R, 4 LID_STEPS) rows, from the margin inwards; the same order.
        parts: names of the separate meshes to their rows.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    region: np.ndarray
    chart: np.ndarray
    landmark_index: np.ndarray
    lip_rings: np.ndarray
    lid_rings: tuple[np.ndarray, np.ndarray]
    parts: dict[str, np.ndarray]


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
    """(R, 4 RING_STEPS, 3): vermilion border, lip surface, contact line, inner face, vestibule, throat."""
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
    """(R, 4 LID_STEPS, 3) of the eye x > 0: margin, wet edge, and the tuck beside the eyeball; from the inner corner."""
    upper, lower = _arc((42, 43, 44, 45), LID_STEPS, False), _arc((42, 47, 46, 45), LID_STEPS, False)
    margin = _closed(upper, lower)
    centre = margin.mean(axis=0)
    inward = margin - centre
    return np.stack([
        margin,
        centre + inward * [0.985, 0.93, 1.0] + [0, 0, 0.016],
        centre + inward * [1.02, 1.05, 1.0] + [0, 0, 0.075],
    ])  # fmt: skip


def _spacing(points: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Wanted distance between samples at (N, 3) points of the unit capsule, given (M, 3) features there."""
    distance = cKDTree(features).query(points)[0]
    on_face = (points[:, 2] < 0.45) & (points[:, 1] < 1.6)
    return np.clip(_FINEST + _GRADING * (distance - 0.03), _FINEST, np.where(on_face, _FACE_SPACING, _SKULL_SPACING))


def _inside(point_uv: np.ndarray, ring_uv: np.ndarray) -> np.ndarray:
    """Even-odd test of (N, 2) points against a closed polygon (M, 2)."""
    x, y = point_uv[:, None, 0], point_uv[:, None, 1]
    x0, y0 = ring_uv.T
    x1, y1 = np.roll(ring_uv, -1, axis=0).T
    crosses = (y0 > y) != (y1 > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)).sum(axis=1) % 2 == 1


def _sample_half(fixed_uv: np.ndarray, holes: list[np.ndarray], features: np.ndarray) -> np.ndarray:
    """Graded Poisson-disc sample (N, 2) of the chart's half u >= 0, away from the fixed points and outside the holes."""
    rng = np.random.default_rng(0)
    v = rng.uniform(-np.pi / 2, NECK_END, 60_000)
    u = rng.uniform(0, np.pi, v.size)
    u, v = u[keep := rng.uniform(size=v.size) < np.cos(np.minimum(v, 0))], v[keep]
    # Midline samples keep the mesh symmetric: points nearer to it than half a spacing snap onto it.
    points = from_chart(u, v)
    spacing = _spacing(points, features)
    snapped = np.minimum(np.abs(np.sin(u)) * np.cos(np.minimum(v, 0)), 9) < 0.5 * spacing
    u = np.where(snapped, np.where(u > np.pi / 2, np.pi, 0.0), u)
    points = from_chart(u, v)
    free = np.ones(u.size, bool)
    for hole in holes:
        free &= ~_inside(np.stack([u, v], axis=1), hole)
    fixed = from_chart(*fixed_uv.T)
    free &= cKDTree(fixed).query(points)[0] > 0.8 * spacing
    chosen = []
    tree = cKDTree(points)
    for i in np.argsort(spacing, kind="stable"):
        if free[i]:
            chosen.append(i)
            free[tree.query_ball_point(points[i], spacing[i])] = False
    return np.stack([u[chosen], v[chosen]], axis=1)


def _sphere(uv: np.ndarray) -> np.ndarray:
    """Conformal image of the capsule on the unit sphere: the neck by the inverse Mercator projection."""
    elevation = np.where(uv[:, 1] > 0, 2 * np.arctan(np.exp(np.maximum(uv[:, 1], 0))) - np.pi / 2, uv[:, 1])
    u = uv[:, 0]
    return np.stack([np.sin(u) * np.cos(elevation), np.sin(elevation), -np.cos(u) * np.cos(elevation)], axis=1)


def _strip(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Triangles (2 n, 3) between two closed rings of n vertex rows."""
    a, b, c, d = outer, np.roll(outer, -1), inner, np.roll(inner, -1)
    return np.concatenate([np.stack([a, d, b], axis=1), np.stack([a, c, d], axis=1)])


def _orient(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Turn triangles so that their normals leave the capsule's core."""
    corners = vertices[triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    core = AXIS + np.stack(
        [0 * corners[:, 0, 0], np.maximum(corners.mean(1)[:, 1] - AXIS[1], 0), 0 * corners[:, 0, 0]], 1
    )
    outward = np.einsum("fc,fc->f", normal, corners.mean(axis=1) - core) > 0
    return np.where(outward[:, None], triangles, triangles[:, ::-1])


def _skin_mesh() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[int, int]]:
    """Skin with lips and lids: vertices, triangles, region, chart, lip rings, lid rings (2, R, n), landmark rows."""
    lips, lids = lip_rings(), lid_rings()
    lids = np.stack([mirror(lids), lids])
    fixed = {i: np.array(p) for i, p in LANDMARKS.items() if i < 36}
    fixed |= {_twin(i): mirror(p) for i, p in fixed.items() if p[0] > 0}
    contours = [lips[0], lids[0, 0], lids[1, 0]]
    contour_uv = [to_chart(c)[:, :2] for c in contours]
    fixed_uv = to_chart(np.array(list(fixed.values())))[:, :2]
    brow = CubicSpline([0, 0.5, 1], _BROW_LINE)(np.linspace(0, 1, 12))
    dense_uv = to_chart(np.concatenate([brow, _NOSE_TIP]))[:, :2]
    known_uv = np.concatenate([*contour_uv, fixed_uv])
    features = from_chart(*np.concatenate([known_uv[: sum(map(len, contour_uv))], dense_uv]).T)
    half = _sample_half(known_uv, [contour_uv[0], contour_uv[2]], features)
    # Sample positions next to the middle of the mouth's hole also see its mirror image, the hole being symmetric.
    uv = np.concatenate([known_uv, half, (half * [-1, 1])[(half[:, 0] > 0) & (half[:, 0] < np.pi)]])

    triangles = ConvexHull(_sphere(uv)).simplices
    low = uv[:, 1][triangles].min(axis=1) > NECK_END - 0.25  # the hull closes the neck: open it again
    inside = low
    start = 0
    for ring in contour_uv:
        rows = np.arange(start, start + len(ring))
        within = np.isin(triangles, rows).all(axis=1)
        centroid = uv[triangles].mean(axis=1)
        inside |= within & _inside(centroid, ring)
        start += len(ring)
    triangles = triangles[~inside]

    vertices = Skin()(*uv.T)
    vertices[: len(known_uv)] = np.concatenate([*contours, np.array(list(fixed.values()))])
    triangles = _orient(vertices, triangles)
    rows = {index: sum(map(len, contours)) + k for k, index in enumerate(fixed)}
    region = np.full(len(uv), Region.SKIN, np.uint8)

    def add_rings(rings: np.ndarray, first: np.ndarray, kinds: list[Region]) -> np.ndarray:
        """Append rings 1.. behind ring 0, whose rows exist; returns the rows (R, n)."""
        nonlocal vertices, triangles, region
        table = [first]
        for ring, kind in zip(rings[1:], kinds, strict=True):
            table.append(np.arange(len(vertices), len(vertices) + len(ring)))
            vertices = np.concatenate([vertices, ring])
            region = np.concatenate([region, np.full(len(ring), kind, np.uint8)])
            triangles = np.concatenate([triangles, _strip(table[-2], table[-1])])
        return np.stack(table)

    n, m = lips.shape[1], lids.shape[2]
    lip_rows = add_rings(lips, np.arange(n), [Region.LIP] * 6 + [Region.LIP] + [Region.CAVITY] * 3)
    region[lip_rows[0]] = Region.LIP
    lid_rows = np.stack([
        add_rings(lids[side], np.arange(n + side * m, n + (side + 1) * m), [Region.LID, Region.LID]) for side in (0, 1)
    ])  # fmt: skip
    # Close the throat.
    end = len(vertices)
    vertices = np.concatenate([vertices, [[0.0, 0.80, 0.38]]])
    region = np.concatenate([region, [np.uint8(Region.CAVITY)]])
    back = lip_rows[-1]
    triangles = np.concatenate([triangles, np.stack([np.roll(back, -1), back, np.full(n, end)], axis=1)])
    chart = np.full((len(vertices), 2), np.nan)
    chart[: len(uv)] = uv
    return vertices, triangles, region, chart, lip_rows, lid_rows, rows


def _twin(index: int) -> int:
    """iBUG index of the mirror image, for the points below 36 on the image's right."""
    if index <= 16:
        return 16 - index
    if index <= 26:
        return 43 - index
    return 66 - index if index >= 31 else index


def build_geometry() -> HeadGeometry:
    """Build the mean head: skin, lips, lids, eyeballs, ears, teeth and tongue."""
    vertices, triangles, region, chart, lips, lids, rows = _skin_mesh()
    third, k = RING_STEPS // 3, 4 * RING_STEPS
    for step, index in enumerate((48, 49, 50, 51, 52, 53, 54)):
        rows[index] = lips[0, step * third]
    for step, index in enumerate((59, 58, 57, 56, 55), start=1):
        rows[index] = lips[0, (k - step * third) % k]
    for index, place in ((60, 0), (61, 2 * third), (62, 3 * third), (63, 4 * third), (64, 6 * third)):
        rows[index] = lips[6, place]
    for index, place in ((65, 4 * third), (66, 3 * third), (67, 2 * third)):
        rows[index] = lips[6, (k - place) % k]
    n = 4 * LID_STEPS
    for side, (corners, upper, lower) in enumerate((((39, 36), (38, 37), (40, 41)), ((42, 45), (43, 44), (47, 46)))):
        ring = lids[side, 0]
        for j in (0, 1):
            rows[corners[j]] = ring[j * 2 * LID_STEPS]
            rows[upper[j]] = ring[(j + 1) * 2 * LID_STEPS // 3]
            rows[lower[j]] = ring[n - (j + 1) * 2 * LID_STEPS // 3]
    parts = {"skin": np.arange(len(vertices))}
    for name, part in _parts().items():
        parts[name] = np.arange(len(vertices), len(vertices) + len(part.vertices))
        triangles = np.concatenate([triangles, part.triangles + len(vertices)])
        vertices = np.concatenate([vertices, part.vertices])
        region = np.concatenate([region, part.region])
    chart = np.concatenate([chart, np.full((len(vertices) - len(chart), 2), np.nan)])
    landmark_index = np.array([rows[i] for i in range(68)], np.int64)
    return HeadGeometry(
        vertices, triangles.astype(np.int64), region, chart, landmark_index, lips, (lids[0], lids[1]), parts
    )


def _parts() -> dict[str, Part]:
    return {
        "eye_left": eyeball(-1),
        "eye_right": eyeball(1),
        "ear_left": ear(-1),
        "ear_right": ear(1),
        "teeth_upper": teeth(upper=True),
        "teeth_lower": teeth(upper=False),
        "tongue": tongue(),
    }
