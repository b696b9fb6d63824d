"""Gauss-Newton for a clip of landmarks: one shape, an expression and a pose a frame (see fitting.py for the objective).

Given the shape the frames are independent, so the normal equations have the form of an arrow: one F×F block a frame,
bordered by the shape. A step is a batched Cholesky of the blocks and of their Schur complement onto the shape.
Lengths are in units of the caller's choice that make residuals comparable with eye distances.

Shape legend: T frames, L landmarks (68), K shape modes, E expression modes, F = E + 6 unknowns a frame.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from model_zoo.face.morphable import MorphableFace
from model_zoo.functional.camera import POSE_DIM, rotation_matrix, rotation_vector


class LandmarkModel(NamedTuple):
    """The landmark rows of a face, active modes only, one standard deviation each, coordinates before landmarks."""

    mean: Float[Tensor, "3 L"]
    shape: Float[Tensor, "K 3 L"]
    expression: Float[Tensor, "E 3 L"]

    @classmethod
    def of(cls, face: MorphableFace, dtype: torch.dtype, device: torch.device) -> LandmarkModel:
        """The rows of `face`, modes of zero standard deviation left out."""
        rows = (
            face.landmark_mean,
            face.landmark_shape[face.shape_std > 0],
            face.landmark_expression[face.expression_std > 0],
        )
        mean, shape, expression = (row.to(device, dtype) for row in rows)
        return cls(mean.T.contiguous(), *(row.unflatten(-1, (-1, 3)).mT.contiguous() for row in (shape, expression)))

    def with_shape(self, shape: Float[Tensor, "K"]) -> LandmarkModel:
        """The same model with this shape as its mean and no shape modes left."""
        return LandmarkModel(self.mean + torch.einsum("k,kcl->cl", shape, self.shape), self.shape[:0], self.expression)


class ClipState(NamedTuple):
    """Unknowns of a clip."""

    shape: Float[Tensor, "K"]
    expression: Float[Tensor, "T E"]
    rotation: Float[Tensor, "T 3 3"]
    translation: Float[Tensor, "T 2"]
    log_scale: Float[Tensor, "T"]

    def advance(self, frame_step: Float[Tensor, "T F"], shape_step: Float[Tensor, "K"]) -> ClipState:
        """The state after a step; rotations turn by a rotation vector from the left."""
        expression, turn, shift, zoom = frame_step.split((self.expression.shape[1], 3, 2, 1), dim=1)
        return ClipState(
            self.shape + shape_step,
            self.expression + expression,
            rotation_matrix(turn) @ self.rotation,
            self.translation + shift,
            self.log_scale + zoom[:, 0],
        )

    def frames(self, which: slice | Tensor) -> ClipState:
        """The state of some of the frames."""
        return ClipState(self.shape, *(value[which] for value in self[1:]))

    def change(self) -> Float[Tensor, "T-1 F"]:
        """Step that takes every frame to the next one."""
        turn = rotation_vector(self.rotation[1:] @ self.rotation[:-1].mT)
        linear = (self.expression, self.translation, self.log_scale[:, None])
        expression, shift, zoom = (value.diff(dim=0) for value in linear)
        return torch.cat((expression, turn, shift, zoom), 1)


class ClipPrior(NamedTuple):
    """Precisions (inverse variances) of what is known before the landmarks are seen."""

    shape: float
    expression: float
    change: Float[Tensor, "T-1 F"]  # of the step from each frame to the next


class ArrowSystem(NamedTuple):
    """Normal equations [[frames, coupling], [couplingᵀ, shape]] step = gradient, `frames` block diagonal."""

    frames: Float[Tensor, "T F F"]
    coupling: Float[Tensor, "T F K"]
    shape: Float[Tensor, "K K"]
    frame_gradient: Float[Tensor, "T F"]
    shape_gradient: Float[Tensor, "K"]


class ArrowSolution(NamedTuple):
    """Step, and the factors that gave it."""

    frame_step: Float[Tensor, "T F"]
    shape_step: Float[Tensor, "K"]
    frame_root: Float[Tensor, "T F F"]  # inverse Cholesky factor of each block
    schur_factor: Float[Tensor, "K K"]


def predict(model: LandmarkModel, state: ClipState) -> tuple[Float[Tensor, "T 3 L"], Float[Tensor, "T 2 L"]]:
    """Landmarks turned and scaled as seen by the camera, without translation, and their projection."""
    points = model.mean + torch.einsum("k,kcl->cl", state.shape, model.shape)
    points = points + torch.einsum("te,ecl->tcl", state.expression, model.expression)
    seen = state.log_scale.exp()[:, None, None] * (state.rotation @ points)
    return seen, seen[:, :2] + state.translation[..., None]


def normal_equations(
    model: LandmarkModel,
    state: ClipState,
    landmarks: Float[Tensor, "T 2 L"],
    weights: Float[Tensor, "T L"],
    prior: ClipPrior,
) -> ArrowSystem:
    """Normal equations of ½ Σ w|l - project|² + ½ prior, linearised at `state`.

    A link ½ q|x_b - x_a|² between successive frames would couple their blocks. Those off-diagonal entries are left out
    of the matrix H' (not of the gradient): frames stay independent, and repeated steps still converge to the minimum of
    the coupled objective, as 2 H' - H = data + prior + Σ q|x_b + x_a|² is positive definite.

    Args:
        weights: precision of every landmark; 0 leaves it out (its landmark must still be finite).
    """
    num_expression = state.expression.shape[1]
    seen, predicted = predict(model, state)
    residual = landmarks - predicted
    camera = state.log_scale.exp()[:, None, None] * state.rotation[:, :2]  # (T, 2, 3)

    # Layout (T, 2, F, L), unknowns before landmarks: every product below is then a plain matrix product.
    expression = (camera @ model.expression.movedim(0, 1).flatten(1)).unflatten(-1, (num_expression, -1))
    x, y, z = seen.unbind(1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    pose = torch.stack((zero, z, -y, one, zero, x, -z, zero, x, zero, one, y), 1).unflatten(1, (2, POSE_DIM))
    jacobian = torch.cat((expression, pose), 2)
    weighted = weights[:, None, None] * torch.cat((jacobian, residual[:, :, None]), 2)

    products = (weighted.flatten(0, 1) @ jacobian.flatten(0, 1).mT).unflatten(0, (-1, 2)).sum(1)
    frames, frame_gradient = products[:, :-1], products[:, -1]
    diagonal = frames.diagonal(dim1=1, dim2=2)
    diagonal[:, :num_expression] += prior.expression
    frame_gradient[:, :num_expression] -= prior.expression * state.expression
    pull = prior.change * state.change()
    for frame, sign in ((slice(None, -1), 1), (slice(1, None), -1)):
        diagonal[frame] += prior.change
        frame_gradient[frame] += sign * pull
    if not len(model.shape):
        empty = frames.new_zeros(*frames.shape[:2], 0)
        return ArrowSystem(frames, empty, empty[0, :0], frame_gradient, empty[0, 0])

    # d projection / d shape = camera · basis: the camera is folded into the other factor, so no (T, K, 2, L) is made.
    basis = model.shape.flatten(1)  # (K, 3L)
    lifted = (camera.mT @ weighted.flatten(2)).unflatten(2, (-1, x.shape[1])).movedim(1, 2)  # (T, F + 1, 3, L)
    coupling = lifted[:, :-1].flatten(2) @ basis.T
    metric = torch.einsum("tl,tic,tid->lcd", weights, camera, camera)
    shape = torch.einsum("kcl,lcd->kdl", model.shape, metric).flatten(1) @ basis.T
    shape.diagonal().add_(prior.shape)
    shape_gradient = basis @ lifted[:, -1].sum(0).flatten() - prior.shape * state.shape
    return ArrowSystem(frames, coupling, shape, frame_gradient, shape_gradient)


def solve_arrow(system: ArrowSystem) -> ArrowSolution:
    """Solve the arrow system by batched Cholesky and the Schur complement onto the shape."""
    factor = torch.linalg.cholesky(system.frames)
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    root = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    coupling = (root @ system.coupling).flatten(0, 1)  # (T F, K)
    gradient = (root @ system.frame_gradient[..., None]).flatten(0, 1)
    schur = torch.linalg.cholesky(system.shape - coupling.T @ coupling)
    shape_step = torch.cholesky_solve(system.shape_gradient[:, None] - coupling.T @ gradient, schur)
    rest = (gradient - coupling @ shape_step).unflatten(0, root.shape[:2])
    return ArrowSolution((root.mT @ rest)[..., 0], shape_step[:, 0], root, schur)


def unexplained(solution: ArrowSolution, prior: ClipPrior, num_expression: int) -> Tensor:
    """Number of unknowns that the priors, not the landmarks, decide: trace(prior · inverse of the blocks)."""
    frames = (
        solution.frame_root[..., :num_expression].square().sum()
    )  # trace of the inverse of the blocks, expression part
    shape = torch.cholesky_inverse(solution.schur_factor).trace()
    return prior.expression * frames + prior.shape * shape


def initial_pose(
    points: Float[Tensor, "3 L"], landmarks: Float[Tensor, "T 2 L"], weights: Float[Tensor, "T L"]
) -> tuple[Float[Tensor, "T 3 3"], Float[Tensor, "T 2"], Float[Tensor, "T"]]:
    """Weak-perspective pose in closed form (POS): the best affine camera, its rows made orthogonal and equally long.

    Returns:
        Rotation, translation and log scale of every frame.
    """
    total = weights.sum(1)[:, None]
    centre = weights @ points.T / total  # (T, 3)
    middle = torch.einsum("tl,til->ti", weights, landmarks) / total
    x, y = points - centre[..., None], landmarks - middle[..., None]
    weighted = weights[:, None] * x
    moments = weighted @ x.mT
    tiny = torch.finfo(moments.dtype).eps * moments.diagonal(dim1=1, dim2=2).sum(1)  # landmarks may lie in a plane
    moments = moments + tiny[:, None, None] * torch.eye(3, dtype=moments.dtype, device=moments.device)
    affine = torch.linalg.solve(moments, weighted @ y.mT).mT  # (T, 2, 3)
    left, stretch, right = torch.linalg.svd(affine, full_matrices=False)
    rows = left @ right
    rotation = torch.cat((rows, torch.linalg.cross(rows[:, 0], rows[:, 1])[:, None]), 1)
    scale = stretch.mean(1).clamp(min=torch.finfo(stretch.dtype).tiny)
    return rotation, middle - scale[:, None] * torch.einsum("tic,tc->ti", rows, centre), scale.log()
