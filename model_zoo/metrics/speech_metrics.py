"""What a talking mouth is judged by beside its error: opening, silence, jitter, and its lag behind the truth.

All work on whole clips: landmarks in order of time, 25 frames a second, px at 256. Shape legend: T frames, L landmarks.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

FRAME_MS = 40.0  # at 25 frames a second
UPPER_INNER_LIP, LOWER_INNER_LIP = (61, 62, 63), (67, 66, 65)  # iBUG 68, the points that face one another
LEFT_EYE_CORNER, RIGHT_EYE_CORNER = 36, 45
MAX_LAG = 8  # frames, either way; more is no lag but another movement
WIDE_OPEN = 0.95  # quantile of a speaker's gap that counts as wide open
ABOVE_ROOM_DB, QUIETEST_SPEECH_DB = 12.0, -60.0
SPEECH_REACH = (3, 5)  # frames by which a mouth moves before a sound and after it
LEAST_MOTION = 0.25  # px, deviation of an opening below which nothing can be compared


def inner_lip_gap(landmarks: Float[Tensor, "T 68 2"]) -> Float[Tensor, "T"]:
    """Distance of the inner lips along the face's own vertical, px at 256; negative where they cross.

    The mean over the three facing pairs, at right angles to the line of the outer eye corners, so that neither a turn
    of the head in the picture nor a sideways shift of the jaw opens a mouth.
    """
    eyes = landmarks[..., RIGHT_EYE_CORNER, :] - landmarks[..., LEFT_EYE_CORNER, :]
    down = torch.stack([-eyes[..., 1], eyes[..., 0]], dim=-1)
    down = down / down.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    apart = landmarks[..., LOWER_INNER_LIP, :] - landmarks[..., UPPER_INNER_LIP, :]
    return (apart * down[..., None, :]).sum(-1).mean(-1)


def jitter(landmarks: Float[Tensor, "T L 2"]) -> Float[Tensor, ""]:
    """Mean length of the landmarks' second difference, px a frame²; NaN for fewer than three frames."""
    return landmarks.float().diff(n=2, dim=0).norm(dim=-1).mean()


def jitter_ratio(predicted: Float[Tensor, "T L 2"], true: Float[Tensor, "T L 2"]) -> float:
    """How much more than the truth the predicted landmarks tremble: 1 is as much."""
    return float(jitter(predicted) / jitter(true).clamp_min(1e-6))


def lag_ms(predicted: Float[Tensor, "T"], true: Float[Tensor, "T"], max_lag: int = MAX_LAG) -> float:
    """Time by which an opening follows the true one, ms; negative where it is early.

    The shift of greatest Pearson correlation, between frames by a parabola through its neighbours.

    Args:
        predicted, true: opening of the mouth, frame by frame.
        max_lag: largest shift that is tried, frames.

    Returns:
        NaN where one of them does not move, or the clip is shorter than four times the largest shift.
    """
    first, second = (np.asarray(values.detach().cpu(), dtype=np.float64) for values in (predicted, true))
    if len(first) < 4 * max_lag or min(first.std(), second.std()) < LEAST_MOTION:
        return float("nan")
    shifts = range(-max_lag, max_lag + 1)
    scores = [
        _correlation(first[max(k, 0) : len(first) + min(k, 0)], second[max(-k, 0) : len(second) - max(k, 0)])
        for k in shifts
    ]
    best = int(np.argmax(scores))
    offset = 0.0
    if 0 < best < len(scores) - 1:
        before, here, after = scores[best - 1 : best + 2]
        offset = 0.5 * (before - after) / min(before - 2 * here + after, -1e-12)
    return float((shifts[best] + offset) * FRAME_MS)


def silence_excess(gap: Float[Tensor, "T"], silent: Bool[Tensor, "T"], closed: float, wide: float) -> float:
    """How far the mouth stands open in silence: (mean gap − closed gap) / the speaker's widest gap.

    Args:
        gap: inner-lip gap of a clip, px.
        silent: frames in which nobody speaks.
        closed: the speaker's gap with closed lips, px.
        wide: 95th percentile of the speaker's gap, px.

    Returns:
        NaN where no frame is silent.
    """
    if not bool(silent.any()):
        return float("nan")
    return float((gap[silent].float().mean() - closed) / max(wide, 1e-6))


def silent_frames(
    words: list[tuple[float, float]], num_frames: int, margin: tuple[float, float] = (0.12, 0.20)
) -> dict[str, Bool[Tensor, "T"]]:
    """Frames of silence before, between and after the words.

    Lips open before a word is heard and close after it: frames within the margin of a word do not count.

    Args:
        words: (start, end) of each spoken word, s, in order.
        num_frames: T.
        margin: before and after a word, s.
    """
    times = torch.arange(num_frames) / 25
    kinds = {name: torch.zeros(num_frames, dtype=torch.bool) for name in ("leading", "between", "trailing")}
    if not words:
        kinds["leading"][:] = True
        return kinds
    before, after = margin
    kinds["leading"] = times < words[0][0] - before
    kinds["trailing"] = times > words[-1][1] + after
    for (_, end), (start, _) in pairwise(words):
        kinds["between"] |= (times > end + after) & (times < start - before)
    return kinds


def silent_sound(waveform: Float[Tensor, "N"], num_frames: int) -> Bool[Tensor, "T"]:
    """Frames around which nothing is heard above the room, for clips without a transcript.

    The room is the clip's 10th percentile of loudness; 12 dB above it, and above -60 dB of full scale, is speech.

    Args:
        waveform: samples at 16 kHz in [-1, 1].
        num_frames: T; 640 samples each.
    """
    if len(waveform) == 0:
        return torch.ones(num_frames, dtype=torch.bool)
    padded = torch.nn.functional.pad(waveform, (0, max(0, num_frames * 640 - len(waveform))))[: num_frames * 640]
    loudness = 10 * torch.log10(padded.unflatten(0, (num_frames, 640)).square().mean(1) + 1e-9)
    limit = max(float(torch.quantile(loudness[:100_000], 0.1)) + ABOVE_ROOM_DB, QUIETEST_SPEECH_DB)
    speech = (loudness > limit).float()[None, None]
    reach = SPEECH_REACH  # frames before and after, as the margins of `silent_frames`
    around = torch.nn.functional.max_pool1d(torch.nn.functional.pad(speech, (reach[1], reach[0])), sum(reach) + 1, 1)
    return around[0, 0] == 0


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float((first * second).sum() / max(np.sqrt((first**2).sum() * (second**2).sum()), 1e-12))
