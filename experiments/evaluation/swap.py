"""Do the landmarks drive the mouth, and does it rest when they do? The swap test and the test of stillness.

Swap: each clip is rendered with another clip's expression through its own shape and pose, and the opening that dlib
sees on the output is correlated with the given opening and with the hidden true one. A masked face gives away much of
its opening, so good scores alone prove nothing. Stillness: rendered with the training clips' mean expression, the
opening must not move.

dlib's own reading of the TRUE frames stands beside both: it is what perfect frames would score.

Shape legend: T shown frames of a clip, N all of its frames.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from datamodules.batch import CROP_UNITS
from datamodules.clip_store import Clip
from experiments.articulation import score
from experiments.evaluation.clips import DrawnClip, ShownClip
from model_zoo.face.detector import DlibDetector, Frame, Landmarks, box_from_landmarks
from model_zoo.face.morphable import MorphableFace
from model_zoo.metrics.swap import SwapResult, measure_openings, mouth_opening, swap_test

ON_TRUTH = "true frames"  # what dlib sees of the truth: the best that any row can reach
GENERATED, COMPOSITED = "generator", "composited"
LEAST_OPENING = 0.005  # outer-eye distances, deviation below which an opening does not move
Driven = Callable[[ShownClip, Float[Tensor, "N 68 2"]], DrawnClip]


class SwapScores:
    """Openings of all clips, measured by dlib.

    Args:
        face: that projects expressions.
        mean: mean expression of the training clips.
    """

    def __init__(self, face: MorphableFace, mean: Float[Tensor, "E"]) -> None:
        self.face, self.mean = face, mean
        self.detector = DlibDetector()
        self.openings: dict[str, list[Tensor]] = defaultdict(list)  # (measured, given, hidden) of each clip
        self.per_clip: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)

    def add(self, shown: ShownClip, other: Clip, draw: Driven) -> None:
        """Render a clip with another clip's mouth, and with a resting one.

        Args:
            shown: whose face it is. other: whose expressions. draw: landmarks of the whole clip to frames.
        """
        given = self.given(shown.clip, other)
        truth = mouth_opening(shown.landmarks)
        seen = self._measure(shown, shown.true)
        self._compare(shown, ON_TRUTH, seen, truth, mouth_opening(given)[shown.frame])
        resting = self.face.project_landmarks(shown.clip.shape, self.mean.expand(len(given), -1), shown.clip.pose)
        swapped, rested = draw(shown, given), draw(shown, resting)
        for row, frames, still, flagged in (
            (GENERATED, swapped.generated, rested.generated, swapped.flagged),
            (COMPOSITED, swapped.composited, rested.composited, swapped.flagged),
        ):
            measured = self._measure(shown, frames).masked_fill(flagged, torch.nan)
            self._compare(shown, row, measured, mouth_opening(given)[shown.frame], truth)
            moved = _deviation(self._measure(shown, still)) / max(_deviation(seen), LEAST_OPENING)
            self.per_clip[row, "stillness"][shown.clip.id] = moved

    def given(self, clip: Clip, other: Clip) -> Float[Tensor, "N 68 2"]:
        """Landmarks of a clip whose mouth moves as the other clip's, which is repeated where it is shorter."""
        numbers = torch.arange(clip.num_frames) % other.num_frames
        return self.face.project_landmarks(clip.shape, other.expression[numbers], clip.pose)

    def _compare(self, shown: ShownClip, row: str, measured: Tensor, given: Tensor, hidden: Tensor) -> None:
        self.openings[row].append(torch.stack([measured, given, hidden]))
        found = swap_test(measured, given, hidden)
        for column in ("given", "hidden", "chance"):
            self.per_clip[row, column][shown.clip.id] = getattr(found, column)

    def _measure(self, shown: ShownClip, frames: Float[Tensor, "T 3 S S"]) -> Float[Tensor, "T"]:
        """Opening of every frame; the face is looked for where it is on the average, which tells nothing of a frame."""
        scale = shown.size / CROP_UNITS
        box = box_from_landmarks(((shown.landmarks.mean(0) + 0.5) * scale - 0.5).numpy())

        def detect(frame: Frame) -> Landmarks | None:
            found = self.detector.landmarks(frame, box)
            return None if np.isnan(found).any() else found

        return measure_openings(frames, detect)

    def results(self) -> dict[str, dict]:
        """By row: mean and interval over clips of each correlation, and `pooled` over all frames of all clips."""
        rows: dict[str, dict] = defaultdict(dict)
        for (row, column), per_clip in self.per_clip.items():
            rows[row][column] = {**(cell := score(per_clip)), "n": len(cell["per_clip"])}
        for row, openings in self.openings.items():
            rows[row]["pooled"] = self.pooled(openings)._asdict()
        return dict(rows)

    @staticmethod
    def pooled(openings: list[Tensor]) -> SwapResult:
        """Over the frames of all clips, each clip's opening from its own mean: how wide dlib sees a face's lips at rest
        is a matter of that face."""
        return swap_test(*torch.cat([each - each.nanmean(1, keepdim=True) for each in openings], 1))


def partners(clips: list[str], seed: int) -> dict[str, str]:
    """Another clip for each, by the seed; a lone clip has none but itself."""
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed)).tolist()
    return {clips[order[i]]: clips[order[i - 1]] for i in range(len(order))}


def _deviation(values: Float[Tensor, "T"]) -> float:
    found = values[values.isfinite()]
    return float(found.std()) if len(found) > 1 else float("nan")
