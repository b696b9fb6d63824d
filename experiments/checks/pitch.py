"""Pitch of a voice by YIN (de Cheveigné and Kawahara 2002, "YIN, a fundamental frequency estimator").

The lag at which a frame of sound differs least from itself, relative to the mean difference at smaller lags.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

LOWEST, HIGHEST = 60.0, 500.0  # Hz
WINDOW = 0.050  # s, three periods of the lowest pitch
HOP = 0.010  # s
PERIODIC = 0.15  # a frame whose difference stays above this share is not voiced; the paper has 0.1
QUIET = 0.1  # frames below this share of the loudest are left out


def median_pitch(samples: Float[np.ndarray, "N"], rate: int) -> float:
    """Median pitch (Hz) of the voiced frames of some speech; NaN where nothing is voiced."""
    window, hop = round(WINDOW * rate), round(HOP * rate)
    if len(samples) < 2 * window:
        return float("nan")
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), 2 * window)[::hop]
    level = frames.std(axis=1)
    pitches = frame_pitches(frames[level > QUIET * level.max()], rate)
    voiced = pitches[np.isfinite(pitches)]
    return float(np.median(voiced)) if len(voiced) else float("nan")


def frame_pitches(frames: Float[np.ndarray, "T n"], rate: int) -> Float[np.ndarray, "T"]:
    """Pitch (Hz) of every frame, NaN where it is not voiced; a lag is compared over half a frame."""
    half = frames.shape[1] // 2
    shortest, longest = int(rate / HIGHEST), min(int(rate / LOWEST), half - 1)
    # d(τ) = Σ_j (x_j - x_{j+τ})², j < half: two energies less twice a correlation
    spectrum = np.fft.rfft(frames, 2 * frames.shape[1])
    first = np.fft.rfft(frames[:, :half], 2 * frames.shape[1])
    correlation = np.fft.irfft(np.conj(first) * spectrum)[:, : longest + 2]
    energy = np.pad(np.cumsum(frames**2, axis=1), ((0, 0), (1, 0)))
    lags = np.arange(longest + 2)
    difference = energy[:, [half]] + energy[:, lags + half] - energy[:, lags] - 2 * correlation
    mean = np.cumsum(difference[:, 1:], axis=1) / lags[1:]
    ratio = np.ones_like(difference)
    ratio[:, 1:] = difference[:, 1:] / np.maximum(mean, 1e-12)
    pitches = np.full(len(frames), np.nan)
    for t, row in enumerate(ratio):
        below = np.flatnonzero(row[shortest : longest + 1] < PERIODIC)
        if len(below) == 0:
            continue
        lag = shortest + below[0]  # the first dip, then down to its bottom: multiples of the period dip as well
        while lag < longest and row[lag + 1] < row[lag]:
            lag += 1
        left, here, right = row[lag - 1 : lag + 2]
        bend = left - 2 * here + right
        pitches[t] = rate / (lag + (0.5 * (left - right) / bend if bend > 0 else 0.0))
    return pitches
