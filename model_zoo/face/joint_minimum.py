"""The last part of a fit: from near to exactly the minimum of a clip's objective, over all of its unknowns at once.

L-BFGS (Nocedal & Wright, Numerical Optimization, 2006, algorithm 7.4), preconditioned by a factored arrow matrix that
stays as it is. So a step costs one gradient and two solves with small triangles a frame, nothing that grows with the
square of the shape's modes, and yet it takes in all that Gauss-Newton leaves out: the curvature of the robust loss and
the links between frames. The objective never rises.

Shape legend: C clips, N frames of all clips, L rows of landmarks, K shape modes, F unknowns a frame.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model_zoo.face.clip_solver import ClipPrior, Clips, ClipState, LandmarkModel, View, view

FREEDOM = 6.0  # degrees of freedom of the Student-t noise
_MEMORY = 8  # steps that L-BFGS remembers
_MAX_STEPS = 60
_TOLERANCE = 1e-7  # stop when a step had promised to lower the objective by less than this part of it
_SHORTER = 0.25  # of a step that raised the objective is tried next
_SHORTEST = 1e-3


class Vector(NamedTuple):
    """One number for every unknown."""

    frames: Float[Tensor, "N F"]
    shape: Float[Tensor, "C K"]

    def plus(self, factor: Float[Tensor, "C"], other: Vector, clips: Clips) -> Vector:
        """self + factor · other, a factor for every clip."""
        return Vector(
            self.frames + factor[clips.clip, None] * other.frames,
            self.shape + factor[:, None] * other.shape,
        )

    def dot(self, other: Vector, clips: Clips) -> Float[Tensor, "C"]:
        """Inner product of every clip."""
        return clips.sum((self.frames * other.frames).sum(1)) + (self.shape * other.shape).sum(1)


class Problem(NamedTuple):
    """What is to be minimised: ½ Σ visible (ν + 2) log(1 + |l - project|² / (ν variance)) + ½ prior, a clip."""

    model: LandmarkModel
    clips: Clips
    landmarks: Float[Tensor, "N 2 L"]
    visible: Float[Tensor, "N L"]
    variance: Float[Tensor, "C"]
    prior: ClipPrior

    def weights(self, here: View) -> Float[Tensor, "N L"]:
        """Precision of every landmark: that of its Student-t noise at where it is."""
        variance = self.variance[self.clips.clip, None]
        return self.visible / variance * reweight((self.landmarks - here.projected).square().sum(1) / variance)

    def evaluate(self, state: ClipState) -> tuple[Float[Tensor, "C"], Vector]:
        """Objective and minus its gradient."""
        here = view(self.model, state, self.clips)
        residual = self.landmarks - here.projected
        squares = residual.square().sum(1) / self.variance[self.clips.clip, None]
        losses = (FREEDOM + 2) / 2 * (self.visible * (squares / FREEDOM).log1p()).sum(1)
        weights = self.visible / self.variance[self.clips.clip, None] * reweight(squares)
        change = state.change()
        force = zip(here.force(weights[:, None] * residual), self.prior.pull(state, change), strict=True)
        energy = self.clips.sum(losses) + self.prior.energy(state, change, self.clips)
        return energy, Vector(*(data + prior for data, prior in force))


class Preconditioner(NamedTuple):
    """Solves with a factored arrow matrix; the coupling of frames and shape is not stored but applied by `here`."""

    here: View
    weights: Float[Tensor, "N L"]
    frame_root: Float[Tensor, "N F F"]  # inverse Cholesky factor of each frame's block
    schur_factor: Float[Tensor, "C K K"]  # Cholesky factor of the Schur complement onto the shape, or about that

    def solve(self, force: Vector) -> Vector:
        """The step for a force."""
        alone = self._solve_frames(force.frames)
        pulled = force.shape - self.here.force(self.weights[:, None] * self.here.move(alone))[1]
        shape = torch.cholesky_solve(pulled[..., None], self.schur_factor)[..., 0]
        taken = self.here.force(self.weights[:, None] * self.here.move_shape(shape))[0]
        return Vector(alone - self._solve_frames(taken), shape)

    def _solve_frames(self, force: Float[Tensor, "N F"]) -> Float[Tensor, "N F"]:
        return (self.frame_root.mT @ (self.frame_root @ force[..., None]))[..., 0]


def reweight(squares: Tensor) -> Tensor:
    """Student-t weights of landmarks (2-D) at these squared distances, in units of the noise."""
    return (FREEDOM + 2) / (FREEDOM + squares)


def minimise(problem: Problem, state: ClipState, preconditioner: Preconditioner) -> ClipState:
    """The state of least objective next to `state`; every clip stops on its own, whatever the others do."""
    clips = problem.clips
    energy, force = problem.evaluate(state)
    memory: list[tuple[Vector, Vector, Float[Tensor, "C"]]] = []
    active, stretch = torch.ones_like(energy, dtype=torch.bool), torch.ones_like(energy)
    for _ in range(_MAX_STEPS):
        direction = _direction(force, memory, preconditioner, clips)
        promise = force.dot(direction, clips)
        step = Vector(torch.zeros_like(force.frames), torch.zeros_like(force.shape))
        step = step.plus(stretch * active, direction, clips)
        trial = state.advance(*step)
        trial_energy, trial_force = problem.evaluate(trial)
        lower = active & (trial_energy <= energy)
        change = force.plus(-torch.ones_like(energy), trial_force, clips)
        curvature = step.dot(change, clips)
        memory = [*memory, (step, change, torch.where(lower & (curvature > 0), 1 / curvature, 0))][-_MEMORY:]
        memory = [(s, y, torch.where(lower | ~active, rho, 0)) for s, y, rho in memory]  # a bad step clears it

        state = _choose(lower, trial, state, clips)
        force = Vector(*_choose_rows(lower, trial_force, force, clips))
        energy = torch.where(lower, trial_energy, energy)
        stretch = torch.where(lower, 1.0, _SHORTER * stretch)
        active = active & (promise > _TOLERANCE * energy) & (stretch > _SHORTEST)
        if not active.any():
            break
    return state


def _direction(
    force: Vector,
    memory: list[tuple[Vector, Vector, Float[Tensor, "C"]]],
    preconditioner: Preconditioner,
    clips: Clips,
) -> Vector:
    """The two-loop recursion; a remembered step of factor 0 has no effect."""
    shares = []
    for step, change, factor in reversed(memory):
        share = factor * step.dot(force, clips)
        force = force.plus(-share, change, clips)
        shares.append(share)
    direction = preconditioner.solve(force)
    for (step, change, factor), share in zip(memory, reversed(shares), strict=True):
        direction = direction.plus(share - factor * change.dot(direction, clips), step, clips)
    return direction


def _choose(first: Bool[Tensor, "C"], yes: ClipState, no: ClipState, clips: Clips) -> ClipState:
    shape = torch.where(first[:, None], yes.shape, no.shape)
    frames = first[clips.clip]
    rest = (torch.where(frames.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(yes[1:], no[1:], strict=True))
    return ClipState(shape, *rest)


def _choose_rows(first: Bool[Tensor, "C"], yes: Vector, no: Vector, clips: Clips) -> tuple[Tensor, Tensor]:
    frames = torch.where(first[clips.clip, None], yes.frames, no.frames)
    return frames, torch.where(first[:, None], yes.shape, no.shape)
