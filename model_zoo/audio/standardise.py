"""Standardisation of MFCC by the statistics of the training corpus.

One mean and deviation for all speakers: normalising each speaker by his own statistics would be a rival of ID removal.

Shape legend: A audio frames, C cepstra.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class MfccStandardise(nn.Module):
    """(x − mean) / std with stored statistics; the identity until they are set.

    Args:
        num_cepstra: C.
    """

    mean: Float[Tensor, "C"]
    std: Float[Tensor, "C"]

    def __init__(self, num_cepstra: int = 13) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_cepstra))
        self.register_buffer("std", torch.ones(num_cepstra))

    def set_statistics(self, mean: Float[Tensor, "C"], std: Float[Tensor, "C"]) -> None:
        """Store the corpus' mean and standard deviation of each cepstrum.

        Raises:
            ValueError: wrong shape, not finite, or a deviation that is not positive.
        """
        store_statistics(self.mean, mean, self.std, std, allow_constant=False)

    def forward(self, mfcc: Float[Tensor, "... A C"]) -> Float[Tensor, "... A C"]:
        """Raw MFCC to MFCC of zero mean and unit variance over the training corpus."""
        return (mfcc - self.mean) / self.std


def store_statistics(stored_mean: Tensor, mean: Tensor, stored_std: Tensor, std: Tensor, allow_constant: bool) -> None:
    """Copy a mean and a standard deviation into buffers of the same shape.

    Args:
        allow_constant: accept elements of zero deviation (inactive modes of a face model).

    Raises:
        ValueError: wrong shape, not finite, or a deviation out of range.
    """
    if mean.shape != stored_mean.shape or std.shape != stored_std.shape:
        raise ValueError(
            f"statistics must be {tuple(stored_mean.shape)}, got {tuple(mean.shape)} and {tuple(std.shape)}: "
            "compute them on the same features as the network was built for"
        )
    in_range = (std >= 0).all() if allow_constant else (std > 0).all()
    if not (mean.isfinite().all() and std.isfinite().all() and in_range):
        raise ValueError(
            "statistics must be finite with a positive deviation: compute them over more, and valid, clips"
        )
    stored_mean.copy_(mean)
    stored_std.copy_(std)
