"""Mean over clips of per-clip means, with a bootstrap interval over clips.

Frames of one clip are alike: a mean over frames would let long clips decide, an interval over frames would be far too
narrow. Shape legend: B batch, N clips.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from model_zoo.metrics.functional import CONFIDENCE, NUM_RESAMPLES, bootstrap_interval


class ClipMean(Metric):
    """Averages one value a sample within clips, then over the clips that were seen; reduces across ranks.

    Args:
        num_clips: N, clips of the evaluation set.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, num_clips: int) -> None:
        super().__init__()
        self.num_clips = num_clips
        self.add_state("total", torch.zeros(num_clips, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(num_clips, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Float[Tensor, "B"], clip: Int[Tensor, "B"]) -> None:
        """Add a batch.

        Args:
            values: a score of each sample.
            clip: index of its clip in [0, N).

        Raises:
            ValueError: shapes differ, or an index is out of range.
        """
        if values.shape != clip.shape or values.dim() != 1:
            raise ValueError(f"one value a sample is expected, got {tuple(values.shape)} for {tuple(clip.shape)} clips")
        if len(clip) and not 0 <= int(clip.min()) <= int(clip.max()) < self.num_clips:
            raise ValueError(f"clip indices must lie in [0, {self.num_clips}), got {clip.tolist()}")
        self.total.index_add_(0, clip, values.detach().to(self.total.dtype))
        self.count.index_add_(0, clip, torch.ones_like(clip, dtype=self.count.dtype))

    def compute(self) -> Float[Tensor, ""]:
        """The mean over clips; NaN before the first update."""
        return self._seen_means().mean().float()

    def per_clip(self) -> Float[Tensor, "N"]:
        """Mean of each clip over all ranks, NaN where it was not seen; differences of two methods are paired by it."""
        with self._over_ranks():
            return (self.total / self.count).float()

    def interval(
        self, confidence: float = CONFIDENCE, num_resamples: int = NUM_RESAMPLES, seed: int = 0
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Bootstrap interval of the mean over clips, over all ranks; NaN for fewer than two clips."""
        with self._over_ranks():
            return bootstrap_interval(self._seen_means().float(), confidence, num_resamples, seed)

    def _over_ranks(self) -> AbstractContextManager:
        """What torchmetrics does around `compute`: states are those of all ranks inside, the own ones after."""
        return self.sync_context(self.dist_sync_fn, distributed_available=self.distributed_available_fn)

    def _seen_means(self) -> Tensor:
        seen = self.count > 0
        return self.total[seen] / self.count[seen]
