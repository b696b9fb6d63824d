"""Rotations against scipy, derivatives against finite differences, similarities against their definition."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.autograd import gradcheck

from model_zoo.functional.camera import (
    apply_similarity,
    invert_similarity,
    project,
    resize_landmarks,
    rotation_matrix,
    rotation_vector,
    transform_pose,
)

ANGLES = (0.0, 1e-12, 1e-7, 1e-4, 0.00999, 0.01001, 1.0, 3.0, 3.1415, math.pi - 1e-7, math.pi)


def axes(count: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    directions[:3] = torch.eye(3)
    return torch.nn.functional.normalize(directions, dim=-1)


@pytest.mark.parametrize("angle", ANGLES)
def test_rotation_matrix_equals_scipy(angle):
    rotvec = axes() * angle
    expected = torch.from_numpy(Rotation.from_rotvec(rotvec.numpy()).as_matrix())
    torch.testing.assert_close(rotation_matrix(rotvec), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("angle", ANGLES)
def test_rotation_vector_inverts_rotation_matrix(angle):
    rotvec = axes() * angle
    back = rotation_vector(rotation_matrix(rotvec))
    if angle == math.pi:  # ±rotvec are the same rotation
        back = back * (back * rotvec).sum(-1, keepdim=True).sign()
    torch.testing.assert_close(back, rotvec, rtol=0, atol=1e-13)


def test_rotation_is_exact_at_zero():
    assert torch.equal(rotation_matrix(torch.zeros(3)), torch.eye(3))
    assert torch.equal(rotation_vector(torch.eye(3)), torch.zeros(3))


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.5, 3.0, math.pi - 1e-3])
def test_gradients_of_rotations(angle):
    rotvec = (axes(4) * angle).requires_grad_()
    assert gradcheck(rotation_matrix, rotvec)
    assert gradcheck(lambda value: rotation_vector(rotation_matrix(value)), rotvec)


@pytest.mark.parametrize("angle", [0.0, 1e-12, math.pi])
def test_gradients_are_finite_where_the_formulas_divide_by_zero(angle):
    rotvec = (axes() * angle).requires_grad_()
    (gradient,) = torch.autograd.grad(rotation_vector(rotation_matrix(rotvec)).sum(), rotvec)
    assert gradient.isfinite().all()


def test_projection_of_frontal_points_is_scaling():
    points = torch.randn(5, 3)
    pose = torch.tensor([0, 0, 0, 10, 20, math.log(7)])
    torch.testing.assert_close(project(points, pose), 7 * points[:, :2] + torch.tensor([10.0, 20.0]))


def test_positive_yaw_moves_what_is_near_the_camera_to_the_left():
    nose = torch.tensor([[0.0, 0.0, -1.0]])  # z points away from the camera
    assert project(nose, torch.tensor([0, 0.5, 0, 0, 0, 0]))[0, 0] < 0


def test_gradient_of_projection():
    points = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    pose = torch.tensor([[0.0, 0, 0, 3, 4, 1], [0.3, -0.2, 0.1, 3, 4, 1]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(project, (points, pose))


def test_projection_broadcasts_one_shape_over_frames():
    points, pose = torch.randn(68, 3), torch.randn(7, 6)
    expected = torch.stack([project(points, frame) for frame in pose])
    torch.testing.assert_close(project(points, pose), expected)


def similarity(turn: float, scale: float, x: float, y: float) -> torch.Tensor:
    c, s = scale * math.cos(turn), scale * math.sin(turn)
    return torch.tensor([[c, -s, x], [s, c, y]], dtype=torch.float64)


def test_pose_of_a_warped_image_projects_to_the_warped_landmarks():
    points = torch.randn(68, 3, dtype=torch.float64)
    matrix = torch.stack([similarity(0.4, 1.7, 5, -3), similarity(-3.0, 0.2, 0, 9)])
    pose = torch.tensor([[0.3, -0.2, 0.1, 3, 4, 1], [0, 0, 3, 3, 4, -1]], dtype=torch.float64)
    warped = project(points, transform_pose(matrix, pose))
    torch.testing.assert_close(warped, apply_similarity(matrix, project(points, pose)))


def test_inverse_similarity_returns_the_points():
    matrix, points = similarity(0.4, 1.7, 5, -3), torch.randn(68, 2, dtype=torch.float64)
    torch.testing.assert_close(apply_similarity(invert_similarity(matrix), apply_similarity(matrix, points)), points)


def test_resizing_keeps_the_corners_of_the_image():
    corners = torch.tensor([[-0.5, -0.5], [255.5, 255.5]])
    torch.testing.assert_close(resize_landmarks(corners, 0.5), torch.tensor([[-0.5, -0.5], [127.5, 127.5]]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rotation_matrix(torch.zeros(4)), r"rotvec must be \(\.\.\., 3\), got \(4,\)"),
        (lambda: rotation_vector(torch.zeros(3)), "rotation must be"),
        (lambda: project(torch.zeros(3), torch.zeros(6)), r"points must be \(\.\.\., N, 3\)"),
        (lambda: project(torch.zeros(5, 3), torch.zeros(7)), "pose must be"),
        (lambda: apply_similarity(torch.zeros(3, 3), torch.zeros(5, 2)), "matrix must be"),
        (lambda: resize_landmarks(torch.zeros(5, 2), 0), "factor must be positive"),
    ],
)
def test_wrong_shapes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
