"""Frames with real pictures of synthetic people, moved about: what a tracker must not mistake for one another."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from datamodules.synthetic.head import HeadRenderer
from datamodules.synthetic.performance import draw_speaker
from model_zoo.face.procedural import procedural_head

WIDTH, HEIGHT = 480, 240
SIDE = 200  # px of a picture of a person
FACE = 56.0  # px between the outer eye corners
ANNA, BEN = 3, 7
TINT = {ANNA: (1.0, 0.75, 0.75), BEN: (0.75, 0.75, 1.0)}


@lru_cache
def picture(person: int, opening: float = 0.0) -> np.ndarray:
    """(SIDE, SIDE, 3) of a person, the mouth open by so much."""
    head = procedural_head()
    home = torch.tensor([0.03, 0.0, 0.0, SIDE / 2, 0.42 * SIDE, np.log(FACE)])
    speaker = draw_speaker(0, person, 8)
    renderer = HeadRenderer(head, speaker.look, speaker.shape, SIDE, SIDE, home)
    expression = head.expression({"jaw_open": torch.tensor([opening])})
    image = next(iter(renderer.frames(expression, home[None], np.zeros((1, 2)), np.random.default_rng(0))))
    return (image * np.array(TINT[person])).astype(np.uint8)


def describe_by_tint(chip: np.ndarray) -> np.ndarray:
    """Stands in for the identity network, which was trained on people who exist."""
    red, _, blue = chip[50:100, 50:100].reshape(-1, 3).mean(0)
    return np.array([4 * (red - blue) / (red + blue)])


def scene(*people: tuple[np.ndarray, float]) -> np.ndarray:
    """Pictures at these places (middle, px from the left); later ones cover earlier ones."""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for image, middle in people:
        left = round(middle - SIDE / 2)
        begin, end = max(left, 0), min(left + SIDE, WIDTH)
        if begin < end:
            frame[HEIGHT - SIDE :, begin:end] = image[:, begin - left : end - left]
    return frame


def middle_of(landmarks: np.ndarray) -> np.ndarray:
    """(T,) where the face is, px from the left; NaN where it is missing."""
    return landmarks[:, 27:48, 0].mean(1)
