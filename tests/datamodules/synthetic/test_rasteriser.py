"""The z-buffer against a plain numpy rasteriser, shading and averaging against formulas."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull

from datamodules.synthetic.rasteriser import rasterise, resolve, shade, vertex_normals


def sphere(n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    # Fibonacci's lattice: even, so that area-weighted normals come near to the true ones.
    i = np.arange(n * n) + 0.5
    z, turn = 1 - 2 * i / (n * n), np.pi * (1 + 5**0.5) * i
    points = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=1)
    triangles = ConvexHull(points).simplices.astype(np.int64)
    a, b, c = (points[triangles[:, k]] for k in range(3))
    outward = (np.cross(b - a, c - a) * (a + b + c)).sum(1) > 0
    return points.astype(np.float32), np.where(outward[:, None], triangles, triangles[:, ::-1])


def plain(points, triangles, two_sided, colours, size):
    """Every pixel against every triangle, in float64."""
    image, depth = np.zeros((size, size, 3)), np.full((size, size), np.inf)
    y, x = np.mgrid[0:size, 0:size].astype(float)
    for f, corners in enumerate(triangles):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = points[corners].astype(float)
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0 or (area > 0 and f < two_sided):
            continue
        wb = ((cy - ay) * (x - ax) - (cx - ax) * (y - ay)) / area
        wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
        weights = np.stack([1 - wb - wc, wb, wc], -1)
        z = weights @ [az, bz, cz]
        drawn = (weights.min(-1) >= 0) & (z < depth)
        depth[drawn] = z[drawn]
        image[drawn] = (weights @ colours[corners])[drawn] * (0.45 if area > 0 else 1)
    return image, depth


def test_agrees_with_plain_rasteriser():
    rng = np.random.default_rng(1)
    points = rng.uniform(-4, 36, (40, 3)).astype(np.float32)
    triangles = rng.integers(0, 40, (30, 3))
    colours = rng.uniform(size=(40, 3)).astype(np.float32)
    image, depth = np.zeros((32, 32, 3), np.float32), np.full((32, 32), np.inf, np.float32)
    rasterise(points, triangles, 15, colours, image, depth)
    expected, expected_depth = plain(points, triangles, 15, colours, 32)
    same = np.isclose(depth, expected_depth, rtol=1e-3) | (np.isinf(depth) & np.isinf(expected_depth))
    assert same.mean() > 0.995  # a pixel centre on an edge may fall either way
    assert np.abs(image - expected)[same].max() < 1e-3


def test_order_of_triangles_does_not_matter():
    points, triangles = sphere()
    screen = points * 14 + 16
    colours = (points + 1) / 2
    images = []
    for order in (np.arange(len(triangles)), np.random.default_rng(0).permutation(len(triangles))):
        image, depth = np.zeros((32, 32, 3), np.float32), np.full((32, 32), np.inf, np.float32)
        rasterise(screen, triangles[order], 0, colours, image, depth)
        images.append(image)
    assert np.abs(images[0] - images[1]).max() < 1e-5


def test_normals_of_a_sphere_are_its_points():
    points, triangles = sphere()
    assert ((vertex_normals(points, triangles) * points).sum(axis=1) > 0.98).all()


def test_shading_falls_off_with_the_angle():
    normals = np.array([(0, 0, -1), (1, 0, 0), (0, 0, 1)], np.float32)
    albedo, light = np.full((3, 3), 0.5, np.float32), np.array([0, 0, -1], np.float32)
    colours = shade(normals, albedo, np.zeros(3, np.float32), light, np.ones(3, np.float32), 0.4, 0.6)
    assert np.allclose(colours[0], 0.5 * (0.4 + 0.6), atol=1e-6)
    assert np.allclose(colours[2], 0.5 * 0.4, atol=1e-6)
    assert colours[0, 0] > colours[1, 0] > colours[2, 0]


def test_resolve_averages_inside_the_box_and_shows_the_wall_outside():
    rng = np.random.default_rng(2)
    canvas = rng.uniform(size=(16, 24, 3)).astype(np.float32)
    wall = rng.uniform(size=(8, 12, 3)).astype(np.float32)
    frame = resolve(canvas, wall, np.zeros((8, 12), np.float32), 2, (2, 1, 9, 6))
    mean = canvas.reshape(8, 2, 12, 2, 3).mean(axis=(1, 3))
    expected = wall.copy()
    expected[1:6, 2:9] = mean[1:6, 2:9]
    assert np.abs(frame.astype(int) - np.round(expected * 255)).max() <= 1
