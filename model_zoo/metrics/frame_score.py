"""A score of frames, averaged within clips and then over clips: one thin class for all of them."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from model_zoo.metrics.clip_mean import ClipMean

FrameFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


class FrameScore(ClipMean):
    """`ClipMean` of a function of predicted frame, true frame and region.

    Args:
        function: such as `functional.psnr`, `compositing.sharpness` or `compositing.seam_gradient`.
        num_clips: N, clips of the evaluation set.
    """

    def __init__(self, function: FrameFunction, num_clips: int) -> None:
        super().__init__(num_clips)
        self.function = function

    def update(  # type: ignore[override]
        self,
        predicted: Float[Tensor, "B 3 H W"],
        true: Float[Tensor, "B 3 H W"],
        region: Bool[Tensor, "B 1 H W"],
        clip: Int[Tensor, "B"],
    ) -> None:
        """Add a batch; arguments as in the function and in `ClipMean`."""
        super().update(self.function(predicted, true, region), clip)
