"""Fit of the parametric face to the landmarks of clips, §3.1 of Song et al. 2020.

The paper asks for "a non-linear optimization problem, constrained by the statistical linear 3D face model". Here a
whole clip is fitted at once, one shape, an expression and a pose a frame:

    Σ_t Σ_i ρ(|l_ti - project(X_i(s, e_t), p_t)|² / σ²) + Σ_t (|e_t|² + |s|²) + Σ_t |x_{t+1} - x_t|² / step²

- ρ is the Student-t loss, so that an outlying landmark loses its weight (iteratively reweighted least squares).
- σ is estimated along with the shape, from the residuals and the number of unknowns that the landmarks decide (the
  evidence approximation of MacKay 1992). So the coefficients are as large as the landmarks warrant: noise-free
  landmarks are met exactly, noisy ones are denoised, and no ridge has to be chosen.
- The shape's prior counts once a frame: a detector errs the same way in all frames of a clip, so T frames are not T
  witnesses of the shape. Counted once a clip, real clips drive shapes to five standard deviations.
- Changes from frame to frame are held back lightly.
- The far side of the jaw is not where the model's landmarks are when the head turns (`Jaw`).

In three parts: shape and σ from some of the frames, all frames given that shape (solver: clip_solver.py), and from
there the minimum over all unknowns together (joint_minimum.py).

Shape legend: C clips, N frames of all clips end to end, T frames of a clip, L rows that landmarks are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from model_zoo.face.clip_fitter import ClipFitter
from model_zoo.face.clip_solver import Clips, ClipState, initial_pose, view
from model_zoo.face.given_landmarks import Detections, Given, blocks_of, in_blocks
from model_zoo.face.morphable import NUM_EXPRESSION, NUM_LANDMARKS, NUM_SHAPE, MorphableFace
from model_zoo.functional.camera import rotation_matrix, rotation_vector
from model_zoo.functional.masks import OUTER_EYES

# What the far side of the jaw is compared with when the head turns: the outline of the face (contour.py), nothing
# (it fades out between 10 and 25 degrees of yaw), or the model's own landmarks as at frontal pose.
Jaw = Literal["sliding", "fading", "fixed"]

_GAUSSIAN_FACTOR = 0.887  # scale of the Student-t noise when fitted to Gaussian noise of deviation 1, in two dimensions
_FARTHEST = 1e6  # px; a landmark further away is missing
_MIN_DISTANCE = 1e-4  # eye distances
_MIN_LANDMARKS = 20  # fewer do not make a frame
_MIN_SPREAD = 1.0  # px, RMS distance of landmarks from their centre
_POSE_ROUNDS = 4  # of reweighting for the first pose
_MAX_TYPICAL_DISTANCE = 0.3  # eye distances, of the median landmark from the posed mean face
_MAX_NME = 0.15  # landmarks worse than that show something else than a face
_TOGETHER = {"cpu": 512, "cuda": 32_768}  # frames; clips beyond that are solved in turn, to stay in cache and memory


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
        weight: how much each landmark counted: 4/3 where it was met exactly, 0 where it was missing or hidden.
    """

    shape: Float[Tensor, "199"]
    expression: Float[Tensor, "T 29"]
    pose: Float[Tensor, "T 6"]
    residual: Float[Tensor, "T"]
    valid: Bool[Tensor, "T"]
    noise: float
    weight: Float[Tensor, "T 68"]


def fit_clip(face: MorphableFace, landmarks: Float[Tensor, "T 68 2"], jaw: Jaw = "sliding") -> FaceFit:
    """Fit a face to the landmarks of a clip; runs in float64 on the device of `landmarks`.

    Args:
        face: the parametric face.
        landmarks: detected landmarks, px of the frame. A landmark that is not finite is missing.
        jaw: what the far side of the jaw is compared with when the head turns.

    Returns:
        The fit, finite everywhere.

    Raises:
        ValueError: `landmarks` has another shape, or no frame shows a face.
    """
    (fit,) = fit_clips(face, [landmarks], jaw)
    if fit is None:
        raise ValueError(
            f"no face in {len(landmarks)} frames: their landmarks are missing, collapsed or far from any face; "
            "check the video and the detector"
        )
    return fit


def fit_clips(
    face: MorphableFace, clips: Sequence[Float[Tensor, "T 68 2"]], jaw: Jaw = "sliding"
) -> list[FaceFit | None]:
    """Fit a face to each of several clips, of any lengths, in one computation.

    Every clip gets the fit that it would get alone.

    Args:
        face: the parametric face.
        clips: detected landmarks of every clip, px of the frame, all on one device. A landmark that is not finite is
            missing.
        jaw: what the far side of the jaw is compared with when the head turns.

    Returns:
        The fit of every clip, finite everywhere; None for a clip that shows no face in any frame.

    Raises:
        ValueError: the landmarks of a clip have another shape.
    """
    for landmarks in clips:
        if landmarks.ndim != 3 or landmarks.shape[1:] != (NUM_LANDMARKS, 2):
            raise ValueError(f"landmarks must be (T, {NUM_LANDMARKS}, 2), got {tuple(landmarks.shape)}")
    fits: list[FaceFit | None] = []
    together: list[Tensor] = []
    for landmarks in clips:
        if together and sum(map(len, (*together, landmarks))) > _TOGETHER.get(landmarks.device.type, 0):
            fits += _fit_together(face, together, jaw)
            together = []
        together.append(landmarks)
    return fits + _fit_together(face, together, jaw) if together else fits


