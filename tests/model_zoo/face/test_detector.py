"""dlib's detector and landmarks, on real frames where they are at hand."""

import os
import pickle
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from model_zoo.face.detector import DlibDetector, box_from_landmarks, overlap

GRID_ROOT = os.environ.get("TALKIN_GRID_ROOT")
needs_grid = pytest.mark.skipif(not GRID_ROOT, reason="TALKIN_GRID_ROOT is not set")


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    from datamodules.prepare.decode import read_frames

    clip = sorted(Path(GRID_ROOT).glob("s1/*.mpg"))[0]
    return next(islice(read_frames(clip), 10, None))


@pytest.fixture(scope="module")
def detector() -> DlibDetector:
    return DlibDetector()


def test_overlap_is_intersection_over_union():
    one = np.array([0, 0, 10, 10], np.float32)
    assert overlap(one, one) == 1
    assert overlap(one, np.array([5, 0, 15, 10], np.float32)) == pytest.approx(1 / 3)
    assert overlap(one, np.array([20, 0, 30, 10], np.float32)) == 0


def test_box_moves_and_grows_with_the_landmarks():
    points = np.random.default_rng(0).normal(size=(68, 2)).astype(np.float32)
    box = box_from_landmarks(points)
    np.testing.assert_allclose(box_from_landmarks(3 * points + 7), 3 * box + 7, rtol=1e-5)
    centre = points.mean(0)
    assert (box[:2] < centre).all()
    assert (box[2:] > centre).all()


def test_nothing_is_found_where_nothing_is(detector):
    noise = np.random.default_rng(0).integers(0, 255, (288, 360, 3), np.uint8)
    assert detector.detect(noise) == []


def test_travels_without_its_models(detector):
    detector.detect(np.zeros((100, 100, 3), np.uint8))
    assert len(pickle.dumps(detector)) < 200


@needs_grid
def test_one_face_is_found_at_every_scale(detector, frame):
    boxes = [detector.detect(frame, scale) for scale in (0.5, 1.0)]
    assert [len(found) for found in boxes] == [1, 1]
    assert overlap(boxes[0][0], boxes[1][0]) > 0.5
    assert np.array_equal(detector.detect(frame)[0], boxes[0][0])


@needs_grid
def test_propagated_box_is_the_detectors(detector, frame):
    box = detector.detect(frame, 1.0)[0]
    assert overlap(box_from_landmarks(detector.landmarks(frame, box)), box) > 0.75


@needs_grid
def test_landmarks_follow_a_shift_of_a_fraction_of_a_pixel(detector, frame):
    """dlib itself rounds to whole pixels."""
    import cv2

    box = detector.detect(frame, 1.0)[0]
    box = box_from_landmarks(detector.landmarks(frame, box))
    rest = detector.landmarks(frame, box)
    for shift in (0.25, 0.5):
        moved = cv2.warpAffine(frame, np.array([[1, 0, shift], [0, 1, 0.0]]), frame.shape[1::-1])
        step = (detector.landmarks(moved, box) - rest).mean(0)
        np.testing.assert_allclose(step, [shift, 0], atol=0.15)


@needs_grid
def test_landmarks_lie_in_the_same_place_at_every_resolution(detector, frame):
    """Pixels have an extent: x px become (x + 1/2) k - 1/2 px in a frame that is k times as large."""
    import cv2

    box = detector.detect(frame, 1.0)[0]
    for _ in range(3):
        box = box_from_landmarks(detector.landmarks(frame, box))
    rest = detector.landmarks(frame, box)
    for scale in (2, 4):
        large = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        found = (detector.landmarks(large, (box + 0.5) * scale - 0.5) + 0.5) / scale - 0.5
        np.testing.assert_allclose((found - rest).mean(0), 0, atol=0.2)  # 0.25 to 0.4 without the halves
        assert np.sqrt(((found - rest) ** 2).mean()) < 0.5


@needs_grid
def test_strided_frames_are_no_different(detector, frame):
    padded = np.zeros((frame.shape[0], frame.shape[1] + 24, 3), np.uint8)
    padded[:, : frame.shape[1]] = frame
    view = padded[:, : frame.shape[1]]
    assert not view.flags.c_contiguous
    np.testing.assert_array_equal(detector.detect(view), detector.detect(frame))
    box = detector.detect(frame)[0]
    np.testing.assert_array_equal(detector.landmarks(view, box), detector.landmarks(frame, box))
