"""MediaPipe's FaceLandmarker as a detector: it follows faces that are turned further than dlib's detector sees.

Neither the package nor its model comes with this project:
`pip install mediapipe`, and `face_landmarker.task` from
https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker#models
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from model_zoo.face.detector import NUM_LANDMARKS, Box, Frame, Landmarks, box_from_landmarks, overlap

NUM_MESH_LANDMARKS = 478  # of the face mesh with irises
MAX_FACES = 4
CROP_MARGIN = 0.6  # of the side of a box, on each side: what the landmarker sees of a face that is followed
MIN_OVERLAP = 0.2  # of what it finds there with the box

# Mesh points nearest to iBUG's 68. The correspondence that is in common use, here as LatentSync 1.5 has it (Li et al.
# 2024, github.com/bytedance/LatentSync, Apache-2.0).
IBUG_OF_MESH = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,  # jaw
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301,  # brows
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # outer lips
    78, 82, 13, 312, 308, 317, 14, 87,  # inner lips
)  # fmt: skip


class MediapipeDetector:
    """FaceLandmarker on whole frames to find faces, and on a crop around a face to follow it.

    Args:
        model: `face_landmarker.task`.

    Raises:
        ValueError: there is no such file.
    """

    def __init__(self, model: Path | str) -> None:
        self.model = Path(model).expanduser()
        if not self.model.is_file():
            raise ValueError(
                f"{model} does not exist: download face_landmarker.task from "
                "https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker#models and give its path"
            )
        self.name = f"mediapipe-{hashlib.sha256(self.model.read_bytes()).hexdigest()[:8]}"

    def __getstate__(self) -> dict:
        return {"model": self.model, "name": self.name}  # the landmarker is made again where it is needed

    @cached_property
    def _mediapipe(self) -> tuple[Any, Any]:
        """The package and a landmarker.

        Raises:
            ValueError: the package is missing, or cannot read the model.
        """
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise ValueError(f"mediapipe is not installed: pip install mediapipe ({error})") from error
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(self.model)),
            running_mode=vision.RunningMode.IMAGE,
            num_faces=MAX_FACES,
        )
        try:
            return mediapipe, vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"mediapipe cannot use {self.model}: {error}") from error

    def detect(self, frame: Frame) -> list[Box]:
        """Boxes of all faces, largest first, as dlib's detector would put them around the landmarks."""
        boxes = [box_from_landmarks(face) for face in self._faces(frame)]
        return sorted(boxes, key=lambda box: -float(np.prod(box[2:] - box[:2])))

    def landmarks(self, frame: Frame, box: Box) -> Landmarks:
        """The 68 landmarks of the face in `box`, px of `frame`, pixel centres at integers; NaN if there is none."""
        side = max(box[2:] - box[:2])
        low = np.floor(np.asarray(box[:2]) - CROP_MARGIN * side).astype(int).clip(0, None)
        high = np.ceil(np.asarray(box[2:]) + CROP_MARGIN * side).astype(int).clip(None, frame.shape[1::-1])
        missing = np.full((NUM_LANDMARKS, 2), np.nan, np.float32)
        if (high <= low).any():
            return missing
        faces = [face + low.astype(np.float32) for face in self._faces(frame[low[1] : high[1], low[0] : high[0]])]
        best = max(faces, key=lambda face: overlap(box_from_landmarks(face), box), default=missing)
        return best if overlap(box_from_landmarks(best), box) >= MIN_OVERLAP else missing

    def _faces(self, frame: Frame) -> list[Landmarks]:
        mediapipe, landmarker = self._mediapipe
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
        size = np.array(frame.shape[1::-1], np.float32)
        faces = []
        for mesh in landmarker.detect(image).face_landmarks:
            points = np.array([(mesh[index].x, mesh[index].y) for index in IBUG_OF_MESH], np.float32)
            faces.append(points * size - 0.5)  # 0 and 1 are the edges of the image
        return faces
