"""Coarticulation: what insists is reached, what does not is taken by its neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.synthetic.articulation import CONTROLS, Style, articulate, draw_style
from datamodules.synthetic.speech import Segment

PLAIN = Style(np.ones(len(CONTROLS)), briskness=1.0, asymmetry=0.0, lead=0.0)


def chain(*labels: str, each: float = 0.12, start: float = 0.5) -> list[Segment]:
    return [Segment(label, start + i * each, start + (i + 1) * each) for i, label in enumerate(labels)]


def at(labels: tuple[str, ...], index: int, style: Style = PLAIN, each: float = 0.12) -> dict[str, float]:
    phonemes = chain(*labels, each=each)
    middle = (phonemes[index].start + phonemes[index].end) / 2
    return {name: float(w[0]) for name, w in articulate(phonemes, style, np.array([middle])).items()}


@pytest.mark.parametrize("sound", ["p", "b", "m"])
def test_bilabials_close_the_lips_between_open_vowels(sound):
    closed, vowel = at(("a", sound, "a"), 1), at(("a", sound, "a"), 0)
    assert closed["close"] > 0.9 * closed["jaw_open"]
    assert vowel["close"] < 0.15 * vowel["jaw_open"]
    assert vowel["jaw_open"] - vowel["close"] > 10 * (closed["jaw_open"] - closed["close"])


def test_alveolar_lips_follow_their_neighbours():
    assert at(("u:", "t", "u:"), 1)["pucker"] > 0.3
    assert at(("i:", "t", "i:"), 1)["pucker"] < 0.01
    assert at(("i:", "t", "i:"), 1)["spread"] > 0.2
    assert at(("u:", "t", "u:"), 1)["tongue_up"] > 0.6


def test_long_vowel_reaches_its_target():
    assert at(("a",), 0, each=0.6)["jaw_open"] == pytest.approx(0.68, rel=0.1)


def test_at_rest_before_and_after():
    weights = articulate(chain("a", "b"), PLAIN, np.array([-1.0, 3.0]))
    assert all(np.abs(w).max() < 0.01 for w in weights.values())


def test_labiodental_differs_from_bilabial():
    assert at(("a", "f", "a"), 1)["roll_lower"] > 0.6
    assert at(("a", "b", "a"), 1)["roll_lower"] < 0.1


def test_style_scales_and_skews():
    style = Style(np.full(len(CONTROLS), 1.2), briskness=1.0, asymmetry=0.2, lead=0.0)
    strong, plain = at(("i:",), 0, style, each=0.5), at(("i:",), 0, each=0.5)
    assert strong["spread"] == pytest.approx(min(1.2 * plain["spread"], 1.2), rel=1e-6)
    assert strong["upper_raise_right"] > 1.3 * strong["upper_raise_left"]


def test_lead_moves_the_face_ahead_of_the_sound():
    phonemes, times = chain("a", "b", "a", "u:", "t"), np.arange(0, 2, 0.01)
    early = Style(np.ones(len(CONTROLS)), 1.0, 0.0, lead=0.04)
    assert np.allclose(
        articulate(phonemes, early, times)["jaw_open"][:-4], articulate(phonemes, PLAIN, times + 0.04)["jaw_open"][:-4]
    )


def test_long_speech_is_worked_out_in_blocks_without_seams():
    phonemes = chain(*("b", "a", "t", "u:", "s", "i:") * 40)
    times = np.arange(0, 28, 0.04)
    whole = articulate(phonemes, PLAIN, times)
    alone = [articulate(phonemes, PLAIN, times[i : i + 1]) for i in range(240, 260)]
    for name, weights in whole.items():
        assert np.allclose(weights[240:260], [float(a[name][0]) for a in alone], atol=1e-6)


def test_everybody_closes_for_b():
    for seed in range(20):
        closed = at(("a", "b", "a"), 1, draw_style(np.random.default_rng(seed)))
        assert closed["close"] > 0.85 * closed["jaw_open"]


def test_unknown_phoneme_is_an_error():
    with pytest.raises(ValueError, match="no viseme"):
        articulate(chain("a", "!"), PLAIN, np.zeros(1))
