"""The separate meshes of the built-in head: eyeballs, ears, teeth and tongue, in the model frame of head_geometry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

EYE_CENTRE, EYE_RADIUS = np.array([0.358, -0.006, 0.060]), 0.148  # 13 mm at outer canthi 88 mm apart
IRIS_RADIUS, PUPIL_RADIUS = 0.064, 0.025
TOOTH_WIDTHS = {
    True: (0.095, 0.075, 0.085, 0.078, 0.078),
    False: (0.060, 0.066, 0.078, 0.078, 0.078),
}  # from the midline
ARCH_CURVATURE = 3.6  # z = z0 + k x^2 along the dental arch


class Region(IntEnum):
    """What a vertex is made of; the renderer's palette is indexed by it."""

    SKIN = 0
    LIP = 1
    EYE_WHITE = 2
    IRIS = 3
    PUPIL = 4
    TEETH = 5
    GUM = 6
    TONGUE = 7
    CAVITY = 8
    LID = 9


@dataclass(frozen=True)
class Part:
    """A mesh of its own: vertices (V, 3), triangles (F, 3) and region (V,)."""

    vertices: np.ndarray
    triangles: np.ndarray
    region: np.ndarray


def grid_triangles(rows: int, columns: int, wrap: bool = False) -> np.ndarray:
    """Triangles (F, 3) of a rows x columns vertex grid; `wrap` closes it along its columns."""
    index = np.arange(rows * columns).reshape(rows, columns)
    if wrap:
        index = np.concatenate([index, index[:, :1]], axis=1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, b, d), (a, d, c))])


