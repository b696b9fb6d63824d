"""Each change does to a sound what its name says."""

import numpy as np
import pytest
import torch

from experiments.robustness import CHANGES, _at_speed, clipped, mp3, shifted, stretched, telephone

TIME = np.arange(32_000) / 16_000


def tone(hertz: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * TIME)).astype(np.float32)


def pitch(sound: np.ndarray) -> float:
    middle = sound[len(sound) // 4 : -len(sound) // 4]
    return np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * 16_000 / len(middle)


@pytest.mark.parametrize("semitones", [-4, 4])
def test_pitch_moves_and_length_stays(semitones):
    heard = shifted(tone(400), semitones)
    assert len(heard) == len(TIME)
    assert pitch(heard) == pytest.approx(400 * 2 ** (semitones / 12), rel=0.01)


@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_speed_changes_length_alone(speed):
    heard = stretched(tone(400), speed)
    assert len(heard) == round(len(TIME) / speed)
    assert pitch(heard) == pytest.approx(400, rel=0.01)


def test_expression_is_read_at_the_time_of_the_slower_sound():
    expression = torch.arange(10.0)[:, None]
    assert _at_speed(expression, 5, 0.5).ravel().tolist() == [0, 2, 4, 6, 8]
    assert _at_speed(expression, 4, 2.0).ravel().tolist() == [0, 0.5, 1, 1.5]
    assert _at_speed(expression, 12, 1.0).ravel().tolist() == [*range(10), 9, 9]


def test_telephone_lets_its_band_through():
    for hertz, passes in ((100, False), (1_000, True), (6_000, False)):
        share = telephone(tone(hertz)).std() / tone(hertz).std()
        assert share > 0.9 if passes else share < 0.1


def test_clipping_cuts_the_loudest_off():
    heard = clipped(np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32))
    assert 0.04 < (np.abs(heard) > 0.999 * np.abs(heard).max()).mean() < 0.06


def test_mp3_stays_in_its_place():
    rng = np.random.default_rng(0)
    sound = (tone(300) * (rng.uniform(0, 1, 20).repeat(1_600))).astype(np.float32)
    heard = mp3(sound)
    assert len(heard) == len(sound)
    assert np.corrcoef(heard, sound)[0, 1] > 0.95


def test_every_change_gives_sound():
    sound = tone(300) + 0.01 * np.random.default_rng(0).normal(0, 1, len(TIME)).astype(np.float32)
    for change in CHANGES:
        heard = change.apply(sound)
        assert np.isfinite(heard).all()
        assert abs(len(heard) - len(sound) / change.speed) <= 1
