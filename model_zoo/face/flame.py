"""FLAME (Li et al. 2017) as a linear model: its jaw is a rotation, so jaw and expressions become 29 modes together.

With the jaw at a fixed angle, FLAME's vertices are linear in the expression coefficients ψ: x(θ, ψ) = x(θ, 0) + A(θ) ψ.
For ψ ~ N(0, I) and a jaw angle uniform on 0–25° the second moment of x about the neutral face is therefore
E_θ[(x(θ,0) − x₀)(x(θ,0) − x₀)ᵀ + A(θ) A(θ)ᵀ], which Gauss–Legendre nodes over θ give without drawing samples. Its 29
leading components are the expression modes.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from model_zoo.face.model_frame import ImportedFace, ModelFile, read_landmarks, to_model_frame
from model_zoo.face.morphable import NUM_EXPRESSION, NUM_SHAPE
from model_zoo.face.pca_builder import fitting_modes, principal_modes

JAW_RANGE = 25.0  # degrees: a wide open mouth
_ANGLES = 6  # nodes over the jaw's range; integrates sin² and cos² of it to 1e-9
_SHAPES, _EXPRESSIONS = 300, 100  # columns of shapedirs
_JOINTS, _JAW = 5, 2  # root, neck, jaw, two eyes
_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "f")
_WANTS = f"FLAME as .npz has {', '.join(_KEYS)}"


def import_flame(path: str | os.PathLike[str], landmarks: str | os.PathLike[str] | None) -> ImportedFace:
    """Import FLAME from .npz: the 300 shape modes as 199, jaw and 100 expressions as 29.

    The jaw turns about the mean head's joint. `expression.residual` of the result is the relative residual of the
    linear model.

    Raises:
        ValueError: the file is no .npz of plain arrays, a key is missing or wrong, or the landmarks are.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = {key: archive[key] for key in _KEYS if key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise ValueError(f"{path}: can't be read as an .npz of plain arrays ({error}); {CONVERSION}") from error
    file = ModelFile(Path(path), _WANTS, content)
    template = file.array("v_template", None, 3)
    count = len(template)
    landmark_index = read_landmarks(landmarks, count, "FLAME")
    directions = file.array("shapedirs", count, 3, _SHAPES + _EXPRESSIONS).transpose(2, 0, 1)
    deltas = jaw_deltas(
        template,
        directions[_SHAPES:],
        file.array("posedirs", count, 3, 9 * (_JOINTS - 1)),
        file.array("J_regressor", _JOINTS, count)[_JAW],
        file.array("weights", count, _JOINTS)[:, _JAW],
    )
    expression = principal_modes(deltas, NUM_EXPRESSION)
    return to_model_frame(
        "FLAME",
        template,
        fitting_modes(directions[:_SHAPES], NUM_SHAPE),
        expression,
        file.indices("f", count, 0, None, 3),
        landmark_index,
    )


def jaw_deltas(
    template: Float[np.ndarray, "V 3"],
    expressions: Float[np.ndarray, "E V 3"],
    pose_correctives: Float[np.ndarray, "V 3 36"],
    jaw_regressor: Float[np.ndarray, "V"],
    jaw_weight: Float[np.ndarray, "V"],
) -> Float[np.ndarray, "N V 3"]:
    """Deltas whose outer products sum to the second moment of jaw and expressions about the neutral face.

    Args:
        template: neutral mean head.
        expressions: displacement by one standard deviation of each.
        pose_correctives: FLAME's posedirs, by the entries of R − I of the four joints below the root.
        jaw_regressor: weights of the vertices in the jaw joint's position.
        jaw_weight: how much each vertex follows the jaw.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_ANGLES)
    deltas = []
    for angle, weight in zip((nodes + 1) / 2 * JAW_RANGE, weights / 2, strict=True):
        turn = Rotation.from_euler("x", angle, degrees=True).as_matrix() - np.eye(3)
        feature = np.zeros((_JOINTS - 1, 3, 3))
        feature[_JAW - 1] = turn
        corrective = pose_correctives @ feature.reshape(-1)
        follow = jaw_weight[:, None]
        opened = corrective + follow * ((template + corrective - jaw_regressor @ template) @ turn.T)
        joints = np.einsum("v,evc->ec", jaw_regressor, expressions)
        moved = expressions + follow * ((expressions - joints[:, None]) @ turn.T)
        deltas.append(np.sqrt(weight) * np.concatenate((opened[None], moved)))
    return np.concatenate(deltas)


# FLAME is published as a pickle, which runs code when read. This line is for the user to run where the file is trusted.
CONVERSION = (
    "convert FLAME's pickle once, where you trust it: python -c \"import pickle, numpy as np; "
    "m = pickle.load(open('generic_model.pkl', 'rb'), encoding='latin1'); "
    "np.savez('flame.npz', J_regressor=m['J_regressor'].toarray(), **{k: np.array(m[k]) for k in "
    "('v_template', 'shapedirs', 'posedirs', 'weights', 'f')})\""
)
