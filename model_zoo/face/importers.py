"""Face model files: the project's own format, and the importers that bring every model to one frame.

The model frame: x right, y down, z away from the camera, outer-eye distance 1 at the mean, e = 0 the neutral closed
mouth.
No format that can run code is read.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from model_zoo.face.morphable import MorphableFace

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
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
            temporary,
            metadata={"format": _FORMAT},
        )
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


def _last_active(std: torch.Tensor) -> int:
    active = torch.nonzero(std > 0)
    return int(active.max()) + 1 if active.numel() else 0
