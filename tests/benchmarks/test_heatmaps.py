"""Patches around landmarks against every Gaussian at every pixel: seven frames of four samples, 256 px."""

import torch

from model_zoo.functional.heatmaps import landmark_heatmap

from ..model_zoo.functional.faces import talking_face
from ..model_zoo.functional.test_heatmaps import naive_heatmap
from .ratio import compare

SIZE = 256


def landmarks() -> torch.Tensor:
    return (talking_face(7) + torch.arange(4.0)[:, None, None, None]).requires_grad_()


def test_drawing(benchmark):
    points = landmarks().detach()
    assert compare(benchmark, lambda: landmark_heatmap(points, SIZE), lambda: naive_heatmap(points, SIZE)) > 2


def test_drawing_and_gradient(benchmark):
    points = landmarks()

    def train(draw):
        torch.autograd.grad(draw(points, SIZE).mean(), points)

    assert compare(benchmark, lambda: train(landmark_heatmap), lambda: train(naive_heatmap)) > 2
