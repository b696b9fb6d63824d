"""Which stretches of a source become clips: those that show one face without a cut and without a long absence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from datamodules.batch import NUM_FRAMES

BRIDGED = 12  # frames without a face that stay inside a clip; the fit interpolates them (half a second: a hand, a turn)
MIN_SPAN = 25  # frames, one second: below it there is nothing to hear in a span


class Span(NamedTuple):
    """Frames start..stop-1 of a source."""

    start: int
    stop: int

    @property
    def frames(self) -> int:
        """How many."""
        return self.stop - self.start


class LeftOut(NamedTuple):
    """Frames start..stop-1 of a source that become no clip, and why."""

    start: int
    stop: int
    reason: str


def shortest_span(num_frames: int) -> int:
    """Frames that a span must have in a source of so many: a second, less where that is all there is."""
    return MIN_SPAN if num_frames >= 2 * MIN_SPAN else NUM_FRAMES


def find_spans(
    landmarks: Float[np.ndarray, "T 68 2"], cuts: Sequence[int] = (), shortest: int | None = None
) -> tuple[list[Span], list[LeftOut]]:
    """Cut a source where the picture cuts and where the face is gone for long.

    Args:
        landmarks: of the tracked face; rows that are not finite are frames without it.
        cuts: numbers of the frames that start a new shot.
        shortest: frames that a span must have; None: `shortest_span` of the source.

    Returns:
        The spans in order, and all other frames with a reason. Absences of up to `BRIDGED` frames stay inside, also at
        the ends of a shot.
    """
    num_frames = len(landmarks)
    shortest = shortest_span(num_frames) if shortest is None else shortest
    seen = np.isfinite(landmarks).all((1, 2))
    spans: list[Span] = []
    left_out: list[LeftOut] = []
    inner = sorted(cut for cut in set(cuts) if 0 < cut < num_frames)
    for start, stop in zip([0, *inner], [*inner, num_frames], strict=True):
        done = start  # frames of this shot that are spoken for
        for span in _spans_of_shot(seen, start, stop):
            if span.start > done:
                left_out.append(LeftOut(done, span.start, "no face"))
            if span.frames < shortest:
                left_out.append(LeftOut(*span, f"only {span.frames} frames with the face"))
            else:
                spans.append(span)
            done = span.stop
        if done < stop:
            left_out.append(LeftOut(done, stop, "no face"))
    return spans, left_out


def _spans_of_shot(seen: np.ndarray, start: int, stop: int) -> list[Span]:
    """Runs of frames with the face, joined over short absences; short ones at the shot's ends are taken in."""
    with_face = start + np.flatnonzero(seen[start:stop])
    if len(with_face) == 0:
        return []
    breaks = np.flatnonzero(np.diff(with_face) > BRIDGED + 1)
    firsts = with_face[np.concatenate([[0], breaks + 1])]
    lasts = with_face[np.concatenate([breaks, [-1]])]
    spans = [Span(int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True)]
    if spans[0].start - start <= BRIDGED:
        spans[0] = spans[0]._replace(start=start)
    if stop - spans[-1].stop <= BRIDGED:
        spans[-1] = spans[-1]._replace(stop=stop)
    return spans
