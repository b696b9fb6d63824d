"""Face boxes and the 68 iBUG landmarks of a single frame.

The weights come with the `face_recognition_models` package, so nothing is downloaded. Other detectors may be passed
wherever the `FaceDetector` protocol is asked for.
"""

from __future__ import annotations

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from model_zoo.face.shape_predictor import ShapePredictor

NUM_LANDMARKS = 68

# dlib's detector sees faces of 80 px and more, and with its pyramid down to about 55 px at the cost of some confidence;
# a frame whose short side is halved to 144 px therefore still works for faces that fill a quarter of the frame.
DETECTION_SHORT_SIDE = 144
# Box of the next frame from the 68 points of this one: centroid + (rms distance from it) x these (left, top, right,
# bottom), a least-squares fit to dlib's own boxes.
BOX_FROM_LANDMARKS = np.array([-1.458, -1.488, 1.405, 1.366], dtype=np.float32)

Box = np.ndarray  # (4,) float32: left, top, right, bottom in px
Frame = UInt8[np.ndarray, "H W 3"]
Landmarks = Float32[np.ndarray, "68 2"]


class FaceDetector(Protocol):
    """What preparation needs to know about a detector; picklable, without state between frames.

    Attributes:
        name: of the detector and whatever its results depend on; a part of the settings of a prepared clip.
    """

    name: str

    def detect(self, frame: Frame) -> list[Box]:
        """Boxes of all faces of a frame, largest first."""

    def landmarks(self, frame: Frame, box: Box) -> Landmarks:
        """Landmarks of the face in a box, px of the frame; NaN where there turns out to be none."""


def box_from_landmarks(landmarks: Landmarks) -> Box:
    """Box that dlib's detector would have put around these landmarks, px.

    Detector boxes jump by several px between frames and image scales and move the landmarks with them; a box that
    follows the landmarks does not.
    """
    centre = landmarks.mean(axis=0)
    radius = np.sqrt(((landmarks - centre) ** 2).sum(axis=1).mean())
    return np.concatenate([centre, centre]).astype(np.float32) + radius * BOX_FROM_LANDMARKS


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    intersection = float(np.prod(np.clip(high - low, 0, None)))
    union = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - intersection
    return intersection / union if union > 0 else 0.0


def dlib_weights(name: str) -> Path:
    """A file of weights of the `face_recognition_models` package.

    Raises:
        ValueError: the package is missing.
    """
    # Found without importing the package: its __init__ needs pkg_resources, which setuptools 81 removed.
    # https://github.com/ageitgey/face_recognition_models/issues/23
    spec = find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        raise ValueError("the dlib weights are missing: pip install face_recognition_models")
    return Path(spec.origin).parent / "models" / name


class DlibDetector:
    """dlib's HOG face detector and its 68-landmark regression trees.

    Holds no state between frames; the models load on first use, so an instance is cheap to send to a worker process.
    """

    name = "dlib"

    @cached_property
    def _detector(self) -> Any:
        import dlib

        return dlib.get_frontal_face_detector()

    @cached_property
    def _predictor(self) -> ShapePredictor:
        return ShapePredictor.read(dlib_weights("shape_predictor_68_face_landmarks.dat"))

    def __getstate__(self) -> dict:
        return {}  # the models are not picklable and load again where they are needed

    def detect(self, frame: Frame, scale: float | None = None) -> list[Box]:
        """Boxes of all faces, largest first.

        Args:
            frame: RGB.
            scale: the frame is resized by this before detection. Default: the short side becomes 144 px or stays
                within half and whole size, doubling up to the whole frame until a face is found.
        """
        smallest = min(frame.shape[:2])
        scales = [scale] if scale else _detection_scales(smallest)
        for factor in scales:
            gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            if factor != 1:
                gray = cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            # contiguous, or dlib misses at random: it ignores the row stride
            found = self._detector(np.ascontiguousarray(gray), 0)
            boxes = [np.array([r.left(), r.top(), r.right(), r.bottom()], np.float32) / factor for r in found]
            if boxes:
                return sorted(boxes, key=lambda box: -float(np.prod(box[2:] - box[:2])))
        return []

    def landmarks(self, frame: Frame, box: Box) -> Landmarks:
        """The 68 landmarks of the face in `box`, px of `frame`, pixel centres at integers.

        Args:
            frame: RGB.
            box: (left, top, right, bottom), px; may reach over the edge of the frame.
        """
        return self._predictor.landmarks(np.ascontiguousarray(frame), box)


def _detection_scales(short_side: int) -> list[float]:
    """From the smallest scale worth trying up to the whole frame."""
    scale = min(1.0, DETECTION_SHORT_SIDE / short_side)
    scales = []
    while scale < 1.0:
        scales.append(scale)
        scale *= 2
    return [*scales, 1.0]
