"""MediaPipe's landmarker against a stand-in of the same interface that finds faces which are painted into the frame."""

import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from model_zoo.face.detector import box_from_landmarks, overlap
from model_zoo.face.mediapipe_detector import IBUG_OF_MESH, NUM_MESH_LANDMARKS, MediapipeDetector

FACES = {"left": (60, 90, 40), "right": (200, 100, 60)}  # x, y of the middle and radius, px


def mesh(x: float, y: float, radius: float) -> np.ndarray:
    """(478, 2) px; where iBUG's points lie is what matters: on circles, each at an angle of its own."""
    points = np.zeros((NUM_MESH_LANDMARKS, 2))
    angle = np.arange(68)
    rings = radius * (1 + angle % 3)[:, None] / 3
    points[list(IBUG_OF_MESH)] = np.array([x, y]) + rings * np.stack([np.cos(angle), np.sin(angle)], 1)
    return points


def painted() -> np.ndarray:
    """A frame with a red pixel in the middle of each face, its radius beside it."""
    frame = np.zeros((200, 320, 3), np.uint8)
    for x, y, radius in FACES.values():
        frame[y, x] = 255, radius, 0
    return frame


@pytest.fixture
def mediapipe(monkeypatch):
    """`mediapipe` with what `FaceLandmarker` needs: the names and shapes of its Python interface."""
    made = []

    class FaceLandmarker:
        @classmethod
        def create_from_options(cls, options):
            if not Path(options.base_options.model_asset_path).read_bytes().startswith(b"model"):
                raise RuntimeError("Unable to open zip archive.")
            made.append(options)
            return cls()

        def detect(self, image):
            assert image.image_format == "SRGB"
            assert image.data.flags.c_contiguous
            height, width = image.data.shape[:2]
            found = []
            for y, x in np.argwhere(image.data[..., 0] == 255):
                points = mesh(x, y, image.data[y, x, 1])
                found.append([SimpleNamespace(x=(px + 0.5) / width, y=(py + 0.5) / height, z=0.0) for px, py in points])
            return SimpleNamespace(face_landmarks=found, face_blendshapes=[], facial_transformation_matrixes=[])

    package, tasks, python = (ModuleType(name) for name in ("mediapipe", "mediapipe.tasks", "mediapipe.tasks.python"))
    package.Image = lambda image_format, data: SimpleNamespace(image_format=image_format, data=data)
    package.ImageFormat = SimpleNamespace(SRGB="SRGB")
    python.BaseOptions = lambda model_asset_path: SimpleNamespace(model_asset_path=model_asset_path)
    python.vision = SimpleNamespace(
        FaceLandmarker=FaceLandmarker,
        FaceLandmarkerOptions=lambda **options: SimpleNamespace(**options),
        RunningMode=SimpleNamespace(IMAGE="IMAGE"),
    )
    for module in (package, tasks, python):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "face_landmarker.task"
    path.write_bytes(b"model")
    return path


def test_map_names_68_points_of_the_mesh_once():
    assert len(set(IBUG_OF_MESH)) == 68
    assert 0 <= min(IBUG_OF_MESH) <= max(IBUG_OF_MESH) < 468  # none of the irises


def test_all_faces_are_found_largest_first_and_landmarks_are_those_of_the_box(mediapipe, model):
    detector, frame = MediapipeDetector(model), painted()
    boxes = detector.detect(frame)
    right, left = (mesh(*FACES[side])[list(IBUG_OF_MESH)].astype(np.float32) for side in ("right", "left"))
    np.testing.assert_allclose(boxes, [box_from_landmarks(right), box_from_landmarks(left)], atol=1e-3)
    for box, truth in zip(boxes, (right, left), strict=True):
        np.testing.assert_allclose(detector.landmarks(frame, box), truth, atol=1e-3)
        assert overlap(box_from_landmarks(detector.landmarks(frame, box + 5)), box) > 0.99
    assert len(mediapipe) == 1  # one landmarker for all
    assert (mediapipe[0].running_mode, mediapipe[0].num_faces >= 2) == ("IMAGE", True)


def test_where_there_is_no_face_landmarks_are_missing(mediapipe, model):
    detector, frame = MediapipeDetector(model), painted()
    empty = np.array([270, 150, 300, 180], np.float32)
    assert np.isnan(detector.landmarks(frame, empty)).all()
    assert np.isnan(detector.landmarks(frame, empty + 500)).all()
    assert detector.detect(np.zeros_like(frame)) == []


def test_travels_without_its_landmarker_and_is_named_after_its_model(mediapipe, model):
    detector = MediapipeDetector(model)
    detector.detect(painted())
    copy = pickle.loads(pickle.dumps(detector))
    assert copy.name == detector.name
    assert len(copy.detect(painted())) == 2
    model.write_bytes(b"model 2")
    assert MediapipeDetector(model).name != detector.name


def test_missing_model_and_package_are_one_clear_line(tmp_path, model, monkeypatch):
    with pytest.raises(ValueError, match=r"does not exist: download face_landmarker\.task"):
        MediapipeDetector(tmp_path / "nothing.task")
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(ValueError, match="pip install mediapipe"):
        MediapipeDetector(model).detect(painted())


def test_unreadable_model_is_one_clear_line(mediapipe, model):
    model.write_bytes(b"a web page")
    with pytest.raises(ValueError, match="mediapipe cannot use"):
        MediapipeDetector(model).detect(painted())
