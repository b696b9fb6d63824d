"""A small random face with the statistics of a real one: smooth modes of falling strength over 68 + 40 points."""

from __future__ import annotations

import torch
from torch import Tensor

from model_zoo.face.morphable import CONTOUR_SLOTS, MorphableFace

_REACH = 0.4  # eye distances over which a mode keeps its sign
_SHAPE_SIZE, _EXPRESSION_SIZE = 0.05, 0.04  # RMS displacement of a point by one standard deviation of all modes


def template() -> Tensor:
    """(68, 3) landmarks in iBUG order: x right, y down, z away from the camera, outer-eye distance 1."""

    def arc(centre: tuple[float, float], radii: tuple[float, float], angles: Tensor) -> Tensor:
        """Points on an ellipse; angle 0 is left, growing over the top."""
        return torch.stack((centre[0] - radii[0] * angles.cos(), centre[1] - radii[1] * angles.sin()), 1)

    turn = 2 * torch.pi
    jaw = arc((0, 0), (0.8, 1.2), torch.linspace(0, -torch.pi, 17))
    brows = [arc((x, -0.2), (0.25, 0.1), torch.linspace(0.3, 2.8, 5)) for x in (-0.35, 0.35)]
    bridge = torch.stack((torch.zeros(4), torch.linspace(0, 0.4, 4)), 1)
    nostrils = arc((0, 0.45), (0.17, 0.05), torch.linspace(0, -torch.pi, 5))
    eyes = [arc((x, 0), (0.15, 0.05), turn * torch.arange(6) / 6) for x in (-0.35, 0.35)]
    lips = [arc((0, 0.75), radii, turn * torch.arange(n) / n) for radii, n in (((0.28, 0.12), 12), ((0.2, 0.02), 8))]
    plane = torch.cat((jaw, *brows, bridge, nostrils, *eyes, *lips))
    depth = 0.6 * plane.square().sum(1) - 0.3
    depth[30:36] -= 0.25  # the nose stands out
    return torch.cat((plane, depth[:, None]), 1)


def small_face(num_shape: int = 30, num_expression: int = 12, seed: int = 0) -> MorphableFace:
    """Random face model; its 68 landmarks are scattered among 108 vertices."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.cat((template(), torch.randn(40, 3, generator=generator) * 0.5))
    points = points[torch.randperm(len(points), generator=generator)]
    landmark_index = torch.cdist(template(), points).argmin(1)
    kernel = torch.exp(-torch.cdist(points, points).square() / (2 * _REACH**2)) + 0.02 * torch.eye(len(points))
    smooth = torch.linalg.cholesky(kernel)

    def modes(count: int, size: float) -> tuple[Tensor, Tensor]:
        basis = torch.einsum("uv,vcm->ucm", smooth, torch.randn(len(points), 3, count, generator=generator))
        strength = torch.arange(1, count + 1) ** -0.7
        std = size * len(points) ** 0.5 * strength / strength.norm()
        return basis / basis.flatten(0, 1).norm(dim=0), std

    return MorphableFace(
        points,
        *modes(num_shape, _SHAPE_SIZE),
        *modes(num_expression, _EXPRESSION_SIZE),
        torch.randint(0, len(points), (50, 3), generator=generator),
        landmark_index,
        landmark_index[:17, None].repeat(1, CONTOUR_SLOTS),  # scattered points have no outline
    )


def talking(
    face: MorphableFace, num_frames: int, seed: int = 0, yaw: float = 0.3
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shape, expression, pose and true landmarks of a clip at 256 px: smooth unit-variance coefficients."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.randn(199, generator=generator) * (face.shape_std > 0)
    window = torch.hann_window(9, periodic=False)
    walk = torch.randn(29, 1, num_frames + 8, generator=generator)
    expression = torch.nn.functional.conv1d(walk, (window / window.norm())[None, None])[:, 0].T
    expression = expression * (face.expression_std > 0)
    time = torch.linspace(0, 6, num_frames)
    pose = torch.stack(
        (
            0.1 * time.sin(),
            yaw * (0.7 * time + 0.5).sin(),
            0.05 * time.cos(),
            128 + 5 * time.sin(),
            97 + 3 * time.cos(),
            torch.tensor(77.0).log() + 0.03 * time.sin(),  # outer eyes at 0.30 of 256 px
        ),
        1,
    )
    return shape, expression, pose, face.project_landmarks(shape, expression, pose)
