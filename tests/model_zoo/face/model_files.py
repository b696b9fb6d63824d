"""Small face models in the published file formats: Basel 2009 and 2017, 3DDFA, FLAME, scans and blendshapes.

Sources have x right, y up and z towards the camera; vertices 0..67 of each mean are the landmarks.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat

from tests.model_zoo.face.small_face import template

TRIM_FIRST = 3  # vertices that 3DDFA leaves out, at the start so that numbers shift


def source_mean(num_vertices: int, seed: int = 0) -> np.ndarray:
    """(V, 3) landmarks of a face, then others about it; 90 units between the eyes, off the origin."""
    rng = np.random.default_rng(seed)
    face = template().numpy().astype(np.float64)
    others = rng.uniform(face.min(0), face.max(0), (num_vertices - len(face), 3))
    return np.concatenate((face, others)) * (90, -90, -90) + (5, -20, 40)


def orthonormal(num_vertices: int, count: int, seed: int) -> np.ndarray:
    """(3V, M) orthonormal columns."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((3 * num_vertices, count)))[0]


def triangles(num_vertices: int) -> np.ndarray:
    """(F, 3) a strip over all vertices, from 0."""
    return np.arange(num_vertices - 2)[:, None] + np.arange(3)


def to_frame(points: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Model frame by hand: half a turn about x, eye midpoint to 0, outer-eye distance to 1."""
    middle, size = (mean[36] + mean[45]) / 2, np.linalg.norm(mean[36] - mean[45])
    return (points - middle) / size * (1, -1, -1)


def write_landmarks(folder: Path) -> Path:
    (folder / "landmarks.json").write_text(json.dumps(list(range(68))))
    return folder / "landmarks.json"


def basel_2009(num_vertices: int = 90) -> dict[str, np.ndarray]:
    """As in 01_MorphableModel.mat: single precision columns, triangles from 1."""
    # the trimmed vertices stand before the landmarks
    mean = np.concatenate((np.full((TRIM_FIRST, 3), 7.0), source_mean(num_vertices - TRIM_FIRST)))
    return {
        "shapeMU": mean.reshape(-1, 1).astype(np.float32),
        "shapePC": orthonormal(num_vertices, 199, 1).astype(np.float32),
        "shapeEV": np.linspace(50, 1, 199)[:, None].astype(np.float32),
        "tl": triangles(num_vertices) + 1.0,
    }


def expressions_3ddfa(num_vertices: int = 90) -> dict[str, np.ndarray]:
    """As in Model_Expression.mat and model_info.mat, on the vertices that trimIndex keeps, from 1."""
    keep = np.arange(TRIM_FIRST, num_vertices)
    basis = orthonormal(len(keep), 29, 2)
    return {
        "w_exp": basis,
        "mu_exp": (basis @ np.linspace(3, 0, 29))[:, None],
        "sigma_exp": np.linspace(20, 2, 29)[:, None],
        "trimIndex": keep[:, None] + 1,
    }


def write_basel_2009(folder: Path, **changed: np.ndarray | None) -> tuple[Path, Path]:
    """The model and 3DDFA's expressions; keyword arguments replace arrays, or leave them out (None)."""
    paths = folder / "01_MorphableModel.mat", folder / "Model_Expression.mat"
    for path, content in zip(paths, (basel_2009(), expressions_3ddfa()), strict=True):
        arrays = {key: changed.get(key, value) for key, value in content.items()}
        savemat(path, {key: value for key, value in arrays.items() if value is not None})
    return paths


def basel_2017(num_vertices: int = 80, num_expressions: int = 100) -> dict[str, np.ndarray]:
    """As in model2017-1_*.h5: variances, cells (3, F) from 0."""
    return {
        "shape/model/mean": source_mean(num_vertices).reshape(-1).astype(np.float32),
        "shape/model/pcaBasis": orthonormal(num_vertices, 199, 3).astype(np.float32),
        "shape/model/pcaVariance": np.linspace(50, 1, 199) ** 2,
        "expression/model/mean": np.random.default_rng(4).standard_normal(3 * num_vertices),
        "expression/model/pcaBasis": orthonormal(num_vertices, num_expressions, 5),
        "expression/model/pcaVariance": (20 * 0.9 ** np.arange(num_expressions)) ** 2,
        "shape/representer/cells": triangles(num_vertices).T.astype(np.int32),
    }


def write_basel_2017(folder: Path, content: dict[str, np.ndarray]) -> Path:
    path = folder / "model2017-1_bfm_nomouth.h5"
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            file[key] = value
    return path


def flame(num_vertices: int = 150) -> dict[str, np.ndarray]:
    """FLAME's arrays, metres; the lower face follows the jaw, expressions are a tenth of an eye distance."""
    rng = np.random.default_rng(6)
    mean = source_mean(num_vertices) / 1000
    columns = orthonormal(num_vertices, 400, 7) if 3 * num_vertices >= 400 else None
    assert columns is not None
    strength = np.concatenate((0.02 * 0.98 ** np.arange(300), 0.01 * 0.8 ** np.arange(100)))
    lower = 1 / (1 + np.exp((mean[:, 1] + 0.05) / 0.01))
    regressor = rng.uniform(0, 1, (5, num_vertices))
    weights = np.zeros((num_vertices, 5))
    weights[:, 2], weights[:, 1] = lower, 1 - lower
    return {
        "v_template": mean,
        "shapedirs": (columns * strength).reshape(num_vertices, 3, 400),
        "posedirs": 0.001 * rng.standard_normal((num_vertices, 3, 36)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights,
        "f": triangles(num_vertices).astype(np.uint32),
        "kintree_table": np.array([[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
    }


def write_flame(folder: Path, content: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "flame.npz", **content)
    return folder / "flame.npz"
