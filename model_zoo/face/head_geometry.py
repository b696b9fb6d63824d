"""Mesh of the built-in head: skin between the rings of lips and lids, and the separate parts, with the 68 landmarks.

The skin is a graded Poisson-disc sample of the chart of head_anatomy, under a spherical Delaunay triangulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.interpolate import CubicSpline
from scipy.spatial import ConvexHull, cKDTree

from model_zoo.face.head_anatomy import (
    CONTACT_RING,
    LANDMARKS,
    LID_STEPS,
    RING_STEPS,
    Skin,
    from_chart,
    lid_rings,
    lip_rings,
    mirror,
    to_chart,
)
from model_zoo.face.head_parts import Part, Region, ear, eyeball, teeth, tongue

_NECK_END = 2.45  # v at which the mesh ends, below the collar
_THROAT = (0.0, 0.80, 0.38)  # where the inside of the mouth closes
# Where the skin is sampled most finely, half x >= 0: along the brow, and about the tip of the nose.
_BROW_LINE = np.array([(0.655, -0.20, 0.07), (0.43, -0.30, -0.13), (0.135, -0.25, -0.235)])
_NOSE_TIP = np.array([(0.08, 0.48, -0.35), (0.0, 0.35, -0.5)])
# Distance of neighbouring samples there and at lips and lids, elsewhere on the face, and on the skull; its growth.
_FINEST, _FACE_SPACING, _SKULL_SPACING, _GRADING = 0.025, 0.045, 0.085, 0.25
_CANDIDATES = 60_000


@dataclass(frozen=True)
class HeadGeometry:
    """Mean head with what the actions and the renderer need to know of it.

    Attributes:
        vertices: model frame.
        triangles: counter-clockwise seen from outside, which right-handed cross products turn into outward normals.
        region: of Region.
        chart: coordinates of the skin, NaN on lips' insides and separate parts.
        landmark_index: rows of `vertices`, iBUG order.
        lip_rings: rows from the vermilion border inwards; in a ring the upper arc first, from the image's left.
        lid_rings: rows for the eye on the image's (left, right), from the margin inwards; the upper arc first, from the
            inner corner.
        parts: names of the separate meshes to their rows.
    """

    vertices: Float[np.ndarray, "V 3"]
    triangles: Int[np.ndarray, "F 3"]
    region: UInt8[np.ndarray, "V"]
    chart: Float[np.ndarray, "V 2"]
    landmark_index: Int[np.ndarray, "68"]
    lip_rings: Int[np.ndarray, "R N"]
    lid_rings: Int[np.ndarray, "2 R M"]
    parts: dict[str, Int[np.ndarray, "v"]]


def build_geometry() -> HeadGeometry:
    """Build the mean head: skin, lips, lids, eyeballs, ears, teeth and tongue."""
    lips, lid = lip_rings(), lid_rings()
    lids = np.stack([mirror(lid), lid])
    points = {i: np.array(p) for i, p in LANDMARKS.items() if i < 36}
    points |= {_twin(i): mirror(p) for i, p in points.items() if p[0] > 0}
    contours = [lips[0], lids[0, 0], lids[1, 0]]
    fixed = np.concatenate([*contours, np.stack(list(points.values()))])
    uv, triangles = _triangulate(to_chart(fixed)[:, :2], [len(c) for c in contours])
    vertices = Skin()(*uv.T)
    vertices[: len(fixed)] = fixed

    mesh = _Mesh(vertices, triangles, np.full(len(uv), Region.SKIN, np.uint8))
    n, m = lips.shape[1], lids.shape[2]
    lip_rows = mesh.add_rings(np.arange(n), lips[1:], [Region.LIP] * 8 + [Region.CAVITY] * 3)
    mesh.region[lip_rows[0]] = Region.LIP
    mesh.add_fan(lip_rows[-1], _THROAT, Region.CAVITY)
    lid_rows = np.stack([
        mesh.add_rings(np.arange(m) + n + side * m, lids[side, 1:], [Region.LID] * 2, flipped=side == 0)
        for side in (0, 1)
    ])  # fmt: skip
    parts = {name: mesh.add_part(part) for name, part in _parts().items()}
    chart = np.full((len(mesh.vertices), 2), np.nan)
    chart[: len(uv)] = uv
    rows = {index: n + 2 * m + k for k, index in enumerate(points)}
    rows |= _lip_landmarks(lip_rows) | _lid_landmarks(lid_rows)
    index = np.array([rows[i] for i in range(68)])
    return HeadGeometry(mesh.vertices, mesh.triangles, mesh.region, chart, index, lip_rows, lid_rows, parts)


class _Mesh:
    """A mesh that grows."""

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray, region: np.ndarray) -> None:
        self.vertices, self.triangles, self.region = vertices, triangles.astype(np.int64), region

    def add_part(self, part: Part) -> np.ndarray:
        """Append a separate mesh; its rows."""
        first = len(self.vertices)
        self.vertices = np.concatenate([self.vertices, part.vertices])
        self.region = np.concatenate([self.region, part.region])
        self.triangles = np.concatenate([self.triangles, part.triangles + first])
        return np.arange(first, len(self.vertices))

    def add_rings(
        self, outer: np.ndarray, rings: np.ndarray, kinds: list[Region], flipped: bool = False
    ) -> Int[np.ndarray, "R n"]:
        """Append rings (R - 1, n, 3) one inside the other within the rows `outer`; the rows of all R."""
        table = [outer]
        for ring, kind in zip(rings, kinds, strict=True):
            none = np.empty((0, 3), np.int64)
            table.append(self.add_part(Part(ring, none, np.full(len(ring), kind, np.uint8))))
            a, b, c, d = table[-2], np.roll(table[-2], -1), table[-1], np.roll(table[-1], -1)
            strip = np.concatenate([np.stack([a, d, b], axis=1), np.stack([a, c, d], axis=1)])
            self.triangles = np.concatenate([self.triangles, strip[:, ::-1] if flipped else strip])
        return np.stack(table)

    def add_fan(self, ring: np.ndarray, tip: tuple[float, float, float], kind: Region) -> None:
        """Close a ring of rows with a fan to one more vertex."""
        (end,) = self.add_part(Part(np.array([tip]), np.empty((0, 3), np.int64), np.array([kind], np.uint8)))
        fan = np.stack([np.roll(ring, -1), ring, np.full(len(ring), end)], axis=1)
        self.triangles = np.concatenate([self.triangles, fan])


def _triangulate(fixed_uv: np.ndarray, contours: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Sample and triangulate the chart around fixed points, the first of which are closed contours of those lengths.

    Returns:
        uv (N, 2), the fixed points first, and triangles (F, 3) without those inside a contour.
    """
    edges = np.cumsum([0, *contours])
    rings = [fixed_uv[a:b] for a, b in pairwise(edges)]
    brow = CubicSpline([0, 0.5, 1], _BROW_LINE)(np.linspace(0, 1, 12))
    fine = np.concatenate([*rings, to_chart(np.concatenate([brow, _NOSE_TIP]))[:, :2]])
    half = _sample_half(fixed_uv, rings, from_chart(*fine.T))
    mirrored = (half * [-1, 1])[(half[:, 0] > 0) & (half[:, 0] < np.pi)]
    uv = np.concatenate([fixed_uv, half, mirrored])
    sphere = _sphere(uv)
    triangles = ConvexHull(sphere).simplices  # the Delaunay triangulation of points on a sphere
    a, b, c = (sphere[triangles[:, corner]] for corner in range(3))
    outward = (np.cross(b - a, c - a) * a).sum(axis=1) > 0
    triangles = np.where(outward[:, None], triangles, triangles[:, ::-1])
    outside = uv[triangles, 1].min(axis=1) < _NECK_END - 0.25  # the hull closes the neck: open it again
    for first, last in pairwise(edges):
        within = ((triangles >= first) & (triangles < last)).all(axis=1)
        outside &= ~(within & _inside(uv[triangles].mean(axis=1), fixed_uv[first:last]))
    return uv, triangles[outside]


