"""FLAME: its jaw and expressions in 29 linear modes, against skinning by 4×4 transforms; pickles are not read."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix
from scipy.spatial.transform import Rotation

from model_zoo.face.flame import CONVERSION, JAW_RANGE, jaw_deltas
from model_zoo.face.importers import import_face
from tests.model_zoo.face.model_files import flame, to_frame, write_flame, write_landmarks


def skinned(model: dict[str, np.ndarray], jaw: float, expression: np.ndarray) -> np.ndarray:
    """FLAME's own recipe: blend shapes, pose correctives, then the blend of the joints' rigid transforms."""
    shaped = model["v_template"] + model["shapedirs"][..., 300:] @ expression
    joints = model["J_regressor"] @ shaped
    rotations = np.stack([np.eye(3)] * 5)
    rotations[2] = Rotation.from_rotvec([np.radians(jaw), 0, 0]).as_matrix()
    posed = shaped + model["posedirs"] @ (rotations[1:] - np.eye(3)).reshape(-1)
    transforms = []
    for joint, parent in enumerate(model["kintree_table"][0].astype(int)):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if joint else 0)
        transforms.append(transforms[parent] @ local if joint else local)
    for joint, transform in enumerate(transforms):
        transform[:3, 3] -= transform[:3, :3] @ joints[joint]
    blended = np.einsum("vj,jab->vab", model["weights"], np.stack(transforms))
    return np.einsum("vab,vb->va", blended[:, :3, :3], posed) + blended[:, :3, 3]


def test_second_moment_is_that_of_sampled_flame():
    model = flame()
    model["shapedirs"] *= 3  # so that expression and jaw interact
    deltas = jaw_deltas(
        model["v_template"],
        model["shapedirs"][..., 300:].transpose(2, 0, 1),
        model["posedirs"],
        model["J_regressor"][2],
        model["weights"][:, 2],
    )
    rng = np.random.default_rng(8)
    samples = np.stack(
        [skinned(model, rng.uniform(0, JAW_RANGE), rng.standard_normal(100)) - model["v_template"] for _ in range(4000)]
    ).reshape(4000, -1)
    sampled, exact = samples.T @ samples / len(samples), np.einsum("nvc,nwd->vcwd", deltas, deltas)
    exact = exact.reshape(sampled.shape)
    assert np.linalg.norm(sampled - exact) / np.linalg.norm(exact) < 0.05


def test_flame_arrives_with_its_residual(tmp_path):
    model = flame()
    imported = import_face(write_flame(tmp_path, model), write_landmarks(tmp_path))
    face, mean = imported.face, model["v_template"]
    assert (face.num_active_shape, face.num_active_expression) == (199, 29)
    assert (imported.shape.given, imported.shape.deltas.shape[0]) == (300, 199)
    strength = (model["shapedirs"][..., :300] ** 2).sum((0, 1))
    assert imported.shape.variance_kept == pytest.approx(strength[:199].sum() / strength.sum(), abs=1e-6)
    torch.testing.assert_close(face.mean, torch.from_numpy(to_frame(mean, mean)).float(), atol=1e-5, rtol=0)
    first = torch.from_numpy(to_frame(mean + model["shapedirs"][..., 0], mean)).float()
    moved = [face.vertices(sign * torch.eye(199)[0], torch.zeros(29)) for sign in (-1, 1)]
    assert min((first - points).norm() for points in moved) < 1e-4 * (first - face.mean).norm()
    # fresh samples of FLAME's own formula are met as closely as the report says
    rng = np.random.default_rng(9)
    basis = face.expression_basis.flatten(0, 1).double()
    wanted = []
    for _ in range(500):
        points = skinned(model, rng.uniform(0, JAW_RANGE), rng.standard_normal(100))
        wanted.append(torch.from_numpy(to_frame(points, mean) - to_frame(mean, mean)).flatten())
    target = torch.stack(wanted, 1)
    left = target - basis @ (basis.T @ target)
    assert float(left.norm() / target.norm()) == pytest.approx(imported.expression.residual, rel=0.15)
    assert imported.expression.residual < 0.1


class _Trap:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_are_not_run_and_the_line_converts_them(tmp_path, protocol):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(_Trap(), protocol))
    with pytest.raises(ValueError, match=r"a pickle runs code when read.*np\.savez\('flame\.npz'") as caught:
        import_face(path, write_landmarks(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_line_that_is_told_converts(tmp_path):
    model = flame() | {"J_regressor": csc_matrix(flame()["J_regressor"])}
    (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(model, 2))
    code = CONVERSION.split('"')[1]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    with np.load(tmp_path / "flame.npz", allow_pickle=False) as converted:
        for name in converted.files:
            np.testing.assert_array_equal(converted[name], flame()[name])
    assert import_face(tmp_path / "flame.npz", write_landmarks(tmp_path)).source == "FLAME"


def test_arrays_of_objects_are_not_run(tmp_path):
    path = write_flame(tmp_path, flame() | {"J_regressor": np.array([_Trap()], dtype=object)})
    with pytest.raises(ValueError, match=r"can't be read as an \.npz of plain arrays.*np\.savez") as caught:
        import_face(path, write_landmarks(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shapedirs", None, "lacks shapedirs; FLAME as .npz has v_template"),
        ("shapedirs", np.zeros((150, 3, 150)), r"shapedirs must be \(150, 3, 400\), got \(150, 3, 150\)"),
        ("v_template", np.zeros((150, 2)), r"v_template must be \(any, 3\), got \(150, 2\)"),
        ("v_template", np.full((150, 3), np.nan), "v_template has values that are not finite"),
        ("weights", np.zeros((150, 2)), r"weights must be \(150, 5\)"),
        ("J_regressor", np.full((5, 150), "x"), "J_regressor must hold numbers"),
        ("f", np.full((4, 3), 150), r"f must hold vertices 0\.\.149, got 150\.\.150"),
    ],
)
def test_bad_flame_is_one_line(tmp_path, key, value, message):
    content = flame() | {key: value}
    path = write_flame(tmp_path, {name: array for name, array in content.items() if array is not None})
    with pytest.raises(ValueError, match=message) as caught:
        import_face(path, write_landmarks(tmp_path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_cut_npz_is_one_line(tmp_path):
    path = write_flame(tmp_path, flame())
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"can't be read as an \.npz"):
        import_face(path, write_landmarks(tmp_path))
