"""The built-in face model: a head that needs no download and no licence (199 shape and 29 expression modes).

Shape modes come from a Gaussian-process prior around the mean head (Lüthi et al. 2018, "Gaussian Process Morphable
Models"): a sum of Gaussian kernels from the scale of the skull to that of a nostril, nearly mirror-symmetric, with
rigid motion and size taken out because the pose holds them. Expression modes are the principal components of the facial
actions that speech needs. Nothing is random, and a finished head is kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_zoo.face import head_actions, head_anatomy, head_geometry, head_parts
from model_zoo.face.head_actions import ACTIVITY, DEFAULT_ACTIVITY, facial_actions
from model_zoo.face.head_geometry import HeadGeometry, build_geometry
from model_zoo.face.importers import load_face, save_face
from model_zoo.face.morphable import NUM_EXPRESSION, NUM_SHAPE, MorphableFace

# Kernels of the shape prior: standard deviation and correlation length, outer-eye distances (1 = 88 mm).
SCALES = ((0.055, 0.90), (0.028, 0.42), (0.013, 0.20))
SYMMETRY = 0.92  # correlation of a point's displacement with its mirror image's
_INDUCING = 300  # points of the Nyström approximation
_NYSTROM_MODES = 280  # of it that are kept: the 199, those that taking out rigid motion costs, and some to spare


@dataclass(frozen=True)
class ProceduralHead:
    """The built-in face with what the renderer and the animator need to know of it.

    Attributes:
        face: the face model.
        region: (V,) of head_parts.Region: what each vertex is made of.
        chart: (V, 2) azimuth and height of the skin's vertices, NaN on other parts.
        actions: names of the facial actions.
        action_coefficients: (A, 29) expression coefficients of every action at full strength.
        parts: rows of the separate meshes by name.
        lip_rings: (R, 48) rows from the vermilion border inwards; lid_rings: (2, R, 36) from the lid margins inwards.
    """

    face: MorphableFace
    region: Int[Tensor, "V"]
    chart: Float[Tensor, "V 2"]
    actions: tuple[str, ...]
    action_coefficients: Float[Tensor, "A 29"]
    parts: dict[str, Tensor]
    lip_rings: Int[Tensor, "R N"]
    lid_rings: Int[Tensor, "2 R M"]

    def expression(self, weights: Mapping[str, float | Tensor]) -> Float[Tensor, "*batch 29"]:
        """Expression coefficients of a mixture of actions, 1 = full strength; tensors of (*batch) weights broadcast.

        Raises:
            ValueError: there is no action of that name.
        """
        unknown = set(weights) - set(self.actions)
        if unknown:
            raise ValueError(f"no facial action {sorted(unknown)}; there are {', '.join(self.actions)}")
        total = torch.zeros(NUM_EXPRESSION)
        for name, weight in weights.items():
            total = total + torch.as_tensor(weight)[..., None] * self.action_coefficients[self.actions.index(name)]
        return total


def shape_prior(geometry: HeadGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Leading modes of the Gaussian process at the mesh's vertices.

    Returns:
        basis (V, 3, 199) with orthonormal columns and standard deviations (199,).
    """
    points = geometry.vertices
    rows = _farthest_points(points, _INDUCING)
    cross, inner = _kernel(points, points[rows]), _kernel(points[rows], points[rows])
    values, vectors = np.linalg.eigh(inner)
    leading = np.argsort(values)[::-1][:_NYSTROM_MODES]
    factor = cross @ (vectors[:, leading] / np.sqrt(values[leading]))  # (3V, m), factor factorᵀ ≈ the kernel matrix
    factor = _remove_similarity(factor, points, np.flatnonzero((points[:, 2] < 0.6) & (points[:, 1] < 1.5)))
    variances, rotation = np.linalg.eigh(factor.T @ factor)
    order = np.argsort(variances)[::-1][:NUM_SHAPE]
    std = np.sqrt(variances[order])
    basis = factor @ rotation[:, order] / std
    return _fix_signs(basis).reshape(*points.shape, NUM_SHAPE), std


