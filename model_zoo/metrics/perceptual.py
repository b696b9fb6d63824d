"""LPIPS, FID and Inception Score, as thin classes over the networks that `model_zoo.weights` finds.

They take the network as an argument; where `model_zoo.weights` can't have it, the row says "unavailable".

Shape legend: B batch, H/W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore as TorchmetricsInceptionScore

LPIPS_SIZE = 64  # px; below, AlexNet has no pixel left


def lpips_distance(
    network: nn.Module,
    predicted: Float[Tensor, "B 3 H W"],
    true: Float[Tensor, "B 3 H W"],
    region: Bool[Tensor, "B 1 H W"] | None = None,
) -> Float[Tensor, "B"]:
    """LPIPS of each frame (Zhang et al. 2018); 0 is equal.

    With a region, pixels outside of it are those of the true frame in both: its own distance to itself is 0.

    Args:
        network: `model_zoo.weights.lpips_alexnet()`.
        predicted, true: images in [-1, 1].
        region: pixels that count.

    Raises:
        ValueError: the shapes differ, or the images are too small.
    """
    if predicted.shape != true.shape or predicted.dim() != 4 or predicted.shape[1] != 3:
        raise ValueError(f"images must be (B, 3, H, W) alike, got {tuple(predicted.shape)} and {tuple(true.shape)}")
    if min(true.shape[-2:]) < LPIPS_SIZE:
        raise ValueError(f"LPIPS needs images of at least {LPIPS_SIZE} px, got {tuple(true.shape[-2:])}")
    if region is not None:
        predicted = torch.where(region, predicted, true)
    with torch.no_grad():
        return network(predicted.float(), true.float()).flatten()


class FrechetDistance(FrechetInceptionDistance):
    """FID between rendered and true frames (Heusel et al. 2017); biased for few frames, so compare equal numbers.

    Args:
        features: bytes (B, 3, H, W) to features, `model_zoo.weights.inception('2048')`.
        num_features: of these.
    """

    def __init__(self, features: nn.Module, num_features: int = 2048, **kwargs: Any) -> None:
        features.num_features = torch.tensor(num_features)
        super().__init__(features, **kwargs)

    def update(self, imgs: Float[Tensor, "B 3 H W"], real: bool) -> None:
        """Add frames in [-1, 1], true ones with `real`."""
        super().update(_bytes(imgs), real)


class InceptionScore(TorchmetricsInceptionScore):
    """Inception Score (Salimans et al. 2016), mean and deviation over splits; repeats, whatever the random state.

    Args:
        logits: bytes (B, 3, H, W) to class scores, `model_zoo.weights.inception('logits_unbiased')`.
        splits: into how many parts the frames are dealt.
    """

    def __init__(self, logits: nn.Module, splits: int = 10, **kwargs: Any) -> None:
        super().__init__(logits, splits=splits, **kwargs)

    def update(self, imgs: Float[Tensor, "B 3 H W"]) -> None:
        """Add frames in [-1, 1]."""
        super().update(_bytes(imgs))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the splits."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # torchmetrics shuffles with torch's global generator
            return super().compute()


def _bytes(images: Float[Tensor, "B 3 H W"]) -> UInt8[Tensor, "B 3 H W"]:
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).byte()
