"""A z-buffer with Gouraud shading, compiled once for the CPU."""

from __future__ import annotations

import numba
import numpy as np

WRAP = 0.30  # how far light reaches round skin, which lets it through: cosine at which it ends


@numba.njit(cache=True, nogil=True, fastmath=True)
def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals (V, 3) of a mesh with (V, 3) vertices and (F, 3) triangles."""
    normals = np.zeros_like(vertices)
    for f in range(triangles.shape[0]):
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        ux, uy, uz = (vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2])
        wx, wy, wz = (vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2])
        nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for i in (a, b, c):
            normals[i, 0] += nx
            normals[i, 1] += ny
            normals[i, 2] += nz
    for i in range(normals.shape[0]):
        length = np.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2) + 1e-12
        for k in range(3):
            normals[i, k] /= length
    return normals


@numba.njit(cache=True, nogil=True, fastmath=True)
def rasterise(
    points: np.ndarray,
    triangles: np.ndarray,
    two_sided: int,
    colours: np.ndarray,
    image: np.ndarray,
    depth: np.ndarray,
) -> None:
    """Draw a mesh into `image` wherever it is nearer than `depth`; both change in place.

    Args:
        points: (V, 3) float32, x and y in pixels with pixel centres at integers, z away from the camera.
        triangles: (F, 3), counter-clockwise seen from outside; those turned away from the camera are left out, but
            from row `two_sided` on they are drawn too, darker.
        colours: (V, 3) float32, interpolated over each triangle.
        image: (H, W, 3) float32. depth: (H, W) float32.
    """
    height, width = depth.shape
    for f in range(triangles.shape[0]):
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        ax, ay, az = points[a, 0], points[a, 1], points[a, 2]
        bx, by, bz = points[b, 0], points[b, 1], points[b, 2]
        cx, cy, cz = points[c, 0], points[c, 1], points[c, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        level = np.float32(1)
        if area >= 0:  # outward normals are right-handed and the camera looks along +z
            if f < two_sided or area == 0:
                continue
            level = np.float32(0.45)
        y0 = max(0, int(np.ceil(min(ay, by, cy))))
        y1 = min(height - 1, int(np.floor(max(ay, by, cy))))
        x0 = max(0, int(np.ceil(min(ax, bx, cx))))
        x1 = min(width - 1, int(np.floor(max(ax, bx, cx))))
        if x0 > x1 or y0 > y1:
            continue
        # Barycentric weights of b and c are affine in x and y.
        inv = np.float32(1) / area
        wb_x, wb_y = (cy - ay) * inv, (ax - cx) * inv
        wc_x, wc_y = (ay - by) * inv, (bx - ax) * inv
        ra, ga, ba = level * colours[a, 0], level * colours[a, 1], level * colours[a, 2]
        rb, gb, bb = level * colours[b, 0] - ra, level * colours[b, 1] - ga, level * colours[b, 2] - ba
        rc, gc, bc = level * colours[c, 0] - ra, level * colours[c, 1] - ga, level * colours[c, 2] - ba
        zb, zc = bz - az, cz - az
        edge = np.float32(-1e-6)
        for y in range(y0, y1 + 1):
            wb = wb_x * (x0 - ax) + wb_y * (y - ay)
            wc = wc_x * (x0 - ax) + wc_y * (y - ay)
            for x in range(x0, x1 + 1):
                if wb >= edge and wc >= edge and wb + wc <= np.float32(1) - edge:
                    z = az + wb * zb + wc * zc
                    if z < depth[y, x]:
                        depth[y, x] = z
                        image[y, x, 0] = ra + wb * rb + wc * rc
                        image[y, x, 1] = ga + wb * gb + wc * gc
                        image[y, x, 2] = ba + wb * bb + wc * bc
                wb += wb_x
                wc += wc_x


@numba.njit(cache=True, nogil=True, fastmath=True)
def shade(
    normals: np.ndarray,
    albedo: np.ndarray,
    gloss: np.ndarray,
    light: np.ndarray,
    tint: np.ndarray,
    ambient: float,
    diffuse: float,
) -> np.ndarray:
    """Colours (V, 3) in display RGB: ambient light stronger from above, wrapped Lambert, and a Blinn-Phong highlight.

    Args:
        normals: (V, 3) unit. albedo: (V, 3). gloss: (V,) strength of the highlight.
        light: (3,) unit vector towards the light. tint: (3,) its colour.
    """
    colours = np.empty_like(albedo)
    hx, hy, hz = light[0], light[1], light[2] - 1  # halfway between the light and the viewer at -z
    length = np.sqrt(hx * hx + hy * hy + hz * hz)
    hx, hy, hz = hx / length, hy / length, hz / length
    for i in range(normals.shape[0]):
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        lambert = (nx * light[0] + ny * light[1] + nz * light[2] + WRAP) / (1 + WRAP)
        level = ambient * (1 - 0.18 * ny) + diffuse * max(lambert, 0.0)
        shine = max(nx * hx + ny * hy + nz * hz, 0.0)
        shine = gloss[i] * shine**24
        for k in range(3):
            colours[i, k] = albedo[i, k] * level * tint[k] + shine
    return colours


@numba.njit(cache=True, nogil=True, fastmath=True)
def resolve(
    canvas: np.ndarray, wall: np.ndarray, noise: np.ndarray, factor: int, box: tuple[int, int, int, int]
) -> np.ndarray:
    """Frame (H, W, 3) uint8: the mean of factor x factor samples of the canvas inside the box, the wall outside it.

    Args:
        canvas: (H f, W f, 3) in [0, 1]. wall: (H, W, 3) in [0, 1].
        noise: at least (H, W), grey levels, added to all.
        box: x0, y0, x1, y1 in pixels of the frame, the ends excluded.
    """
    height, width = wall.shape[:2]
    frame = np.empty((height, width, 3), np.uint8)
    share, full = np.float32(255.0 / (factor * factor)), np.float32(255)
    half, zero = np.float32(0.5), np.float32(0)
    x0, y0, x1, y1 = box
    for y in range(height):
        for x in range(width):
            grain = noise[y, x] + half
            drawn = y0 <= y < y1 and x0 <= x < x1
            for k in range(3):
                if drawn:
                    total = zero
                    for dy in range(factor):
                        for dx in range(factor):
                            total += canvas[y * factor + dy, x * factor + dx, k]
                    level = total * share + grain
                else:
                    level = wall[y, x, k] * full + grain
                frame[y, x, k] = np.uint8(min(max(level, zero), full))
    return frame
