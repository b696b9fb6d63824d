"""One person is kept: not whoever stands where they were."""

import os
import tracemalloc
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from datamodules.prepare import people
from datamodules.prepare.people import Choice, chosen_face, find_people
from datamodules.prepare.sound import to_float, to_int16
from datamodules.prepare.spans import find_spans
from datamodules.prepare.track import track_faces
from model_zoo.face.detector import DlibDetector
from model_zoo.face.identity import SAME_PERSON, describe, face_chip
from tests.datamodules.prepare.painted_people import (
    ANNA,
    BEN,
    HEIGHT,
    SIDE,
    WIDTH,
    describe_by_tint,
    middle_of,
    picture,
    scene,
)

GRID_ROOT = os.environ.get("TALKIN_GRID_ROOT")
SILENCE = np.zeros(0, np.int16)


@pytest.fixture(autouse=True)
def tints_tell_people_apart(request, monkeypatch):
    if "network" not in request.node.name:
        monkeypatch.setattr(people, "describe", describe_by_tint)


@pytest.fixture(scope="module")
def detector() -> DlibDetector:
    return DlibDetector()


def nearer(image: np.ndarray) -> np.ndarray:
    """The same person a little closer to the camera."""
    side = round(1.12 * SIDE)
    first = (side - SIDE) // 2
    return cv2.resize(image, (side, side))[side - SIDE :, first : first + SIDE]


@pytest.mark.parametrize("in_front", [ANNA, BEN])
def test_people_who_cross_keep_their_tracks(detector, in_front):
    """Anna, who is nearer, walks to the right and Ben to the left."""
    anna, ben = nearer(picture(ANNA)), picture(BEN)
    places = np.linspace(100, 380, 70)
    pairs = [[(ben, WIDTH - x), (anna, x)] for x in places]
    frames = [scene(*(pair if in_front == ANNA else pair[::-1])) for pair in pairs]
    seen = track_faces(frames, detector)
    assert seen.most_faces(0, 70) == 2
    assert len(find_people(seen.tracks)) == 2
    for person in find_people(seen.tracks):
        found = middle_of(person.landmarks(70))
        there = np.isfinite(found)
        path = places if found[there][0] < WIDTH / 2 else WIDTH - places
        assert np.abs(found - path)[there].max() < 15
        assert there[:15].all()
        assert there[-15:].all()


def test_who_leaves_and_returns_is_split_and_nobody_takes_their_place(detector):
    """Anna is away for three seconds; meanwhile Ben comes to where she was."""
    anna, ben = picture(ANNA), picture(BEN)
    frames = [scene((anna, 150))] * 40 + [scene((ben, 150))] * 75 + [scene((anna, 300))] * 60
    landmarks = chosen_face(track_faces(frames, detector), Choice.largest, SILENCE)
    there = np.isfinite(middle_of(landmarks))
    assert there[:40].all()
    assert not there[40:115].any()
    assert there[115:].all()
    assert find_spans(landmarks)[0] == [(0, 40), (115, 175)]


def test_the_choice_is_a_setting(detector):
    """Ben is nearer and silent, Anna speaks further to the side."""
    loud = np.tile(np.repeat([1, 0], 10), 4)
    mouth = 0.8 * loud * (np.arange(80) % 2)
    frames = [scene((nearer(picture(BEN)), 190), (picture(ANNA, float(opening)), 370)) for opening in mouth]
    rng = np.random.default_rng(0)
    sound = to_int16(np.repeat(loud, 640) * rng.normal(0, 0.1, 80 * 640))
    seen = track_faces(frames, detector)
    middles = {choice: np.nanmedian(middle_of(chosen_face(seen, choice, sound))) for choice in Choice}
    assert middles[Choice.largest] == pytest.approx(190, abs=15)
    assert middles[Choice.central] == pytest.approx(190, abs=15)
    assert middles[Choice.talking] == pytest.approx(370, abs=15)
    still = [frames[0]] * 40
    assert np.nanmedian(middle_of(chosen_face(track_faces(still, detector), "talking", SILENCE))) == pytest.approx(
        190, abs=15
    )


def test_loudness_takes_little_memory_and_ends_in_silence():
    sound = to_int16(np.random.default_rng(0).normal(0, 0.1, 4000 * 640))
    whole = np.log10(np.square(to_float(sound).reshape(4000, 640), dtype=np.float64).mean(1) + 1e-6)
    tracemalloc.start()
    found = people._loudness(sound, 4100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(found[:4000], whole, rtol=1e-12)
    assert (found[4000:] == -6).all()
    assert peak < 12 * 2**20  # the whole sound takes 20 MB in float64
    assert len(people._loudness(SILENCE, 3)) == 3


def test_pictures_of_old_tracks_are_given_up_and_their_people_known_all_the_same(detector):
    """A cut every six frames, Anna and Ben by turns."""

    class EverySixFrames:
        def __init__(self):
            self.count = -1

        def update(self, frame):
            self.count += 1
            return self.count % 6 == 0

    shots = [scene((picture(ANNA if shot % 2 else BEN), 190)) for shot in range(people.HELD_TRACKS + 10)]
    seen = track_faces((frame for frame in shots for _ in range(6)), detector, EverySixFrames())
    assert len(seen.tracks) == len(shots)
    assert [bool(track.chips) for track in seen.tracks] == [False] * 10 + [True] * people.HELD_TRACKS
    found = [{track.start // 6 % 2 for track in person.tracks} for person in find_people(seen.tracks)]
    assert sorted(found, key=min) == [{0}, {1}]


def test_landmarks_are_forgotten_and_counts_kept(detector):
    seen = track_faces([scene((picture(ANNA), 120), (picture(BEN), 350))] * 12, detector)
    rows = [track.rows for track in seen.tracks]
    assert [len(own) for own in rows] == [12, 12]
    seen.forget_landmarks()
    assert not any(rows)
    assert (seen.num_frames, seen.most_faces(0, 12)) == (12, 2)


def test_nobody_is_nan():
    seen = track_faces([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 3, DlibDetector())
    assert np.isnan(chosen_face(seen, Choice.largest, SILENCE)).all()
    assert chosen_face(seen, Choice.largest, SILENCE).shape == (3, 68, 2)


@pytest.mark.skipif(not GRID_ROOT, reason="TALKIN_GRID_ROOT is not set")
def test_the_network_knows_a_real_person_again_and_from_others(detector):
    from datamodules.prepare.decode import read_frames

    def description(frame):
        return describe(face_chip(frame, detector.landmarks(frame, detector.detect(frame)[0])))

    clips = sorted(Path(GRID_ROOT).glob("s1/*.mpg"))[:3]
    real = [description(next(islice(read_frames(clip), 20, None))) for clip in clips]
    painted = [description(scene((picture(person), 240))) for person in (ANNA, BEN)]
    assert max(np.linalg.norm(real[0] - other) for other in real[1:]) < SAME_PERSON
    assert min(np.linalg.norm(one - other) for one in real for other in painted) > SAME_PERSON
