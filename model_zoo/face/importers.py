"""Face model files: the project's own format, and the importers that bring every model to one frame.

The model frame: x right, y down, z away from the camera, outer-eye distance 1 at the mean, e = 0 the neutral closed
mouth.
No format that can run code is read.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from model_zoo.face.morphable import NUM_EXPRESSION, NUM_SHAPE, MorphableFace
from model_zoo.functional.masks import OUTER_EYES

_FORMAT = "talkin-face-1"
_KEYS = (
    "mean",
    "shape_basis",
    "shape_std",
    "expression_basis",
    "expression_std",
    "triangles",
    "landmark_index",
)

# ICT-FaceKit, "light" release: vertices up to the irises; beyond them lie the lacrimal, eye-blend and occlusion shells.
_ICT_VERTICES = 24_591
_ICT_FACE_VERTICES = 9_409  # the face proper, where expressions act
_ICT_NEUTRAL = "generic_neutral_mesh"
_ICT_INDEX = "vertex_indices"


def save_face(face: MorphableFace, path: str | os.PathLike[str]) -> None:
    """Write a face model as .safetensors, padding left out; the file appears complete or not at all.

    Args:
        face: the model.
        path: target file; its folder is made when missing.
    """
    path = Path(path)
    tensors = {key: getattr(face, key) for key in _KEYS}
    for kind in ("shape", "expression"):
        active = _last_active(tensors[f"{kind}_std"])
        tensors[f"{kind}_std"] = tensors[f"{kind}_std"][:active]
        tensors[f"{kind}_basis"] = tensors[f"{kind}_basis"][..., :active]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        content = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        temporary.write_bytes(save(content, metadata={"format": _FORMAT}))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_face(path: str | os.PathLike[str]) -> MorphableFace:
    """Read a face model written by `save_face`.

    Raises:
        ValueError: the file is missing, is no such file (a pickle for example), lacks a tensor, or holds shapes or
            values that make no face.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such face model file")
    try:
        with safe_open(path, framework="pt") as file:
            missing = [key for key in _KEYS if key not in file.keys()]  # noqa: SIM118 (the handle is no mapping)
            if missing:
                raise ValueError(f"{path}: not a face model, lacks {', '.join(missing)}; write it with save_face")
            tensors = {key: file.get_tensor(key) for key in _KEYS}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a .safetensors face model ({error}); write it with save_face") from error
    for key in ("triangles", "landmark_index"):
        if tensors[key].dtype.is_floating_point:
            raise ValueError(f"{path}: {key} must hold integers, got {tensors[key].dtype}")
    try:
        return MorphableFace(**tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def import_ict(path: str | os.PathLike[str]) -> MorphableFace:
    """Import ICT-FaceKit (light), from its folder of OBJ files or the .tar(.xz) archive of it; nothing is unpacked.

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
        if name == _ICT_INDEX:
            index = _ict_index(data)
        elif name == _ICT_NEUTRAL:
            neutral = _obj_vertices(data, name), _obj_triangles(data)
        elif name.startswith("identity"):
            identities[name] = _obj_vertices(data, name)
        else:
            expressions[name] = _obj_vertices(data, name)
    if neutral is None or index is None or not identities:
        raise ValueError(f"{path}: not ICT-FaceKit, wants {_ICT_NEUTRAL}.obj, identity*.obj and {_ICT_INDEX}.json")
    names, landmark_index = index
    missing = sorted(set(names) - set(expressions))
    if missing:
        raise ValueError(f"{path}: ICT-FaceKit lacks the expressions {', '.join(missing[:5])}")
    (mean, triangles), keep = neutral, slice(0, _ICT_VERTICES)
    for name, vertices in (*identities.items(), *expressions.items()):
        if vertices.shape != mean.shape:
            raise ValueError(f"{path}: {name} has {len(vertices)} vertices, the neutral mesh {len(mean)}")
    shape = np.stack([identities[name][keep] - mean[keep] for name in sorted(identities)][:NUM_SHAPE])
    deltas = np.stack([expressions[name][keep] - mean[keep] for name in names])
    return _build_face(
        mean[keep] * (1, -1, -1),  # y up, z towards the camera
        shape * (1, -1, -1),
        _principal(deltas, slice(0, _ICT_FACE_VERTICES)) * (1, -1, -1),
        triangles[(triangles < _ICT_VERTICES).all(1)],
        landmark_index,
    )


def _ict_index(data: bytes) -> tuple[list[str], np.ndarray]:
    """Names of the expressions and landmark vertices from vertex_indices.json."""
    try:
        index = json.loads(data)
        return list(index["expressions"]), np.asarray(index["idx_to_landmark_verts"], dtype=np.int64)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{_ICT_INDEX}.json: wants expressions and idx_to_landmark_verts ({error!r})") from error


def _build_face(
    mean: np.ndarray, shape: np.ndarray, expression: np.ndarray, triangles: np.ndarray, landmark_index: np.ndarray
) -> MorphableFace:
    """Face from modes of one standard deviation (modes, V, 3), scaled to outer-eye distance 1 with the eyes at 0."""
    left, right = mean[landmark_index[list(OUTER_EYES)]]
    scale = 1 / np.linalg.norm(right - left)
    modes = {}
    for name, deltas in (("shape", shape), ("expression", expression)):
        std = np.linalg.norm(deltas, axis=(1, 2))
        unit = deltas / np.where(std > 0, std, 1)[:, None, None]
        modes[f"{name}_basis"] = torch.from_numpy(unit.transpose(1, 2, 0).astype(np.float32))
        modes[f"{name}_std"] = torch.from_numpy((std * scale).astype(np.float32))
    return MorphableFace(
        mean=torch.from_numpy(((mean - (left + right) / 2) * scale).astype(np.float32)),
        triangles=torch.from_numpy(triangles.astype(np.int64)),
        landmark_index=torch.from_numpy(landmark_index.astype(np.int64)),
        **modes,
    )


def _principal(deltas: np.ndarray, rows: slice) -> np.ndarray:
    """The first 29 principal deltas (uncentred SVD over the vertices `rows`), for coefficients of about unit scale."""
    directions, _, _ = np.linalg.svd(deltas[:, rows].reshape(len(deltas), -1), full_matrices=False)
    mix = directions[:, :NUM_EXPRESSION].T / np.sqrt(len(deltas))
    return np.tensordot(mix, deltas, axes=1)


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


def _obj_vertices(data: bytes, name: str) -> np.ndarray:
    """(V, 3) vertices of a Wavefront OBJ."""
    lines = [line[2:] for line in data.splitlines() if line.startswith(b"v ")]
    try:
        return np.array(b" ".join(lines).split(), dtype=np.float64).reshape(len(lines), 3)
    except ValueError as error:
        raise ValueError(f"{name}.obj: vertices are not three numbers a line") from error


def _obj_triangles(data: bytes) -> np.ndarray:
    """(F, 3) triangles of a Wavefront OBJ, larger polygons cut into fans."""
    triangles: list[tuple[int, int, int]] = []
    for line in data.splitlines():
        if line.startswith(b"f "):
            corners = [int(corner.split(b"/")[0]) - 1 for corner in line.split()[1:]]
            triangles.extend((corners[0], second, third) for second, third in pairwise(corners[1:]))
    return np.asarray(triangles, dtype=np.int64).reshape(-1, 3)


def _last_active(std: torch.Tensor) -> int:
    active = torch.nonzero(std > 0)
    return int(active.max()) + 1 if active.numel() else 0
