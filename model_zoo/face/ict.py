"""ICT-FaceKit (Li et al. 2020), light release: 100 identities and 53 expressions as OBJ meshes."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model_zoo.face.model_frame import ImportedFace, to_model_frame
from model_zoo.face.morphable import NUM_EXPRESSION, NUM_LANDMARKS, NUM_SHAPE
from model_zoo.face.pca_builder import fitting_modes, principal_modes
from model_zoo.face.wavefront import obj_triangles, obj_vertices

NEUTRAL = "generic_neutral_mesh"
_INDEX = "vertex_indices"
_VERTICES = 24_591  # up to the irises; beyond them lie the lacrimal, eye-blend and occlusion shells
_FACE_VERTICES = 9_409  # the face proper, where expressions act


def import_ict_facekit(path: str | os.PathLike[str]) -> ImportedFace:
    """Import ICT-FaceKit from its folder of OBJ files or the .tar(.xz) archive of it; nothing is unpacked.

    All identity deltas as given are the shape modes. The 53 expression deltas become 29 modes by an uncentred SVD over
    the vertices of the face; divided by √53 they have coefficients of about unit scale.

    Args:
        path: folder that holds `generic_neutral_mesh.obj`, `identity*.obj`, the expressions and `vertex_indices.json`
            at any depth, or an archive of it.

    Raises:
        ValueError: a file is missing, or a mesh does not match the neutral one.
    """
    neutral, identities, expressions, index = None, {}, {}, None
    for name, data in _read_members(Path(path), (".obj", ".json")):
        if name == _INDEX:
            index = _read_index(data)
        elif name == NEUTRAL:
            neutral = obj_vertices(data, name), obj_triangles(data)
        elif name.startswith("identity"):
            identities[name] = obj_vertices(data, name)
        else:
            expressions[name] = obj_vertices(data, name)
    if neutral is None or index is None or not identities:
        raise ValueError(f"{path}: not ICT-FaceKit, wants {NEUTRAL}.obj, identity*.obj and {_INDEX}.json")
    names, landmark_index = index
    missing = sorted(set(names) - set(expressions))
    if missing:
        raise ValueError(f"{path}: ICT-FaceKit lacks the expressions {', '.join(missing[:5])}")
    (mean, triangles), keep = neutral, slice(0, _VERTICES)
    for name, vertices in ((NEUTRAL, mean), *identities.items(), *expressions.items()):
        if vertices.shape != mean.shape:
            raise ValueError(f"{path}: {name} has {len(vertices)} vertices, the neutral mesh {len(mean)}")
        if not np.isfinite(vertices).all():
            raise ValueError(f"{path}: {name} has vertices that are not finite; get the file anew")
    if landmark_index.shape != (NUM_LANDMARKS,) or landmark_index.min() < 0 or landmark_index.max() >= len(mean[keep]):
        raise ValueError(f"{path}: {_INDEX}.json must name {NUM_LANDMARKS} vertices 0..{len(mean[keep]) - 1}")
    shape = np.stack([identities[name][keep] - mean[keep] for name in sorted(identities)])
    deltas = np.stack([expressions[name][keep] - mean[keep] for name in names])
    return to_model_frame(
        "ICT-FaceKit",
        mean[keep],
        fitting_modes(shape, NUM_SHAPE),
        principal_modes(deltas / np.sqrt(len(deltas)), NUM_EXPRESSION, slice(0, _FACE_VERTICES)),
        triangles[(triangles < _VERTICES).all(1)],
        landmark_index,
    )


def _read_index(data: bytes) -> tuple[list[str], np.ndarray]:
    """Names of the expressions and landmark vertices from vertex_indices.json."""
    try:
        index = json.loads(data)
        return list(index["expressions"]), np.asarray(index["idx_to_landmark_verts"], dtype=np.int64)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{_INDEX}.json: wants expressions and idx_to_landmark_verts ({error!r})") from error


def _read_members(path: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """(stem, content) of the files with these suffixes, in a folder or a tar archive, whatever their depth."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix in suffixes and file.is_file():
                yield file.stem, file.read_bytes()
        return
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = Path(member.name)
                content = archive.extractfile(member) if member.isfile() and name.suffix in suffixes else None
                if content is not None:
                    yield name.stem, content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{path}: neither a folder nor a readable tar archive ({error})") from error
