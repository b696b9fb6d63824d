"""Which clips are held out. Always whole clips: windows of one clip overlap and would leak.

A split is a function from the manifest to the set of held-out ids; everything else trains.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from datamodules.manifest import ClipRow

NUM_HELD_OUT = 20  # clips of a speaker, or a fifth of them if that is fewer
HELD_OUT_SHARE = 0.2
CHEN_UNSEEN, ATVG_UNSEEN = "s33", "s29"  # speakers of GRID that the two papers never train on
CHEN_TEST_SHARE = 10  # one clip in ten of every other speaker

Split = Callable[[Sequence[ClipRow]], set[str]]


def hash_split(rows: Sequence[ClipRow], fraction: float = HELD_OUT_SHARE, most: int = NUM_HELD_OUT) -> set[str]:
    """Of each speaker the min(most, fraction · n) clips with the lowest sha1 of their id.

    Independent of what else is in the corpus, so more speakers or a lost clip do not reshuffle it.
    """
    held_out: set[str] = set()
    for clips in _by_speaker(rows).values():
        ranked = sorted(clips, key=lambda clip: hashlib.sha1(clip.encode(), usedforsecurity=False).hexdigest())
        held_out.update(ranked[: min(most, math.floor(len(clips) * fraction + 1e-9))])
    return held_out


def unseen_speaker_split(rows: Sequence[ClipRow], unseen: str) -> set[str]:
    """All clips of an unseen speaker, and the last tenth of the sorted clips of every other.

    The papers say "sorted, 90/10"; sorted within each speaker here, so that every speaker but one trains.
    """
    held_out: set[str] = set()
    for speaker, clips in _by_speaker(rows).items():
        num_test = len(clips) if speaker == unseen else len(clips) // CHEN_TEST_SHARE
        held_out.update(sorted(clips)[len(clips) - num_test :])
    return held_out


def take_split(rows: Sequence[ClipRow], takes: Iterable[str] = ()) -> set[str]:
    """Clips whose take (the last part of the id) is among `takes`; without any, the takes whose name holds "test".

    Raises:
        ValueError: no clip would be held out.
    """
    chosen = set(takes)
    names = {row.id: row.id.rsplit("/", 1)[-1] for row in rows}
    held_out = {clip for clip, name in names.items() if (name in chosen if chosen else "test" in name.lower())}
    if not held_out:
        wanted = ", ".join(sorted(chosen)) or 'with "test" in their name'
        raise ValueError(
            f"no takes {wanted} among {', '.join(sorted(set(names.values()))[:5])}: name the test takes so"
        )
    return held_out


SPLITS: dict[str, Split] = {
    "hash": hash_split,
    "chen2018": partial(unseen_speaker_split, unseen=CHEN_UNSEEN),
    "atvg2019": partial(unseen_speaker_split, unseen=ATVG_UNSEEN),
    "take": take_split,
}


def split_clips(rows: Sequence[ClipRow], split: str | Split) -> tuple[list[str], list[str]]:
    """Training ids and held-out ids, each in the order of the manifest.

    Args:
        rows: manifest.
        split: a name of `SPLITS`, or a function of one's own.

    Raises:
        ValueError: there is no split of that name, or nothing is left to train or to test on.
    """
    if isinstance(split, str):
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
        split = SPLITS[split]
    held_out = split(rows)
    train = [row.id for row in rows if row.id not in held_out]
    test = [row.id for row in rows if row.id in held_out]
    if not train or not test:
        raise ValueError(
            f"the split leaves {len(train)} clips to train and {len(test)} to test on; "
            f"give more clips (5 of a speaker are the least of which the hash split holds one out)"
        )
    return train, test


def _by_speaker(rows: Sequence[ClipRow]) -> dict[str, list[str]]:
    clips: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        clips[row.speaker].append(row.id)
    return clips
