"""What a detector that nobody here made sees in synthetic people, beside the truth that was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors.numpy import load_file

from datamodules.prepare.decode import read_frames
from model_zoo.face.detector import DlibDetector

OUTER_EYES, INNER_51, MOUTH = (36, 45), slice(17, 68), slice(48, 68)  # iBUG
UPPER_LIP, LOWER_LIP = 62, 66  # midpoints of the inner contour
_NO_LANDMARKS = np.full((68, 2), np.nan)


@dataclass(frozen=True)
class Judgement:
    """Landmarks of frames, px: as seen (NaN where no face, or more than one, was found) and as drawn."""

    seen: Float[np.ndarray, "T 68 2"]
    truth: Float[np.ndarray, "T 68 2"]

    @property
    def found(self) -> Float[np.ndarray, "T"]:
        """Whether exactly one face was found in each frame."""
        return ~np.isnan(self.seen[:, 0, 0])

    def nme(self, landmarks: slice = slice(0, 68)) -> float:
        """Mean distance of seen from true landmarks over the true distance of the outer eye corners.

        A turned head has nearer corners; theirs is the larger error then, as in DESIGN's definition.
        """
        left, right = OUTER_EYES
        eyes = np.linalg.norm(self.truth[:, left] - self.truth[:, right], axis=1)
        distance = np.linalg.norm(self.seen - self.truth, axis=2)[:, landmarks].mean(axis=1)
        return float(np.nanmean(distance / eyes)) if self.found.any() else float("nan")

    def opening_correlation(self) -> float:
        """Pearson's r between the openings of the lips, as seen and as drawn."""
        seen, truth = (self._opening(points)[self.found] for points in (self.seen, self.truth))
        return float(np.corrcoef(seen, truth)[0, 1]) if len(seen) > 2 else float("nan")

    def _opening(self, points: Float[np.ndarray, "T 68 2"]) -> Float[np.ndarray, "T"]:
        left, right = OUTER_EYES
        eyes = np.linalg.norm(self.truth[:, left] - self.truth[:, right], axis=1)
        return np.linalg.norm(points[:, LOWER_LIP] - points[:, UPPER_LIP], axis=1) / eyes


def judge(video: Path, truth: Path, detector: DlibDetector, every: int) -> Judgement:
    """Every `every`-th frame of a synthetic video as dlib sees it, each frame on its own."""
    drawn = load_file(truth)["landmarks"][::every]
    seen = []
    for index, frame in enumerate(read_frames(video)):
        if index % every == 0:
            boxes = detector.detect(frame, scale=1.0)  # of a smaller frame the boxes are too large for one look
            seen.append(detector.landmarks(frame, boxes[0]) if len(boxes) == 1 else _NO_LANDMARKS)
    return Judgement(np.stack(seen), drawn)


def pooled(judgements: Sequence[Judgement]) -> Judgement:
    """All frames of several clips."""
    return Judgement(*(np.concatenate([getattr(j, name) for j in judgements]) for name in ("seen", "truth")))
