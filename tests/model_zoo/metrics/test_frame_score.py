import torch

from model_zoo.metrics.compositing import sharpness
from model_zoo.metrics.frame_score import FrameScore

from .test_functional import images, region, unit


def test_scores_are_averaged_within_clips_and_then_over_them():
    predicted, true = (unit(image) for image in images())
    mask = region()
    metric = FrameScore(sharpness, num_clips=2)
    metric.update(predicted[:2], true[:2], mask[:2], torch.tensor([0, 0]))
    metric.update(predicted[2:], true[2:], mask[2:], torch.tensor([1]))
    each = sharpness(predicted, true, mask)
    torch.testing.assert_close(metric.compute(), (each[:2].mean() + each[2]) / 2)
