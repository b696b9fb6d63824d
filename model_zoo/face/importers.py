"""Face model files: the project's own format, and the way in for every other.

All formats end in the model frame: x right, y down, z away from the camera, outer-eye distance 1 at the mean, e = 0 the
neutral closed mouth. No format that can run code is read.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from model_zoo.face import basel, flame, ict, scans
from model_zoo.face.model_frame import ImportedFace
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
FORMATS = (
    "Basel 2009 (.mat), Basel 2017/2019 (.h5), FLAME (.npz), ICT-FaceKit (folder or .tar.xz), "
    "or a folder with scans/ and blendshapes/"
)
_HDF5, _MATLAB_5, _ZIP = b"\x89HDF\r\n\x1a\n", b"MATLAB", b"PK\x03\x04"
_PICKLE = b"\x80"  # protocol 2 and later
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth")


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


def import_face(
    path: str | os.PathLike[str],
    landmarks: str | os.PathLike[str] | None = None,
    expressions: str | os.PathLike[str] | None = None,
) -> ImportedFace:
    """Import a face model of any known format, told apart by content.

    Args:
        path: file or folder of the model.
        landmarks: the 68 landmarks' vertices (see `read_landmarks`), for all but ICT-FaceKit, which has its own.
        expressions: 3DDFA's expression basis, for Basel 2009, which has none.

    Raises:
        ValueError: the format is not known, an input is missing or would be ignored, or the importer refuses it.
    """
    path = Path(path)
    start = _first_bytes(path)
    is_basel_2009 = start.startswith(_MATLAB_5)
    is_ict = path.is_dir() and next(path.rglob(f"{ict.NEUTRAL}.obj"), None) is not None
    is_ict = is_ict or (path.is_file() and tarfile.is_tarfile(path))
    if expressions is not None and not is_basel_2009:
        raise ValueError(f"{path}: only Basel 2009 takes expressions from a file of their own; leave expressions= out")
    if landmarks is not None and is_ict:
        raise ValueError(f"{path}: ICT-FaceKit carries its own landmarks; leave landmarks= out")
    if is_basel_2009:
        return basel.import_basel_2009(path, landmarks, expressions)
    if start.startswith(_HDF5):
        return basel.import_basel_h5(path, landmarks)
    if is_ict:
        return ict.import_ict_facekit(path)
    if (path / scans.SCANS).is_dir():
        return scans.import_scans(path, landmarks)
    if start.startswith(_PICKLE) or path.suffix in _PICKLE_SUFFIXES:
        raise ValueError(f"{path}: a pickle runs code when read, so it is not; {flame.CONVERSION}")
    if start.startswith(_ZIP):
        return flame.import_flame(path, landmarks)
    if path.suffix == ".safetensors":
        raise ValueError(f"{path}: imported already; use it as face.model={path}")
    raise ValueError(f"{path}: not a known face model; there are {FORMATS}")


def import_ict(path: str | os.PathLike[str]) -> MorphableFace:
    """ICT-FaceKit as a face model (see `import_ict_facekit`)."""
    return ict.import_ict_facekit(path).face


def _first_bytes(path: Path) -> bytes:
    """The start of a file, empty for a folder.

    Raises:
        ValueError: there is nothing at that path, or it can't be read.
    """
    if path.is_dir():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}; give a face model: {FORMATS}") from error


def _last_active(std: torch.Tensor) -> int:
    active = torch.nonzero(std > 0)
    return int(active.max()) + 1 if active.numel() else 0
