"""Gauss-Newton for clips of landmarks: a shape a clip, an expression and a pose a frame (objective: see fitting.py).

Given the shape the frames are independent, so the normal equations of a clip have the form of an arrow: one F×F block a
frame, bordered by the shape. A step is a batched Cholesky of the blocks and of their Schur complement onto the shape.
Clips of any lengths lie end to end along one axis of frames and are solved together, which is what fills a GPU; nothing
passes from one clip to another. Lengths are in units of the caller's choice that make residuals comparable with eye
distances.

Shape legend: C clips, N frames of all clips, L rows of landmarks, K shape modes, E expression modes, F = E + 6 unknowns
a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from model_zoo.face.morphable import MorphableFace
from model_zoo.functional.camera import POSE_DIM, rotation_matrix, rotation_vector


class Clips(NamedTuple):
    """Which of the frames, laid end to end, belong to which clip."""

    lengths: tuple[int, ...]
    clip: Int[Tensor, "N"]

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Clips:
        """Clips of these lengths, in order."""
        counts = torch.tensor(lengths, device=device)
        return cls(tuple(lengths), torch.repeat_interleave(torch.arange(len(lengths), device=device), counts))

    def sum(self, values: Float[Tensor, "N ..."]) -> Float[Tensor, "C ..."]:
        """Sum of each clip's frames."""
        if len(self.lengths) == 1:
            return values.sum(0, keepdim=True)
        return values.new_zeros(len(self.lengths), *values.shape[1:]).index_add_(0, self.clip, values)

    def padded(self, values: Float[Tensor, "N ..."]) -> Float[Tensor, "C T ..."]:
        """A row a clip, shorter ones filled up with zeros; a view where all are of one length."""
        longest = max(self.lengths)
        if min(self.lengths) == longest:
            return values.unflatten(0, (len(self.lengths), longest))
        rows = values.new_zeros(len(self.lengths), longest, *values.shape[1:])
        rows[self.clip, self._position()] = values
        return rows

    def _position(self) -> Int[Tensor, "N"]:
        lengths = torch.tensor(self.lengths, device=self.clip.device)
        first = lengths.cumsum(0) - lengths
        return torch.arange(len(self.clip), device=self.clip.device) - first[self.clip]


class LandmarkModel(NamedTuple):
    """Landmark rows of a face, active modes only, one standard deviation each, coordinates before landmarks."""

    mean: Float[Tensor, "3 L"]
    shape: Float[Tensor, "K 3 L"]
    expression: Float[Tensor, "E 3 L"]

    @classmethod
    def of(
        cls, face: MorphableFace, dtype: torch.dtype, device: torch.device, vertices: Int[Tensor, "L"] | None = None
    ) -> LandmarkModel:
        """The rows of `face` at these vertices, by default its landmarks; modes of zero deviation left out."""
        if vertices is None:
            rows = (face.landmark_mean, face.landmark_shape, face.landmark_expression)
        else:
            shape = face.shape_basis[vertices] * face.shape_std
            expression = face.expression_basis[vertices] * face.expression_std
            rows = (face.mean[vertices], shape.flatten(0, 1).T, expression.flatten(0, 1).T)
        rows = (rows[0], rows[1][face.shape_std > 0], rows[2][face.expression_std > 0])
        mean, shape, expression = (row.to(device, dtype) for row in rows)
        return cls(mean.T.contiguous(), *(row.unflatten(-1, (-1, 3)).mT.contiguous() for row in (shape, expression)))

    def rows(self, which: Int[Tensor, "l"]) -> LandmarkModel:
        """Some of the rows."""
        return LandmarkModel(*(value[..., which] for value in self))

    def join(self, other: LandmarkModel) -> LandmarkModel:
        """The rows of both."""
        return LandmarkModel(*(torch.cat(pair, -1) for pair in zip(self, other, strict=True)))


