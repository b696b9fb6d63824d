import math

import pytest
import torch

from model_zoo.face.procedural import procedural_face
from model_zoo.metrics.speech_metrics import (
    inner_lip_gap,
    jitter_ratio,
    lag_ms,
    silence_excess,
    silent_frames,
    silent_sound,
)


def test_gap_is_measured_along_the_face():
    landmarks = torch.zeros(1, 68, 2)
    landmarks[0, 36], landmarks[0, 45] = torch.tensor([-40.0, 0]), torch.tensor([40.0, 0])
    for upper, lower, apart in ((61, 67, 3.0), (62, 66, 6.0), (63, 65, 3.0)):
        landmarks[0, lower, 1] = landmarks[0, upper, 1] + apart
    assert inner_lip_gap(landmarks).item() == pytest.approx(4.0)
    turn = torch.tensor([[math.cos(0.6), -math.sin(0.6)], [math.sin(0.6), math.cos(0.6)]])
    assert inner_lip_gap(landmarks @ turn.T + 17).item() == pytest.approx(4.0, rel=1e-5)
    landmarks[0, 65:68, 0] += 30  # a jaw that slides aside opens nothing
    assert inner_lip_gap(landmarks).item() == pytest.approx(4.0)


def test_the_neutral_face_is_closed():
    face = procedural_face()
    pose = torch.tensor([[0.1, 0.2, 0.1, 128.0, 128.0, 4.3]])
    assert abs(inner_lip_gap(face.project_landmarks(torch.zeros(199), torch.zeros(1, 29), pose)).item()) < 0.5


def test_jitter_is_relative_to_the_truth():
    true = torch.cumsum(torch.randn(50, 20, 2, generator=torch.Generator().manual_seed(0)), dim=0)
    assert jitter_ratio(true, true) == pytest.approx(1)
    assert jitter_ratio(0.5 * true + 3, true) == pytest.approx(0.5)
    steady = torch.arange(50.0)[:, None, None] * torch.ones(20, 2)
    assert jitter_ratio(true + steady, true) == pytest.approx(1, rel=1e-4)  # a steady movement is no jitter
    assert jitter_ratio(true + torch.randn(50, 20, 2), true) > 1.3


@pytest.mark.parametrize("delay", [-3.0, -0.5, 0.0, 0.25, 1.0, 4.0])
def test_lag_is_found_between_frames(delay):
    def opening(time):
        return 5 + 3 * torch.sin(0.45 * time) + 2 * torch.sin(0.21 * time + 1) + torch.sin(0.8 * time)

    time = torch.arange(90.0)
    assert lag_ms(opening(time - delay), opening(time)) == pytest.approx(40 * delay, abs=3)


def test_no_lag_without_motion():
    moving = torch.sin(torch.arange(80.0))
    assert math.isnan(lag_ms(torch.ones(80), moving))
    assert math.isnan(lag_ms(moving[:20], moving[:20]))


def test_silence_excess_is_a_share_of_the_widest():
    gap = torch.tensor([2.0, 3.0, 9.0])
    silent = torch.tensor([True, True, False])
    assert silence_excess(gap, silent, closed=2.0, wide=10.0) == pytest.approx(0.05)
    assert math.isnan(silence_excess(gap, torch.zeros(3, dtype=torch.bool), 2.0, 10.0))


def test_silence_lies_around_the_words():
    kinds = silent_frames([(0.6, 1.0), (2.0, 2.4)], 75)
    assert kinds["leading"].nonzero().ravel().tolist() == list(range(12))  # up to 0.12 s before
    assert kinds["between"].nonzero().ravel().tolist() == list(range(31, 47))
    assert kinds["trailing"].nonzero().ravel().tolist() == list(range(66, 75))
    assert silent_frames([], 5)["leading"].all()


def test_silence_is_heard_without_a_transcript():
    room = 0.001 * torch.randn(640 * 75, generator=torch.Generator().manual_seed(0))
    sound = room.clone()
    sound[640 * 20 : 640 * 40] += 0.2 * torch.sin(torch.arange(640 * 20) * 0.2)
    silent = silent_sound(sound, 75)
    assert (~silent).nonzero().ravel().tolist() == list(range(17, 45))
    assert silent_sound(room, 75).all()
    assert silent_sound(torch.zeros(640 * 5), 5).all()
    assert silent_sound(torch.zeros(0), 5).all()
