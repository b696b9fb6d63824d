"""The face model fitted to every span of a source that may become a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from datamodules.prepare.crop import inner_lips
from datamodules.prepare.spans import LeftOut, Span, find_spans, shortest_span
from model_zoo.face.fitting import FaceFit, fit_clip
from model_zoo.face.morphable import MorphableFace

MIN_VALID = 0.5  # share of a span's frames that must show the face


class FittedSpan(NamedTuple):
    """A span of a source with its fit, T frames.

    Attributes:
        span: of the source.
        detected: landmarks, px of the frame; rows of NaN where there are none.
        fit: in px of the frame.
    """

    span: Span
    detected: Float[Tensor, "T 68 2"]
    fit: FaceFit


def fit_spans(
    face: MorphableFace, landmarks: Float32[np.ndarray, "T 68 2"], cuts: Sequence[int]
) -> tuple[list[FittedSpan], list[LeftOut]]:
    """Fit the face to each span of a source; frames that the fit refuses count as frames without a face.

    Args:
        face: the model to fit.
        landmarks: of the tracked person, px; rows of NaN where there is none.
        cuts: frames that start a new shot.

    Returns:
        The fitted spans and all other frames, both in order.

    Raises:
        ValueError: there is no span; says why.
    """
    shortest = shortest_span(len(landmarks))
    pending, left_out = find_spans(landmarks, cuts)
    fitted: list[FittedSpan] = []
    while pending:
        span = pending.pop(0)
        detected = torch.from_numpy(landmarks[span.start : span.stop])
        try:
            fit = fit_clip(face, detected)
        except ValueError:
            left_out.append(LeftOut(*span, "the face model does not fit"))
            continue
        fitting = np.where(fit.valid.numpy()[:, None, None], landmarks[span.start : span.stop], np.nan)
        inside, outside = find_spans(fitting, (), shortest)
        if inside != [Span(0, span.frames)]:  # what it refused is too long to be bridged: what is left is fitted anew
            pending[:0] = [Span(*(span.start + edge for edge in part)) for part in inside]
            left_out += [
                LeftOut(span.start + start, span.start + stop, reason.replace("no face", "the face model does not fit"))
                for start, stop, reason in outside
            ]
        elif fit.valid.float().mean() < MIN_VALID:
            left_out.append(LeftOut(*span, f"the face in only {int(fit.valid.sum())} of {span.frames} frames"))
        else:
            fitted.append(FittedSpan(span, detected, fit))
    if not fitted:
        raise ValueError(_why_nothing(landmarks, left_out))
    return fitted, sorted(left_out)


def mouth_opening(face: MorphableFace, fitted: Sequence[FittedSpan], num_frames: int) -> Float[np.ndarray, "T"]:
    """Distance of the inner lips in every frame of the source, eye distances; NaN where there is no fit."""
    opening = np.full(num_frames, np.nan)
    for span, _, fit in fitted:
        lips = inner_lips(face, fit.shape, fit.expression)
        distance = (lips[:, 1] - lips[:, 0]).norm(dim=-1)
        opening[span.start : span.stop] = torch.where(fit.valid, distance, torch.nan).numpy()
    return opening


def _why_nothing(landmarks: Float32[np.ndarray, "T 68 2"], left_out: list[LeftOut]) -> str:
    """The one reason that explains most frames; that there is no face only if there is none at all."""
    if not np.isfinite(landmarks).all((1, 2)).any():
        return f"no face found in {len(landmarks)} of {len(landmarks)} frames"
    worst = max((part for part in left_out if part.reason != "no face"), key=lambda part: part.stop - part.start)
    return f"{worst.reason} (frames {worst.start} to {worst.stop - 1} of {len(landmarks)})"