class ClipState(NamedTuple):
    """Unknowns of the clips."""

    shape: Float[Tensor, "C K"]
    expression: Float[Tensor, "N E"]
    rotation: Float[Tensor, "N 3 3"]
    translation: Float[Tensor, "N 2"]
    log_scale: Float[Tensor, "N"]

    def advance(self, frame_step: Float[Tensor, "N F"], shape_step: Float[Tensor, "C K"]) -> ClipState:
        """The state after a step; rotations turn by a rotation vector from the left."""
        expression, turn, shift, zoom = frame_step.split((self.expression.shape[1], 3, 2, 1), dim=1)
        return ClipState(
            self.shape + shape_step,
            self.expression + expression,
            rotation_matrix(turn) @ self.rotation,
            self.translation + shift,
            self.log_scale + zoom[:, 0],
        )

    def change(self) -> Float[Tensor, "N-1 F"]:
        """Step that takes every frame to the next one."""
        turn = rotation_vector(self.rotation[1:] @ self.rotation[:-1].mT)
        linear = (self.expression, self.translation, self.log_scale[:, None])
        expression, shift, zoom = (value.diff(dim=0) for value in linear)
        return torch.cat((expression, turn, shift, zoom), 1)


class ClipPrior(NamedTuple):
    """Precisions (inverse variances) of what is known before the landmarks are seen."""

    shape: Float[Tensor, "C"]
    expression: float
    change: Float[Tensor, "N-1 F"]  # of the step from each frame to the next; 0 from one clip to another

    def pull(
        self, state: ClipState, change: Float[Tensor, "N-1 F"]
    ) -> tuple[Float[Tensor, "N F"], Float[Tensor, "C K"]]:
        """Minus the gradient of half the squares; `change` is that of the state."""
        frames, link = state.expression.new_zeros(len(state.expression), change.shape[1]), self.change * change
        frames[:-1] += link
        frames[1:] -= link
        frames[:, : state.expression.shape[1]] -= self.expression * state.expression
        return frames, -self.shape[:, None] * state.shape

    def energy(self, state: ClipState, change: Float[Tensor, "N-1 F"], clips: Clips) -> Float[Tensor, "C"]:
        """Half the weighted squares of every clip."""
        frames = self.expression * state.expression.square().sum(1)
        frames[:-1] += (self.change * change.square()).sum(1)
        return (clips.sum(frames) + self.shape * state.shape.square().sum(1)) / 2


class View(NamedTuple):
    """Landmarks as the camera sees them in some state, and how they move with the unknowns.

    Attributes:
        camera: scaled rows of the rotation.
        seen: turned and scaled, without translation.
        projected: their projection.
    """

    model: LandmarkModel
    clips: Clips
    camera: Float[Tensor, "N 2 3"]
    seen: Float[Tensor, "N 3 L"]
    projected: Float[Tensor, "N 2 L"]

    def move(self, frame_step: Float[Tensor, "N F"]) -> Float[Tensor, "N 2 L"]:
        """Movement of the projections by a small step of the frames' unknowns: J step."""
        expression, turn, shift, zoom = frame_step.split((len(self.model.expression), 3, 2, 1), dim=1)
        offset = (expression @ self.model.expression.flatten(1)).unflatten(1, (3, -1))
        across = torch.linalg.cross(turn[..., None], self.seen, dim=1)[:, :2]
        return self.camera @ offset + across + shift[..., None] + zoom[..., None] * self.seen[:, :2]

    def move_shape(self, shape_step: Float[Tensor, "C K"]) -> Float[Tensor, "N 2 L"]:
        """The same of the shapes."""
        offset = (shape_step @ self.model.shape.flatten(1)).unflatten(1, (3, -1))
        return self.camera @ offset[self.clips.clip]

    def force(self, forces: Float[Tensor, "N 2 L"]) -> tuple[Float[Tensor, "N F"], Float[Tensor, "C K"]]:
        """Forces on the projections as forces on the unknowns: Jᵀ forces."""
        lifted = (self.camera.mT @ forces).flatten(1)
        spin = forces @ self.seen.mT  # (N, 2, 3): Σ force · seen
        (ux, uy, uz), (vx, vy, vz) = (row.unbind(1) for row in spin.unbind(1))
        pose = torch.stack((-vz, uz, vx - uy, *forces.sum(2).unbind(1), ux + vy), 1)
        frames = torch.cat((lifted @ self.model.expression.flatten(1).T, pose), 1)
        return frames, self.clips.sum(lifted) @ self.model.shape.flatten(1).T