def _sample_half(fixed_uv: np.ndarray, holes: list[np.ndarray], fine: np.ndarray) -> np.ndarray:
    """Graded Poisson-disc sample (N, 2) of the half u >= 0, off fixed points and holes, densest at `fine` (M, 3)."""
    rng = np.random.default_rng(0)
    u, v = rng.uniform(0, np.pi, _CANDIDATES), rng.uniform(-np.pi / 2, _NECK_END, _CANDIDATES)
    even = rng.uniform(size=_CANDIDATES) < np.cos(np.minimum(v, 0))
    u, v = u[even], v[even]
    spacing = _spacing(from_chart(u, v), fine)
    # Nearer to the midline than half a spacing a sample and its mirror image would crowd each other.
    midline = np.abs(np.sin(u)) * np.cos(np.minimum(v, 0)) < 0.5 * spacing
    u = np.where(midline, np.where(u > np.pi / 2, np.pi, 0.0), u)
    points = from_chart(u, v)
    free = cKDTree(from_chart(*fixed_uv.T)).query(points)[0] > 0.8 * spacing
    for hole in holes:
        free &= ~_inside(np.stack([u, v], axis=1), hole)
    tree = cKDTree(points)
    chosen = []
    for i in np.argsort(spacing, kind="stable"):
        if free[i]:
            chosen.append(i)
            free[tree.query_ball_point(points[i], spacing[i])] = False
    return np.stack([u[chosen], v[chosen]], axis=1)


