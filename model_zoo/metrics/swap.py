"""The swap test: do the landmarks drive the mouth?

A masked face gives away much of its opening, so a generator may score well and not look at its landmarks. Rendered with
the landmarks of ANOTHER clip, the opening measured on the output must follow the given one, and the hidden true one no
more than the given one does by chance.

Shape legend: N frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

INNER_LIPS = ((61, 67), (62, 66), (63, 65))  # upper and lower, iBUG 68 order
OUTER_EYES = (36, 45)
MIN_CORRELATION = 0.9  # with the given opening
MIN_FRAMES = 3  # to correlate

Detector = Callable[[UInt8[np.ndarray, "H W 3"]], Float[np.ndarray, "68 2"] | None]


class SwapResult(NamedTuple):
    """Correlations of openings over frames.

    Attributes:
        given: of the measured opening with the one that was asked for.
        hidden: of the measured opening with that of the face below the mask.
        chance: of the given with the hidden opening: what `hidden` would be for perfect rendering.
        slope: of the measured over the given opening by least squares; below 1 mumbles.
        frames: that were measured. missed: where no face was found.
    """

    given: float
    hidden: float
    chance: float
    slope: float
    frames: int
    missed: int

    @property
    def holds(self) -> bool:
        """The given opening drives the mouth, and the hidden one shows no more than it must."""
        return self.given >= MIN_CORRELATION and abs(self.hidden) <= self.given


def mouth_opening(landmarks: Float[Tensor, "N 68 2"]) -> Float[Tensor, "N"]:
    """Mean distance of upper and lower inner lip, in outer-eye distances."""
    upper, lower = (landmarks[:, [pair[side] for pair in INNER_LIPS]] for side in (0, 1))
    left, right = (landmarks[:, eye] for eye in OUTER_EYES)
    return (lower - upper).norm(dim=-1).mean(-1) / (right - left).norm(dim=-1)


def measure_openings(frames: Iterable[Float[Tensor, "3 H W"]], detect: Detector) -> Float[Tensor, "N"]:
    """Mouth opening of rendered frames as a detector sees it; NaN where it finds no face.

    Args:
        frames: in [-1, 1].
        detect: RGB bytes to 68 landmarks or None, such as `model_zoo.face.detector`'s.
    """
    openings = []
    for frame in frames:
        image = ((frame.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0)
        found = detect(np.ascontiguousarray(image.cpu().numpy()))
        face = torch.full((1, 68, 2), torch.nan) if found is None else torch.as_tensor(found, dtype=torch.float32)[None]
        openings.append(mouth_opening(face)[0])
    return torch.stack(openings) if openings else torch.zeros(0)


def swap_test(measured: Float[Tensor, "N"], given: Float[Tensor, "N"], hidden: Float[Tensor, "N"]) -> SwapResult:
    """Statistics of a swap test; frames with a NaN are left out and counted.

    Args:
        measured: opening on the output. given: of the landmarks that drove it. hidden: of the true face below the mask.

    Raises:
        ValueError: the lengths differ.
    """
    if not measured.shape == given.shape == hidden.shape or measured.dim() != 1:
        raise ValueError(f"one opening a frame is expected, got {[tuple(x.shape) for x in (measured, given, hidden)]}")
    openings_3N = torch.stack([measured, given, hidden]).double()
    found = openings_3N.isfinite().all(0)
    openings_3N = openings_3N[:, found]
    count, missed = int(found.sum()), int((~found).sum())
    if count < MIN_FRAMES:
        nan = float("nan")
        return SwapResult(nan, nan, nan, nan, count, missed)
    centred_3N = openings_3N - openings_3N.mean(1, keepdim=True)
    products = centred_3N @ centred_3N.T
    spread = products.diagonal().sqrt()
    correlation = products / (spread[:, None] * spread)  # NaN where an opening never changes
    slope = products[0, 1] / products[1, 1]
    on_given, on_hidden, chance = correlation[0, 1].item(), correlation[0, 2].item(), correlation[1, 2].item()
    return SwapResult(on_given, on_hidden, chance, slope.item(), count, missed)


class SwapTest(Metric):
    """`swap_test` over all batches and ranks."""

    full_state_update = False
    openings: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("openings", [], dist_reduce_fx="cat")

    def update(self, measured: Float[Tensor, "B"], given: Float[Tensor, "B"], hidden: Float[Tensor, "B"]) -> None:
        """Add frames; arguments as in `swap_test`."""
        self.openings.append(torch.stack([measured, given, hidden], -1))

    def compute(self) -> SwapResult:
        """Over all frames; NaN for fewer than three."""
        openings = dim_zero_cat(self.openings) if len(self.openings) else torch.zeros(0, 3)
        return swap_test(*openings.unbind(-1))
