import pytest
import torch

from model_zoo.functional.tsne import _affinities, tsne


def test_clusters_stay_apart():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(3, 40, 8, generator=generator) + 6 * torch.eye(8)[:3, None]
    places = tsne(points.flatten(0, 1), perplexity=15).unflatten(0, (3, 40))
    centres = places.mean(1)
    inside = (places - centres[:, None]).norm(dim=-1).mean()
    apart = torch.pdist(centres).min()
    assert apart > 3 * inside


def test_neighbourhoods_have_the_perplexity():
    points = torch.randn(90, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    joint = _affinities(points, 10.0)
    torch.testing.assert_close(joint, joint.T)
    assert joint.sum().item() == pytest.approx(1)
    row = joint[0] / joint[0].sum()
    assert 5 < (-(row * row.clamp_min(1e-300).log()).sum()).exp().item() < 25


def test_too_few_points():
    with pytest.raises(ValueError, match="too few"):
        tsne(torch.randn(10, 2))
