"""Following one face: started and checked by the detector, carried by the landmarks."""

import numpy as np

from datamodules.prepare.track import PATIENCE, track_faces, track_landmarks
from model_zoo.face.detector import box_from_landmarks, overlap
from tests.datamodules.fake_corpus import NumberDetector, draw, fake_face, true_landmarks

NUM_FRAMES = 45
TRUTH = true_landmarks(fake_face(), 0, 200)


def frames(count: int = NUM_FRAMES) -> list[np.ndarray]:
    return [draw(TRUTH[number], number) for number in range(count)]


class Recording(NumberDetector):
    """Remembers which frames were searched, and where the predictor was told to look."""

    def __init__(self, *arguments, **more) -> None:
        super().__init__(*arguments, **more)
        self.searched, self.boxes = [], []

    def detect(self, frame):
        found = super().detect(frame)
        self.searched.append(len(self.boxes))
        return found

    def landmarks(self, frame, box):
        self.boxes.append(box)
        return super().landmarks(frame, box)


def test_detector_runs_every_tenth_frame_and_the_box_follows_the_landmarks():
    detector = Recording(TRUTH)
    landmarks = track_landmarks(frames(), detector)
    np.testing.assert_array_equal(landmarks, TRUTH[:NUM_FRAMES].astype(np.float32))
    assert len(detector.searched) == 5
    # once more than frames: the first box is only the detector's
    assert len(detector.boxes) == NUM_FRAMES + 1
    followed = [overlap(box, box_from_landmarks(TRUTH[t])) for t, box in enumerate(detector.boxes[1:])]
    assert min(followed) > 0.9


def test_one_missed_check_does_not_lose_the_face():
    landmarks = track_landmarks(frames(), NumberDetector(TRUTH, blind=frozenset([20])))
    assert not np.isnan(landmarks).any()


def test_face_that_is_gone_is_missing_and_found_again():
    landmarks = track_landmarks(frames(200), NumberDetector(TRUTH, blind=frozenset(range(50, 113))))
    missing = np.isnan(landmarks).any((1, 2))
    assert not missing[:50].any()
    assert missing[60:113].all()
    assert not missing[120:].any()
    np.testing.assert_array_equal(missing, np.isnan(landmarks).all((1, 2)))


def test_face_that_comes_late_is_found_at_once_and_then_searched_for_less_often():
    soon = track_landmarks(frames(), NumberDetector(TRUTH, blind=frozenset(range(7))))
    assert np.flatnonzero(~np.isnan(soon[:, 0, 0]))[0] == 7
    nobody = Recording(TRUTH, blind=frozenset(range(200)))
    assert np.isnan(track_landmarks(frames(200), nobody)).all()
    assert PATIENCE <= len(nobody.searched) <= PATIENCE + 200 / 10


def test_no_frames():
    assert track_landmarks([], NumberDetector(TRUTH)).shape == (0, 68, 2)


def test_the_face_stays_the_same_when_a_larger_one_enters():
    class TwoFaces(NumberDetector):
        def detect(self, frame):
            mine = super().detect(frame)
            return (
                [np.array([0, 0, 300, 280], np.float32), *mine] if mine and mine[0][1] > TRUTH[9, :, 1].min() else mine
            )

    landmarks = track_landmarks(frames(), TwoFaces(TRUTH))
    np.testing.assert_array_equal(landmarks, TRUTH[:NUM_FRAMES].astype(np.float32))


def test_face_that_returns_between_checks_is_confirmed_from_then_on():
    """Hidden in frames 18 to 24, so that the check of frame 20 fails; whole again long before that of frame 30."""
    hidden = range(18, 25)
    blank = np.full_like(draw(TRUTH[0], 0), 90)

    class Sees(NumberDetector):
        def detect(self, frame):
            return super().detect(frame) if frame[:, 20:].max() > 200 else []

    pictures = frames()
    for number in hidden:
        pictures[number] = np.concatenate([pictures[number][:, :16], blank[:, 16:]], axis=1)
    missing = np.isnan(track_landmarks(pictures, Sees(TRUTH))).any((1, 2))
    assert np.flatnonzero(missing).tolist() == list(hidden)


def test_no_track_goes_on_across_a_cut():
    class EveryTwenty:
        def __init__(self):
            self.count = -1

        def update(self, frame):
            self.count += 1
            return self.count % 20 == 0

    seen = track_faces(frames(), NumberDetector(TRUTH), EveryTwenty())
    assert seen.cuts == [20, 40]
    assert [(track.start, track.stop) for track in seen.tracks] == [(0, 20), (20, 40), (40, 45)]
