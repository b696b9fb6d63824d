"""Landmarks of one face through a clip.

The detector only starts the track and checks it every tenth frame. Between, the box follows the landmarks of the
frame before: detector boxes jump, and the landmarks would jump with them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float32, UInt8

from model_zoo.face.detector import Box, FaceDetector, box_from_landmarks, overlap

CHECK_EVERY = 10  # frames
MIN_OVERLAP = 0.4  # intersection over union of the tracked box with a detected one
PATIENCE = 25  # frames without a face that are searched one by one, before only every tenth is

Frame = UInt8[np.ndarray, "H W 3"]


def track_landmarks(
    frames: Iterable[Frame], detector: FaceDetector, check_every: int = CHECK_EVERY
) -> Float32[np.ndarray, "T 68 2"]:
    """Landmarks of the largest face of the first frame that shows one, followed through the clip.

    A frame counts as tracked when the check before or the check after it saw a face where the track is.

    Args:
        frames: RGB frames in order.
        detector: finds boxes and landmarks.
        check_every: frames between two runs of the detector.

    Returns:
        px of the frame; rows of NaN where no face was followed.
    """
    rows: list[Float32[np.ndarray, "68 2"]] = []
    confirmed: list[bool] = []
    missing = np.full((68, 2), np.nan, np.float32)
    box: Box | None = None
    segment_start, trusted = 0, False  # the track since the last check, and whether that check agreed
    lost = 0
    for index, frame in enumerate(frames):
        lost = 0 if box is not None else lost + 1
        if index % check_every == 0 or 0 < lost <= PATIENCE:
            found = _matching(detector.detect(frame), box)
            agrees = found is not None and box is not None
            if agrees:
                confirmed[segment_start:] = [True] * (len(confirmed) - segment_start)
            elif found is not None:
                # a new face, or a lost one found again: twice, for the first box is only the detector's
                box = box_from_landmarks(detector.landmarks(frame, found))
            elif not trusted:
                box = None  # two checks in a row saw nothing here
            segment_start, trusted = index, found is not None
        if box is None:
            rows.append(missing)
            confirmed.append(False)
            continue
        rows.append(detector.landmarks(frame, box))
        confirmed.append(trusted)
        box = box_from_landmarks(rows[-1])
    landmarks = np.stack(rows) if rows else np.empty((0, 68, 2), np.float32)
    landmarks[~np.array(confirmed, bool)] = np.nan
    return landmarks


def _matching(boxes: list[Box], tracked: Box | None) -> Box | None:
    """The detected box that agrees with the track, or the largest one where there is no track."""
    if tracked is None:
        return boxes[0] if boxes else None
    best = max(boxes, key=lambda box: overlap(box, tracked), default=None)
    return best if best is not None and overlap(best, tracked) >= MIN_OVERLAP else None