def expression_modes(fields: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Principal components of facial actions (V, 3) that are active independently of one another.

    Returns:
        basis (V, 3, 29) with orthonormal columns, standard deviations (29,), and the actions' coefficients (A, 29).
    """
    full = np.stack([field.ravel() for field in fields.values()], axis=1)
    active = full * np.array([ACTIVITY.get(name, DEFAULT_ACTIVITY) for name in fields])
    basis, std, _ = np.linalg.svd(active, full_matrices=False)
    basis, std = _fix_signs(basis[:, :NUM_EXPRESSION]), std[:NUM_EXPRESSION]
    return basis.reshape(-1, 3, NUM_EXPRESSION), std, (basis.T @ full).T / std


def procedural_head() -> ProceduralHead:
    """The built-in head; the first call on a machine builds it (seconds), later ones read it from the cache."""
    folder = cache_folder() / "procedural_head" / _fingerprint()
    model, extras = folder / "face.safetensors", folder / "extras.safetensors"
    if not (model.exists() and extras.exists()):
        _build(model, extras)
    tensors = load_file(extras)
    coefficients = {name.split("/", 1)[1]: row for name, row in tensors.items() if name.startswith("action/")}
    return ProceduralHead(
        face=load_face(model),
        region=tensors["region"],
        chart=tensors["chart"],
        actions=tuple(coefficients),
        action_coefficients=torch.stack(list(coefficients.values())),
        parts={name.split("/", 1)[1]: rows for name, rows in tensors.items() if name.startswith("part/")},
        lip_rings=tensors["lip_rings"],
        lid_rings=tensors["lid_rings"],
    )


def procedural_face() -> MorphableFace:
    """The built-in face model on its own (see `procedural_head`)."""
    return procedural_head().face


def cache_folder() -> Path:
    """Where built things are kept: $TALKIN_CACHE, else talkin/ in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("TALKIN_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "talkin"


def _build(model: Path, extras: Path) -> None:
    geometry = build_geometry()
    fields = facial_actions(geometry)
    shape_basis, shape_std = shape_prior(geometry)
    expression_basis, expression_std, coefficients = expression_modes(fields)
    face = MorphableFace(
        mean=torch.tensor(geometry.vertices),
        shape_basis=torch.tensor(shape_basis),
        shape_std=torch.tensor(shape_std),
        expression_basis=torch.tensor(expression_basis),
        expression_std=torch.tensor(expression_std),
        triangles=torch.from_numpy(geometry.triangles),
        landmark_index=torch.from_numpy(geometry.landmark_index),
    )
    tensors = {"region": torch.from_numpy(geometry.region).long(), "chart": torch.from_numpy(geometry.chart).float()}
    tensors |= {f"action/{name}": torch.tensor(row).float() for name, row in zip(fields, coefficients, strict=True)}
    tensors |= {f"part/{name}": torch.from_numpy(rows).long() for name, rows in geometry.parts.items()}
    tensors |= {
        "lip_rings": torch.from_numpy(geometry.lip_rings),
        "lid_rings": torch.from_numpy(geometry.lid_rings),
    }
    save_face(face, model)
    temporary = extras.with_name(f".{extras.name}.{os.getpid()}.tmp")  # processes may build at once
    save_file(tensors, temporary)
    temporary.replace(extras)


def _fingerprint() -> str:
    """Changes whenever the code that makes the head does."""
    sources = (head_anatomy.__file__, head_geometry.__file__, head_parts.__file__, head_actions.__file__, __file__)
    return hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources)).hexdigest()[:16]


def _farthest_points(points: np.ndarray, count: int) -> np.ndarray:
    """Rows of a subset that covers the points evenly, denser on the face."""
    weight = np.where((points[:, 2] < 0.45) & (points[:, 1] < 1.5), 1.0, 0.4)
    chosen = [int(np.argmin(points[:, 2]))]
    distance = np.full(len(points), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1) * weight)
        chosen.append(int(np.argmax(distance)))
    return np.array(chosen)


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Covariance (3 Na, 3 Nb) of displacements at points (Na, 3) and (Nb, 3)."""
    flip = np.array([-1.0, 1.0, 1.0])
    # The symmetric part of a field f is (f + its mirror image) / √2: both halves then share one displacement.
    own, other = _scales(a, b), _scales(a, b * flip)
    blocks = own[..., None, None] * np.eye(3) + SYMMETRY * other[..., None, None] * np.diag(flip)
    return blocks.transpose(0, 2, 1, 3).reshape(3 * len(a), 3 * len(b)) / (1 + SYMMETRY)


def _scales(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = ((a[:, None] - b[None]) ** 2).sum(axis=-1)
    return sum(sigma**2 * np.exp(-squared / (2 * length**2)) for sigma, length in SCALES)


def _remove_similarity(factor: np.ndarray, points: np.ndarray, face_rows: np.ndarray) -> np.ndarray:
    """Take from each column of (3V, m) the translation, rotation and scaling that fit it best on the face."""
    centred = points - points[face_rows].mean(axis=0)
    moves = [np.broadcast_to(axis, points.shape) for axis in np.eye(3)]
    moves += [np.cross(axis, centred) for axis in np.eye(3)] + [centred]
    motion = np.stack([move.ravel() for move in moves], axis=1)  # (3V, 7)
    rows = (3 * face_rows[:, None] + np.arange(3)).ravel()
    return factor - motion @ np.linalg.lstsq(motion[rows], factor[rows], rcond=None)[0]


def _fix_signs(basis: np.ndarray) -> np.ndarray:
    """Make the largest entry of each column positive, so that the same model comes out on every machine."""
    largest = basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])]
    return basis * np.where(largest < 0, -1.0, 1.0)
