"""Mel-frequency cepstra and the audio windows that the networks see (§3.2 of Song et al. 2020).

The paper says "MFCC spectrum" and one second of it: 0.8 s before and 0.2 s after a frame. Chosen here: the recipe of
python_speech_features (pre-emphasis, Hamming window, 26 mel bands, orthonormal DCT-II, liftering, log energy as the
zeroth cepstrum), with frame k centred at 10k ms. Frames overlapping either end see digital silence beyond it, so every
frame equals python_speech_features on the waveform padded by half a window; without that padding its frame j is centred
at 10j + 12.5 ms.

Shape legend: B batch, T video frames, N samples, A audio frames, C cepstra.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

SAMPLE_RATE = 16_000  # Hz
HOP = 160  # samples, 10 ms
WINDOW = 400  # samples, 25 ms
FRAMES_PER_VIDEO_FRAME = 4  # audio frames in 1/25 s
FRAMES_BEFORE, FRAMES_AFTER = 80, 20  # 0.8 s and 0.2 s around a video frame, §3.2.2 of Song et al. 2020
NUM_FFT = 512
NUM_MEL_BANDS = 26
PRE_EMPHASIS = 0.97
LIFTER = 22
# About what rounding to 16 bits puts into one mel band (1.5e-10 variance after pre-emphasis); nothing real is below.
ENERGY_FLOOR = 1e-10


def mfcc(waveform: Float[Tensor, "... N"], num_cepstra: int = 13) -> Float[Tensor, "... A C"]:
    """Mel-frequency cepstra of a waveform, one row every 10 ms, row k centred at sample 160k.

    Args:
        waveform: samples at 16 kHz in [-1, 1].
        num_cepstra: C; above 26 the mel filterbank is widened to as many bands.

    Returns:
        A = ceil(N / 160) rows; cepstrum 0 is the log energy of the frame.

    Raises:
        ValueError: the waveform is empty or not of a floating type.
    """
    if not waveform.is_floating_point() or waveform.shape[-1] == 0:
        raise ValueError(
            f"waveform must hold floating-point samples in [-1, 1], got {waveform.dtype} of shape "
            f"{tuple(waveform.shape)}: divide 16-bit samples by 32768 and skip empty clips"
        )
    num_rows = math.ceil(waveform.shape[-1] / HOP)
    after = (num_rows - 1) * HOP + WINDOW // 2 - waveform.shape[-1]  # the last window may also end inside the waveform
    padded = F.pad(waveform, (WINDOW // 2 + 1, max(after, 0)))  # one more for the sample before the first window
    emphasised = padded[..., 1:] - PRE_EMPHASIS * padded[..., :-1]
    return _cepstra(emphasised.unfold(-1, WINDOW, HOP)[..., :num_rows, :], num_cepstra)


class MfccStream:
    """`mfcc` of a sound that comes in blocks: the same rows, each as soon as its window has been heard.

    Args:
        num_cepstra: C.
    """

    def __init__(self, num_cepstra: int = 13) -> None:
        self._num_cepstra = num_cepstra
        self._held = torch.zeros(WINDOW // 2 + 1)  # from the sample before the next row's window on
        self._samples = self._rows = 0

    def push(self, samples: Float[Tensor, "N"]) -> Float[Tensor, "A C"]:
        """Hear more; the rows that are complete now, maybe none."""
        self._samples += len(samples)
        self._held = torch.cat([self._held, samples.to(self._held)])
        return self._take((len(self._held) - 1 - WINDOW) // HOP + 1)

    def finish(self) -> Float[Tensor, "A C"]:
        """The last rows, with digital silence after the end."""
        missing = math.ceil(self._samples / HOP) - self._rows
        self._held = F.pad(self._held, (0, max(0, missing) * HOP + WINDOW))
        return self._take(missing)

    def _take(self, count: int) -> Float[Tensor, "A C"]:
        if count <= 0:
            return self._held.new_zeros(0, self._num_cepstra)
        heard = self._held[: 1 + WINDOW + HOP * (count - 1)]
        self._held, self._rows = self._held[HOP * count :], self._rows + count
        emphasised = heard[1:] - PRE_EMPHASIS * heard[:-1]
        return _cepstra(emphasised.unfold(-1, WINDOW, HOP), self._num_cepstra)


def silence_mfcc(num_cepstra: int = 13) -> Float[Tensor, "C"]:
    """The MFCC row of digital silence."""
    return _cepstra(torch.zeros(WINDOW), num_cepstra)


def audio_window(
    mfcc: Float[Tensor, "A C"], frame: int, num_frames: int = 1, before: int = FRAMES_BEFORE, after: int = FRAMES_AFTER
) -> Float[Tensor, "W C"]:
    """The MFCC rows around video frames frame-num_frames+1..frame, padded with silence beyond the ends.

    Args:
        mfcc: raw (not standardised) MFCC of a whole clip.
        frame: the last video frame t, at t/25 s.
        num_frames: how many video frames, ending with t, must find their window inside.
        before, after: rows before and after each video frame.

    Returns:
        Rows [4(t-num_frames+1)-before, 4t+after): 100 for one frame, 124 for seven. A view where no padding is needed.
    """
    start = FRAMES_PER_VIDEO_FRAME * (frame - num_frames + 1) - before
    stop = FRAMES_PER_VIDEO_FRAME * frame + after
    num_rows, num_cepstra = mfcc.shape
    inside = mfcc[min(max(start, 0), num_rows) : min(max(stop, 0), num_rows)]
    if len(inside) == stop - start:
        return inside
    silence = silence_mfcc(num_cepstra).to(mfcc)
    num_before = min(max(-start, 0), stop - start)
    window = silence.repeat(stop - start, 1)
    window[num_before : num_before + len(inside)] = inside
    return window


def audio_windows(mfcc: Float[Tensor, "A C"], frames: Int[Tensor, "B"], num_frames: int = 1) -> Float[Tensor, "B W C"]:
    """`audio_window` of several frames at once."""
    first_B = FRAMES_PER_VIDEO_FRAME * (frames - num_frames + 1) - FRAMES_BEFORE
    length = FRAMES_BEFORE + FRAMES_AFTER + FRAMES_PER_VIDEO_FRAME * (num_frames - 1)
    rows_BW = first_B[:, None] + torch.arange(length)
    windows_BWC = mfcc[rows_BW.clamp(0, len(mfcc) - 1)]
    windows_BWC[(rows_BW < 0) | (rows_BW >= len(mfcc))] = silence_mfcc(mfcc.shape[1]).to(mfcc)
    return windows_BWC


def windows_of(rows_BAC: Float[Tensor, "B A C"], num_frames: int) -> Float[Tensor, "B T W C"]:
    """The one-second windows of each of the video frames that a longer stretch of MFCC rows covers.

    Args:
        rows_BAC: rows as `audio_window` cuts them, A = 100 + 4 (num_frames - 1).
        num_frames: T.

    Returns:
        A view: window i holds rows [4i, 4i + 100), the window of frame t-T+1+i.

    Raises:
        ValueError: A does not fit num_frames.
    """
    length = FRAMES_BEFORE + FRAMES_AFTER
    expected = length + FRAMES_PER_VIDEO_FRAME * (num_frames - 1)
    if rows_BAC.shape[1] != expected:
        raise ValueError(
            f"{num_frames} video frames need {expected} MFCC rows, got {rows_BAC.shape[1]}: cut them with audio_window"
        )
    return rows_BAC.unfold(1, length, FRAMES_PER_VIDEO_FRAME).transpose(-1, -2)


def _cepstra(frames: Float[Tensor, "... N"], num_cepstra: int) -> Float[Tensor, "... C"]:
    """Cepstra of pre-emphasised frames of WINDOW samples."""
    hamming, bands, cosines = (matrix.to(frames) for matrix in cepstral_bases(num_cepstra))
    power = torch.fft.rfft(frames * hamming, NUM_FFT).abs().square() / NUM_FFT
    cepstra = (power @ bands).clamp_min(ENERGY_FLOOR).log() @ cosines
    log_energy = power.sum(-1, keepdim=True).clamp_min(ENERGY_FLOOR).log()
    return torch.cat([log_energy, cepstra[..., 1:]], dim=-1)


def to_mel(hertz):
    """Mel scale, 2595 log10(1 + f / 700); scalars and arrays."""
    return 2595 * np.log10(1 + hertz / 700)


def from_mel(mel):
    """Hz; the inverse of `to_mel`."""
    return 700 * (10 ** (mel / 2595) - 1)


def band_centres(num_cepstra: int = 13) -> np.ndarray:
    """Mel of the middle of each band, evenly spaced, (bands,)."""
    num_bands = max(NUM_MEL_BANDS, num_cepstra)
    return np.linspace(0, to_mel(SAMPLE_RATE / 2), num_bands + 2)[1:-1]


@lru_cache
def cepstral_bases(num_cepstra: int) -> tuple[Tensor, Tensor, Tensor]:
    """Window (WINDOW,), mel filterbank (NUM_FFT/2+1, bands) and liftered DCT-II (bands, C), float64."""
    num_bands = max(NUM_MEL_BANDS, num_cepstra)
    hz = torch.from_numpy(from_mel(np.linspace(0, to_mel(SAMPLE_RATE / 2), num_bands + 2)))
    edges = torch.floor((NUM_FFT + 1) * hz / SAMPLE_RATE)[:, None]
    fft_bins = torch.arange(NUM_FFT // 2 + 1, dtype=torch.float64)
    rising = (fft_bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - fft_bins) / (edges[2:] - edges[1:-1])
    bands = torch.minimum(rising, falling).clamp_min(0)

    order = torch.arange(num_cepstra, dtype=torch.float64)
    centres = torch.arange(num_bands, dtype=torch.float64)[:, None] + 0.5
    cosines = math.sqrt(2 / num_bands) * torch.cos(math.pi / num_bands * centres * order)
    cosines[:, 0] /= math.sqrt(2)
    lifter = 1 + LIFTER / 2 * torch.sin(math.pi * order / LIFTER)
    return torch.hamming_window(WINDOW, periodic=False, dtype=torch.float64), bands.T, cosines * lifter
