"""The paths of LPIPS, FID and Inception Score, on random weights: what is tested is how they are fed and reduced."""

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import nn

from model_zoo.metrics.perceptual import FrechetDistance, InceptionScore, lpips_distance


class RandomFeatures(nn.Module):
    """Bytes to 6 numbers."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("matrix", torch.randn(3 * 4 * 4, 6, generator=generator) / 100)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        return nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1) @ self.matrix


def frames(number: int = 64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(number, 3, 8, 8, generator=generator) * 2 - 1) * 0.8 + 0.1 * seed


def test_fid_equals_the_formula_and_is_zero_for_the_same_frames():
    metric = FrechetDistance(RandomFeatures(), num_features=6)
    true, rendered = frames(seed=0), frames(seed=1)
    for batch in (slice(0, 30), slice(30, 64)):
        metric.update(true[batch], real=True)
        metric.update(rendered[batch], real=False)
    features = [
        metric.inception(((x + 1) * 127.5).round().clamp(0, 255).byte()).double().numpy() for x in (true, rendered)
    ]
    (mean_a, cov_a), (mean_b, cov_b) = ((f.mean(0), np.cov(f.T)) for f in features)
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * linalg.sqrtm(cov_a @ cov_b).real)
    np.testing.assert_allclose(metric.compute(), expected, rtol=1e-3)
    same = FrechetDistance(RandomFeatures(), num_features=6)
    for real in (True, False):
        same.update(true, real)
    assert same.compute().abs() < 1e-3


def test_inception_score_equals_the_formula_and_touches_no_random_state():
    metric = InceptionScore(RandomFeatures(), splits=1)
    images = frames()
    metric.update(images[:40])
    metric.update(images[40:])
    before = torch.random.get_rng_state()
    mean, _ = metric.compute()
    assert torch.equal(before, torch.random.get_rng_state())
    p = metric.inception(((images + 1) * 127.5).round().byte()).softmax(1)
    expected = (p * (p.log() - p.mean(0).log())).sum(1).mean().exp()
    torch.testing.assert_close(mean, expected)
    splits = InceptionScore(RandomFeatures(), splits=4)
    splits.update(images)
    first = splits.compute()
    splits._computed = None
    assert splits.compute() == first


def test_lpips_runs_with_random_weights_and_looks_only_at_the_region():
    import lpips

    torch.manual_seed(0)
    network = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False).eval()
    true = torch.rand(2, 3, 64, 64) * 2 - 1
    predicted = true.clone()
    predicted[1, :, 10:30, 10:30] = 0
    region = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    region[:, :, 40:, 40:] = True
    whole = lpips_distance(network, predicted, true)
    assert whole.shape == (2,)
    assert whole[0] == 0
    assert whole[1] != 0
    torch.testing.assert_close(whole, network(predicted, true).flatten())
    assert torch.equal(lpips_distance(network, predicted, true, region), torch.zeros(2))
    with pytest.raises(ValueError, match="64 px"):
        lpips_distance(network, predicted[..., :32], true[..., :32])
    with pytest.raises(ValueError, match="alike"):
        lpips_distance(network, predicted[:1], true)