def _spacing(points: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Wanted distance between samples at (N, 3) points of the unit capsule."""
    distance = cKDTree(fine).query(points)[0]
    on_face = (points[:, 2] < 0.45) & (points[:, 1] < 1.6)
    return np.clip(_FINEST + _GRADING * (distance - 0.03), _FINEST, np.where(on_face, _FACE_SPACING, _SKULL_SPACING))


def _inside(points: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Even-odd test of (N, 2) points against a closed polygon (M, 2)."""
    x, y = points[:, None, 0], points[:, None, 1]
    x0, y0 = ring.T
    x1, y1 = np.roll(ring, -1, axis=0).T
    crosses = (y0 > y) != (y1 > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)).sum(axis=1) % 2 == 1


def _sphere(uv: np.ndarray) -> np.ndarray:
    """Conformal image of the capsule on the unit sphere: the neck by the inverse Mercator projection."""
    u, v = uv.T
    elevation = np.where(v > 0, 2 * np.arctan(np.exp(np.maximum(v, 0))) - np.pi / 2, v)
    return np.stack([np.sin(u) * np.cos(elevation), np.sin(elevation), -np.cos(u) * np.cos(elevation)], axis=1)


def _twin(index: int) -> int:
    """iBUG index of the mirror image, for the points below 36 on the image's right."""
    if index <= 16:
        return 16 - index
    if index <= 26:
        return 43 - index
    return 66 - index if index >= 31 else index


def _lip_landmarks(rings: np.ndarray) -> dict[int, int]:
    """iBUG 48 to 67: thirds of the arcs of the border and of the contact line."""
    border, contact, third = rings[0], rings[CONTACT_RING], RING_STEPS // 3
    steps = [(48 + k, border, k) for k in range(12)]  # clockwise from the image's left corner, all round
    steps += [(60, contact, 0), (61, contact, 2), (62, contact, 3), (63, contact, 4), (64, contact, 6)]
    steps += [(65, contact, 8), (66, contact, 9), (67, contact, 10)]
    return {index: ring[step * third] for index, ring, step in steps}


def _lid_landmarks(rings: np.ndarray) -> dict[int, int]:
    """iBUG 36 to 47: thirds of the lids' arcs; rings begin at the inner corners."""
    third = 2 * LID_STEPS // 3
    left = dict(zip((39, 38, 37, 36, 41, 40), rings[0, 0, ::third], strict=True))
    return left | dict(zip((42, 43, 44, 45, 46, 47), rings[1, 0, ::third], strict=True))


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
