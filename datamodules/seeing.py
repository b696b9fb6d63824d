"""What a sample sees beside its seven frames, and how its picture and its landmarks are changed in training.

Frames and windows overlap, so whatever is drawn holds for a stretch of a clip: every window that lies in it, and every
frame of these windows, is changed alike. Draws depend on (seed, epoch, clip, stretch) alone.

Shape legend: T frames of a clip, R reference frames, G frames of a gallery, N frames.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from datamodules.batch import NUM_FRAMES
from datamodules.clip_store import Clip
from datamodules.picture_augmentation import PictureAugmentation
from model_zoo.functional.heatmaps import HEATMAP_LANDMARKS
from model_zoo.functional.landmark_errors import drawn_knots, heard_landmarks, movement_modes, smooth_noise
from model_zoo.metrics.speech_metrics import inner_lip_gap

STRETCH = 64  # frames that share a draw
MOST_REFERENCES = 2  # the closed mouth, and the widest open one
_SETTLING = 10  # passes of k-means, after which shapes hardly move
GUARD = 12  # frames between a window's last frame and its reference: half a second, after which mouths have moved on


@dataclass(frozen=True)
class LandmarkErrors:
    """How landmarks err in training; see `model_zoo.functional.landmark_errors`.

    Attributes:
        heard: lowest share of the movement's variance that is predicted; each stretch draws one from there to 1.
        bias: deviation of the constant error, in deviations of each mode of movement.
    """

    heard: float = 1.0
    bias: float = 0.0

    def __call__(
        self, clip: Clip, frames: Int[Tensor, "N"], stretch: int, rng: np.random.Generator
    ) -> Float[Tensor, "N 68 2"]:
        """Landmarks of frames whose windows end in a stretch."""
        mean, modes = movement_modes(clip.landmarks)
        bias = torch.from_numpy(self.bias * rng.standard_normal(len(modes))).float()
        heard = rng.uniform(self.heard, 1)
        knots = drawn_knots(rng, STRETCH + NUM_FRAMES, len(modes))
        noise = smooth_noise(frames, knots, first=stretch * STRETCH - NUM_FRAMES)
        return heard_landmarks(clip.landmarks[frames], mean, modes, heard, bias, noise)


@dataclass(frozen=True)
class Seeing:
    """How the video part of samples is made.

    Attributes:
        references: frames of the same clip that every window brings along: 1, its most closed mouth; 2, also its widest
            open one.
        gallery: in the place of these, so many frames that show the mouth in all its shapes, with their landmarks.
        errors: of the landmarks in training. picture: changes of frames and landmarks in training.
        seed: of whatever is drawn.
    """

    references: int = 0
    gallery: int = 0
    errors: LandmarkErrors | None = None
    picture: PictureAugmentation | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.references <= MOST_REFERENCES:
            raise ValueError(f"renderer.references must be 0, 1 or {MOST_REFERENCES}, got {self.references}")
        if self.gallery and self.references:
            raise ValueError("windows bring either reference frames or a gallery")

    @property
    def draws(self) -> bool:
        """Whether training samples are changed at all."""
        return self.errors is not None or self.picture is not None

    @property
    def looks_beside(self) -> bool:
        """Whether windows bring frames from elsewhere in the clip along."""
        return self.references + self.gallery > 0

    def reference_frames(
        self, clip: Clip, allowed: Int[np.ndarray, "N"], frames: Int[Tensor, "B"]
    ) -> Int[Tensor, "B R"]:
        """Reference frames of the windows that end at `frames`, among the allowed frames of the clip (sorted)."""
        if self.references == 0 or len(allowed) == 0:
            return frames[:, None].expand(-1, self.references)
        gap = inner_lip_gap(clip.landmarks[torch.from_numpy(allowed)]).numpy()
        ends = [by_rank(allowed[np.argsort(sign * gap, kind="stable")]) for sign in (1, -1)[: self.references]]
        return torch.tensor([[choose_reference(*end, frame) for end in ends] for frame in frames.tolist()])


def mouth_gallery(
    landmarks: Float[Tensor, "N 68 2"], allowed: Int[np.ndarray, "M"], count: int
) -> Int[Tensor, "count"]:
    """Frames of a clip that show its mouth in all its shapes: those nearest to the centres that k-means finds.

    Args:
        landmarks: of all frames of the clip.
        allowed: frames that may be shown, at least one. A clip with fewer shapes gives some frames twice.
    """
    shapes = landmarks[torch.from_numpy(allowed)][:, HEATMAP_LANDMARKS].flatten(1)
    centres = shapes[(shapes - shapes.mean(0)).square().sum(1).argmin()][None]
    while len(centres) < min(count, len(shapes)):  # what is furthest from all so far: no shape is missed
        centres = torch.cat([centres, shapes[torch.cdist(shapes, centres).amin(1).argmax()][None]])
    for _ in range(_SETTLING):
        nearest = torch.cdist(shapes, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, shapes)
        members = torch.bincount(nearest, minlength=len(centres))[:, None]
        centres = torch.where(members > 0, sums / members.clamp_min(1), centres)
    chosen = torch.from_numpy(allowed)[torch.cdist(centres, shapes).argmin(1)]
    return chosen[torch.arange(count) % len(chosen)]


def hidden_from(gallery: Int[Tensor, "G"], frames: Int[Tensor, "B"]) -> Bool[Tensor, "B G"]:
    """What windows must not look at: frames within `GUARD` of theirs, unless all are; then all but the furthest."""
    away = (gallery - frames[:, None]).abs()
    furthest = away == away.amax(1, keepdim=True)
    return (away <= GUARD) & ~furthest


def by_rank(ranked: Int[np.ndarray, "N"]) -> tuple[int, int]:
    """The best frame, and the best one for windows near it: two frames a clip, so that a reference rarely changes."""
    far = ranked[np.abs(ranked - ranked[0]) > 2 * GUARD]
    return int(ranked[0]), int(far[0] if len(far) else ranked[np.abs(ranked - ranked[0]).argmax()])


def choose_reference(best: int, second: int, frame: int) -> int:
    """The best frame unless it is within `GUARD` frames of `frame`, which it would give away; then the second.

    In a clip too short for both, whichever is further away.
    """
    if abs(best - frame) > GUARD:
        return best
    return max(second, best, key=lambda other: abs(other - frame))


def named_draws(*names: int | str) -> np.random.Generator:
    """Random numbers that depend on the names alone."""
    name = "\0".join(map(str, names))
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()))
