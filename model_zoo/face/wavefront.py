"""Wavefront OBJ meshes, vertex by vertex as they stand in the file.

trimesh leaves out vertices that no polygon uses, which would renumber the landmarks.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int


def obj_vertices(data: bytes, name: str) -> Float[np.ndarray, "V 3"]:
    """Vertices; colours behind the coordinates are left out.

    Raises:
        ValueError: a vertex has not three numbers.
    """
    lines = [line[2:] for line in data.splitlines() if line.startswith(b"v ")]
    try:
        values = np.array(b" ".join(lines).split(), dtype=np.float64).reshape(len(lines), -1)
    except ValueError as error:
        raise ValueError(f"{name}.obj: vertices are not three numbers a line") from error
    if values.shape[1] not in (3, 4, 6):  # x y z, x y z w, x y z r g b
        raise ValueError(f"{name}.obj: vertices are not three numbers a line")
    return values[:, :3]


def obj_triangles(data: bytes) -> Int[np.ndarray, "F 3"]:
    """Triangles, larger polygons cut into fans."""
    triangles: list[tuple[int, int, int]] = []
    for line in data.splitlines():
        if line.startswith(b"f "):
            corners = [int(corner.split(b"/")[0]) - 1 for corner in line.split()[1:]]
            triangles.extend((corners[0], second, third) for second, third in pairwise(corners[1:]))
    return np.asarray(triangles, dtype=np.int64).reshape(-1, 3)
