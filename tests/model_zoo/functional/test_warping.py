import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator

from model_zoo.functional.heatmaps import HEATMAP_LANDMARKS
from model_zoo.functional.warping import REACH, RIDGE, landmark_flow, warp

from .faces import talking_face


def faces() -> tuple[torch.Tensor, torch.Tensor]:
    """Mouth and jaw of two frames, one of them with its lips further open."""
    face = talking_face(2)[:, HEATMAP_LANDMARKS].double()
    opened = face.clone()
    opened[:, 11:, 1] += torch.linspace(-3, 3, 20).double()
    return face, opened


@pytest.mark.parametrize("size", [64, 256])
def test_flow_is_the_smoothed_gaussian_interpolation(size):
    source, target = faces()
    flow = landmark_flow(source, target, size)
    pixels = (np.arange(size) + 0.5) * 256 / size - 0.5
    grid = np.stack(np.meshgrid(pixels, pixels), -1).reshape(-1, 2)
    for each in range(2):
        oracle = RBFInterpolator(
            target[each].numpy(),
            (source - target)[each].numpy(),
            kernel="gaussian",
            epsilon=1 / (REACH * np.sqrt(2)),
            smoothing=RIDGE,
            degree=-1,
        )
        expected = oracle(grid).reshape(size, size, 2) * size / 256
        np.testing.assert_allclose(flow[each].numpy(), expected, atol=1e-6)


def test_nothing_moves_far_from_the_landmarks_or_without_a_difference():
    source, target = faces()
    flow = landmark_flow(source, target, 256)
    assert flow.abs().max() > 1
    assert flow[:, :40].abs().max() < 1e-3  # the forehead
    assert landmark_flow(source, source, 64).abs().max() == 0


def test_a_dot_is_carried_to_the_new_landmark():
    source, _ = faces()
    moved = source + torch.tensor([6.0, -4.0])  # all alike, so that the field is that of a translation near by
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    at = source[:, 20]
    dots = torch.exp(-((x - at[:, :1, None]) ** 2 + (y - at[:, 1:, None]) ** 2) / 18)[:, None].double()
    carried = warp(dots, landmark_flow(source, moved, 256))
    place = carried.flatten(1).argmax(1)
    found = torch.stack([place % 256, place // 256], -1)
    assert (found - moved[:, 20]).abs().max() < 1.5


def test_warping_by_nothing_changes_nothing_and_by_whole_pixels_shifts():
    picture = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(warp(picture, torch.zeros(2, 32, 32, 2)), picture, atol=1e-5, rtol=0)
    flow = torch.zeros(2, 32, 32, 2)
    flow[..., 0], flow[..., 1] = 3, -2
    shifted = warp(picture, flow)
    torch.testing.assert_close(shifted[:, :, 2:, :-3], picture[:, :, :-2, 3:], atol=1e-4, rtol=0)


def test_a_window_is_a_part_of_the_whole():
    source, target = faces()
    window = (slice(30, 60), slice(10, 50))
    flow, part = landmark_flow(source, target, 64), landmark_flow(source, target, 64, window)
    torch.testing.assert_close(part, flow[:, 30:60, 10:50])
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(warp(picture, part, window), warp(picture, flow)[:, :, 30:60, 10:50])
