"""Whose face it is: dlib's 128-number description of a face (King 2017, a ResNet of 29 layers).

The weights come with the `face_recognition_models` package. Descriptions of one person lie near one another; they are
used within a video alone, to tell its people apart, and are never stored.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from model_zoo.face.detector import dlib_weights

# Distance up to which two descriptions in one video are one person. dlib names 0.6 for photographs taken years apart
# (99.4% right on LFW); within a video one person's frames were found 0.1 to 0.4 apart, so the stricter value.
SAME_PERSON = 0.5
CHIP_SIDE, CHIP_PADDING = 150, 0.25  # what the network was trained on

Chip = UInt8[np.ndarray, "150 150 3"]
Description = Float[np.ndarray, "128"]


def face_chip(frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "68 2"]) -> Chip:
    """The face alone, upright, as the network wants it; half a millisecond.

    Args:
        frame: RGB.
        landmarks: px of the frame.
    """
    import dlib

    low, high = landmarks.min(0).round().astype(int).tolist(), landmarks.max(0).round().astype(int).tolist()
    points = [dlib.point(x, y) for x, y in landmarks.round().astype(int).tolist()]
    seen = dlib.full_object_detection(dlib.rectangle(*low, *high), points)
    return dlib.get_face_chip(np.ascontiguousarray(frame), seen, CHIP_SIDE, CHIP_PADDING)


def describe(chip: Chip) -> Description:
    """Description of a face; about 0.15 s."""
    return np.array(_network().compute_face_descriptor(chip))


@lru_cache(maxsize=1)
def _network() -> Any:
    import dlib

    return dlib.face_recognition_model_v1(str(dlib_weights("dlib_face_recognition_resnet_model_v1.dat")))
