"""Where a source is cut into clips."""

import numpy as np
import pytest

from datamodules.prepare.spans import BRIDGED, MIN_SPAN, LeftOut, find_spans


def track(*runs: tuple[int, bool]) -> np.ndarray:
    """Landmarks of runs of (frames, whether the face is there)."""
    seen = np.concatenate([np.full(length, there) for length, there in runs])
    landmarks = np.ones((len(seen), 68, 2), np.float32)
    landmarks[~seen] = np.nan
    return landmarks


def test_a_face_that_is_always_there_is_one_span():
    assert find_spans(track((75, True))) == ([(0, 75)], [])


def test_short_absences_are_bridged_and_long_ones_split():
    spans, left_out = find_spans(track((40, True), (BRIDGED, False), (40, True), (75, False), (50, True)))
    assert spans == [(0, 92), (167, 217)]
    assert left_out == [(92, 167, "no face")]
    spans, _ = find_spans(track((40, True), (BRIDGED + 1, False), (40, True)))
    assert spans == [(0, 40), (53, 93)]


def test_a_late_face_and_an_early_end():
    assert find_spans(track((BRIDGED, False), (50, True), (BRIDGED, False)))[0] == [(0, 74)]
    spans, left_out = find_spans(track((BRIDGED + 1, False), (50, True), (BRIDGED + 1, False)))
    assert spans == [(13, 63)]
    assert [part[:2] for part in left_out] == [(0, 13), (63, 76)]


def test_never_across_a_cut():
    landmarks = track((100, True))
    assert find_spans(landmarks, [60, 0, 100, 60])[0] == [(0, 60), (60, 100)]
    # an absence at a cut is no bridge over it
    assert find_spans(track((40, True), (6, False), (40, True)), [43])[0] == [(0, 43), (43, 86)]


def test_what_is_too_short_is_left_out_with_a_reason():
    spans, left_out = find_spans(track((10, True), (30, False), (60, True)))
    assert spans == [(40, 100)]
    assert left_out == [LeftOut(0, 10, "only 10 frames with the face"), LeftOut(10, 40, "no face")]
    assert find_spans(track((MIN_SPAN - 1, True)))[0] == [(0, MIN_SPAN - 1)]  # a short clip of a corpus is whole
    assert find_spans(track((6, True)))[0] == []


@pytest.mark.parametrize("seed", range(20))
def test_every_frame_is_either_kept_or_left_out_once(seed):
    rng = np.random.default_rng(seed)
    runs = [(int(rng.integers(1, 60)), bool(rng.random() < 0.7)) for _ in range(12)]
    landmarks = track(*runs)
    cuts = rng.integers(0, len(landmarks), 4).tolist()
    spans, left_out = find_spans(landmarks, cuts)
    covered = sorted((part[0], part[1]) for part in (*spans, *left_out))
    edges = [0, *(stop for _, stop in covered)]
    assert [start for start, _ in covered] == edges[:-1]
    assert edges[-1] == len(landmarks)
    for start, stop in spans:
        assert not any(start < cut < stop for cut in cuts)
        absent = "".join("-" if np.isnan(row).any() else "x" for row in landmarks[start:stop])
        assert "-" * (BRIDGED + 1) not in absent.strip("-")


def test_no_frames():
    assert find_spans(np.empty((0, 68, 2))) == ([], [])