def _face_outwards(vertices: np.ndarray, triangles: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The triangles, all turned round if most of them face `centre`."""
    corners = vertices[triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    away = np.einsum("fc,fc->f", normal, corners.mean(axis=1) - centre)
    return triangles if away.sum() > 0 else triangles[:, ::-1]


_PUPIL, _IRIS = np.arcsin(PUPIL_RADIUS / EYE_RADIUS), np.arcsin(IRIS_RADIUS / EYE_RADIUS)
# Rings of an eyeball by their angle from the optical axis, rad; the edges of pupil and iris are doubled to stay sharp.
EYE_RINGS = (1e-4, _PUPIL, _PUPIL, (_PUPIL + _IRIS) / 2, _IRIS, _IRIS, 0.7, 1.0, 1.35, 1.75)
EYE_SEGMENTS = 24


def eyeball(side: int) -> Part:
    """Front of an eyeball on the given side (-1 or 1), in rings about the optical axis."""
    kinds = [Region.PUPIL] * 2 + [Region.IRIS] * 3 + [Region.EYE_WHITE] * 5
    phi = np.arange(EYE_SEGMENTS) * 2 * np.pi / EYE_SEGMENTS
    a, phi = np.meshgrid(EYE_RINGS, phi, indexing="ij")
    ball = np.stack([np.sin(a) * np.cos(phi), np.sin(a) * np.sin(phi), -np.cos(a)], axis=-1).reshape(-1, 3)
    centre = EYE_CENTRE * [side, 1, 1]
    vertices = centre + EYE_RADIUS * ball
    triangles = _face_outwards(vertices, grid_triangles(len(EYE_RINGS), EYE_SEGMENTS, wrap=True), centre)
    return Part(vertices, triangles, np.repeat(np.array(kinds, np.uint8), EYE_SEGMENTS))


def ear(side: int, rings: int = 8, segments: int = 24) -> Part:
    """Outer ear: a tilted dish with a helix round it and a concha in it, 62 x 34 mm."""
    rho, theta = np.meshgrid(np.linspace(0, 1.12, rings), np.arange(segments) * 2 * np.pi / segments, indexing="ij")
    # Within the ear's plane: `back` away from the face, `down` along the jaw's angle; the lobe is narrower.
    back = 0.19 * np.minimum(rho, 1.0) * np.cos(theta) * (1 - 0.22 * np.sin(theta))
    down = 0.345 * np.minimum(rho, 1.0) * np.sin(theta)
    helix = 0.055 * np.exp(-(((rho - 0.86) / 0.14) ** 2)) - 0.05 * np.exp(-((rho / 0.45) ** 2)) - 0.10 * (rho > 1.0)
    flare = np.radians(27)  # angle between the ear and the side of the head
    local = np.stack(
        [back * np.sin(flare) + helix * np.cos(flare), down, back * np.cos(flare) - helix * np.sin(flare)], -1
    )
    tilt = np.radians(10)
    y, z = (
        local[..., 1] * np.cos(tilt) - local[..., 2] * np.sin(tilt),
        local[..., 1] * np.sin(tilt) + local[..., 2] * np.cos(tilt),
    )
    local = np.stack([local[..., 0], y, z - 0.12 * local[..., 1]], axis=-1).reshape(-1, 3)
    centre = np.array([0.855, 0.20, 0.80])
    vertices = (centre + local) * [side, 1, 1]
    triangles = grid_triangles(rings, segments, wrap=True)
    inner = np.array([side * 0.2, 0.2, 0.9])
    return Part(vertices, _face_outwards(vertices, triangles, inner), np.full(len(vertices), Region.SKIN, np.uint8))


def teeth(upper: bool, per_tooth: int = 5) -> Part:
    """One dental arch: gum, necks, crowns with rounded edges, and a back face."""
    widths = np.array(TOOTH_WIDTHS[upper])
    edges = np.concatenate([[0], np.cumsum(widths)])
    local = np.linspace(-1, 1, per_tooth)
    arc = np.concatenate([edges[i] + widths[i] * (local + 1) / 2 for i in range(len(widths))])
    crown = np.tile(1 - np.abs(local) ** 4, len(widths))  # 1 on a tooth, 0 between two
    length = np.repeat(
        {True: (0.115, 0.100, 0.112, 0.09, 0.085), False: (0.095, 0.098, 0.105, 0.09, 0.085)}[upper], per_tooth
    )
    arc, crown, length = (
        np.concatenate([-arc[::-1], arc]),
        np.tile(np.r_[crown[::-1], crown], 1),
        np.r_[length[::-1], length],
    )
    x = np.sign(arc) * np.interp(np.abs(arc), *_arch_table())
    front = -0.232 if upper else -0.205
    z = front + ARCH_CURVATURE * x**2 + 0.007 * (1 - crown)
    sign = 1 if upper else -1  # y of the biting edge grows downwards in the upper arch
    edge = 0.815 if upper else 0.800
    rows, kinds = [], []
    for along, depth, kind in (
        (-0.55, 0.01, Region.GUM), (0.0, -0.004, Region.GUM), (0.0, -0.004, Region.TEETH), (0.35, -0.012, Region.TEETH),
        (0.75, -0.010, Region.TEETH), (1.0, 0.004, Region.TEETH), (0.92, 0.045, Region.TEETH), (0.0, 0.07, Region.GUM),
    ):  # fmt: skip
        notch = 0.005 * (1 - crown) * (along > 0.9) + 0.02 * crown * (along == 0.0)
        y = edge - sign * (length * (1 - along) + notch)
        rows.append(np.stack([x, y, z + depth], axis=1))
        kinds.append(np.full(len(x), kind, np.uint8))
    vertices = np.concatenate(rows)
    triangles = grid_triangles(len(rows), len(x))
    centre = np.array([0.0, edge - sign * 0.05, 0.15])
    return Part(vertices, _face_outwards(vertices, triangles, centre), np.concatenate(kinds))


def _arch_table() -> tuple[np.ndarray, np.ndarray]:
    """Arc length along the parabola z = k x^2 against x."""
    x = np.linspace(0, 0.5, 400)
    steps = np.hypot(1.0, 2 * ARCH_CURVATURE * x[1:]) * np.diff(x)
    return np.concatenate([[0], np.cumsum(steps)]), x


def tongue(rows: int = 12, columns: int = 13) -> Part:
    """Tongue at rest behind the lower teeth: a rounded sheet from the tip back to the throat."""
    s, t = np.meshgrid(np.linspace(0, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    width = 0.18 * np.sqrt(1 - (1 - np.minimum(s * 2.2 + 0.03, 1)) ** 2)
    x = width * t
    drop = 0.07 * t**4 + 0.09 * np.clip(1 - s * 4.5, 0, 1) ** 2
    groove = 0.012 * np.exp(-((t / 0.18) ** 2)) * np.clip(s * 3, 0, 1)
    y = 0.855 + drop + groove - 0.03 * np.sin(np.pi * s)
    z = -0.165 + 0.50 * s
    vertices = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    triangles = grid_triangles(rows, columns)
    return Part(
        vertices,
        _face_outwards(vertices, triangles, np.array([0, 1.6, 0.1])),
        np.full(rows * columns, Region.TONGUE, np.uint8),
    )
