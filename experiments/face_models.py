"""Imported face models by the content of their files: each is imported once."""

from __future__ import annotations

import hashlib
from pathlib import Path

from experiments.command_line import UserError
from model_zoo.face import basel, flame, ict, importers, model_frame, pca_builder, scans
from model_zoo.face.importers import import_face, load_face, save_face
from model_zoo.face.model_frame import ImportedFace
from model_zoo.face.morphable import MorphableFace
from model_zoo.face.pca_builder import Modes
from model_zoo.face.procedural import cache_folder

_SOURCES = (basel, flame, ict, importers, model_frame, pca_builder, scans)


def open_face(path: Path, landmarks: Path | None, expressions: Path | None) -> MorphableFace:
    """A face model from its .safetensors, or from any format that `import_face` knows, imported on first use.

    Raises:
        UserError: nothing is there.
        ValueError: the importer refuses it.
    """
    if not path.exists():
        raise UserError(f"face.model={path} does not exist: use `procedural`, or {importers.FORMATS}")
    if path.suffix == ".safetensors":
        return load_face(path)
    target = imported_path(path, landmarks, expressions)
    if not target.exists():
        save_face(import_face(path, landmarks, expressions).face, target)
    return load_face(target)


def imported_path(path: Path, landmarks: Path | None, expressions: Path | None) -> Path:
    """Where the import of these files is kept; it changes with their content and with the importers' code."""
    beside = expressions.parent / basel.TRIM_FILE if expressions is not None else None
    digest = hashlib.sha256()
    for source in (path, landmarks, expressions, beside, *(Path(str(module.__file__)) for module in _SOURCES)):
        files = sorted(file for file in source.rglob("*") if file.is_file()) if source and source.is_dir() else [source]
        for file in files:
            digest.update(_digest(file, source))
    return cache_folder() / "faces" / f"{path.name.split('.')[0]}-{digest.hexdigest()[:16]}.safetensors"


def describe(imported: ImportedFace) -> str:
    """What an import kept, in three lines."""
    face = imported.face
    return "\n".join(
        (
            f"{imported.source}: {face.num_vertices} vertices, {len(face.triangles)} triangles",
            f"shape:      {_describe_modes(imported.shape, face.num_active_shape)}",
            f"expression: {_describe_modes(imported.expression, face.num_active_expression)}",
        )
    )


def _describe_modes(modes: Modes, active: int) -> str:
    return (
        f"{active} active modes from {modes.given} given, {100 * modes.variance_kept:.2f}% of the variance kept "
        f"(relative residual {modes.residual:.3f})"
    )


def _digest(file: Path | None, source: Path | None) -> bytes:
    if file is None or source is None or not file.is_file():
        return b"-"
    with file.open("rb") as content:
        name = str(file.relative_to(source)) if source.is_dir() else ""
        return name.encode() + hashlib.file_digest(content, "sha256").digest()
