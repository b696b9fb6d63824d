"""Rotations, the weak-perspective camera and planar similarities.

Model frame: x right, y down, z away from the camera, so a frontal face has rotation 0. A pose is
(rotation vector 3 [rad], translation 2 [px], log scale 1 [log px per model unit]), the `p` of §3.1 of Song et al. 2020.

Shape legend: N points, P pose (6).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

POSE_DIM = 6  # 3 rotation + 2 translation + 1 scale, §3.1 of Song et al. 2020

# Below this squared angle the power series are exact to float64; above it the closed forms are.
_SERIES_BELOW = 1e-4


def rotation_matrix(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation by |rotvec| radians about rotvec (Rodrigues), exact and smooth at zero.

    R = I + sin(θ)/θ K + (1 - cos θ)/θ² K², K the cross-product matrix of rotvec.

    Args:
        rotvec: rotation vector, rad.

    Raises:
        ValueError: the last axis is not 3.
    """
    _check_last(rotvec, (3,), "rotvec")
    square = rotvec.square().sum(-1)
    small = square < _SERIES_BELOW
    angle = torch.where(small, torch.ones_like(square), square).sqrt()  # the unused branch must stay differentiable
    first = torch.where(small, 1 - square / 6 + square.square() / 120, angle.sin() / angle)
    second = torch.where(
        small,
        0.5 - square / 24 + square.square() / 720,
        2 * ((angle / 2).sin() / angle).square(),  # 1 - cos would cancel
    )
    x, y, z = rotvec.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    return identity + first[..., None, None] * cross + second[..., None, None] * (cross @ cross)


def rotation_vector(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Rotation vector of a rotation matrix, angle in [0, π], exact at 0 and near π, gradients finite.

    The matrix 4 q qᵀ of the unit quaternion q is linear in R. Its row with the largest diagonal, normalised, is ±q
    without a division by anything small.

    Args:
        rotation: proper rotation matrices.

    Returns:
        Rotation vector, rad.

    Raises:
        ValueError: the last axes are not 3×3.
    """
    _check_last(rotation, (3, 3), "rotation")
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = (row.unbind(-1) for row in rotation.unbind(-2))
    outer = torch.stack(
        (
            *(1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01),
            *(m21 - m12, 1 + m00 - m11 - m22, m10 + m01, m02 + m20),
            *(m02 - m20, m10 + m01, 1 - m00 + m11 - m22, m21 + m12),
            *(m10 - m01, m02 + m20, m21 + m12, 1 - m00 - m11 + m22),
        ),
        -1,
    ).unflatten(-1, (4, 4))
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = outer.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    quaternion = row / row.norm(dim=-1, keepdim=True)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    real, imaginary = quaternion[..., 0], quaternion[..., 1:]
    square = imaginary.square().sum(-1)
    small = square < _SERIES_BELOW
    sine = torch.where(small, torch.ones_like(square), square).sqrt()
    series = 2 + square / 3 + 3 * square.square() / 20 + 5 * square**3 / 56  # 2 asin(s)/s
    factor = torch.where(small, series, 2 * torch.atan2(sine, real) / sine)
    return factor[..., None] * imaginary


def project(points: Float[Tensor, "*#batch N 3"], pose: Float[Tensor, "*#batch 6"]) -> Float[Tensor, "*batch N 2"]:
    """Weak-perspective projection l = scale · (R X)[xy] + t.

    Args:
        points: in the model frame, model units. Leading axes broadcast against those of `pose`.
        pose: rotation vector (rad), translation (px), log scale (log px per model unit).

    Returns:
        Image points, px.

    Raises:
        ValueError: the last axes are not (N, 3) and (6,).
    """
    _check_last(points, (3,), "points", min_dim=2)
    _check_last(pose, (POSE_DIM,), "pose")
    camera = pose[..., 5:, None].exp() * rotation_matrix(pose[..., :3])[..., :2, :]
    return points @ camera.transpose(-1, -2) + pose[..., None, 3:5]


def transform_pose(matrix: Float[Tensor, "*#batch 2 3"], pose: Float[Tensor, "*#batch 6"]) -> Float[Tensor, "*batch 6"]:
    """Pose in an image warped by a similarity: project(X, result) = apply_similarity(matrix, project(X, pose)).

    Args:
        matrix: similarity without reflection, px to px.
        pose: pose in the image before the warp.

    Raises:
        ValueError: the last axes are not (2, 3) and (6,).
    """
    _check_last(matrix, (2, 3), "matrix")
    _check_last(pose, (POSE_DIM,), "pose")
    roll = torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0])
    zero = torch.zeros_like(roll)
    rotation = rotation_matrix(torch.stack((zero, zero, roll), -1)) @ rotation_matrix(pose[..., :3])
    translation = apply_similarity(matrix, pose[..., None, 3:5])[..., 0, :]
    log_scale = pose[..., 5:] + torch.hypot(matrix[..., 1, 0], matrix[..., 0, 0]).log()[..., None]
    return torch.cat((rotation_vector(rotation), translation, log_scale), -1)


def resize_landmarks(landmarks: Float[Tensor, "*batch 2"], factor: float) -> Float[Tensor, "*batch 2"]:
    """Landmarks after resizing the image by `factor`, pixel centres at integers: x' = (x + ½) factor - ½ (px).

    Raises:
        ValueError: the last axis is not 2, or the factor is not positive.
    """
    _check_last(landmarks, (2,), "landmarks")
    if not factor > 0:
        raise ValueError(f"factor must be positive, got {factor}")
    return (landmarks + 0.5) * factor - 0.5


def apply_similarity(
    matrix: Float[Tensor, "*#batch 2 3"], points: Float[Tensor, "*#batch N 2"]
) -> Float[Tensor, "*batch N 2"]:
    """Points mapped by x' = A x + b, matrix = [A | b] (px). Leading axes broadcast.

    Raises:
        ValueError: the last axes are not (2, 3) and (N, 2).
    """
    _check_last(matrix, (2, 3), "matrix")
    _check_last(points, (2,), "points", min_dim=2)
    return points @ matrix[..., :2].transpose(-1, -2) + matrix[..., None, :, 2]


def invert_similarity(matrix: Float[Tensor, "*batch 2 3"]) -> Float[Tensor, "*batch 2 3"]:
    """Inverse of a planar similarity (of any invertible affine map): x = A⁻¹ x' - A⁻¹ b.

    Raises:
        ValueError: the last axes are not (2, 3).
    """
    _check_last(matrix, (2, 3), "matrix")
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in matrix.unbind(-2))
    determinant = a * d - b * c
    rows = (d, -b, b * y - d * x, -c, a, c * x - a * y)
    return (torch.stack(rows, -1) / determinant[..., None]).unflatten(-1, (2, 3))


def _check_last(tensor: Tensor, expected: tuple[int, ...], name: str, min_dim: int = 0) -> None:
    if torch.compiler.is_compiling():
        return
    if tuple(tensor.shape[-len(expected) :]) != expected or tensor.ndim < min_dim:
        wanted = ", ".join(("...", *("N" for _ in range(max(min_dim - len(expected), 0))), *map(str, expected)))
        raise ValueError(f"{name} must be ({wanted}), got {tuple(tensor.shape)}")
