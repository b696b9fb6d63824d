"""Which frames are held out: whole clips, or the end of a long one.

A split is a function from the manifest to what it holds out, ids of whole clips or frames by id; everything else
trains. Windows overlap, so where a clip is on both sides the frames that lie between them are on neither.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from datamodules.batch import NUM_FRAMES
from datamodules.manifest import ClipRow
from model_zoo.functional.mfcc import FRAMES_AFTER, FRAMES_BEFORE, FRAMES_PER_VIDEO_FRAME

NUM_HELD_OUT = 20  # clips of a speaker, or a fifth of them if that is fewer
HELD_OUT_SHARE = 0.2
CHEN_UNSEEN, ATVG_UNSEEN = "s33", "s29"  # speakers of GRID that the two papers never train on
CHEN_TEST_SHARE = 10  # one clip in ten of every other speaker

FRAMES_A_MINUTE = 25 * 60
LONG_CLIP = FRAMES_A_MINUTE  # frames; longer clips may be divided
TEST_MINUTES = 2.0  # of every speaker and view, §4 of Song et al. 2020
# Between the sides of a divided clip: what the first held-out sample sees and hears of the past, and what the last
# training sample hears of the future. The rows of the MFCC overlap by less than the frame that is left.
GAP = NUM_FRAMES - 1 + (FRAMES_BEFORE + FRAMES_AFTER) // FRAMES_PER_VIDEO_FRAME

HeldOut = set[str] | Mapping[str, range]
Split = Callable[[Sequence[ClipRow]], HeldOut]


class Sides(NamedTuple):
    """The frames of each clip on either side of a split, in the order of the manifest."""

    train: dict[str, range]
    test: dict[str, range]


def hash_split(rows: Sequence[ClipRow], fraction: float = HELD_OUT_SHARE, most: int = NUM_HELD_OUT) -> set[str]:
    """Of each speaker the min(most, fraction · n) clips with the lowest sha1 of their id.

    Independent of what else is in the corpus, so more speakers or a lost clip do not reshuffle it.
    """
    held_out: set[str] = set()
    for clips in _by_speaker(rows).values():
        held_out.update(sorted(clips, key=_hash)[: min(most, math.floor(len(clips) * fraction + 1e-9))])
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
    """Clips whose take is among `takes`; without any, the takes whose name holds "test".

    The take is the last part of the source's id: all clips that were cut out of it go with it.

    Raises:
        ValueError: no clip would be held out.
    """
    chosen = set(takes)
    names = {row.id: _take(row) for row in rows}
    held_out = {clip for clip, name in names.items() if (name in chosen if chosen else "test" in name.lower())}
    if not held_out:
        wanted = ", ".join(sorted(chosen)) or 'with "test" in their name'
        raise ValueError(
            f"no takes {wanted} among {', '.join(sorted(set(names.values()))[:5])}: name the test takes so"
        )
    return held_out


def speaker_split(rows: Sequence[ClipRow], speakers: Iterable[str] = (), fraction: float = HELD_OUT_SHARE) -> set[str]:
    """All clips of the named speakers; without names, of a fraction of them (one at least), lowest sha1 first.

    Raises:
        ValueError: the corpus has no speaker of such a name.
    """
    known, chosen = {row.speaker for row in rows}, set(speakers)
    if not chosen <= known:
        raise ValueError(
            f"no speaker {', '.join(sorted(chosen - known))} among {', '.join(sorted(known))}: "
            f"give data.test_speakers speakers of the corpus"
        )
    chosen = chosen or set(sorted(known, key=_hash)[: max(1, math.floor(len(known) * fraction + 1e-9))])
    return {row.id for row in rows if row.speaker in chosen}


def duration_split(rows: Sequence[ClipRow], minutes: float = TEST_MINUTES) -> dict[str, range]:
    """The last minutes of every speaker and view, or the last fifth of them if that is less.

    Clips follow one another by the sha1 of their name, which may tell what is said, so that views of the same take
    fall on the same side; a long one is divided. How much is trained on (`first_minutes`) does not change what is held
    out.
    """
    held_out: dict[str, range] = {}
    for group in _by_person(rows).values():
        wanted = min(round(minutes * FRAMES_A_MINUTE), math.floor(HELD_OUT_SHARE * sum(row.frames for row in group)))
        for row in reversed(group):
            if wanted <= 0:
                break
            divides = wanted + GAP < row.frames and (row.frames > LONG_CLIP or row is group[0])
            held_out[row.id] = range(row.frames - wanted if divides else 0, row.frames)
            wanted -= len(held_out[row.id])
    return held_out


def first_minutes(rows: Sequence[ClipRow], train: Mapping[str, range], minutes: float) -> dict[str, range]:
    """The first minutes of what each speaker and view has to train on; 2 minutes are part of 5 minutes, and so on.

    Raises:
        ValueError: a speaker has less.
    """
    kept: dict[str, range] = {}
    for (speaker, view), group in _by_person([row for row in rows if row.id in train]).items():
        missing = round(minutes * FRAMES_A_MINUTE)
        for row in group:
            if missing > 0:
                kept[row.id] = train[row.id][:missing]
                missing -= len(kept[row.id])
        if missing > 0:
            have = minutes - missing / FRAMES_A_MINUTE
            raise ValueError(
                f"speaker {speaker} ({view}) has {have:.1f} minutes to train on, not {minutes:g}: "
                f"lower data.train_minutes or give more clips"
            )
    return {clip: kept[clip] for clip in train if clip in kept}


def only_of(rows: Sequence[ClipRow], side: Mapping[str, range], speakers: Collection[str]) -> dict[str, range]:
    """What one side of a split has of some speakers; of all, where none is named.

    Raises:
        ValueError: it has nothing of them.
    """
    speaker = {row.id: row.speaker for row in rows}
    kept = {clip: frames for clip, frames in side.items() if not speakers or speaker[clip] in speakers}
    if not kept:
        known = ", ".join(sorted({speaker[clip] for clip in side}))
        raise ValueError(f"data.speakers={','.join(speakers)}: the split has {known} on this side")
    return kept


SPLITS: dict[str, Split] = {
    "hash": hash_split,
    "chen2018": partial(unseen_speaker_split, unseen=CHEN_UNSEEN),
    "atvg2019": partial(unseen_speaker_split, unseen=ATVG_UNSEEN),
    "take": take_split,
    "speaker": speaker_split,
    "duration": duration_split,
}


def named_split(
    name: str, speakers: Sequence[str] = (), takes: Sequence[str] = (), minutes: float | None = None
) -> Split:
    """A split of `SPLITS` with the choices that belong to it.

    Args:
        name: of the split.
        speakers: held out by `speaker`. takes: held out by `take`. minutes: held out by `duration`.

    Raises:
        ValueError: there is no such split, or it has no such choice.
    """
    if name not in SPLITS:
        raise ValueError(f"unknown split {name!r}: expected one of {', '.join(SPLITS)}")
    choices = {"speaker": ("speakers", speakers), "take": ("takes", takes), "duration": ("minutes", minutes)}
    for owner, (choice, value) in choices.items():
        if value and owner != name:
            raise ValueError(f"test_{choice} belongs to data.split={owner}, not to {name}: leave it out")
    choice, value = choices.get(name, ("", None))
    return partial(SPLITS[name], **{choice: value}) if value else SPLITS[name]


def split_clips(rows: Sequence[ClipRow], split: str | Split) -> Sides:
    """Training frames and held-out frames, each in the order of the manifest.

    Args:
        rows: manifest.
        split: a name of `SPLITS`, or a function of one's own.

    Raises:
        ValueError: there is no split of that name, or nothing is left to train or to test on.
    """
    held_out = (named_split(split) if isinstance(split, str) else split)(rows)
    if not isinstance(held_out, Mapping):
        held_out = {row.id: range(row.frames) for row in rows if row.id in held_out}
    train = {row.id: _rest(row.frames, held_out.get(row.id, range(0))) for row in rows}
    sides = Sides(
        {clip: frames for clip, frames in train.items() if frames},
        {row.id: held_out[row.id] for row in rows if held_out.get(row.id)},
    )
    if not sides.train or not sides.test:
        raise ValueError(
            f"the split leaves {len(sides.train)} clips to train and {len(sides.test)} to test on; "
            f"give more clips (5 of a speaker are the least of which the hash split holds one out)"
        )
    return sides


def _rest(num_frames: int, held_out: range) -> range:
    """The longer part of a clip that no held-out window looks into."""
    if not held_out:
        return range(num_frames)
    before, after = range(held_out.start - GAP), range(held_out.stop + GAP, num_frames)
    return max(before, after, key=len)


def _hash(name: str) -> str:
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


def _take(row: ClipRow) -> str:
    return row.source.rsplit("/", 1)[-1]


def _by_person(rows: Sequence[ClipRow]) -> dict[tuple[str, str], list[ClipRow]]:
    """Clips of each speaker and view, by a hash that all views of a take have in common."""
    clips: dict[tuple[str, str], list[ClipRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (_hash(f"{row.speaker}/{_take(row)}"), row.id)):
        clips[row.speaker, row.view].append(row)
    return clips


def _by_speaker(rows: Sequence[ClipRow]) -> dict[str, list[str]]:
    clips: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        clips[row.speaker].append(row.id)
    return clips
