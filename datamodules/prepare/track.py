"""Landmarks of the faces of a source, each followed for as long as it is seen without doubt.

The detector only starts a track and checks it every tenth frame. Between, the box follows the landmarks of the frame
before: detector boxes jump, and the landmarks would jump with them. Whether the landmarks still lie on the same face is
seen from its eyes and nose, compared with those of the last check; where they look different the detector is asked at
once. In doubt a track ends and another begins; `people.py` says which of them show the same person.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Float32

from datamodules.prepare.people import Choice, Track, Tracks, chosen_face
from datamodules.prepare.spans import BRIDGED
from model_zoo.face.detector import Box, FaceDetector, Frame, Landmarks, box_from_landmarks, overlap
from model_zoo.face.identity import face_chip

CHECK_EVERY = 10  # frames
MIN_OVERLAP = 0.4  # intersection over union of the tracked box with a detected one
PATIENCE = 25  # frames without a face that are searched one by one, before only every tenth is
MAX_FACES = 4  # followed at once: in a crowd, the largest
# Correlation of the patch around eyes and nose with that of the last check. On GRID it stays above 0.61, blinks
# included; half hidden faces reach 0.2 to 0.52, bare background 0.25.
MIN_LIKENESS = 0.55
PATCH_SIDE = 32  # px
PATCH_EYES = 0.5  # of the side: distance of the eyes
NUM_CHIPS = 2  # pictures of each track, to tell people apart
COLLISION_SHADOW = 3  # frames before two tracks are found on one face that are no longer trusted

_MISSING = np.full((68, 2), np.nan, np.float32)


class ShotFinder(Protocol):
    """Says where shots begin, as `cuts.CutFinder` does."""

    def update(self, frame: Frame) -> bool:
        """Take the next frame; True when it starts a new shot."""


class FaceTracker:
    """Follows every face of a source, frame by frame; memory grows by the landmarks alone.

    Args:
        detector: finds boxes and landmarks.
        cuts: says where shots begin; no track goes on across a cut.
        check_every: frames between two runs of the detector while all is well.
    """

    def __init__(self, detector: FaceDetector, cuts: ShotFinder | None, check_every: int = CHECK_EVERY) -> None:
        self.detector, self.check_every = detector, check_every
        self.found = Tracks()
        self._cuts = cuts
        self._live: list[Track] = []
        self._lost = 0  # frames since the last face, or since the start of the shot

    def update(self, frame: Frame) -> None:
        """Take the next frame, RGB."""
        found, index = self.found, self.found.num_frames
        found.height, found.width = frame.shape[:2]
        cut = self._cuts is not None and self._cuts.update(frame) and index > 0
        if cut:
            found.cuts.append(index)
            self._live, self._lost = [], 0
        self._lost = 0 if self._live else self._lost + 1
        for track in self._live:
            self._follow(track, frame)
        doubt = any(not (track.alike and track.trusted) for track in self._live)
        if cut or doubt or index % self.check_every == 0 or 0 < self._lost <= PATIENCE:
            self._check(frame, index)
        self._part_collided()
        found.num_frames += 1

    def _follow(self, track: Track, frame: Frame) -> None:
        """Landmarks of the next frame, and whether they still lie on the same face."""
        landmarks = self.detector.landmarks(frame, track.box)
        track.alike = bool(_patch(frame, landmarks) @ track.patch >= MIN_LIKENESS)
        if track.alike:
            track.box = box_from_landmarks(landmarks)  # of a hidden face the box stays where it was
        track.rows.append(landmarks if track.alike else _MISSING)
        if track.alike and track.trusted:
            track.vouched = len(track.rows)

    def _check(self, frame: Frame, index: int) -> None:
        """Ask the detector: it confirms tracks, ends them, and begins new ones."""
        boxes = self.detector.detect(frame)
        self.found.searched.append(index)
        self.found.faces.append(len(boxes))
        match = self._matches(boxes)
        still = []
        for number, track in enumerate(self._live):
            if number in match and track.alike:
                track.trusted, track.agreed, track.vouched = True, index, len(track.rows)
                track.patch = _patch(frame, track.rows[-1])
                wanted = track.description is None and len(track.chips) < NUM_CHIPS
                if wanted and index - track.start >= self.check_every:
                    track.chips.append(face_chip(frame, track.rows[-1]))
                still.append(track)
            elif number in match:
                del match[number]  # there is a face, but perhaps another one: it gets a track of its own
            else:
                if track.trusted:
                    track.vouched = min(track.vouched, len(track.rows) - 1)  # of this frame there is doubt
                track.trusted = False
                if index - track.agreed <= self.check_every + BRIDGED:
                    still.append(track)
        self._live = still
        for number, box in enumerate(boxes):
            if number not in match.values() and len(self._live) < MAX_FACES:
                self._begin(frame, box, index)

    def _matches(self, boxes: list[Box]) -> dict[int, int]:
        """Which box belongs to which track, best overlaps first."""
        overlaps = np.array([[overlap(track.box, box) for box in boxes] for track in self._live])
        match: dict[int, int] = {}
        for flat in np.argsort(-overlaps, axis=None):
            track, box = divmod(int(flat), len(boxes))
            if overlaps[track, box] >= MIN_OVERLAP and track not in match and box not in match.values():
                match[track] = box
        return match

    def _begin(self, frame: Frame, box: Box, index: int) -> None:
        """A track on a detected face. Landmarks are found twice, for the first box is only the detector's."""
        box = box_from_landmarks(self.detector.landmarks(frame, box))
        landmarks = self.detector.landmarks(frame, box)
        box = box_from_landmarks(landmarks)
        if not np.isfinite(landmarks).all() or any(overlap(box, other.box) >= MIN_OVERLAP for other in self._live):
            return  # no face after all, or one that is followed already
        track = Track(index, [landmarks], box, _patch(frame, landmarks), [face_chip(frame, landmarks)], 1, index)
        self._live.append(track)
        self.found.add(track)

    def _part_collided(self) -> None:
        """Two tracks on one face: one has slid over from its own, nobody knows which; both end."""
        collided = [
            any(other is not track and overlap(track.box, other.box) >= MIN_OVERLAP for other in self._live)
            for track in self._live
        ]
        for track, ends in zip(self._live, collided, strict=True):
            if ends:
                track.vouched = max(0, track.vouched - COLLISION_SHADOW)
        self._live = [track for track, ends in zip(self._live, collided, strict=True) if not ends]


