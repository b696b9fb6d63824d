"""t-SNE (van der Maaten and Hinton 2008), exact, for pictures of some hundred points such as Figure 11.

Shape legend: N points, D features.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

_EXAGGERATION, _EXAGGERATED_STEPS = 12.0, 100
_BISECTIONS = 50


def tsne(
    points: Float[Tensor, "N D"], perplexity: float = 30.0, steps: int = 500, seed: int = 0
) -> Float[Tensor, "N 2"]:
    """Places in the plane whose neighbours are those of the points.

    Args:
        points: features of comparable scale.
        perplexity: effective number of neighbours, less than N / 3.
        steps: of gradient descent.
        seed: of the start, beside which everything is determined.

    Raises:
        ValueError: there are too few points for the perplexity.
    """
    if len(points) <= 3 * perplexity:
        raise ValueError(
            f"{len(points)} points are too few for a perplexity of {perplexity:g}: at least three times as many"
        )
    wanted = _affinities(points.double(), perplexity)
    generator = torch.Generator().manual_seed(seed)
    places = 1e-4 * torch.randn(len(points), 2, generator=generator, dtype=torch.float64)
    velocity, gains = torch.zeros_like(places), torch.ones_like(places)
    rate = max(len(points) / _EXAGGERATION / 4, 50.0)
    for step in range(steps):
        early = step < _EXAGGERATED_STEPS
        kernel = 1 / (1 + torch.cdist(places, places).square())
        kernel.fill_diagonal_(0)
        pull = ((_EXAGGERATION if early else 1.0) * wanted - kernel / kernel.sum()) * kernel
        gradient = 4 * (pull.sum(1, keepdim=True) * places - pull @ places)
        gains = torch.where(gradient.sign() != velocity.sign(), gains + 0.2, gains * 0.8).clamp_min(0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gains * gradient
        places = places + velocity
        places = places - places.mean(0)
    return places.float()


def _affinities(points: Float[Tensor, "N D"], perplexity: float) -> Float[Tensor, "N N"]:
    """Symmetric joint probabilities of which every point has neighbours of the given perplexity."""
    squared = torch.cdist(points, points).square()
    squared = squared / squared.mean().clamp_min(1e-12)
    squared.fill_diagonal_(torch.inf)
    low, high = torch.full((len(points), 1), -15.0).double(), torch.full((len(points), 1), 15.0).double()
    conditional = torch.zeros_like(squared)
    for _ in range(_BISECTIONS):
        sharpness = (low + high) / 2  # log of the inverse variance
        conditional = (-squared * sharpness.exp()).softmax(1)
        entropy = -(conditional * conditional.clamp_min(1e-300).log()).sum(1, keepdim=True)
        too_wide = entropy > math.log(perplexity)
        low, high = torch.where(too_wide, sharpness, low), torch.where(too_wide, high, sharpness)
    joint = conditional + conditional.T
    return joint / joint.sum()
