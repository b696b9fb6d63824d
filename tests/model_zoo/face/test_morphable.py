"""The linear model against its definition written out."""

import pytest
import torch

from model_zoo.face.morphable import NUM_EXPRESSION, NUM_SHAPE, MorphableFace
from model_zoo.functional.camera import project
from tests.model_zoo.face.small_face import small_face, talking


def parts(face: MorphableFace) -> dict[str, torch.Tensor]:
    names = ("mean", "shape_basis", "shape_std", "expression_basis", "expression_std", "triangles", "landmark_index")
    return {name: getattr(face, name) for name in names}


def test_vertices_are_the_sum_over_modes():
    face = small_face(3, 2)
    shape, expression = torch.randn(NUM_SHAPE), torch.randn(NUM_EXPRESSION)
    expected = face.mean.clone()
    for mode in range(3):
        expected += shape[mode] * face.shape_std[mode] * face.shape_basis[..., mode]
    for mode in range(2):
        expected += expression[mode] * face.expression_std[mode] * face.expression_basis[..., mode]
    torch.testing.assert_close(face.vertices(shape, expression), expected)


def test_landmarks_are_rows_of_the_vertices_and_one_shape_serves_all_frames():
    face = small_face()
    shape, expression, pose, landmarks = talking(face, 7)
    rows = face.vertices(shape, expression)[:, face.landmark_index]
    torch.testing.assert_close(face.landmarks(shape, expression), rows)
    torch.testing.assert_close(landmarks, project(rows, pose), atol=1e-4, rtol=0)


def test_missing_modes_are_padded_and_do_nothing():
    face = small_face(30, 12)
    assert (face.num_active_shape, face.num_active_expression) == (30, 12)
    shape, expression = torch.zeros(NUM_SHAPE), torch.zeros(NUM_EXPRESSION)
    shape[30:], expression[12:] = 100, 100
    assert torch.equal(face.vertices(shape, expression), face.mean)


def test_energy_of_a_mode_is_what_it_moves_the_mouth():
    face = small_face(1, 4)
    energy = face.mouth_expression_energy()
    unit = torch.eye(NUM_EXPRESSION)
    moved = face.landmarks(torch.zeros(NUM_SHAPE), unit)[:, 48:] - face.landmark_mean[48:]
    torch.testing.assert_close(energy, moved.norm(dim=-1).square().mean(-1).sqrt())
    assert (energy[4:] == 0).all()


def test_landmark_face_has_the_same_landmarks():
    face = small_face()
    small = face.landmark_face()
    shape, expression, _, _ = talking(face, 3)
    torch.testing.assert_close(small.mean[small.contour_index], face.mean[face.contour_index])
    torch.testing.assert_close(small.landmarks(shape, expression), face.landmarks(shape, expression))


def test_loading_a_state_refreshes_the_landmark_rows():
    face, other = small_face(seed=0), small_face(seed=1)
    face.load_state_dict(other.state_dict())
    shape, expression, _, _ = talking(face, 3)
    torch.testing.assert_close(face.landmarks(shape, expression), other.landmarks(shape, expression))


def test_gradient_of_the_projected_landmarks():
    face = small_face(4, 3).double()
    arguments = [torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in ((199,), (2, 29), (2, 6))]
    assert torch.autograd.gradcheck(lambda *args: face.project_landmarks(*args)[:, ::20], arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p | {"mean": p["mean"][:, :2]}, r"mean must be \(108, 3\)"),
        (lambda p: p | {"shape_std": p["shape_std"][:5]}, r"shape_basis must be \(108, 3, 5\)"),
        (lambda p: p | {"shape_std": -p["shape_std"]}, "must not be negative"),
        (lambda p: p | {"expression_basis": p["expression_basis"] * float("nan")}, "not finite"),
        (lambda p: p | {"landmark_index": p["landmark_index"] + 100}, "outside of its 108 vertices"),
        (lambda p: p | {"landmark_index": p["landmark_index"][:51]}, r"landmark_index must be \(68,\)"),
        (lambda p: p | {"shape_std": torch.ones(200)}, "at most 199 shape modes, got 200"),
    ],
)
def test_parts_that_make_no_face_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        MorphableFace(**change(parts(small_face())))


def test_coefficients_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"expression must be \(\.\.\., 29\), got \(7, 30\)"):
        small_face().landmarks(torch.zeros(199), torch.zeros(7, 30))
