"""Basel 2009 with 3DDFA's expressions, and Basel 2017: each mode arrives as published, bad files are one clear line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

from model_zoo.face.importers import import_face
from tests.model_zoo.face.model_files import (
    TRIM_FIRST,
    basel_2009,
    basel_2017,
    expressions_3ddfa,
    to_frame,
    triangles,
    write_basel_2009,
    write_basel_2017,
    write_landmarks,
)

ZERO = torch.zeros(29)


def close(actual: torch.Tensor, wanted: np.ndarray) -> None:
    torch.testing.assert_close(actual, torch.from_numpy(wanted).float(), atol=2e-6, rtol=1e-5)


def test_basel_2009_with_3ddfa_is_the_papers_199_and_29(tmp_path):
    path, expressions = write_basel_2009(tmp_path)
    imported = import_face(path, write_landmarks(tmp_path), expressions)
    face = imported.face
    assert (face.num_active_shape, face.num_active_expression) == (199, 29)
    assert face.num_vertices == 90 - TRIM_FIRST
    basel, basis = basel_2009(), expressions_3ddfa()
    mean = basel["shapeMU"].reshape(-1, 3)[TRIM_FIRST:].astype(np.float64)
    close(face.mean, to_frame(mean, mean))  # 3DDFA's mean expression is not in it
    for mode in (0, 100, 198):
        moved = mean + (basel["shapePC"][:, mode] * basel["shapeEV"][mode]).reshape(-1, 3)[TRIM_FIRST:]
        close(face.vertices(torch.eye(199)[mode], ZERO), to_frame(moved, mean))
    for mode in (0, 28):
        moved = mean + (basis["w_exp"][:, mode] * basis["sigma_exp"][mode]).reshape(-1, 3)
        close(face.vertices(torch.zeros(199), torch.eye(29)[mode]), to_frame(moved, mean))
    assert torch.equal(face.landmark_index, torch.arange(68))
    assert face.triangles.tolist() == triangles(90 - TRIM_FIRST).tolist()
    assert imported.expression.variance_kept == pytest.approx(1)  # its mean expression lies in the modes' span


def test_a_mean_expression_outside_of_the_modes_is_reported(tmp_path):
    offset = np.zeros((3 * (90 - TRIM_FIRST), 1))
    offset[5] = 30.0
    path, expressions = write_basel_2009(tmp_path, mu_exp=offset)
    basis = expressions_3ddfa()
    inside = basis["w_exp"] @ (basis["w_exp"].T @ offset)
    lost = ((offset - inside) ** 2).sum() / ((offset**2).sum() + (basis["sigma_exp"] ** 2).sum())
    imported = import_face(path, write_landmarks(tmp_path), expressions)
    assert 1 - imported.expression.variance_kept == pytest.approx(lost)
    assert lost > 0.1


def test_trim_index_may_lie_in_3ddfas_second_file(tmp_path):
    path, expressions = write_basel_2009(tmp_path)
    whole = import_face(path, write_landmarks(tmp_path), expressions).face
    content = {key: value for key, value in loadmat(expressions).items() if not key.startswith("__")}
    savemat(tmp_path / "model_info.mat", {"trimIndex": content.pop("trimIndex")})
    savemat(expressions, content)
    split = import_face(path, write_landmarks(tmp_path), expressions).face
    for name, value in whole.state_dict().items():
        assert torch.equal(split.state_dict()[name], value), name


def test_fewer_modes_are_padded_and_say_so(tmp_path):
    basis = expressions_3ddfa()
    path, expressions = write_basel_2009(tmp_path, w_exp=basis["w_exp"][:, :4], sigma_exp=basis["sigma_exp"][:4])
    face = import_face(path, write_landmarks(tmp_path), expressions).face
    assert face.num_active_expression == 4
    assert torch.equal(face.expression_std[4:], torch.zeros(25))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shapeMU": None}, "lacks shapeMU; Basel 2009's 01_MorphableModel.mat has shapeMU, shapePC"),
        ({"shapeEV": None}, "lacks shapeEV"),
        ({"shapeEV": np.full((199, 1), np.nan)}, "shapeEV has values that are not finite"),
        ({"shapeEV": -np.ones((199, 1))}, "shapeEV has negative values"),
        ({"shapeEV": np.ones((5, 1))}, r"shapePC must be \(270, 5\), got \(270, 199\)"),
        ({"shapePC": np.zeros((9, 199))}, r"shapePC must be \(270, 199\), got \(9, 199\)"),
        ({"shapeMU": np.zeros((7, 1))}, "shapeMU has 7 values, not three a vertex"),
        ({"tl": triangles(90)}, r"tl must hold vertices 1\.\.90, got 0\.\.89"),
        ({"tl": np.array(["a", "b"])}, "tl must be"),
        ({"w_exp": None}, "lacks w_exp; 3DDFA's Model_Expression.mat"),
        ({"trimIndex": None}, "lacks trimIndex; .*model_info.mat beside it"),
        ({"trimIndex": np.arange(60)[:, None] + 1}, r"landmark vertices must be whole numbers 0\.\.59"),
        ({"trimIndex": np.arange(89)[:, None] + 1}, r"w_exp must be \(267, 29\), got \(261, 29\)"),
        ({"mu_exp": np.zeros((3, 1))}, r"mu_exp must be \(261\)"),
    ],
)
def test_bad_basel_2009_is_one_line(tmp_path, changed, message):
    path, expressions = write_basel_2009(tmp_path, **changed)
    with pytest.raises(ValueError, match=message) as caught:
        import_face(path, write_landmarks(tmp_path), expressions)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_basel_2009_says_what_it_needs(tmp_path):
    path, expressions = write_basel_2009(tmp_path)
    with pytest.raises(ValueError, match="has no expressions; add expressions="):
        import_face(path, write_landmarks(tmp_path))
    with pytest.raises(ValueError, match="carries no landmarks: add landmarks="):
        import_face(path, None, expressions)


def test_damaged_mat_files_are_one_line(tmp_path):
    path, expressions = write_basel_2009(tmp_path)
    whole = path.read_bytes()
    for size in (20, 130, 400, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"MATLAB|lacks") as caught:
            import_face(path, write_landmarks(tmp_path), expressions)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"MATLAB 7.3 MAT-file" + bytes(105) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(ValueError, match="save it in MATLAB with -v7"):
        import_face(path, write_landmarks(tmp_path), expressions)


def test_basel_2017_takes_variances_and_puts_its_expressions_about_the_neutral_face(tmp_path):
    content = basel_2017()
    path = write_basel_2017(tmp_path, content)
    imported = import_face(path, write_landmarks(tmp_path))
    face = imported.face
    assert (face.num_active_shape, face.num_active_expression) == (199, 29)
    mean = content["shape/model/mean"].reshape(-1, 3).astype(np.float64)
    close(face.mean, to_frame(mean, mean))
    basis, std = content["shape/model/pcaBasis"], np.sqrt(content["shape/model/pcaVariance"])
    close(face.vertices(torch.eye(199)[7], ZERO), to_frame(mean + (basis[:, 7] * std[7]).reshape(-1, 3), mean))
    # the eigenvectors of the second moment about the neutral face, from numpy
    basis, offset = content["expression/model/pcaBasis"], content["expression/model/mean"]
    moment = basis * content["expression/model/pcaVariance"] @ basis.T + np.outer(offset, offset)
    values, vectors = np.linalg.eigh(moment)
    leading = vectors[:, ::-1][:, :29]
    flip = np.tile([1, -1, -1], len(mean))[:, None]
    own = face.expression_basis.flatten(0, 1).double().numpy()
    np.testing.assert_allclose(np.abs((leading * flip * own).sum(0)), 1, atol=1e-5)
    eye = np.linalg.norm(mean[36] - mean[45])
    np.testing.assert_allclose(face.expression_std.numpy() * eye, np.sqrt(values[::-1][:29]), rtol=1e-4)
    assert imported.expression.variance_kept == pytest.approx(values[::-1][:29].sum() / values.sum())
    assert imported.expression.given == 100
    assert face.triangles.tolist() == triangles(80).tolist()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("expression/model/pcaBasis", None, "lacks expression/model/pcaBasis; Basel 2017/2019 has shape/model/mean"),
        ("shape/model/mean", np.full(240, np.inf), "shape/model/mean has values that are not finite"),
        ("shape/model/pcaVariance", -np.ones(199), "pcaVariance has negative values"),
        ("expression/model/mean", np.zeros(30), r"expression/model/mean must be \(240\), got \(30,\)"),
        ("shape/representer/cells", np.full((3, 2), 80), r"cells must hold vertices 0\.\.79, got 80\.\.80"),
        ("shape/representer/cells", np.zeros((5, 2)), r"cells must be \(3, any\)"),
    ],
)
def test_bad_basel_2017_is_one_line(tmp_path, key, value, message):
    content = basel_2017() | {key: value}
    path = write_basel_2017(tmp_path, {name: array for name, array in content.items() if array is not None})
    with pytest.raises(ValueError, match=message) as caught:
        import_face(path, write_landmarks(tmp_path))
    assert "\n" not in str(caught.value)


def test_cut_hdf5_is_one_line(tmp_path):
    path = write_basel_2017(tmp_path, basel_2017())
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="can't be read as HDF5") as caught:
        import_face(path, write_landmarks(tmp_path))
    assert "\n" not in str(caught.value)
