"""Splits: by clip, stable, and as the papers have them."""

import hashlib

import pytest

from datamodules.splits import SPLITS, hash_split, split_clips, take_split
from tests.datamodules.test_clip_store import row


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


@pytest.mark.parametrize("name", [name for name in SPLITS if name != "take"])
def test_sides_are_disjoint_and_cover_everything(name):
    clips = rows({"s1": 30, "s29": 30, "s33": 30})
    train, test = split_clips(clips, name)
    assert sorted(train + test) == [clip.id for clip in clips]


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="unknown split 'hsah': expected one of hash"):
        split_clips(rows({"s1": 10}), "hsah")
    with pytest.raises(ValueError, match="give more clips"):
        split_clips(rows({"s1": 4}), "hash")
