"""Drawn errors have the statistics of a network's that predicts a share of the movement."""

import numpy as np
import pytest
import torch

from model_zoo.functional.heatmaps import HEATMAP_LANDMARKS
from model_zoo.functional.landmark_errors import KNOT, drawn_knots, heard_landmarks, movement_modes, smooth_noise

from .faces import talking_face

FRAMES = 4000
PARTS = list(HEATMAP_LANDMARKS)


@pytest.fixture(scope="module")
def talking() -> torch.Tensor:
    """Two independent movements of mouth and jaw, white in time."""
    generator = torch.Generator().manual_seed(0)
    amounts = torch.randn(FRAMES, 2, generator=generator) * torch.tensor([4.0, 1.5])
    face = talking_face(1).repeat(FRAMES, 1, 1)
    face[:, 55:60, 1] += amounts[:, :1]
    face[:, 65:68, 1] += amounts[:, :1]
    face[:, 48, 0] -= amounts[:, 1]
    face[:, 54, 0] += amounts[:, 1]
    return face


def noise(frames: int, modes: int) -> torch.Tensor:
    knots = drawn_knots(np.random.default_rng(1), frames, modes)
    return smooth_noise(torch.arange(frames), knots, first=0)


def test_noise_is_smooth_and_of_unit_deviation():
    drawn = noise(FRAMES, 3)
    torch.testing.assert_close(drawn.std(0), torch.ones(3), atol=0.06, rtol=0)
    neighbours = (drawn[1:] * drawn[:-1]).mean()
    apart = (drawn[2 * KNOT :] * drawn[: -2 * KNOT]).mean()
    assert neighbours > 0.85
    assert apart.abs() < 0.05
    # Any stretch can be read by itself.
    knots = drawn_knots(np.random.default_rng(1), FRAMES, 3)
    assert torch.allclose(smooth_noise(torch.tensor([17, 901]), knots, first=0), drawn[[17, 901]])


def test_modes_rebuild_the_movement(talking):
    mean, modes = movement_modes(talking, 2)
    moved = talking[:, PARTS] - talking[:, PARTS].mean(0)
    coefficient = moved.flatten(1) @ torch.linalg.pinv(modes.flatten(1))
    torch.testing.assert_close(
        coefficient.square().mean(0).sqrt(), torch.ones(2), atol=0.15, rtol=0
    )  # of every 8th frame
    torch.testing.assert_close(
        (coefficient @ modes.flatten(1)).unflatten(1, mean.shape), moved - moved.mean(0), atol=0.8, rtol=0
    )


@pytest.mark.parametrize("heard", [0.9, 0.5])
def test_errors_are_calibrated(talking, heard):
    """The deviation shrinks by √ρ, and what is wrong does not correlate with what is predicted."""
    mean, modes = movement_modes(talking, 2)
    predicted = heard_landmarks(talking, mean, modes, heard, torch.zeros(2), noise(FRAMES, 2))
    for landmark, axis in ((57, 1), (54, 0)):
        true, given = talking[:, landmark, axis], predicted[:, landmark, axis]
        assert (given.std() / true.std()).item() == pytest.approx(heard**0.5, rel=0.06)
        assert torch.corrcoef(torch.stack([given, true]))[0, 1].item() == pytest.approx(heard**0.5, abs=0.04)
        assert abs(torch.corrcoef(torch.stack([given, true - given]))[0, 1].item()) < 0.08


def test_all_is_heard_and_bias(talking):
    mean, modes = movement_modes(talking, 2)
    drawn = noise(FRAMES, 2)
    torch.testing.assert_close(
        heard_landmarks(talking, mean, modes, 1.0, torch.zeros(2), drawn), talking, atol=1e-3, rtol=0
    )
    moved = heard_landmarks(talking, mean, modes, 1.0, torch.tensor([1.0, 0.0]), drawn) - talking
    torch.testing.assert_close(moved[:, PARTS], modes[:1].expand(FRAMES, -1, -1), atol=1e-3, rtol=0)
    assert moved[:, [0, 16, 36, 45]].abs().max() == 0


def test_a_clip_without_movement_is_left_alone():
    still = talking_face(1).repeat(5, 1, 1)
    mean, modes = movement_modes(still)
    changed = heard_landmarks(still, mean, modes, 0.5, torch.ones(len(modes)), torch.ones(5, len(modes)))
    torch.testing.assert_close(changed, still, atol=1e-2, rtol=0)
