"""Fit of the parametric face to the landmarks of a clip, §3.1 of Song et al. 2020.

The paper asks for "a non-linear optimization problem, constrained by the statistical linear 3D face model". Here a
whole clip is fitted at once, one shape, an expression and a pose a frame:

    Σ_t Σ_i ρ(|l_ti - project(X_i(s, e_t), p_t)|² / σ²) + Σ_t (|e_t|² + |s|²) + Σ_t |x_{t+1} - x_t|² / step²

- ρ is the Student-t loss, so that an outlying landmark loses its weight (iteratively reweighted least squares).
- σ is estimated along with the rest, from the residuals and the number of unknowns that the landmarks decide (the
  evidence approximation of MacKay 1992). So the coefficients are as large as the landmarks warrant: noise-free
  landmarks are met exactly, noisy ones are denoised, and no ridge has to be chosen.
- The shape's prior counts once a frame: a detector errs the same way in all frames of a clip, so T frames are not T
  witnesses of the shape. Counted once a clip, real clips drive shapes to five standard deviations.
- Changes from frame to frame are held back lightly.
- The shape is settled on some of the frames, which leaves it no worse on real clips, and then all frames are solved.

Shape legend: T frames, L landmarks (68).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from model_zoo.face.clip_solver import (
    ClipPrior,
    ClipState,
    LandmarkModel,
    initial_pose,
    normal_equations,
    predict,
    solve_arrow,
    unexplained,
)
from model_zoo.face.morphable import NUM_EXPRESSION, NUM_LANDMARKS, NUM_SHAPE, MorphableFace
from model_zoo.functional.camera import POSE_DIM, rotation_matrix, rotation_vector
from model_zoo.functional.masks import OUTER_EYES

_LEFT_JAW, _RIGHT_JAW = slice(0, 8), slice(9, 17)
_HIDING_YAW = (10.0, 25.0)  # degrees over which the jaw of the far side fades out

_EXPRESSION_STEP = 1.0  # standard deviation of a change between frames, in those of the model: light
_POSE_STEP = 0.1  # the same in rad, eye distances, log scale
_FREEDOM = 6.0  # degrees of freedom of the Student-t noise
_GAUSSIAN_FACTOR = 0.887  # scale of that distribution when fitted to Gaussian noise of deviation 1, in two dimensions
_MIN_NOISE = 1e-4  # eye distances; 0.008 px of a 256-pixel crop
_MIN_FREE = 0.1  # of the residuals are taken to tell of the noise, however few they are
_MIN_LANDMARKS = 20  # fewer do not make a frame
_MIN_SPREAD = 1.0  # px, RMS distance of landmarks from their centre
_POSE_ROUNDS = 4  # of reweighting for the first pose
_MAX_TYPICAL_DISTANCE = 0.3  # eye distances, of the median landmark from the posed mean face
_MAX_NME = 0.15  # landmarks worse than that show something else than a face
_SHAPE_FRAMES = (16, 256)  # evenly spaced, an eighth of the clip within these limits; the shape gains nothing from more
_CHUNK = 128  # frames solved at once when the shape is known; few enough to stay in cache
_CHUNK_MARGIN = 16  # frames by which chunks overlap, for smoothness across their ends
_MAX_STEPS = 30
_TOLERANCE = 0.03  # stop when landmarks move by less than this part of the noise (RMS)


@dataclass(frozen=True)
class FaceFit:
    """A face model fitted to a clip.

    Attributes:
        shape: coefficients of the clip.
        expression: coefficients of every frame.
        pose: rotation vector (rad), translation (px), log scale of every frame.
        residual: NME of every frame: mean distance between given and projected landmarks over the distance of the
            given outer eye corners (over the fitted scale where a corner is missing); 0 where not valid.
        valid: False where landmarks were missing or showed no face. Expression and pose are interpolated there.
        noise: estimated standard deviation of a landmark coordinate, px.
    """

    shape: Float[Tensor, "199"]
    expression: Float[Tensor, "T 29"]
    pose: Float[Tensor, "T 6"]
    residual: Float[Tensor, "T"]
    valid: Bool[Tensor, "T"]
    noise: float


class _Given(NamedTuple):
    """What was detected in the frames to be fitted."""

    points: Float[Tensor, "T 2 L"]
    present: Bool[Tensor, "T L"]
    trust: Float[Tensor, "T L"]  # weights for a first pose
    frames: Int[Tensor, "T"]  # their numbers in the clip

    def take(self, which: slice | Tensor) -> _Given:
        return _Given(*(value[which] for value in self))


def fit_clip(face: MorphableFace, landmarks: Float[Tensor, "T 68 2"]) -> FaceFit:
    """Fit a face to the landmarks of a clip; runs in float64 on the device of `landmarks`.

    Args:
        face: the parametric face.
        landmarks: detected landmarks, px of the frame. A landmark that is not finite is missing.

    Returns:
        The fit, finite everywhere.

    Raises:
        ValueError: `landmarks` has another shape, or no frame shows a face.
    """
    if landmarks.ndim != 3 or landmarks.shape[1:] != (NUM_LANDMARKS, 2):
        raise ValueError(f"landmarks must be (T, {NUM_LANDMARKS}, 2), got {tuple(landmarks.shape)}")
    model = LandmarkModel.of(face, torch.float64, landmarks.device)
    present = landmarks.isfinite().all(-1)
    points = landmarks.double().where(present[..., None], 0).mT  # (T, 2, L)
    trust, valid = _screen(model, points, present)
    while valid.any():
        frames = valid.nonzero()[:, 0]
        given = _Given(points[frames], present[frames], trust[frames], frames)
        state, noise = _fit_frames(model, given)
        residual = _nme(model, state, given)
        is_face = residual <= _MAX_NME
        if is_face.all():
            return _assemble(face, state, residual, noise, valid)
        valid[frames[~is_face]] = False
    raise ValueError(
        f"no face in {len(landmarks)} frames: their landmarks are missing, collapsed or far from any face; "
        "check the video and the detector"
    )


def _screen(
    model: LandmarkModel, points: Float[Tensor, "T 2 L"], present: Bool[Tensor, "T L"]
) -> tuple[Float[Tensor, "T L"], Bool[Tensor, "T"]]:
    """Weight of every landmark by its distance from the posed mean face, and which frames lie near it at all."""
    count = present.sum(1).clamp(min=1)
    away = (points - (points.sum(2) / count[:, None])[..., None]) * present[:, None]
    spread = (away.square().sum((1, 2)) / count).sqrt()
    valid = (count >= _MIN_LANDMARKS) & (spread >= _MIN_SPREAD)
    trust = present * valid[:, None].double()
    if valid.any():
        points, present, weights = points[valid], present[valid], trust[valid]
        for _ in range(_POSE_ROUNDS):
            rotation, translation, log_scale = initial_pose(model.mean, points, weights)
            scale = log_scale.exp()[:, None]
            posed = scale[..., None] * (rotation @ model.mean)[:, :2] + translation[..., None]
            distance = ((points - posed).norm(dim=1) / scale).where(present, math.nan)
            typical = distance.nanmedian(1, keepdim=True).values.clamp(min=_MIN_NOISE)
            weights = (1 / (1 + (distance / (2 * typical)).square())).where(present, 0.0)
        trust[valid] = weights
        valid[valid.clone()] = typical[:, 0] < _MAX_TYPICAL_DISTANCE
    return trust, valid


def _fit_frames(model: LandmarkModel, given: _Given) -> tuple[ClipState, Tensor]:
    """State (px) and noise (px) of frames that all show a face."""
    _, middle, log_scale = initial_pose(model.mean, given.points, given.trust)
    unit, origin = log_scale.median().exp(), middle.mean(0)
    given = given._replace(points=(given.points - origin[:, None]) / unit)
    num_frames = len(given.points)
    fewest, most = _SHAPE_FRAMES
    num_chosen = min(num_frames, max(fewest, min(num_frames // 8, most)))
    position = torch.linspace(0, num_chosen - 1, num_frames, device=origin.device).round().long()
    chosen = torch.linspace(0, num_frames - 1, num_chosen, device=origin.device).round().long()
    neutral = given.points.new_zeros(num_chosen, len(model.expression))
    fitted, noise = _minimise(model, given.take(chosen), neutral)
    if num_chosen < num_frames:
        model, expression = model.with_shape(fitted.shape), fitted.expression[position]  # of the nearest chosen frame
        pieces = []
        for start in range(0, num_frames, _CHUNK):
            wide = slice(max(start - _CHUNK_MARGIN, 0), start + _CHUNK + _CHUNK_MARGIN)
            piece, _ = _minimise(model, given.take(wide), expression[wide], noise)
            pieces.append(piece.frames(slice(start - wide.start, start - wide.start + _CHUNK)))
        joined = (torch.cat(parts) for parts in zip(*(piece[1:] for piece in pieces), strict=True))
        fitted = ClipState(fitted.shape, *joined)
    in_pixels = fitted._replace(translation=fitted.translation * unit + origin, log_scale=fitted.log_scale + unit.log())
    return in_pixels, noise * unit


def _minimise(
    model: LandmarkModel, given: _Given, expression: Float[Tensor, "T E"], noise: Tensor | None = None
) -> tuple[ClipState, Tensor]:
    """Gauss-Newton with reweighting from this expression; estimates the noise unless it is given. In eye distances."""
    points, present, trust, frames = given
    num_frames, num_expression = expression.shape
    state = ClipState(points.new_zeros(len(model.shape)), expression, *initial_pose(model.mean, points, trust))
    step = points.new_tensor([_EXPRESSION_STEP] * num_expression + [_POSE_STEP] * POSE_DIM)
    change = 1 / (step.square() * frames.diff()[:, None])  # a random walk: variance grows with the gap
    prior = ClipPrior(shape=float(num_frames), expression=1.0, change=change)
    num_unknowns = num_frames * step.numel() + len(state.shape)

    _, predicted = predict(model, state)
    distance = (points - predicted).square().sum(1) * present
    start = distance.sum() / present.sum() / 8 if noise is None else noise.square()  # half of what the mean face leaves
    level, secant = start.clamp(min=_MIN_NOISE**2).log(), _Secant()
    for _ in range(_MAX_STEPS):
        variance = level.exp()
        visible = present * _facing(state.rotation)
        weights = visible / variance * _reweight(distance / variance)
        solution = solve_arrow(normal_equations(model, state, points, weights, prior))
        state = state.advance(solution.frame_step, solution.shape_step)
        before, (_, predicted) = predicted, predict(model, state)
        distance = (points - predicted).square().sum(1) * present
        if noise is None:
            num_decided = num_unknowns - unexplained(solution, prior, num_expression)
            explained = (visible * _reweight(distance / variance) * distance).sum()
            num_residuals = 2 * visible.sum()
            num_free = (num_residuals - num_decided).clamp(min=_MIN_FREE * num_residuals)
            estimate = (explained / num_free).clamp(min=_MIN_NOISE**2).log()
            level = secant.next(level, estimate).clamp(min=math.log(_MIN_NOISE**2))
        if (predicted - before).square().mean() < _TOLERANCE**2 * variance:
            break
    return state, (level / 2).exp()


def _facing(rotation: Float[Tensor, "T 3 3"]) -> Float[Tensor, "T L"]:
    """Weight of every landmark: the jaw of the side that turns away fades out.

    There a detector follows the visible contour of the cheek, which slides over the surface as the head turns.
    """
    sine = -rotation[:, 2, 0]  # of the yaw, whatever the roll; positive hides the left side of an upright image
    start, end = (math.sin(math.radians(angle)) for angle in _HIDING_YAW)
    weight = rotation.new_ones(len(rotation), NUM_LANDMARKS)
    for side, turned in ((_LEFT_JAW, sine), (_RIGHT_JAW, -sine)):
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


def _reweight(squares: Tensor) -> Tensor:
    """Student-t weights of landmarks (2-D) at these squared distances, in units of the noise."""
    return (_FREEDOM + 2) / (_FREEDOM + squares)


def _nme(model: LandmarkModel, state: ClipState, given: _Given) -> Float[Tensor, "T"]:
    """Mean distance of the landmarks present over the distance of the outer eye corners."""
    _, predicted = predict(model, state)
    right, left = OUTER_EYES
    eyes = (given.points[..., left] - given.points[..., right]).norm(dim=1)
    seen = given.present[:, right] & given.present[:, left] & (eyes > 0)
    distance = (given.points - predicted).norm(dim=1) * given.present
    return distance.sum(1) / given.present.sum(1) / torch.where(seen, eyes, state.log_scale.exp())


def _assemble(
    face: MorphableFace, state: ClipState, residual: Float[Tensor, "N"], noise: Tensor, valid: Bool[Tensor, "T"]
) -> FaceFit:
    """Coefficients among the model's inactive ones, and the frames that are not valid filled from their neighbours."""
    shape = state.shape.new_zeros(NUM_SHAPE)
    shape[(face.shape_std > 0).to(shape.device)] = state.shape
    expression = state.shape.new_zeros(len(residual), NUM_EXPRESSION)
    expression[:, (face.expression_std > 0).to(shape.device)] = state.expression
    linear = torch.cat((expression, state.translation, state.log_scale[:, None]), 1)

    frames = valid.nonzero()[:, 0]
    time = torch.arange(len(valid), device=valid.device)
    after = torch.searchsorted(frames, time).clamp(max=len(frames) - 1)
    before = (torch.searchsorted(frames, time, right=True) - 1).clamp(min=0)
    share = ((time - frames[before]) / (frames[after] - frames[before]).clamp(min=1))[:, None].double()
    share = share.clamp(0, 1)
    linear = torch.lerp(linear[before], linear[after], share)
    turn = rotation_vector(state.rotation[after] @ state.rotation[before].mT)
    rotation = rotation_matrix(share * turn) @ state.rotation[before]
    pose = torch.cat((rotation_vector(rotation), linear[:, NUM_EXPRESSION:]), 1)
    everywhere = residual.new_zeros(len(valid))
    everywhere[frames] = residual
    return FaceFit(
        shape=shape.float(),
        expression=linear[:, :NUM_EXPRESSION].float(),
        pose=pose.float(),
        residual=everywhere.float(),
        valid=valid,
        noise=float(noise) / _GAUSSIAN_FACTOR,
    )