def track_faces(
    frames: Iterable[Frame], detector: FaceDetector, cuts: ShotFinder | None = None, check_every: int = CHECK_EVERY
) -> Tracks:
    """Follow every face of a source; see `FaceTracker`."""
    tracker = FaceTracker(detector, cuts, check_every)
    for frame in frames:
        tracker.update(frame)
    return tracker.found


def track_landmarks(
    frames: Iterable[Frame], detector: FaceDetector, check_every: int = CHECK_EVERY
) -> Float32[np.ndarray, "T 68 2"]:
    """Landmarks of the person who takes the most room in a source.

    Args:
        frames: RGB frames in order.
        detector: finds boxes and landmarks.
        check_every: frames between two runs of the detector.

    Returns:
        px of the frame; rows of NaN where that person is not seen.
    """
    return chosen_face(track_faces(frames, detector, check_every=check_every), Choice.largest, np.empty(0, np.int16))


def _patch(frame: Frame, landmarks: Landmarks) -> Float32[np.ndarray, "N"]:
    """Eyes and nose upright in a small gray picture of mean 0 and norm 1; zeros where nothing can be seen."""
    right, left = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    x, y = left - right
    squared = float(x * x + y * y)
    if not squared > 1:  # also where landmarks are NaN
        return np.zeros(PATCH_SIDE**2, np.float32)
    linear = PATCH_SIDE * PATCH_EYES / squared * np.array([[x, y], [-y, x]])
    offset = np.array([0.5, 0.3]) * PATCH_SIDE - linear @ ((left + right) / 2)
    matrix = np.concatenate([linear, offset[:, None]], axis=1)
    picture = cv2.warpAffine(frame, matrix, (PATCH_SIDE, PATCH_SIDE), borderMode=cv2.BORDER_REPLICATE)
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).ravel().astype(np.float32)
    gray -= gray.mean()
    norm = float(np.linalg.norm(gray))
    return gray / norm if norm > PATCH_SIDE else np.zeros_like(gray)  # below one gray level there is nothing
