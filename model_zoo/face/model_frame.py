"""What every importer shares: checked reading of a model's arrays, and the model frame that all of them end in.

The sources agree in their axes: x right as the camera sees it, y up, z towards the camera. The model frame has x right,
y down, z away, outer-eye distance 1 at the mean and the eyes' middle at 0.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from model_zoo.face.morphable import NUM_LANDMARKS, MorphableFace
from model_zoo.face.pca_builder import Modes
from model_zoo.functional.masks import OUTER_EYES

_TO_MODEL_FRAME = np.array([1.0, -1.0, -1.0])
_CHIN, _NOSE_TIP, _JAW_ENDS = 8, 30, (0, 16)  # iBUG 68 order


@dataclass(frozen=True)
class ImportedFace:
    """A face model that was brought to the model frame, and what came with it.

    Attributes:
        face: the model.
        source: name of the format.
        shape: modes of identity, source units and axes.
        expression: modes of expression, likewise.
    """

    face: MorphableFace
    source: str
    shape: Modes
    expression: Modes


@dataclass(frozen=True)
class ModelFile:
    """Arrays of a model file by key; each is checked when it is taken.

    Attributes:
        path: for messages.
        wants: the format and its keys, for messages: "Basel 2009 has shapeMU, …".
        content: arrays by key.
    """

    path: Path
    wants: str
    content: Mapping[str, np.ndarray]

    def array(self, key: str, *shape: int | None) -> np.ndarray:
        """A finite array of floats; None in `shape` takes any length, and (N, 1) or (1, N) serves as (N,).

        Raises:
            ValueError: the key is missing, the shape differs, or it holds no finite numbers.
        """
        value = self._get(key)
        if len(shape) == 1 and value.ndim == 2 and 1 in value.shape:
            value = value.reshape(-1)
        if value.ndim != len(shape) or any(
            want not in (None, have) for want, have in zip(shape, value.shape, strict=True)
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"{self.path}: {key} must be ({wanted}), got {value.shape}; {self.wants}")
        if value.dtype.kind not in "fiu":
            raise ValueError(f"{self.path}: {key} must hold numbers, got {value.dtype}; {self.wants}")
        value = value if value.dtype.kind == "f" else value.astype(np.float64)
        if not np.isfinite(value).all():
            raise ValueError(f"{self.path}: {key} has values that are not finite; get the file anew")
        return value

    def points(self, key: str, num_vertices: int | None = None) -> np.ndarray:
        """(V, 3) points from a vector x₀ y₀ z₀ x₁ …"""
        value = self.array(key, None if num_vertices is None else 3 * num_vertices)
        if len(value) % 3:
            raise ValueError(f"{self.path}: {key} has {len(value)} values, not three a vertex; {self.wants}")
        return value.reshape(-1, 3)

    def modes(self, key: str, std: np.ndarray, num_vertices: int) -> np.ndarray:
        """(M, V, 3) displacements of one standard deviation from columns (3V, M) and their deviations."""
        columns = self.array(key, 3 * num_vertices, len(std))
        return (columns * std.astype(columns.dtype)).T.reshape(len(std), num_vertices, 3)

    def deviations(self, key: str) -> np.ndarray:
        """(M,) standard deviations or variances.

        Raises:
            ValueError: as `array`, or one is negative.
        """
        value = self.array(key, None)
        if (value < 0).any():
            raise ValueError(f"{self.path}: {key} has negative values; get the file anew")
        return value

    def indices(self, key: str, num_vertices: int, first: int, *shape: int | None) -> np.ndarray:
        """Vertex indices from 0, of a format that counts from `first`.

        Raises:
            ValueError: as `array`, or one is no vertex.
        """
        value = self.array(key, *shape)
        if (value != np.round(value)).any() or (value < first).any() or (value >= num_vertices + first).any():
            raise ValueError(
                f"{self.path}: {key} must hold vertices {first}..{num_vertices + first - 1}, "
                f"got {value.min():g}..{value.max():g}; {self.wants}"
            )
        return value.astype(np.int64) - first

    def _get(self, key: str) -> np.ndarray:
        if key not in self.content:
            raise ValueError(f"{self.path}: lacks {key}; {self.wants}")
        return np.asarray(self.content[key])


def read_landmarks(
    path: str | os.PathLike[str] | None, num_vertices: int, source: str
) -> Int[np.ndarray, "{NUM_LANDMARKS}"]:
    """The vertices of the 68 iBUG landmarks from .json (a list), .txt (numbers) or .npy, counted from 0.

    Args:
        path: the file.
        num_vertices: of the imported mesh.
        source: the face model that needs them, for messages.

    Raises:
        ValueError: there is no file, or not 68 vertices of this mesh in it.
    """
    if path is None:
        raise ValueError(
            f"{source} carries no landmarks: add landmarks=<.json, .txt or .npy of the {NUM_LANDMARKS} iBUG landmarks' "
            f"vertices, counted from 0>"
        )
    path = Path(path)
    try:
        if path.suffix == ".json":
            values = np.asarray(json.loads(path.read_text()))
        elif path.suffix == ".npy":
            values = np.asarray(np.load(path, allow_pickle=False))
        else:
            values = np.array(path.read_text().replace(",", " ").split(), dtype=np.float64)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: landmarks can't be read from .json, .txt or .npy ({error})") from error
    remedy = f"give the vertices of the {NUM_LANDMARKS} iBUG landmarks, counted from 0"
    values = values.reshape(-1) if values.dtype.kind in "iuf" else np.empty(0)
    if len(values) != NUM_LANDMARKS:
        raise ValueError(f"{path}: wants {NUM_LANDMARKS} landmark vertices, got {len(values)}; {remedy}")
    if not (values == np.round(values)).all() or values.min() < 0 or values.max() >= num_vertices:
        raise ValueError(
            f"{path}: landmark vertices must be whole numbers 0..{num_vertices - 1}, "
            f"got {values.min():g}..{values.max():g}; {remedy}"
        )
    return values.astype(np.int64)


def to_model_frame(
    source: str,
    mean: Float[np.ndarray, "V 3"],
    shape: Modes,
    expression: Modes,
    triangles: Int[np.ndarray, "F 3"],
    landmark_index: Int[np.ndarray, "68"],
) -> ImportedFace:
    """Turn, move and scale a model into the model frame.

    Raises:
        ValueError: the landmarks do not lie as on a face that looks at the camera, or `MorphableFace` refuses it.
    """
    points = mean.astype(np.float64) * _TO_MODEL_FRAME
    _check_landmarks(points[landmark_index], source)
    left, right = points[landmark_index[list(OUTER_EYES)]]
    scale = 1 / np.linalg.norm(right - left)
    tensors = {}
    for name, modes in (("shape", shape), ("expression", expression)):
        std = np.sqrt(np.einsum("mvc,mvc->m", modes.deltas, modes.deltas, dtype=np.float64))
        unit = modes.deltas * (_TO_MODEL_FRAME / np.where(std > 0, std, 1)[:, None, None]).astype(modes.deltas.dtype)
        tensors[f"{name}_basis"] = torch.from_numpy(unit.transpose(1, 2, 0).astype(np.float32))
        tensors[f"{name}_std"] = torch.from_numpy((std * scale).astype(np.float32))
    face = MorphableFace(
        mean=torch.from_numpy(((points - (left + right) / 2) * scale).astype(np.float32)),
        triangles=torch.from_numpy(triangles.astype(np.int64)),
        landmark_index=torch.from_numpy(landmark_index.astype(np.int64)),
        **tensors,
    )
    return ImportedFace(face, source, shape, expression)


def _check_landmarks(points: Float[np.ndarray, "68 3"], source: str) -> None:
    """A wrong or misordered index file, or other axes, show in how these few points lie."""
    left, right = points[list(OUTER_EYES)]
    eyes = (left + right) / 2
    lies_right = {
        "the outer eye corners (36, 45) from left to right": right[0] - left[0] > abs(right[1] - left[1]),
        f"the chin ({_CHIN}) below the eyes": points[_CHIN, 1] > eyes[1],
        f"the nose tip ({_NOSE_TIP}) in front of the jaw's ends (0, 16)": points[_NOSE_TIP, 2]
        < points[list(_JAW_ENDS), 2].min(),
    }
    for what, holds in lies_right.items():
        if not holds:
            raise ValueError(
                f"{source}: the mean does not have {what}; give the {NUM_LANDMARKS} iBUG landmarks of this mesh in "
                f"order, and a mesh with x right, y up and z towards the camera"
            )
