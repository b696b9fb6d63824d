"""Landmarks as networks that listen would have got them, to train a renderer for what it will be fed.

Not in the paper, whose renderer is trained on landmarks of the fit and driven by predicted ones. A network that hears
a share ρ of what a mouth does (its R²) predicts ρ of the movement, is smooth in time where it is wrong, and lies a
little beside the speaker's own mean. With a movement x of deviation s and smooth noise n of unit deviation, the
prediction x̂ = ρ x + √(ρ(1 − ρ)) s n has the moments of such a network's: its deviation is √ρ s, and its error x − x̂
does not correlate with it. Errors lie in the movements that the clip itself shows, its principal components, so that
lips and jaw stay those of a face.

Shape legend: T frames, L landmarks, K modes of movement.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from model_zoo.functional.heatmaps import HEATMAP_LANDMARKS

NUM_MODES = 6  # of a clip's movement: some 97% of that of mouth and jaw
MOST_FRAMES = 512  # that the modes are made of, evenly spaced
KNOT = 4  # frames between two independent values of the noise: 0.16 s, a syllable


def movement_modes(
    landmarks: Float[Tensor, "T 68 2"], num_modes: int = NUM_MODES
) -> tuple[Float[Tensor, "L 2"], Float[Tensor, "K L 2"]]:
    """Mean of mouth and jaw over a clip, and its principal movements, each scaled to one standard deviation (px)."""
    parts = landmarks[:: -(-len(landmarks) // MOST_FRAMES), list(HEATMAP_LANDMARKS)]
    mean = parts.mean(0)
    moved = (parts - mean).flatten(1)
    _, scale, modes = torch.linalg.svd(moved, full_matrices=False)
    scaled = modes * (scale / max(1, len(parts)) ** 0.5)[:, None]
    return mean, scaled[:num_modes].unflatten(1, mean.shape)


def smooth_noise(frames: Int[Tensor, "T"], knots: Float[Tensor, "N K"], first: int) -> Float[Tensor, "T K"]:
    """Noise of unit deviation at some frames: independent values every `KNOT` frames, joined by cosines.

    Args:
        frames: at most KNOT (N - 1) after `first`.
        knots: standard normal. first: the frame of the first of them.
    """
    place = (frames - first) / KNOT
    before = place.long().clamp(0, len(knots) - 2)
    angle = ((place - before) * (torch.pi / 2))[:, None]
    return angle.cos() * knots[before] + angle.sin() * knots[before + 1]  # cos² + sin² keeps the deviation


def heard_landmarks(
    landmarks: Float[Tensor, "T 68 2"],
    mean: Float[Tensor, "L 2"],
    modes: Float[Tensor, "K L 2"],
    heard: float,
    bias: Float[Tensor, "K"],
    noise: Float[Tensor, "T K"],
) -> Float[Tensor, "T 68 2"]:
    """The landmarks with mouth and jaw as if they had been predicted from speech.

    Args:
        landmarks: px at 256.
        mean, modes: of `movement_modes`.
        heard: ρ, the share of the movement's variance that is predicted; 1 changes nothing but the bias.
        bias: constant error, in deviations of each mode.
        noise: smooth, of unit deviation.
    """
    parts = list(HEATMAP_LANDMARKS)
    flat = modes.flatten(1)
    lengths = flat.square().sum(1).clamp_min(1e-12)
    coefficient = (landmarks[:, parts] - mean).flatten(1) @ flat.T / lengths  # in deviations, (T, K)
    error = (heard - 1) * coefficient + (heard * (1 - heard)) ** 0.5 * noise + bias
    changed = landmarks.clone()
    changed[:, parts] += (error @ flat).unflatten(1, (-1, 2))
    return changed


def drawn_knots(rng: np.random.Generator, frames: int, num_modes: int) -> Float[Tensor, "N K"]:
    """Standard normal values for `smooth_noise` over so many frames."""
    return torch.from_numpy(rng.standard_normal((frames // KNOT + 2, num_modes))).float()
