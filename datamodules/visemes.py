"""Which kind of sound is heard at each frame, from a transcript: words become phonemes as espeak-ng says them.

A word's phonemes share its time in the proportions in which espeak-ng would speak them: right to a frame or so, which
is enough to ask how well lips close for [b] or round for [w].
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from datamodules.clip_store import Word
from datamodules.prepare.align import SILENCE
from datamodules.synthetic.speech import Voice, speak

SILENT, UNKNOWN = "silence", "unknown"
GROUPS: dict[str, tuple[str, ...]] = {
    "bilabial": ("p", "b", "m"),
    "labiodental": ("f", "v"),
    "rounded": ("w", "u:", "U", "u", "o@", "O:", "O", "oU", "OI", "U@", "r", "r-", "S", "Z", "tS", "dZ"),
    "open": ("a", "aa", "V", "A:", "A@", "A", "0", "O2", "aI", "aU", "E", "e", "e@"),
    "spread": ("i:", "i", "I", "I2", "eI", "i@", "i@3", "j", "s", "z"),
}
OTHER = "other"  # tongue and schwa: lips take those of their neighbours
_GROUP_OF = {phoneme: group for group, phonemes in GROUPS.items() for phoneme in phonemes}
_VOICE = Voice("f1", 160, 50, 50)
FRAMES_A_SECOND = 25


def viseme_groups(words: Sequence[Word], num_frames: int) -> list[str]:
    """Group of each frame: one of GROUPS, `other`, or `silence`; `unknown` throughout without a transcript."""
    if not words:
        return [UNKNOWN] * num_frames
    groups = [SILENT] * num_frames
    for word in words:
        if word.text in SILENCE:
            continue
        for group, start, end in _groups_of(word.text):
            length = word.end - word.start
            first, last = (round((word.start + share * length) * FRAMES_A_SECOND) for share in (start, end))
            for frame in range(max(0, first), min(num_frames, max(last, first + 1))):
                groups[frame] = group
    return groups


@lru_cache(maxsize=4096)
def _groups_of(word: str) -> tuple[tuple[str, float, float], ...]:
    """Groups of a word's phonemes with their share of its time, start and end in [0, 1]."""
    try:
        spoken = speak([word], _VOICE).phonemes
    except (RuntimeError, ValueError, IndexError):  # what espeak-ng cannot read as one word has no known phonemes
        return ((UNKNOWN, 0.0, 1.0),)
    start, length = spoken[0].start, spoken[-1].end - spoken[0].start
    return tuple((_GROUP_OF.get(p.label, OTHER), (p.start - start) / length, (p.end - start) / length) for p in spoken)
