"""The Basel Face Models: 2009 with the 29 expressions of 3DDFA (199 + 29, the sizes of §3.1 of Song et al. 2020), and
2017/2019 with expressions of their own.

Basel 2009 (Paysan et al.): 53,490 vertices, `shapeEV` are standard deviations, `tl` counts from 1. The expression basis
that 3DDFA (Zhu et al. 2016) derives from FaceWarehouse lives on 53,215 of them, `trimIndex` from 1.
Basel 2017/2019 (Gerig et al.): statismo HDF5, `pcaVariance` are variances, `cells` count from 0.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import h5py
import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from model_zoo.face.model_frame import ImportedFace, ModelFile, read_landmarks, to_model_frame
from model_zoo.face.morphable import NUM_EXPRESSION, NUM_SHAPE
from model_zoo.face.pca_builder import fitting_modes, modes_about_neutral

_BASEL_2009 = ("shapeMU", "shapePC", "shapeEV", "tl")
_3DDFA = ("w_exp", "mu_exp", "sigma_exp", "trimIndex")
TRIM_FILE = "model_info.mat"  # where 3DDFA keeps trimIndex, beside Model_Expression.mat
_PCA = ("mean", "pcaBasis", "pcaVariance")
_CELLS = "shape/representer/cells"


def import_basel_2009(
    path: str | os.PathLike[str],
    landmarks: str | os.PathLike[str] | None,
    expressions: str | os.PathLike[str] | None,
) -> ImportedFace:
    """Import `01_MorphableModel.mat` with 3DDFA's expression basis.

    The mean is Basel's, on the vertices that 3DDFA keeps: e = 0 is neutral, so 3DDFA's mean expression `mu_exp` is left
    to the modes.

    Args:
        path: the model.
        landmarks: file of 68 vertices of the imported (trimmed) mesh, from 0.
        expressions: 3DDFA's `Model_Expression.mat`; `trimIndex` in it or in `model_info.mat` beside it.

    Raises:
        ValueError: an input is missing, a key is, or an array is not what it should be.
    """
    file = _read_mat(path, _BASEL_2009, "Basel 2009's 01_MorphableModel.mat has")
    mean = file.points("shapeMU")
    if expressions is None:
        raise ValueError(
            f"{path}: Basel 2009 has no expressions; add expressions=<3DDFA's Model_Expression.mat with {TRIM_FILE} "
            f"beside it>"
        )
    basis = _read_mat(expressions, _3DDFA, "3DDFA's Model_Expression.mat (with model_info.mat beside it) has")
    if "trimIndex" not in basis.content and (Path(expressions).parent / TRIM_FILE).is_file():
        trim_file = _read_mat(Path(expressions).parent / TRIM_FILE, _3DDFA[-1:], "3DDFA's model_info.mat has")
        keep = trim_file.indices("trimIndex", len(mean), 1, None)
    else:
        keep = basis.indices("trimIndex", len(mean), 1, None)
    landmark_index = read_landmarks(landmarks, len(keep), "Basel 2009")
    shape = file.modes("shapePC", file.deviations("shapeEV"), len(mean))[:, keep]
    triangles = _keep_triangles(file.indices("tl", len(mean), 1, None, 3), keep, len(mean))
    deltas = basis.modes("w_exp", basis.deviations("sigma_exp"), len(keep))
    return to_model_frame(
        "Basel 2009 with 3DDFA's expressions",
        mean[keep],
        fitting_modes(shape, NUM_SHAPE),
        modes_about_neutral(deltas, basis.points("mu_exp", len(keep)), NUM_EXPRESSION),
        triangles,
        landmark_index,
    )


def import_basel_h5(path: str | os.PathLike[str], landmarks: str | os.PathLike[str] | None) -> ImportedFace:
    """Import Basel 2017 or 2019 (`model20*.h5`): 199 shape modes, its 100 expressions as 29 about the neutral.

    Raises:
        ValueError: a dataset is missing or is not what it should be, or the landmarks are not.
    """
    keys = [f"{kind}/model/{part}" for kind in ("shape", "expression") for part in _PCA] + [_CELLS]
    wants = f"Basel 2017/2019 has {', '.join(keys)}"
    try:
        with h5py.File(path, "r") as handle:
            found = {key: handle[key] for key in keys if key in handle}
            content = {key: value[()] for key, value in found.items() if isinstance(value, h5py.Dataset)}
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"{path}: can't be read as HDF5 ({' '.join(str(error).split())}); get the file anew"
        ) from error
    file = ModelFile(Path(path), wants, content)
    mean = file.points("shape/model/mean")
    landmark_index = read_landmarks(landmarks, len(mean), "Basel 2017/2019")
    shape, expression = (
        file.modes(f"{kind}/model/pcaBasis", np.sqrt(file.deviations(f"{kind}/model/pcaVariance")), len(mean))
        for kind in ("shape", "expression")
    )
    return to_model_frame(
        "Basel 2017/2019",
        mean,
        fitting_modes(shape, NUM_SHAPE),
        modes_about_neutral(expression, file.points("expression/model/mean", len(mean)), NUM_EXPRESSION),
        file.indices(_CELLS, len(mean), 0, 3, None).T,
        landmark_index,
    )


def _read_mat(path: str | os.PathLike[str], keys: tuple[str, ...], wants: str) -> ModelFile:
    """Arrays of a MATLAB file up to version 7; the textures stay on disk."""
    try:
        content = loadmat(os.fspath(path), appendmat=False, variable_names=keys)
    except NotImplementedError as error:
        raise ValueError(f"{path}: MATLAB 7.3 files are not read; save it in MATLAB with -v7") from error
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, zlib.error, MatReadError) as error:
        raise ValueError(f"{path}: can't be read as a MATLAB file ({' '.join(str(error).split())})") from error
    arrays = {key: value for key, value in content.items() if key in keys}
    return ModelFile(Path(path), f"{wants} {', '.join(keys)}", arrays)


def _keep_triangles(triangles: np.ndarray, keep: np.ndarray, num_vertices: int) -> np.ndarray:
    """Triangles of the kept vertices, in their new numbers."""
    new = np.full(num_vertices, -1)
    new[keep] = np.arange(len(keep))
    renumbered = new[triangles]
    return renumbered[(renumbered >= 0).all(1)]
