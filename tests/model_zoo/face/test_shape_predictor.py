"""The landmark trees against dlib's own, the pixels between pixels against OpenCV's."""

import cv2
import dlib
import numpy as np
import pytest

from model_zoo.face import shape_predictor
from model_zoo.face.detector import dlib_weights
from model_zoo.face.shape_predictor import ShapePredictor

WEIGHTS = dlib_weights("shape_predictor_68_face_landmarks.dat")


@pytest.fixture(scope="module")
def predictor() -> ShapePredictor:
    return ShapePredictor.read(WEIGHTS)


def picture(side: int, seed: int) -> np.ndarray:
    """Smooth blotches in three equal channels."""
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8), np.uint8)
    return np.repeat(cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)[..., None], 3, axis=2)


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_with_dlibs_rounding_they_are_dlibs(predictor, monkeypatch, seed):
    """Only where dlib looks is made its own: whole pixels."""
    frame, box = picture(1200, seed), np.array([200, 150, 900, 880]) + 10 * seed
    parts = dlib.shape_predictor(str(WEIGHTS))(frame[..., 0].copy(), dlib.rectangle(*box.tolist())).parts()
    monkeypatch.setattr(
        shape_predictor, "_brightness", lambda frame, x, y: np.float32(frame[int(y + 0.5), int(x + 0.5), 0])
    )
    monkeypatch.setattr(shape_predictor, "_descend", shape_predictor._descend.py_func)
    found = predictor.landmarks(frame, box)
    np.testing.assert_allclose(found, [(part.x, part.y) for part in parts], atol=0.51)  # it rounds its answer as well


def test_places_between_pixels_are_opencvs():
    generator = np.random.default_rng(0)
    frame = generator.integers(0, 255, (30, 50, 3), np.uint8)
    x, y = generator.uniform(-20, 70, 200).astype(np.float32), generator.uniform(-20, 50, 200).astype(np.float32)
    gray = frame @ np.array([0.299, 0.587, 0.114], np.float32)
    expected = cv2.remap(gray, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).ravel()
    found = [shape_predictor._brightness(frame, *place) for place in zip(x, y, strict=True)]
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("away", [(0, 0), (-170, 60), (230, -120)])
def test_beyond_its_edge_a_frame_goes_on_as_its_border(predictor, away):
    frame = np.ascontiguousarray(picture(240, 1) // np.array([1, 2, 3], np.uint8))
    padded = np.ascontiguousarray(np.pad(frame, ((300, 300), (300, 300), (0, 0)), mode="edge"))
    box = np.array([40, 60, 190, 210], np.float32) + np.tile(away, 2)
    found = predictor.landmarks(frame, box)
    np.testing.assert_allclose(predictor.landmarks(padded, box + 300) - 300, found, atol=0.05)


def test_the_face_may_have_any_size(predictor):
    frame, box = picture(200, 4), np.array([30, 40, 150, 170], np.float32)
    large = cv2.resize(frame, None, fx=3, fy=3, interpolation=cv2.INTER_LINEAR)
    found = (predictor.landmarks(large, (box + 0.5) * 3 - 0.5) + 0.5) / 3 - 0.5
    assert np.abs(found - predictor.landmarks(frame, box)).mean() < 1.0


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.dat"
    path.write_bytes(bytes([1, 2, 0]))  # one byte follows: 2
    with pytest.raises(ValueError, match="version 1"):
        ShapePredictor.read(path)
