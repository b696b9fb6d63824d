"""Hair as a second surface over the scalp, combed in columns from the crown to the hairline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from model_zoo.face.head_anatomy import from_chart, to_chart
from model_zoo.face.head_parts import grid_triangles
from model_zoo.face.procedural import ProceduralHead

_COLUMNS = 168
_ROWS = np.array(
    [0, 0.02, 0.05, 0.09, 0.14, 0.2, 0.27, 0.35, 0.44, 0.54, 0.64, 0.74, 0.83, 0.91, 0.97, 0.999]
)  # 1 = crown
_CROWN = -np.pi / 2  # v of the chart
_AZIMUTH = (0.0, 0.45, 0.80, 1.02, 1.20, 1.40, 1.55, 1.80, 2.05, 2.50, np.pi)  # rad from straight ahead


@dataclass(frozen=True)
class Hairstyle:
    """Hairline as v of the chart at _AZIMUTH; thickness and, of hair that hangs, its radius, outer-eye distances."""

    line: tuple[float, ...]
    thickness: float
    hangs: float | None = None


HAIRSTYLES = {
    "short": Hairstyle((-0.62, -0.59, -0.47, -0.24, 0.02, 0.06, -0.20, -0.16, 0.45, 0.75, 0.85), 0.09),
    "fringe": Hairstyle((-0.44, -0.43, -0.39, -0.17, 0.10, 0.14, -0.17, -0.14, 0.50, 0.80, 0.90), 0.14),
    "full": Hairstyle((-0.62, -0.60, -0.50, -0.22, 0.12, 0.17, -0.14, -0.06, 0.55, 0.90, 1.00), 0.19),
    "receding": Hairstyle((-0.78, -0.92, -0.86, -0.38, 0.02, 0.02, -0.21, -0.18, 0.40, 0.70, 0.80), 0.05),
    "tied": Hairstyle((-0.68, -0.64, -0.50, -0.27, -0.08, -0.03, -0.23, -0.20, 0.40, 0.60, 0.65), 0.07),
    "bob": Hairstyle((-0.62, -0.59, -0.49, -0.24, 0.35, 1.00, 1.15, 1.18, 1.20, 1.20, 1.20), 0.13, 1.00),
    "long": Hairstyle((-0.66, -0.63, -0.52, -0.26, 0.40, 1.60, 1.88, 1.95, 1.95, 1.95, 1.95), 0.12, 0.98),
}
MASCULINE, FEMININE = ("short", "fringe", "full", "receding"), ("tied", "bob", "long", "full", "bob", "long")


@dataclass(frozen=True)
class Hair:
    """Vertices bound to the skin: each is a mixture of three skin vertices, raised along their normal.

    Attributes:
        anchors: (N, 3) rows of the head's vertices. weights: (N, 3), sum 1.
        offsets: (N,) along the normal, outer-eye distances; the edge sinks into the skin.
        triangles: (F, 3). colours: (N, 3) RGB.
    """

    anchors: Int[np.ndarray, "N 3"]
    weights: Float[np.ndarray, "N 3"]
    offsets: Float[np.ndarray, "N"]
    triangles: Int[np.ndarray, "F 3"]
    colours: Float[np.ndarray, "N 3"]


def grow_hair(head: ProceduralHead, style: Hairstyle, colour: Float[np.ndarray, "3"], seed: int) -> Hair:
    """Comb a hairstyle over the built-in head, with strands and waves from the seed."""
    rng = np.random.default_rng(seed)
    u = np.linspace(-np.pi, np.pi, _COLUMNS, endpoint=False)
    wisps = _around(rng, 0.8) * 0.010 + _around(rng, 4.0) * 0.018
    edge = gaussian_filter1d(np.interp(np.abs(u), _AZIMUTH, style.line), 1.2, mode="wrap") + wisps
    v = edge + (_CROWN - edge) * _ROWS[:, None]  # (rows, columns)
    s = np.broadcast_to(_ROWS[:, None], v.shape)
    lumps = 1 + (0.16 * _around(rng, 6.0) + 0.10 * _around(rng, 2.0)) * np.clip(
        (1 - s) / 0.4, 0, 1
    )  # none at the crown
    rise = style.thickness * (1 + 0.45 * np.clip(-v, 0, 1)) * np.sqrt(np.clip(s / 0.2, 0, 1)) * lumps
    anchors, weights = bind_to_skin(head, np.tile(u, len(_ROWS)), v.ravel())
    if style.hangs is not None:
        skin = (head.face.mean.numpy()[anchors] * weights[..., None]).sum(axis=1)
        gap = style.hangs - to_chart(skin.astype(np.float64))[:, 2].reshape(v.shape)
        # Hanging hair keeps its distance from the neck, its front edge lies on the cheek.
        beside = np.clip((np.abs(u) - 1.15) / 0.25, 0, 1)
        rise = np.maximum(rise, gap * np.clip(v / 0.35, 0, 1) * beside)
        rooted = 1 - beside
    else:
        rooted = np.ones_like(u)
    rise = rise - 0.03 * (s < 0.01) * rooted
    strands = 1 + 0.16 * _around(rng, 0.7) + 0.12 * _around(rng, 2.5)
    shades = strands * (0.80 + 0.20 * np.clip(s / 0.3, 0, 1)) * rng.uniform(0.93, 1.07, v.shape)
    colours = np.clip(colour * shades.reshape(-1, 1), 0, 1)
    triangles = grid_triangles(len(_ROWS), _COLUMNS, wrap=True)
    return Hair(anchors, weights.astype(np.float32), rise.ravel().astype(np.float32), triangles, colours)


def bind_to_skin(
    head: ProceduralHead, u: Float[np.ndarray, "N"], v: Float[np.ndarray, "N"]
) -> tuple[Int[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
    """Triangle of the skin (rows of its corners) under each point of the chart, and the point's weights in it."""
    chart = head.chart.numpy().astype(np.float64)
    triangles = head.face.triangles.numpy()
    triangles = triangles[~np.isnan(chart[triangles]).any(axis=(1, 2))]
    flat = from_chart(*np.nan_to_num(chart).T)  # on the unit capsule
    points = from_chart(u, v)
    near = cKDTree(flat[triangles].mean(axis=1)).query(points, k=12)[1]  # (N, 12)
    a, b, c = (flat[triangles[near, corner]] for corner in range(3))
    normal = np.cross(b - a, c - a)
    area = (normal**2).sum(axis=-1)
    offset = points[:, None] - a
    beta = (np.cross(offset, c - a) * normal).sum(axis=-1) / area
    gamma = (np.cross(b - a, offset) * normal).sum(axis=-1) / area
    weights = np.stack([1 - beta - gamma, beta, gamma], axis=-1)  # (N, 12, 3)
    best = weights.min(axis=-1).argmax(axis=1)
    rows = np.arange(len(points))
    chosen = np.clip(weights[rows, best], 0, 1)
    return triangles[near[rows, best]], chosen / chosen.sum(axis=1, keepdims=True)


def _around(rng: np.random.Generator, width: float) -> Float[np.ndarray, "C"]:
    """Smooth noise of unit variance over the columns, closed round the head."""
    noise = gaussian_filter1d(rng.normal(size=_COLUMNS), width, mode="wrap")
    return noise / noise.std()
