"""Speech of the synthetic corpus: GRID's sentence grammar read by espeak-ng, with the time of every phoneme.

Grammar and ids after Cooke et al. 2006, "An audio-visual corpus for speech perception and automatic speech
recognition": command, colour, preposition, letter (no w), digit, adverb; `bbaf2n` is "bin blue at f two now".
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import espeakng_loader
import numpy as np
from jaxtyping import Float
from scipy.signal import resample_poly

SAMPLE_RATE = 44_100  # Hz, as in the GRID videos
GRAMMAR: tuple[dict[str, str], ...] = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    {
        "z": "zero", "1": "one", "2": "two", "3": "three", "4": "four",
        "5": "five", "6": "six", "7": "seven", "8": "eight", "9": "nine",
    },
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)  # fmt: skip
# Voice variants of espeak-ng that a linear probe on MFCC tells apart; at its default pitch the men's speak at 77 to
# 120 Hz, the women's above 170 Hz.
MALE_VOICES = (
    "Alex", "travis", "Lee", "ian", "klatt2", "Andy", "marcelo", "david", "m8", "boris", "iven2", "Jacky", "pablo",
    "quincy", "klatt3", "Gene2", "Michael", "edward",
)  # fmt: skip
FEMALE_VOICES = (
    "belinda", "steph2", "anika", "Alicia", "f5", "grandma", "Annie", "Andrea", "f1", "aunty", "f3", "linda", "shelby",
    "f2", "zac", "f4",
)  # fmt: skip
GRID_WOMEN = frozenset((4, 7, 11, 15, 16, 18, 20, 21, 22, 23, 24, 25, 29, 31, 33, 34))  # of s1 to s34, Cooke et al.
NUM_VOICES = len(MALE_VOICES) + len(FEMALE_VOICES)
ENGLISH = "gmw/en"
# Reported among the phonemes: a mark on the one before, a change of language.
_MARKS = (";", "(")


@dataclass(frozen=True)
class Voice:
    """How somebody speaks: espeak-ng's variant, rate (words a minute), pitch and pitch range (0 to 100).

    Another language than English reads English words as somebody would who speaks that language alone.
    """

    variant: str
    rate: int
    pitch: int
    range: int
    language: str = ENGLISH


@dataclass(frozen=True)
class Segment:
    """A phoneme or a word and the time that it takes, s."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """Sound at SAMPLE_RATE in [-1, 1] with its words and phonemes in order."""

    waveform: Float[np.ndarray, "N"]
    words: tuple[Segment, ...]
    phonemes: tuple[Segment, ...]

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.waveform) / SAMPLE_RATE


def sentence(clip_id: str) -> list[str]:
    """The six words of a GRID id.

    Raises:
        ValueError: the id is not of GRID's grammar.
    """
    if len(clip_id) != len(GRAMMAR) or any(key not in words for key, words in zip(clip_id, GRAMMAR, strict=True)):
        raise ValueError(f"{clip_id!r} is no GRID sentence; an example is bbaf2n, bin blue at f two now")
    return [words[key] for key, words in zip(clip_id, GRAMMAR, strict=True)]


def draw_sentences(count: int, rng: np.random.Generator) -> list[str]:
    """`count` different GRID ids in random order.

    Raises:
        ValueError: more than the 64,000 sentences of the grammar are wanted.
    """
    total = int(np.prod([len(words) for words in GRAMMAR]))
    if count > total:
        raise ValueError(f"GRID's grammar has {total} sentences, {count} were asked for")
    numbers = rng.choice(total, count, replace=False)
    digits = np.unravel_index(numbers, [len(words) for words in GRAMMAR])
    return ["".join(list(words)[d[i]] for words, d in zip(GRAMMAR, digits, strict=True)) for i in range(count)]


def is_woman(speaker: int) -> bool:
    """Whether speaker `speaker` (counted from 0) is one: as in GRID, 16 of 34; further speakers begin anew."""
    return speaker % NUM_VOICES + 1 in GRID_WOMEN


def draw_voice(speaker: int, rng: np.random.Generator) -> Voice:
    """A voice for a speaker: a variant of their own while there are enough, with a rate and pitch of their own."""
    woman, turn = is_woman(speaker), speaker % NUM_VOICES
    variant = (FEMALE_VOICES if woman else MALE_VOICES)[sum(is_woman(other) == woman for other in range(turn))]
    return Voice(variant, int(rng.integers(145, 176)), int(rng.integers(35, 66)), int(rng.integers(35, 70)))


def speak(words: list[str], voice: Voice) -> Utterance:
    """Say some words. The same call gives the same samples, on one version of espeak-ng.

    Raises:
        RuntimeError: espeak-ng failed or does not know the voice.
    """
    request = {
        "library": str(espeakng_loader.get_library_path()),
        "data": str(espeakng_loader.get_data_path()),
        "text": " ".join(_spoken(word) for word in words),
        "voice": f"{voice.language}+{voice.variant}",
        "rate": voice.rate,
        "pitch": voice.pitch,
        "range": voice.range,
    }
    script = Path(__file__).with_name("espeak_process.py")
    command = [sys.executable, "-I", "-S", str(script)]
    done = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"espeak-ng failed: {done.stderr.decode(errors='replace').strip()}")
    header_line, _, sound = done.stdout.partition(b"\n")
    header = json.loads(header_line)
    samples = np.frombuffer(sound, np.int16).astype(np.float64) / 32768
    waveform = resample_poly(samples, SAMPLE_RATE, header["sample_rate"]).astype(np.float32)
    return _segmented(np.clip(waveform, -1, 1), words, header)


def _spoken(word: str) -> str:
    """Letters by name: alone in a sentence, "a" would be the article."""
    return "eigh" if word == "a" else word.upper() if len(word) == 1 else word


def _segmented(waveform: np.ndarray, words: list[str], header: dict) -> Utterance:
    starts = [ms / 1000 for ms in header["words_ms"]]
    if len(starts) != len(words):
        raise RuntimeError(f"espeak-ng read {' '.join(words)!r} as {len(starts)} words")
    marks = [(ms / 1000, name) for ms, name in header["phonemes_ms"]]
    spoken = [(start, name) for start, name in marks if not name.startswith(("_", *_MARKS))]
    end = next(
        (start for start, name in marks if name.startswith("_") and start > spoken[-1][0]), len(waveform) / SAMPLE_RATE
    )
    bounds = [start for start, _ in spoken] + [end]
    phonemes = tuple(
        Segment(name.strip("',%"), a, b) for (_, name), a, b in zip(spoken, bounds, bounds[1:], strict=False)
    )
    # A word begins with its first phoneme: word events may come a little earlier.
    firsts = [min((p.start for p in phonemes if p.start >= start - 1e-6), default=start) for start in starts]
    return Utterance(
        waveform,
        tuple(Segment(word, a, b) for word, a, b in zip(words, firsts, [*firsts[1:], end], strict=True)),
        phonemes,
    )


def placed(utterances: Sequence[tuple[float, Utterance]], seconds: float) -> Utterance:
    """Utterances in `seconds` of silence, each beginning at its own time (s); what does not fit is cut off."""
    total = round(seconds * SAMPLE_RATE)
    waveform = np.zeros(total, np.float32)
    words: list[Segment] = []
    phonemes: list[Segment] = []
    for start, utterance in utterances:
        offset = round(start * SAMPLE_RATE)
        kept = utterance.waveform[: max(total - offset, 0)]
        waveform[offset : offset + len(kept)] = kept
        for target, segments in ((words, utterance.words), (phonemes, utterance.phonemes)):
            moved = ((s.label, s.start + offset / SAMPLE_RATE, s.end + offset / SAMPLE_RATE) for s in segments)
            target += [Segment(label, a, min(b, seconds)) for label, a, b in moved if a < seconds]
    return Utterance(waveform, tuple(words), tuple(phonemes))
