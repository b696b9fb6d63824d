"""A face model from head scans and facial blendshapes of one topology, as §3.1 of Song et al. 2020 builds its own.

    folder/scans/<anything>.obj|ply|off          registered neutral heads, one a person
    folder/blendshapes/neutral.obj, <others>     or a folder of these for each person

Scans are aligned rigidly; what is left of them varies about its mean, in at most 199 components. Each blendshape counts
by its difference to the neutral mesh beside it, 29 components about the neutral face. Meshes have x right, y up and z
towards the camera.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float, Int

from model_zoo.face.model_frame import ImportedFace, read_landmarks, to_model_frame
from model_zoo.face.morphable import NUM_EXPRESSION, NUM_SHAPE
from model_zoo.face.pca_builder import principal_modes
from model_zoo.face.wavefront import obj_triangles, obj_vertices

SCANS, BLENDSHAPES, _NEUTRAL = "scans", "blendshapes", "neutral"
_SUFFIXES = (".obj", ".ply", ".off")
_ALIGNMENTS = 3  # rounds of alignment to the mean; the mean settles in two


def import_scans(folder: str | os.PathLike[str], landmarks: str | os.PathLike[str] | None) -> ImportedFace:
    """Build a face model from a folder of scans and blendshapes.

    Args:
        folder: as above.
        landmarks: file of the 68 landmarks' vertices, from 0.

    Raises:
        ValueError: meshes are missing, can't be read, or differ in their vertices.
    """
    folder = Path(folder)
    scans = _meshes(folder / SCANS)
    people = [group for group in (folder / BLENDSHAPES, *sorted((folder / BLENDSHAPES).glob("*/"))) if _meshes(group)]
    if len(scans) < 2 or not people:
        raise ValueError(
            f"{folder}: {len(scans)} meshes in {SCANS}/ and {len(people)} sets in {BLENDSHAPES}/; give at least two "
            f"scans and one {_NEUTRAL} mesh with its blendshapes ({', '.join(_SUFFIXES)})"
        )
    first, triangles = _read(scans[0])
    landmark_index = read_landmarks(landmarks, len(first), str(folder))
    points = np.stack([first, *(_read(path, len(first))[0] for path in scans[1:])])
    points = align_rigidly(points)
    mean = points.mean(0)
    deltas = np.concatenate([_blendshape_deltas(group, mean) for group in people])
    return to_model_frame(
        f"{len(scans)} scans and {len(deltas)} blendshapes",
        mean,
        principal_modes((points - mean) / np.sqrt(len(points) - 1), NUM_SHAPE),
        principal_modes(deltas / np.sqrt(len(deltas)), NUM_EXPRESSION),
        triangles,
        landmark_index,
    )


def align_rigidly(points: Float[np.ndarray, "N V 3"]) -> Float[np.ndarray, "N V 3"]:
    """Turn and move heads onto their mean, which looks where the first one does; their sizes stay."""
    target = points[0]
    for _ in range(_ALIGNMENTS):
        points = np.stack([_onto(head, target) for head in points])
        target = points.mean(0)
    return points


def _onto(head: Float[np.ndarray, "V 3"], target: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "V 3"]:
    return (head - head.mean(0)) @ _rotation(head, target).T + target.mean(0)


def _rotation(head: Float[np.ndarray, "V 3"], target: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "3 3"]:
    """The rotation that brings a head closest to another (Kabsch 1976)."""
    left, _, right = np.linalg.svd((target - target.mean(0)).T @ (head - head.mean(0)))
    return left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right


def _blendshape_deltas(group: Path, mean: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "N V 3"]:
    """Differences of a person's blendshapes to the neutral mesh, turned as the mean head is."""
    paths = _meshes(group)
    neutral = [path for path in paths if path.stem.lower() == _NEUTRAL]
    others = [path for path in paths if path not in neutral]
    if len(neutral) != 1 or not others:
        raise ValueError(f"{group}: wants one mesh named {_NEUTRAL} and the blendshapes beside it")
    rest, _ = _read(neutral[0], len(mean))
    return np.stack([_read(path, len(mean))[0] - rest for path in others]) @ _rotation(rest, mean).T


def _meshes(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)


def _read(path: Path, num_vertices: int | None = None) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """Vertices in their order in the file, and triangles."""
    try:
        if path.suffix.lower() == ".obj":
            data = path.read_bytes()
            vertices, triangles = obj_vertices(data, path.stem), obj_triangles(data)
        else:
            mesh = trimesh.load_mesh(path, process=False, maintain_order=True)
            vertices, triangles = np.array(mesh.vertices, dtype=np.float64), np.array(mesh.faces, dtype=np.int64)
    except Exception as error:  # trimesh's readers raise whatever a damaged file leads them to
        raise ValueError(f"{path}: can't be read as a mesh ({' '.join(str(error).split())})") from error
    if len(vertices) == 0 or not np.isfinite(vertices).all():
        raise ValueError(f"{path}: a mesh without vertices, or with some that are not finite")
    if num_vertices is not None and len(vertices) != num_vertices:
        raise ValueError(f"{path}: {len(vertices)} vertices where the first scan has {num_vertices}; register it first")
    return vertices, triangles
