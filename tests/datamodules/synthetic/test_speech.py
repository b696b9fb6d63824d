"""Speech by espeak-ng: GRID's grammar, the times of words and phonemes, and that a call repeats itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from datamodules.synthetic.articulation import VISEMES
from datamodules.synthetic.speech import (
    FEMALE_VOICES,
    GRAMMAR,
    MALE_VOICES,
    NUM_VOICES,
    SAMPLE_RATE,
    Voice,
    draw_sentences,
    draw_voice,
    is_woman,
    placed,
    sentence,
    speak,
)

VOICE = Voice("f1", rate=160, pitch=50, range=50)


@pytest.fixture(scope="module")
def utterance():
    return speak(sentence("bbaf2n"), VOICE)


def test_grammar():
    assert sentence("bbaf2n") == ["bin", "blue", "at", "f", "two", "now"]
    assert sentence("swwzzs") == ["set", "white", "with", "z", "zero", "soon"]
    for wrong in ("bbaw2n", "bbaf2", "xbaf2n", ""):
        with pytest.raises(ValueError, match="no GRID sentence"):
            sentence(wrong)


def test_sentences_are_different_and_seeded():
    drawn = draw_sentences(200, np.random.default_rng(0))
    assert len(set(drawn)) == 200
    assert drawn == draw_sentences(200, np.random.default_rng(0))
    assert all(sentence(name) for name in drawn)
    with pytest.raises(ValueError, match="64000"):
        draw_sentences(64_001, np.random.default_rng(0))


def test_same_call_same_samples(utterance):
    assert np.array_equal(utterance.waveform, speak(sentence("bbaf2n"), VOICE).waveform)
    assert not np.array_equal(utterance.waveform, speak(sentence("bbaf2n"), Voice("m8", 160, 50, 50)).waveform)


def test_words_and_phonemes_are_in_time(utterance):
    assert [w.label for w in utterance.words] == sentence("bbaf2n")
    assert [p.label for p in utterance.phonemes] == [
        "b",
        "I",
        "n",
        "b",
        "l",
        "u:",
        "a",
        "t",
        "E",
        "f",
        "t",
        "u:",
        "n",
        "aU",
    ]
    for segments in (utterance.words, utterance.phonemes):
        assert all(s.start < s.end for s in segments)
        assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(segments))
        assert 0 <= segments[0].start < 0.1
        assert segments[-1].end <= utterance.duration


def test_vowels_are_louder_than_stops(utterance):
    """An outside check of the times: the sound itself."""

    def level(labels: set[str]) -> float:
        parts = [p for p in utterance.phonemes if p.label in labels]
        sounds = [utterance.waveform[int(p.start * SAMPLE_RATE) : int(p.end * SAMPLE_RATE)] for p in parts]
        return float(np.mean([np.abs(sound).mean() for sound in sounds]))

    assert level({"I", "u:", "a", "E", "aU"}) > 2 * level({"f", "t", "b"})


def test_every_word_of_the_grammar_has_visemes():
    words = [word for slot in GRAMMAR for word in slot.values()]
    spoken = speak(words, VOICE)
    assert [w.label for w in spoken.words] == words
    assert {p.label for p in spoken.phonemes} <= set(VISEMES)
    letter_a = next(w for w in spoken.words if w.label == "a")
    first = next(p for p in spoken.phonemes if p.start >= letter_a.start)
    assert first.label == "eI"  # the letter, not the article


def test_unknown_voice_is_an_error():
    with pytest.raises(RuntimeError, match="no voice"):
        speak(["bin"], Voice("nobody", 160, 50, 50))


def test_there_is_a_voice_for_every_grid_speaker():
    voices = [draw_voice(speaker, np.random.default_rng(0)).variant for speaker in range(NUM_VOICES)]
    assert len(set(voices)) == NUM_VOICES == 34
    assert set(voices) == {*MALE_VOICES, *FEMALE_VOICES}
    women = [speaker + 1 for speaker in range(NUM_VOICES) if voices[speaker] in FEMALE_VOICES]
    assert women == [s for s in range(1, 35) if is_woman(s - 1)]
    assert len(women) == 16


def test_placed_keeps_sound_and_times_together(utterance):
    moved = placed([(0.5, utterance), (2.5, utterance)], 3.0)
    assert moved.duration == 3.0
    assert moved.words[0].start == pytest.approx(utterance.words[0].start + 0.5, abs=1e-4)
    offset = round(0.5 * SAMPLE_RATE)
    assert np.array_equal(moved.waveform[offset : offset + len(utterance.waveform)], utterance.waveform)
    assert not moved.waveform[:offset].any()
    assert max(w.end for w in moved.words) <= 3.0