def _fit_together(face: MorphableFace, clips: list[Float[Tensor, "T 68 2"]], jaw: Jaw) -> list[FaceFit | None]:
    fitter = ClipFitter.of(face, clips[0].device, jaw)
    everything = clips[0] if len(clips) == 1 else torch.cat(clips)
    lengths = [len(clip) for clip in clips]
    present = ((everything > -_FARTHEST) & (everything < _FARTHEST)).all(-1)
    points = everything.mT  # (N, 2, L)
    trust = points.new_empty(present.shape, dtype=torch.float64)
    valid = torch.empty_like(present[:, 0])
    for block in blocks_of(len(points)):
        trust[block], valid[block] = _screen(fitter.model.mean, points[block], present[block])
    time = torch.cat([torch.arange(length, device=points.device) for length in lengths])
    valid_of = valid.split(lengths)  # views: what is found wrong below shows here

    fits: list[FaceFit | None] = [None] * len(clips)
    pending = torch.ones(len(clips), dtype=torch.bool)
    while True:
        pending &= torch.tensor([bool(own.any()) for own in valid_of])
        numbers = pending.nonzero()[:, 0].tolist()
        if not numbers:
            return fits
        chosen = torch.cat([own & bool(waits) for own, waits in zip(valid_of, pending, strict=True)])
        frames = chosen.nonzero()[:, 0]
        members = Clips.of([int(valid_of[number].sum()) for number in numbers], points.device)
        detections = Detections(points, present, trust, time, frames)
        state, noise, weight = fitter.fit(detections, members)
        parts = in_blocks(detections, members, state)
        residual = torch.cat(
            [_nme(view(fitter.model, own, of).projected, seen.given(), own.log_scale) for seen, of, own in parts]
        )
        is_face = residual <= _MAX_NME  # not for what is not a number either
        valid[frames[~is_face]] = False
        pieces = zip(*(value.split(members.lengths) for value in (*state[1:], residual, weight, is_face)), strict=True)
        for row, (number, (*fitted, own_residual, own_weight, good)) in enumerate(zip(numbers, pieces, strict=True)):
            if bool(good.all()):
                own = ClipState(state.shape[row], *fitted)
                fits[number] = _assemble(face, own, own_residual, own_weight, noise[row], valid_of[number])
                pending[number] = False


def _screen(
    mean: Float[Tensor, "3 L"], points: Float[Tensor, "N 2 L"], present: Bool[Tensor, "N L"]
) -> tuple[Float[Tensor, "N L"], Bool[Tensor, "N"]]:
    """Weight of every landmark by its distance from the posed mean face, and which frames lie near it at all."""
    points = points.double().where(present[:, None], 0)
    count = present.sum(1).clamp(min=1)
    away = (points - (points.sum(2) / count[:, None])[..., None]) * present[:, None]
    spread = (away.square().sum((1, 2)) / count).sqrt()
    valid = (count >= _MIN_LANDMARKS) & (spread >= _MIN_SPREAD)
    trust = present * valid[:, None].double()
    if valid.any():
        points, present, weights = points[valid], present[valid], trust[valid]
        for _ in range(_POSE_ROUNDS):
            rotation, translation, log_scale = initial_pose(mean, points, weights)
            scale = log_scale.exp()[:, None]
            posed = scale[..., None] * (rotation @ mean)[:, :2] + translation[..., None]
            distance = ((points - posed).norm(dim=1) / scale).where(present, math.nan)
            typical = distance.nanmedian(1, keepdim=True).values.clamp(min=_MIN_DISTANCE)
            weights = (1 / (1 + (distance / (2 * typical)).square())).where(present, 0.0)
        trust[valid] = weights
        valid[valid.clone()] = typical[:, 0] < _MAX_TYPICAL_DISTANCE
    return trust, valid


def _nme(projected: Float[Tensor, "N 2 68"], given: Given, log_scale: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Mean distance of the landmarks present over the distance of the outer eye corners."""
    right, left = OUTER_EYES
    eyes = (given.points[..., left] - given.points[..., right]).norm(dim=1)
    seen = given.present[:, right] & given.present[:, left] & (eyes > 0)
    distance = (given.points - projected).norm(dim=1) * given.present
    return distance.sum(1) / given.present.sum(1) / torch.where(seen, eyes, log_scale.exp())


def _assemble(
    face: MorphableFace,
    state: ClipState,
    residual: Float[Tensor, "t"],
    weight: Float[Tensor, "t L"],
    noise: Tensor,
    valid: Bool[Tensor, "T"],
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
    residual_of_all, weight_of_all = weight.new_zeros(len(valid)), weight.new_zeros(len(valid), NUM_LANDMARKS)
    residual_of_all[frames], weight_of_all[frames] = residual.float(), weight
    return FaceFit(
        shape=shape.float(),
        expression=linear[:, :NUM_EXPRESSION].float(),
        pose=pose.float(),
        residual=residual_of_all,
        valid=valid.clone(),
        noise=float(noise) / _GAUSSIAN_FACTOR,
        weight=weight_of_all,
    )
