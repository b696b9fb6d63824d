"""How much of what a network adds to a prediction is to be believed on a target's video; beyond the paper.

A generator that adds to warped frames of the target adds what it has learned of its training people. How far that
holds for somebody else, the target's own frames tell: the share of it that brings them nearest to the truth, by least
squares.

Shape legend: T frames of a video, C channels, H/W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def network_share(
    true: Float[Tensor, "T C H W"],
    base: Float[Tensor, "T C H W"],
    frame: Float[Tensor, "T C H W"],
    region: Bool[Tensor, "T 1 H W"],
) -> float:
    """The share w in [0, 1] for which base + w (frame - base) is nearest to the truth within the region.

    Args:
        true: frames of the target.
        base: without the network. frame: with it.
        region: pixels that count.

    Returns:
        1 where the network adds nothing, or there are no frames.
    """
    added = torch.where(region, frame - base, 0.0).double()
    scale = added.square().sum()
    if scale == 0:
        return 1.0
    return float(((true - base).double() * added).sum().div(scale).clamp(0, 1))


def crosswise_shares(
    true: Float[Tensor, "T C H W"],
    base: Float[Tensor, "T C H W"],
    frame: Float[Tensor, "T C H W"],
    region: Bool[Tensor, "T 1 H W"],
) -> Float[Tensor, "T"]:
    """For the frames of each half of a video, the share that the other half tells: no frame bears on its own.

    Args:
        true, base, frame, region: as `network_share`. A single frame gets 1.
    """
    half = (len(true) + 1) // 2
    sides = (slice(0, half), slice(half, None))
    first, second = (network_share(*(each[side] for each in (true, base, frame, region))) for side in sides)
    return torch.cat([torch.full((half,), second), torch.full((len(true) - half,), first)])
