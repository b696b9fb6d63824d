"""The three parts of a fit (see fitting.py): shape and noise, then every frame, then all unknowns together.

Shape legend: C clips, N frames of all clips end to end, L landmarks (68), R rows that landmarks are compared with: the
68 and the outline's vertices that stand for some of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from model_zoo.face.clip_solver import (
    ArrowSolution,
    ClipPrior,
    Clips,
    ClipState,
    LandmarkModel,
    initial_pose,
    normal_equations,
    solve_arrow,
    unexplained,
    view,
)
from model_zoo.face.contour import LEFT_JAW, RIGHT_JAW, SLIDING_YAW, Contour, turned_away
from model_zoo.face.given_landmarks import Detections, EyeDistances, Given, blocks_of, in_blocks
from model_zoo.face.joint_minimum import Preconditioner, Problem, minimise, reweight
from model_zoo.face.morphable import NUM_LANDMARKS, MorphableFace
from model_zoo.functional.camera import POSE_DIM

_HIDING_YAW = (10.0, 25.0)  # degrees over which the jaw of the far side fades out where it does not slide
_EXPRESSION_STEP = 1.0  # standard deviation of a change between frames, in those of the model: light
_POSE_STEP = 0.1  # the same in rad, eye distances, log scale
_MIN_NOISE = 1e-4  # eye distances; 0.008 px of a 256-pixel crop
_MIN_FREE = 0.1  # of the residuals are taken to tell of the noise, however few they are
_SHAPE_FRAMES = (16, 64)  # evenly spaced, an eighth of the clip within these limits, tell shape and noise
_PIECE = 128  # frames solved at once when the shape is known; few enough to stay in cache
_PIECE_MARGIN = 16  # frames by which pieces overlap, for smoothness across their ends
_OUTLINE_WEIGHT = 0.1  # of a landmark on the outline: how high it sits there is known less well
_MAX_STEPS = 30
_MAX_CHOICES = 10  # steps after which the outline's vertices stay, lest neighbours take turns
_TOLERANCE = 0.05  # shape and noise are found when landmarks move by less than this part of the noise (RMS)
# Frames; more of them keep the minimum of each frame given the shape. The joint one needs 40 kB a frame, and 64 frames
# leave little to be learned about the shape.
_MOST_TOGETHER = 1000
_ROUGHLY = 0.3  # the same for frames given the shape, which need only be near


class Compared(NamedTuple):
    """The rows that landmarks are compared with, and what was detected for them."""

    model: LandmarkModel
    owner: Int[Tensor, "R"]  # the landmark that a row stands for
    points: Float[Tensor, "N 2 R"]
    visible: Float[Tensor, "N R"]


class ClipFitter(NamedTuple):
    """A face on a device, ready to be fitted.

    Attributes:
        model: its 68 landmarks.
        contour: candidates of the jaw's outline; None if it does not slide.
        fading: whether the far jaw fades out instead.
    """

    model: LandmarkModel
    contour: Contour | None
    fading: bool

    @classmethod
    def of(cls, face: MorphableFace, device: torch.device, jaw: str) -> ClipFitter:
        """A fitter for `face`; a face without an outline fades instead of sliding."""
        contour = Contour.of(face, torch.float64, device) if jaw == "sliding" else None
        return cls(LandmarkModel.of(face, torch.float64, device), contour, jaw != "fixed" and contour is None)

    def fit(self, detections: Detections, clips: Clips) -> tuple[ClipState, Float[Tensor, "C"], Float[Tensor, "N L"]]:
        """State (px), noise (px) and weights of the landmarks, of frames that all show a face."""
        eyes = EyeDistances.of(self.model.mean, detections, clips)
        chosen, nearest, few = _evenly(clips)
        some_given = eyes.measure(detections.take(chosen), few.clip)
        neutral = some_given.points.new_zeros(len(chosen), len(self.model.expression))
        start = some_given.points.new_zeros(len(eyes.unit), len(self.model.shape))
        some, noise, solution = self._minimise(some_given, few, start, neutral)
        jointly = len(detections.frames) <= _MOST_TOGETHER or noise.device.type != "cpu"
        state, root = self._all_frames(detections, clips, eyes, some, nearest, noise, jointly)
        share = torch.tensor(clips.lengths, device=noise.device) / torch.tensor(few.lengths, device=noise.device)
        state, weight = self._together(detections, clips, eyes, state, noise, root, solution, share)
        return eyes.in_pixels(state, clips.clip), noise * eyes.unit, weight

    def _all_frames(
        self,
        detections: Detections,
        clips: Clips,
        eyes: EyeDistances,
        some: ClipState,
        nearest: Int[Tensor, "N"],
        noise: Float[Tensor, "C"],
        with_roots: bool,
    ) -> tuple[ClipState, Float[Tensor, "N F F"] | None]:
        """Every frame given the shape, in pieces that are clips to the solver; with the roots of the frames' blocks.

        Frames start from the expression of the nearest of those that told the shape.
        """
        device = noise.device
        inner, wide, owner, first = [], [], [], 0
        for number, length in enumerate(clips.lengths):
            for start in range(0, length, _PIECE):
                wide.append(
                    range(first + max(start - _PIECE_MARGIN, 0), first + min(start + _PIECE + _PIECE_MARGIN, length))
                )
                inner.append(range(first + start, first + min(start + _PIECE, length)))
                owner.append(number)
            first += length
        limit = _PIECE + 2 * _PIECE_MARGIN if device.type == "cpu" else len(nearest) * 2
        states, roots = [], []
        for group in _groups([len(piece) for piece in wide], limit):
            frames = torch.tensor([frame for piece in group for frame in wide[piece]], device=device)
            pieces = Clips.of([len(wide[piece]) for piece in group], device)
            of = torch.tensor([owner[piece] for piece in group], device=device)
            seen, start = eyes.measure(detections.take(frames), clips.clip[frames]), some.expression[nearest[frames]]
            state, _, solution = self._minimise(seen, pieces, some.shape[of], start, noise[of])
            first, kept = 0, []
            for piece in group:
                offset = first - wide[piece].start
                kept += range(inner[piece].start + offset, inner[piece].stop + offset)
                first += len(wide[piece])
            keep = torch.tensor(kept, device=device)
            states.append([value[keep] for value in state[1:]])
            if with_roots:
                roots.append(solution.frame_root[keep])
        state = ClipState(some.shape, *(torch.cat(parts) for parts in zip(*states, strict=True)))
        return state, torch.cat(roots) if with_roots else None

    def _together(
        self,
        detections: Detections,
        clips: Clips,
        eyes: EyeDistances,
        state: ClipState,
        noise: Float[Tensor, "C"],
        root: Float[Tensor, "N F F"] | None,
        solution: ArrowSolution,
        share: Float[Tensor, "C"],
    ) -> tuple[ClipState, Float[Tensor, "N L"]]:
        """The joint minimum; the Schur complement of all frames is about `share` times that of some of them.

        Without `root` only the weights.
        """
        if root is None:
            weight = torch.empty(len(detections.frames), NUM_LANDMARKS, device=noise.device)
            parts = zip(blocks_of(len(weight)), in_blocks(detections, clips, state), strict=True)
            for block, (seen, of, own) in parts:
                weight[block] = self._weight(*self._problem(eyes.measure(seen, of.clip), of, own, noise), own)
            return state, weight
        problem, owner = self._problem(eyes.measure(detections, clips.clip), clips, state, noise)
        here = view(problem.model, state, clips)
        schur = solution.schur_factor * share.sqrt()[:, None, None]
        state = minimise(problem, state, Preconditioner(here, problem.weights(here), root, schur))
        return state, self._weight(problem, owner, state)

    def _problem(
        self, given: Given, clips: Clips, state: ClipState, noise: Float[Tensor, "C"]
    ) -> tuple[Problem, Int[Tensor, "R"]]:
        """What is to be minimised, and the landmark that each of its rows stands for."""
        compared = self._compare(given, clips, state)
        prior = _prior(given, clips, len(self.model.expression))
        problem = Problem(compared.model, clips, compared.points, compared.visible, noise.square(), prior)
        return problem, compared.owner

    @staticmethod
    def _weight(problem: Problem, owner: Int[Tensor, "R"], state: ClipState) -> Float[Tensor, "N L"]:
        """Weight of each of the 68 landmarks, without unit."""
        clips = problem.clips
        weights = problem.weights(view(problem.model, state, clips)) * problem.variance[clips.clip, None]
        return weights.new_zeros(len(weights), NUM_LANDMARKS).index_add_(1, owner, weights).float()

    def _minimise(
        self,
        given: Given,
        clips: Clips,
        shape: Float[Tensor, "C K"],
        expression: Float[Tensor, "N E"],
        noise: Float[Tensor, "C"] | None = None,
    ) -> tuple[ClipState, Float[Tensor, "C"], ArrowSolution]:
        """Gauss-Newton with reweighting from this shape and expression, lengths in eye distances.

        Without `noise` it solves for shape and noise too, with it the shape is held. A clip stays where it is once it
        has converged, whatever the others do.
        """
        num_expression = expression.shape[1]
        points = (self.model.mean.flatten() + shape @ self.model.shape.flatten(1))[clips.clip].unflatten(1, (3, -1))
        state = ClipState(shape, expression, *initial_pose(points, given.points, given.trust))
        tolerance = _TOLERANCE if noise is None else _ROUGHLY
        prior = _prior(given, clips, num_expression)
        num_unknowns = prior.shape * (num_expression + POSE_DIM) + shape.shape[1]

        compared = self._compare(given, clips, state)
        here = view(compared.model, state, clips)
        residual = compared.points - here.projected
        squares = residual.square().sum(1)
        mean_square = clips.sum((squares * compared.visible).sum(1)) / clips.sum(compared.visible.sum(1))
        start = mean_square / 8 if noise is None else noise.square()  # half of what the mean face leaves
        level, secant = start.clamp(min=_MIN_NOISE**2).log(), _Secant()
        active, solution = torch.ones_like(level, dtype=torch.bool), None
        for step in range(_MAX_STEPS):
            variance = level.exp()[clips.clip, None]
            weights = compared.visible / variance * reweight(squares / variance)
            system = normal_equations(here, state, residual, weights, prior, with_shape=noise is None)
            found = solve_arrow(system, clips)
            solution = found if solution is None or bool(active.all()) else _merge(active, found, solution, clips)
            shape_step = solution.shape_step if noise is None else torch.zeros_like(shape)
            state = state.advance(
                solution.frame_step * active[clips.clip, None], torch.where(active[:, None], shape_step, 0)
            )
            after = view(compared.model, state, clips)
            moved = (after.projected - here.projected).square().sum(1)[:, : given.points.shape[-1]].mean(1) / 2
            moved = clips.sum(moved) / prior.shape
            here, residual = after, compared.points - after.projected
            squares = residual.square().sum(1)
            if noise is None:
                num_decided = num_unknowns - unexplained(solution, prior, clips, num_expression)
                explained = compared.visible * reweight(squares / variance) * squares
                num_residuals = 2 * clips.sum(compared.visible.sum(1))
                num_free = torch.maximum(num_residuals - num_decided, _MIN_FREE * num_residuals)
                estimate = (clips.sum(explained.sum(1)) / num_free).clamp(min=_MIN_NOISE**2).log()
                following = secant.next(level, estimate).clamp(min=math.log(_MIN_NOISE**2))
                next_level = torch.where(active, following, level)
            else:
                next_level = level
            active = active & ~(moved < tolerance**2 * level.exp())
            level = next_level
            if not active.any():
                break
            if step < _MAX_CHOICES and (self.contour is not None or self.fading):
                before, compared = compared, self._compare(given, clips, state)
                if compared.model is not before.model:
                    here = view(compared.model, state, clips)
                    residual = compared.points - here.projected
                    squares = residual.square().sum(1)
        return state, (level / 2).exp(), solution

    def _compare(self, given: Given, clips: Clips, state: ClipState) -> Compared:
        """What every landmark is compared with, as the heads stand now."""
        own = torch.arange(given.present.shape[1], device=given.present.device)
        away, visible = turned_away(state.rotation), given.present.double()
        if self.contour is None or not bool((away.abs() > math.sin(math.radians(SLIDING_YAW))).any()):
            return Compared(self.model, own, given.points, visible * _facing(away) if self.fading else visible)
        chosen = self.contour.choose(state, clips)
        used = chosen.any(0).nonzero()[:, 0]
        owner, chosen = self.contour.owner[used], chosen[:, used].double()
        taken = torch.zeros_like(visible).index_add_(1, owner, chosen)
        return Compared(
            self.model.join(self.contour.model.rows(used)),
            torch.cat((own, owner)),
            torch.cat((given.points, given.points[..., owner]), -1),
            torch.cat((visible * (1 - taken), _OUTLINE_WEIGHT * visible[:, owner] * chosen), -1),
        )


def _prior(given: Given, clips: Clips, num_expression: int) -> ClipPrior:
    step = given.points.new_tensor([_EXPRESSION_STEP] * num_expression + [_POSE_STEP] * POSE_DIM)
    change = 1 / (step.square() * given.time.diff()[:, None])  # a random walk: variance grows with the gap
    linked = (clips.clip.diff() == 0)[:, None]
    return ClipPrior(step.new_tensor(clips.lengths), 1.0, torch.where(linked, change, 0))


def _merge(active: Bool[Tensor, "C"], new: ArrowSolution, old: ArrowSolution, clips: Clips) -> ArrowSolution:
    """The new solution of the active clips, the old one of the others."""
    frames = active[clips.clip]
    wheres = (frames[:, None], active[:, None], frames[:, None, None], active[:, None, None])
    return ArrowSolution(*(torch.where(*choice) for choice in zip(wheres, new, old, strict=True)))


def _evenly(clips: Clips) -> tuple[Int[Tensor, "n"], Int[Tensor, "N"], Clips]:
    """Frames that tell shape and noise, for each frame the nearest of them (counted among them), and their clips."""
    fewest, most = _SHAPE_FRAMES
    device, first, chosen, nearest, counts = clips.clip.device, 0, [], [], []
    for length in clips.lengths:
        count = min(length, max(fewest, min(length // 8, most)))
        chosen.append(first + torch.linspace(0, length - 1, count, device=device).round().long())
        nearest.append(sum(counts) + torch.linspace(0, count - 1, length, device=device).round().long())
        counts.append(count)
        first += length
    return torch.cat(chosen), torch.cat(nearest), Clips.of(counts, device)


def _groups(sizes: list[int], limit: int) -> list[list[int]]:
    """Numbers of successive things whose sizes add up to no more than `limit`, or of a single larger one."""
    groups: list[list[int]] = []
    total = limit + 1
    for number, size in enumerate(sizes):
        if total + size > limit:
            groups.append([])
            total = 0
        groups[-1].append(number)
        total += size
    return groups


def _facing(away: Float[Tensor, "N"]) -> Float[Tensor, "N L"]:
    """Weight of every landmark: the jaw of the side that turns away fades out."""
    start, end = (math.sin(math.radians(angle)) for angle in _HIDING_YAW)
    weight = away.new_ones(len(away), 68)
    for side, turned in ((LEFT_JAW, away), (RIGHT_JAW, -away)):
        weight[:, side] = ((end - turned) / (end - start)).clamp(0, 1)[:, None]
    return weight


class _Secant:
    """Fixed point of a scalar map by the secant rule, where plain repetition creeps; never slower than repetition."""

    _MAX_STRETCH = 4.0

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self.change: Tensor | None = None

    def next(self, value: Tensor, image: Tensor) -> Tensor:
        """Where to evaluate the map next, after it has sent `value` to `image`."""
        change = image - value
        stretch = torch.ones_like(change)
        if self.value is not None and self.change is not None:
            stretch = ((self.value - value) / (change - self.change)).nan_to_num(1.0).clamp(1.0, self._MAX_STRETCH)
        self.value, self.change = value, change
        return value + stretch * change
