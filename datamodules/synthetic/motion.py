"""What a synthetic person does beside speaking: head motion, blinks, brows and glances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation
from torch import Tensor

FRAME_RATE = 25  # fps
NECK_PIVOT = np.array([0.0, 1.15, 0.75])  # the head turns about the top of the neck; model frame
# Standard deviations of the head's motion: rotation (rad) about x, y, z, and translation (outer-eye distances).
_TURNS = np.radians([2.2, 3.0, 1.4])
_SHIFT = 0.035
_BLINKS_PER_SECOND = 0.30
_BLINK = np.array([0.25, 0.85, 1.0, 0.8, 0.45, 0.15])  # closing takes 80 ms, opening 160


@dataclass(frozen=True)
class Motion:
    """Per frame: pose (T, 6) in frame px, weights of facial actions (T,) each, gaze (T, 2) in rad from the camera."""

    pose: Float[Tensor, "T 6"]
    actions: dict[str, Float[np.ndarray, "T"]]
    gaze: Float[np.ndarray, "T 2"]


def draw_motion(num_frames: int, home: Float[Tensor, "6"], rng: np.random.Generator, liveliness: float = 1.0) -> Motion:
    """Seeded motion about a mean pose `home`, independent of what is said."""
    turns = _wander(num_frames, 3, rng) * _TURNS * liveliness
    shift = _wander(num_frames, 2, rng) * _SHIFT * liveliness
    base = Rotation.from_rotvec(home[:3].numpy())
    rotations = base * Rotation.from_rotvec(turns)
    scale = float(home[5].exp())
    # The neck's top stays where it is; the origin between the eyes moves.
    pivot = rotations.apply(NECK_PIVOT) - base.apply(NECK_PIVOT)
    translation = home[3:5].numpy() + scale * (shift - pivot[:, :2])
    nearness = _wander(num_frames, 1, rng) * 0.008 * liveliness
    pose = np.concatenate([rotations.as_rotvec(), translation, float(home[5]) + nearness], axis=1)
    blink = _blinks(num_frames, rng)
    brows = np.clip(_wander(num_frames, 1, rng)[:, 0] * 0.25, 0, 0.6)
    actions = {"blink_left": blink, "blink_right": blink, "brow_inner_up": brows}
    actions |= {f"brow_outer_up_{side}": 0.7 * brows for side in ("left", "right")}
    return Motion(torch.from_numpy(pose).float(), actions, _glances(num_frames, rng))


def _wander(num_frames: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """(T, channels) smooth noise of unit variance: slow drift and some quicker movement."""
    slow, quick = 0.7 * FRAME_RATE, 0.2 * FRAME_RATE  # widths of the smoothing, frames
    pad = int(4 * slow)
    noise = rng.normal(size=(2, num_frames + 2 * pad, channels))
    parts = [
        share * gaussian_filter1d(n, width, axis=0)[pad : pad + num_frames] * np.sqrt(2 * np.sqrt(np.pi) * width)
        for n, width, share in zip(noise, (slow, quick), (0.94, 0.34), strict=True)
    ]
    return np.sum(parts, axis=0)


def _blinks(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    closed = np.zeros(num_frames + len(_BLINK))
    frame = rng.exponential(FRAME_RATE / _BLINKS_PER_SECOND)
    while frame < num_frames:
        start = int(frame)
        closed[start : start + len(_BLINK)] = np.maximum(closed[start : start + len(_BLINK)], _BLINK)
        frame += 0.5 * FRAME_RATE + rng.exponential(FRAME_RATE / _BLINKS_PER_SECOND)
    return closed[:num_frames]


def _glances(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """(T, 2) the eyes rest near the camera and jump a little now and then."""
    gaze = np.zeros((num_frames, 2))
    frame = 0
    while frame < num_frames:
        gaze[frame:] = rng.normal(0, (0.05, 0.03))
        frame += int(rng.uniform(0.5, 2.0) * FRAME_RATE)
    return gaze