class ArrowSystem(NamedTuple):
    """Normal equations [[frames, coupling], [couplingᵀ, shape]] step = gradient a clip, `frames` block diagonal."""

    frames: Float[Tensor, "N F F"]
    coupling: Float[Tensor, "N F K"]
    shape: Float[Tensor, "C K K"]
    frame_gradient: Float[Tensor, "N F"]
    shape_gradient: Float[Tensor, "C K"]


class ArrowSolution(NamedTuple):
    """Step, and the factors that gave it."""

    frame_step: Float[Tensor, "N F"]
    shape_step: Float[Tensor, "C K"]
    frame_root: Float[Tensor, "N F F"]  # inverse Cholesky factor of each block
    schur_factor: Float[Tensor, "C K K"]


def view(model: LandmarkModel, state: ClipState, clips: Clips) -> View:
    """Project the landmarks of a state."""
    points = (model.mean.flatten() + state.shape @ model.shape.flatten(1))[clips.clip]
    points = (points + state.expression @ model.expression.flatten(1)).unflatten(1, (3, -1))
    turn = state.log_scale.exp()[:, None, None] * state.rotation
    seen = turn @ points
    return View(model, clips, turn[:, :2], seen, seen[:, :2] + state.translation[..., None])


def normal_equations(
    here: View,
    state: ClipState,
    residual: Float[Tensor, "N 2 L"],
    weights: Float[Tensor, "N L"],
    prior: ClipPrior,
    with_shape: bool = True,
) -> ArrowSystem:
    """Normal equations of ½ Σ w|residual|² + ½ prior, linearised at `state`.

    A link ½ q|x_b - x_a|² between successive frames would couple their blocks. Those off-diagonal entries are left out
    of the matrix H' (not of the gradient): frames stay independent, and repeated steps still converge to the minimum of
    the coupled objective, as 2 H' - H = data + prior + Σ q|x_b + x_a|² is positive definite.

    Args:
        here: the landmarks of `state`.
        residual: given minus projected landmarks, finite.
        weights: precision of every landmark; 0 leaves it out.
        with_shape: False holds the shape and leaves its unknowns out.
    """
    model, clips, camera = here.model, here.clips, here.camera
    num_expression = state.expression.shape[1]

    # Layout (N, F, 2, L), unknowns before landmarks: what follows are then plain matrix products.
    expression = (camera @ model.expression.movedim(0, 1).flatten(1)).unflatten(-1, (num_expression, -1))
    x, y, z = here.seen.unbind(1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    pose = torch.stack((zero, -z, z, zero, -y, x, one, zero, zero, one, x, y), 1).unflatten(1, (POSE_DIM, 2))
    jacobian = torch.cat((expression.movedim(2, 1), pose), 1)
    weighted = weights[:, None, None] * jacobian
    frames = weighted.flatten(2) @ jacobian.flatten(2).mT
    pull = prior.pull(state, state.change())
    gradient = [a + b for a, b in zip(here.force(weights[:, None] * residual), pull, strict=True)]
    diagonal = frames.diagonal(dim1=1, dim2=2)
    diagonal[:, :num_expression] += prior.expression
    diagonal[:-1] += prior.change
    diagonal[1:] += prior.change
    if not with_shape:
        coupling = frames.new_zeros(*frames.shape[:2], 0)
        nothing = frames.new_zeros(len(clips.lengths), 0, 0)
        return ArrowSystem(frames, coupling, nothing, gradient[0], nothing.flatten(1))

    # d projection / d shape = camera · basis: the camera is folded into the other factor, so no (N, K, 2, L) is made.
    basis = model.shape.flatten(1)  # (K, 3L)
    lifted = (camera.mT @ weighted.movedim(2, 1).flatten(2)).unflatten(2, (-1, x.shape[1])).movedim(1, 2)
    coupling = lifted.flatten(2) @ basis.T
    metric = clips.sum(weights[:, None] * (camera.mT @ camera).flatten(1)[..., None])  # (C, 9, L)
    shape = torch.einsum("kcl,ncdl->nkdl", model.shape, metric.unflatten(1, (3, 3))).flatten(2) @ basis.T
    shape.diagonal(dim1=1, dim2=2).add_(prior.shape[:, None])
    return ArrowSystem(frames, coupling, shape, *gradient)


def solve_arrow(system: ArrowSystem, clips: Clips) -> ArrowSolution:
    """Solve the arrow systems by batched Cholesky and the Schur complements onto the shapes.

    A clip whose matrix is not positive definite gets steps that mean nothing, and leaves the others as they are.
    """
    factor = torch.linalg.cholesky_ex(system.frames).L
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    root = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    gradient = root @ system.frame_gradient[..., None]
    if not system.coupling.shape[-1]:
        return ArrowSolution((root.mT @ gradient)[..., 0], system.shape_gradient, root, system.shape)
    coupling = root @ system.coupling
    rows = clips.padded(coupling).flatten(1, 2)  # (C, T F, K)
    schur = torch.linalg.cholesky_ex(system.shape - rows.mT @ rows).L
    pulled = rows.mT @ clips.padded(gradient).flatten(1, 2)
    shape_step = torch.cholesky_solve(system.shape_gradient[..., None] - pulled, schur)[..., 0]
    rest = gradient - coupling @ shape_step[clips.clip][..., None]
    return ArrowSolution((root.mT @ rest)[..., 0], shape_step, root, schur)


def unexplained(solution: ArrowSolution, prior: ClipPrior, clips: Clips, num_expression: int) -> Float[Tensor, "C"]:
    """Unknowns that the priors, not the landmarks, decide: trace(prior · inverse of the blocks) of every clip."""
    frames = clips.sum(solution.frame_root[..., :num_expression].square().sum((1, 2)))
    shape = torch.cholesky_inverse(solution.schur_factor).diagonal(dim1=1, dim2=2).sum(1)
    return prior.expression * frames + prior.shape * shape


def initial_pose(
    points: Float[Tensor, "*#N 3 L"], landmarks: Float[Tensor, "N 2 L"], weights: Float[Tensor, "N L"]
) -> tuple[Float[Tensor, "N 3 3"], Float[Tensor, "N 2"], Float[Tensor, "N"]]:
    """Weak-perspective pose in closed form (POS): the best affine camera, its rows made orthogonal and equally long.

    Args:
        points: of the model, of each frame or the same for all.
        landmarks: where they are seen.
        weights: of the landmarks.

    Returns:
        Rotation, translation and log scale of every frame.
    """
    total = weights.sum(1)[:, None]
    centre = (points @ weights[..., None])[..., 0] / total  # (N, 3)
    middle = (landmarks @ weights[..., None])[..., 0] / total
    x, y = points - centre[..., None], landmarks - middle[..., None]
    weighted = weights[:, None] * x
    moments = weighted @ x.mT
    tiny = torch.finfo(moments.dtype).eps * moments.diagonal(dim1=1, dim2=2).sum(1)  # landmarks may lie in a plane
    moments = moments + tiny[:, None, None] * torch.eye(3, dtype=moments.dtype, device=moments.device)
    affine = torch.linalg.solve(moments, weighted @ y.mT).mT  # (N, 2, 3)
    left, stretch, right = torch.linalg.svd(affine, full_matrices=False)
    rows = left @ right
    rotation = torch.cat((rows, torch.linalg.cross(rows[:, 0], rows[:, 1])[:, None]), 1)
    scale = stretch.mean(1).clamp(min=torch.finfo(stretch.dtype).tiny)
    return rotation, middle - scale[:, None] * (rows @ centre[..., None])[..., 0], scale.log()
