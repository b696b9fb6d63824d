"""Cuts: found where they are, and not where light, lids, lips, noise or the camera moved."""

import os
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from datamodules.prepare.cuts import THUMBNAIL, CutFinder, difference, thumbnail
from datamodules.prepare.decode import read_frames
from tests.datamodules.prepare.recording import HEIGHT, WIDTH, performance


def found(frames: list[np.ndarray]) -> list[int]:
    finder = CutFinder()
    return [index for index, frame in enumerate(frames) if finder.update(frame)]


def brighter(frame: np.ndarray, gain: float) -> np.ndarray:
    return np.clip(frame * gain, 0, 255).astype(np.uint8)


def shaken(frames: list[np.ndarray], amplitude: float, since: int = 8) -> list[np.ndarray]:
    """Random shifts (px, standard deviation) and turns from one frame to the next."""
    rng = np.random.default_rng(1)
    result = []
    for index, frame in enumerate(frames):
        x, y, turn = rng.normal(0, amplitude, 3) * (index >= since)
        matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 0.2 * turn, 1)
        matrix[:, 2] += x, y
        result.append(cv2.warpAffine(frame, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT))
    return result


def test_every_cut_is_found_on_its_frame_and_nothing_else():
    people = [performance(person, 32) for person in range(3)]
    joined = people[0][:20] + people[1][:12] + people[2] + people[0][5:] + people[1][12:]
    assert found(joined) == [20, 32, 64, 91]


@pytest.mark.parametrize("person", range(3))
def test_a_talking_head_has_no_cut(person):
    assert found(performance(person, 32)) == []


@pytest.mark.parametrize("gain", [0.8, 1.2, 0.6])
def test_light_that_changes_at_once_is_no_cut(gain):
    frames = performance()
    assert found(frames[:16] + [brighter(frame, gain) for frame in frames[16:]]) == []


def test_a_fade_of_light_is_no_cut():
    assert (
        found([brighter(frame, gain) for frame, gain in zip(performance(), np.linspace(1, 0.3, 32), strict=True)]) == []
    )


def test_noise_is_no_cut():
    rng = np.random.default_rng(0)
    assert found([brighter(frame + rng.normal(0, 12, frame.shape), 1) for frame in performance()]) == []


@pytest.mark.parametrize("amplitude", [1.0, 3.0])
def test_a_shaken_camera_is_no_cut(amplitude):
    assert found(shaken(performance(), amplitude)) == []


def test_lids_that_close_are_no_cut():
    frames = [frame.copy() for frame in performance()]
    for frame in frames[12:16]:  # both eyes covered by skin at once
        cv2.rectangle(frame, (140, 114), (216, 142), frame[100, 178].tolist(), -1)
    assert found(frames) == []


def test_black_and_frozen_stretches_begin_and_end():
    frames, black = performance(), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert found(frames[:10] + [black] * 5 + frames[10:20]) == [10, 15]
    assert found([frames[0]] * 20) == []


def test_a_cut_in_a_slow_source_is_found_once():
    """12.5 frames a second, each shown twice."""
    frames = [frame for frame in performance()[::2] + performance(1)[::2] for _ in range(2)]
    assert found(frames) == [32]


@pytest.mark.parametrize("size", [(1920, 1080), (640, 480), (33, 21), (1, 1)])
def test_any_size(size):
    small, other = (cv2.resize(performance(person)[0], size) for person in (0, 1))
    assert found([small] * 3) == []
    assert max(thumbnail(small).shape) == THUMBNAIL
    assert found([small, cv2.resize(other, (50, 40))]) == [1]  # another size is another shot


def test_difference_does_not_see_gain():
    image = thumbnail(performance()[0])
    assert difference(image, image) == 0
    assert difference(image, image + 30) < 1e-3


@pytest.mark.slow
@pytest.mark.skipif("TALKIN_GRID_ROOT" not in os.environ, reason="needs GRID")
def test_real_clips_have_no_cut_and_joined_ones_have():
    """Two of the 193 begin with twelve broken pictures; the first whole one starts a shot."""
    paths = sorted(Path(os.environ["TALKIN_GRID_ROOT"]).rglob("*.mpg"))
    clips = [list(read_frames(path)) for path in paths[::3]]
    alarms = [cuts for clip in clips if (cuts := found(clip))]
    assert all(12 in cuts for cuts in alarms)
    assert len(alarms) <= 2
    pairs = list(pairwise(clips))
    right = sum(8 in found(first[-8:] + second[:8]) for first, second in pairs)
    assert right >= 0.85 * len(pairs)  # mostly one person before one wall
