"""Splits: by clip, stable, and as the papers have them."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules.hearing import Hearing
from datamodules.manifest import ClipRow
from datamodules.splits import (
    FRAMES_A_MINUTE,
    GAP,
    SPLITS,
    first_minutes,
    hash_split,
    named_split,
    speaker_split,
    split_clips,
    take_split,
)
from model_zoo.functional.mfcc import audio_window
from tests.datamodules.test_clip_store import NUM_FRAMES, row


def rows(counts: dict[str, int]):
    return [row(f"{speaker}/clip{n:03d}") for speaker, count in counts.items() for n in range(count)]


def test_hash_split_holds_out_the_lowest_hashes():
    held_out = hash_split(rows({"s1": 188, "s2": 12}))
    ranked = sorted((hashlib.sha1(f"s1/clip{n:03d}".encode()).hexdigest(), f"s1/clip{n:03d}") for n in range(188))
    assert {clip for clip in held_out if clip.startswith("s1/")} == {clip for _, clip in ranked[:20]}
    assert len({clip for clip in held_out if clip.startswith("s2/")}) == 2


def test_hash_split_of_a_speaker_does_not_depend_on_the_others():
    alone = hash_split(rows({"s1": 40}))
    assert alone == {clip for clip in hash_split(rows({"s0": 7, "s1": 40, "s9": 100})) if clip.startswith("s1/")}


@pytest.mark.parametrize(("name", "unseen"), [("chen2018", "s33"), ("atvg2019", "s29")])
def test_papers_leave_one_speaker_unseen(name, unseen):
    train, test = split_clips(rows({"s1": 50, "s29": 30, "s33": 30}), name)
    assert not any(clip.startswith(f"{unseen}/") for clip in train)
    assert sum(clip.startswith(f"{unseen}/") for clip in test) == 30
    assert [clip for clip in test if clip.startswith("s1/")] == [f"s1/clip{n:03d}" for n in range(45, 50)]


def test_takes():
    takes = [row(f"ann/{view}/{take}") for view in ("front", "up-30") for take in ("01", "02", "test")]
    assert take_split(takes) == {"ann/front/test", "ann/up-30/test"}
    assert take_split(takes, takes=["02"]) == {"ann/front/02", "ann/up-30/02"}
    with pytest.raises(ValueError, match="no takes 07 among 01, 02, test"):
        take_split(takes, takes=["07"])


def test_a_take_that_was_cut_is_held_out_whole():
    takes = [row(f"ann/front/{take}") for take in ("01", "02-003")]
    for take in ("02", "test"):
        takes += [row(f"ann/front/{take}-{n:03d}", source=f"ann/front/{take}", part=n, parts=2) for n in (1, 2)]
    assert take_split(takes, takes=["02"]) == {"ann/front/02-001", "ann/front/02-002"}
    assert take_split(takes) == {"ann/front/test-001", "ann/front/test-002"}
    assert take_split(takes, takes=["02-003"]) == {"ann/front/02-003"}


def test_speakers_are_held_out_by_name_or_by_hash():
    clips = rows({f"s{n}": 3 for n in range(1, 12)})
    assert speaker_split(clips, ["s3", "s7"]) == {clip.id for clip in clips if clip.speaker in ("s3", "s7")}
    chosen = {clip.split("/")[0] for clip in speaker_split(clips)}
    ranked = sorted((hashlib.sha1(f"s{n}".encode()).hexdigest(), f"s{n}") for n in range(1, 12))
    assert chosen == {speaker for _, speaker in ranked[:2]}
    with pytest.raises(ValueError, match="no speaker s99 among s1, s10"):
        speaker_split(clips, ["s99"])


@pytest.mark.parametrize("name", [name for name in SPLITS if name not in ("take", "duration")])
def test_sides_are_disjoint_and_cover_everything(name):
    clips = rows({"s1": 30, "s29": 30, "s33": 30})
    train, test = split_clips(clips, name)
    assert sorted([*train, *test]) == [clip.id for clip in clips]
    assert all(frames == range(NUM_FRAMES) for frames in [*train.values(), *test.values()])


def minutes_of(frames: dict[str, range]) -> float:
    return sum(map(len, frames.values())) / FRAMES_A_MINUTE


def test_one_long_take_is_trained_on_from_its_start_and_tested_at_its_end():
    take = row("ann/front/take", view="front", frames=17 * FRAMES_A_MINUTE + GAP)
    sides = split_clips([take], "duration")
    assert sides.test == {take.id: range(15 * FRAMES_A_MINUTE + GAP, take.frames)}
    assert sides.train == {take.id: range(15 * FRAMES_A_MINUTE)}
    assert first_minutes([take], sides.train, 5) == {take.id: range(5 * FRAMES_A_MINUTE)}
    with pytest.raises(ValueError, match=r"speaker ann .front. has 15.0 minutes to train on, not 16: lower data.train"):
        first_minutes([take], sides.train, 16)


def test_views_of_a_take_are_on_the_same_side():
    takes = [
        row(f"ann/{view}/{n:02d}", view=view, frames=1200) for view in ("front", "left-30", "up-30") for n in range(30)
    ]
    sides = split_clips(takes, "duration")
    held_out = [{clip.split("/")[2] for clip in sides.test if view in clip} for view in ("front", "left-30", "up-30")]
    assert held_out[0] == held_out[1] == held_out[2]
    assert len(held_out[0]) == 3  # 48 s each; whole ones until 2 minutes are reached


def random_corpus(seed: int) -> list[ClipRow]:
    """Speakers with a few views, of one long take, of many sentences, or of both."""
    rng = np.random.default_rng(seed)
    clips = []
    for speaker in range(rng.integers(1, 4)):
        for view in ("front", "left-30")[: rng.integers(1, 3)]:
            for take in range(rng.integers(1, 12)):
                frames = int(rng.choice([rng.integers(40, 200), rng.integers(1400, 4000)]))
                clips.append(row(f"p{speaker}/{view}/{take:02d}", view=view, frames=frames))
    return clips


def read_by(frames: range, num_frames: int) -> tuple[set[int], set[int]]:
    """Video frames and samples of sound that windows at these frames read, by the functions that cut the windows."""
    rows_of_clip = torch.arange(4 * num_frames)[:, None].float()
    windows = {t for frame in frames for t in range(max(0, frame - 6), frame + 1)}
    mfcc_rows: set[int] = set()
    for frame in frames:
        window = audio_window(rows_of_clip + 1000, frame, 7)[:, 0]
        mfcc_rows.update((window[window >= 1000] - 1000).int().tolist())
    whole = SimpleNamespace(mfcc=rows_of_clip, num_frames=num_frames)
    utterances = Hearing(utterance_rows=300).utterance(whole, [frames[0], frames[-1]], within=frames)
    mfcc_rows.update(utterances.int().unique().tolist())
    sound = {at for row in mfcc_rows for at in (160 * row - 200, 160 * row + 199)}  # 25 ms around 10k ms
    return windows, sound


@pytest.mark.parametrize("seed", range(6))
def test_nothing_that_a_window_reads_is_on_both_sides(seed):
    clips = random_corpus(seed)
    sides = split_clips(clips, named_split("duration", minutes=0.3 + 0.2 * seed))
    frames = {clip.id: clip.frames for clip in clips}
    divided = sides.train.keys() & sides.test.keys()
    for clip in divided:
        (seen, heard), (seen_held_out, heard_held_out) = (read_by(side[clip], frames[clip]) for side in sides)
        assert seen.isdisjoint(seen_held_out)
        assert max(heard) < min(heard_held_out) or max(heard_held_out) < min(heard)
        assert len(sides.train[clip]) + len(sides.test[clip]) == frames[clip] - GAP  # nothing else is wasted
    for clip in frames.keys() - divided:
        assert (clip in sides.train) != (clip in sides.test)
        assert (sides.train | sides.test)[clip] == range(frames[clip])


@pytest.mark.parametrize("seed", range(12))
def test_less_training_data_is_part_of_more_and_what_is_held_out_stays(seed):
    clips = random_corpus(seed)
    sides = split_clips(clips, named_split("duration", minutes=0.2))
    people = {(clip.speaker, clip.view) for clip in clips}
    person = {clip.id: (clip.speaker, clip.view) for clip in clips}
    least = min(minutes_of({c: f for c, f in sides.train.items() if person[c] == each}) for each in people)
    parts = [first_minutes(clips, sides.train, share * least) for share in (0.1, 0.3, 0.6, 0.999)]
    for share, part in zip((0.1, 0.3, 0.6, 0.999), parts, strict=True):
        for each in people:
            minutes = minutes_of({clip: frames for clip, frames in part.items() if person[clip] == each})
            assert minutes == pytest.approx(share * least, abs=1 / FRAMES_A_MINUTE)
    for less, more in zip(parts, [*parts[1:], sides.train], strict=True):
        for clip, frames in less.items():
            assert frames.start == more[clip].start
            assert frames.stop <= more[clip].stop


def test_choices_belong_to_their_split():
    clips = rows({"s1": 5, "s2": 5})
    assert {clip.split("/")[0] for clip in split_clips(clips, named_split("speaker", speakers=["s2"])).test} == {"s2"}
    with pytest.raises(ValueError, match=r"test_takes belongs to data\.split=take, not to hash"):
        named_split("hash", takes=["01"])


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="unknown split 'hsah': expected one of hash"):
        split_clips(rows({"s1": 10}), "hsah")
    with pytest.raises(ValueError, match="give more clips"):
        split_clips(rows({"s1": 4}), "hash")
