"""Splits on disk: what a clip was used for it stays used for, whatever comes to the corpus."""

import pytest

from datamodules.atomic import StoreError
from datamodules.splits import Sides, hash_split, split_clips
from datamodules.stored_split import label_rows, read_split, settle_split, split_name, store_split
from tests.datamodules.test_clip_store import NUM_FRAMES, row


def rows(*numbers: int):
    return [row(f"s1/clip{n:03d}") for n in sorted(numbers)]


def test_a_split_comes_back_as_it_was_stored(tmp_path):
    sides = Sides({"s1/a": range(5), "s1/b": range(9)}, {"s1/a": range(40, 75)})
    store_split(tmp_path, "duration", sides)
    assert read_split(tmp_path, "duration") == sides
    assert read_split(tmp_path, "hash") is None
    before = (tmp_path / "splits" / "duration.json").read_bytes()
    store_split(tmp_path, "duration", sides)
    assert (tmp_path / "splits" / "duration.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["splits"]


def test_a_corpus_that_grows_keeps_what_it_held_out(tmp_path):
    few, many = rows(*range(0, 100, 5)), rows(*range(100))
    first = settle_split(tmp_path, "hash", few, hash_split)
    grown = settle_split(tmp_path, "hash", many, hash_split)
    anew = split_clips(many, hash_split)
    assert first == split_clips(few, hash_split)
    assert first.test.keys() != anew.test.keys() & {clip.id for clip in few}  # it would have been reshuffled
    old = {clip.id for clip in few}
    assert (grown.train.keys() & old, grown.test.keys() & old) == (first.train.keys(), first.test.keys())
    assert grown.test.keys() - old == anew.test.keys() - old
    assert sorted([*grown.train, *grown.test]) == [clip.id for clip in many]
    assert settle_split(tmp_path, "hash", few, hash_split) == first
    assert settle_split(tmp_path, "hash", many, hash_split) == grown


def test_other_choices_are_another_split():
    names = {split_name("speaker"), split_name("speaker", speakers=("s1",)), split_name("speaker", speakers=("s2",))}
    assert len(names) == 3
    assert split_name("hash", speakers=(), minutes=None) == "hash"


def test_a_store_that_cannot_be_written_is_split_all_the_same(tmp_path):
    (tmp_path / ".tmp").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        store_split(tmp_path, "hash", Sides({}, {}))
    assert settle_split(tmp_path, "hash", rows(*range(10)), hash_split) == split_clips(rows(*range(10)), hash_split)
    assert read_split(tmp_path, "hash") is None


def test_rows_say_on_which_side_they_are():
    clips = rows(1, 2, 3, 4)
    sides = Sides(
        {"s1/clip001": range(NUM_FRAMES), "s1/clip002": range(3)},
        {"s1/clip002": range(6, NUM_FRAMES), "s1/clip003": range(NUM_FRAMES)},
    )
    assert [clip.split for clip in label_rows(clips, sides)] == ["train", "train+test", "test", ""]
