"""Cepstra of the same speech from a shorter or longer vocal tract.

A tract that is shorter by a share has its formants higher by as much: the spectrum at frequency f is what was at
f exp(g), with g < 0. On cepstra such a warp is a linear map (Pitz and Ney 2005, "Vocal tract normalization equals
linear transformation in cepstral space"), of the very kind of Eq. 1 of Song et al. 2020. Drawn at random it is vocal
tract length perturbation (Jaitly and Hinton 2013). Cepstra have lost the fine structure of the spectrum, so it is the
envelope that moves, and pitch stays.

Shape legend: C cepstra, M mel bands, K knots.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from model_zoo.functional.mfcc import SAMPLE_RATE, band_centres, cepstral_bases, from_mel, to_mel


def warp_matrix(log_factors_K: Float[Tensor, "K"], num_cepstra: int = 13) -> Float[Tensor, "C C"]:
    """The map of MFCC, as columns, to those whose envelope at f is what was at f exp(g).

    Cepstrum 0, the log energy, is left alone.

    Args:
        log_factors_K: g at knots evenly spaced in mel from 0 Hz to half the sampling rate, linear between; one value
            holds everywhere. 0 changes nothing that the cepstra hold.
        num_cepstra: C.
    """
    centres_M, to_bands, to_cepstra = _bands(num_cepstra)
    knots_K = np.linspace(0, 1, len(log_factors_K)) if len(log_factors_K) > 1 else np.zeros(1)
    g_M = np.interp(centres_M / to_mel(SAMPLE_RATE / 2), knots_K, log_factors_K.double().numpy())
    heard_M = to_mel(from_mel(centres_M) * np.exp(g_M))  # where the new spectrum finds its value
    position_M = ((heard_M - centres_M[0]) / (centres_M[1] - centres_M[0])).clip(0, len(centres_M) - 1)
    left_M = np.minimum(position_M.astype(int), len(centres_M) - 2)
    share_M = position_M - left_M
    warped = to_bands[:, left_M] * (1 - share_M) + to_bands[:, left_M + 1] * share_M
    matrix = np.eye(num_cepstra)
    matrix[1:, 1:] = (warped @ to_cepstra).T
    return torch.from_numpy(matrix).float()


@lru_cache
def _bands(num_cepstra: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mel of the bands (M,); cepstra but the zeroth to log bands (C-1, M), by least squares, and back (M, C-1)."""
    cosines = cepstral_bases(num_cepstra)[2][:, 1:].numpy()
    return band_centres(num_cepstra), np.linalg.pinv(cosines), cosines
