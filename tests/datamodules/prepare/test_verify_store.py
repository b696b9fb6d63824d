"""Shards and merging make the store of one run; verification finds and mends whatever was done to it."""

import errno
import json
import os
import shutil

import pytest

from datamodules.atomic import StoreError
from datamodules.clip_store import ClipStore, clip_path
from datamodules.prepare import clip as clip_stage
from datamodules.prepare import pipeline
from datamodules.prepare.clip import PrepareSettings
from datamodules.prepare.inventory import take_inventory
from datamodules.prepare.pipeline import Shard, is_prepared, merge_store, prepare_corpus
from datamodules.prepare.sources import scan_grid
from datamodules.prepare.verify_store import verify_store
from tests.datamodules.fake_corpus import (
    NumberDetector,
    draw,
    fake_face,
    true_landmarks,
    write_clip_file,
    write_grid,
)
from tests.datamodules.prepare.test_crash import files

FACE = fake_face()
TRUTH = true_landmarks(FACE, 0, 90)
# "b" shows the face, then nobody for half of the clip's 90 frames in the middle, then the face: two clips.
BLIND = frozenset(range(30, 60))
CLIPS = {"s1/a": 20, "s1/b": 90, "s2/c": 22, "s2/d": 24}
HOW = {"progress": False, "detector": NumberDetector(TRUTH, BLIND)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("grid")
    write_grid(root, TRUTH, CLIPS)
    write_clip_file(root / "s1/silent.mpg", [draw(TRUTH[0], 0)] * 20, None)
    return root


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    store = tmp_path_factory.mktemp("whole")
    prepare_corpus(scan_grid(corpus), store, FACE, 0, **HOW)
    return store


@pytest.fixture
def store(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "store")


def test_a_source_of_two_spans_is_two_clips(whole):
    rows = {row.id: row for row in ClipStore(whole).manifest}
    assert rows.keys() == {"s1/a", "s1/b-001", "s1/b-002", "s2/c", "s2/d"}
    first, second = rows["s1/b-001"], rows["s1/b-002"]
    assert {(row.source, row.parts) for row in (first, second)} == {("s1/b", 2)}
    assert (first.part, second.part) == (1, 2)
    assert second.start == pytest.approx(60 / 25)
    ((start, stop, reason),) = json.loads(first.dropped)
    assert (30 <= start <= 31, stop, reason) == (True, 60, "no face")  # a tracker may not see at once that it is gone


def test_shards_are_a_partition_that_follows_from_the_ids():
    names = [f"s{n}/clip" for n in range(200)]
    sources = [pipeline.SourceClip(name, "s", "front", None) for name in names]
    parts = [Shard(index, 3).of(sources) for index in (1, 2, 3)]
    assert sorted(source.id for part in parts for source in part) == sorted(names)
    assert all(40 < len(part) < 95 for part in parts)
    assert [source.id for source in Shard(2, 3).of(sources[::-1])] == [source.id for source in parts[1]][::-1]
    assert Shard.parse("2/3") == Shard(2, 3)
    for wrong in ("0/0", "5/4", "0/4", "abc", "1", "1/", "/2", "-1/2", "1/2/3", "1.0/2", "²/3"):
        with pytest.raises(ValueError, match="give i/n with i from 1 to n"):
            Shard.parse(wrong)


def test_shards_on_one_folder_and_a_merge_make_the_store_of_one_run(corpus, whole, tmp_path):
    for index in (2, 3, 1):
        prepare_corpus(scan_grid(corpus), tmp_path, FACE, 0, shard=Shard(index, 3), **HOW)
        assert not (tmp_path / "manifest.parquet").exists()
    assert merge_store(tmp_path, scan_grid(corpus)).pending == 0
    assert files(tmp_path) == files(whole)
    assert is_prepared(scan_grid(corpus), tmp_path, FACE, detector=HOW["detector"])


def test_folders_of_shards_copied_together_are_merged(corpus, whole, tmp_path):
    for index in (1, 2):
        prepare_corpus(scan_grid(corpus), tmp_path / str(index), FACE, 0, shard=Shard(index, 2), **HOW)
    partly = merge_store(tmp_path / "1", scan_grid(corpus))
    assert partly.pending == len(Shard(2, 2).of(scan_grid(corpus)))
    shutil.copytree(tmp_path / "2", tmp_path / "1", dirs_exist_ok=True)
    merge_store(tmp_path / "1")
    assert files(tmp_path / "1") == files(whole)


def test_merging_refuses_clips_of_different_settings_and_empty_folders(corpus, store, tmp_path):
    other = PrepareSettings(jpeg_quality=80)
    prepare_corpus(scan_grid(corpus)[:1], tmp_path / "other", FACE, 0, settings=other, **HOW)
    shutil.copytree(tmp_path / "other", store, dirs_exist_ok=True)
    with pytest.raises(ValueError, match="2 different settings"):
        merge_store(store)
    with pytest.raises(ValueError, match="does not exist"):
        merge_store(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="none of 0 sources"):
        merge_store(tmp_path / "empty")


def test_verification_of_a_whole_store_changes_nothing(corpus, store):
    before = files(store)
    report = verify_store(scan_grid(corpus), store, FACE, 0, **HOW)
    assert (report.repaired, report.lost, len(report.rows), report.reused) == ([], [], 5, 5)
    assert files(store) == before


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_verification_mends_what_is_damaged_missing_or_cut_off(corpus, store, whole):
    flip(clip_path(store, "s1/a"))  # which a preparation does not notice
    assert is_prepared(scan_grid(corpus), store, FACE, detector=HOW["detector"])
    clip_path(store, "s1/b-002").unlink()
    clip_path(store, "s2/c").write_bytes(clip_path(store, "s2/c").read_bytes()[:-50])
    (store / "manifest.parquet").unlink()
    report = verify_store(scan_grid(corpus), store, FACE, 0, **HOW)
    assert report.repaired == ["s1/a", "s1/b", "s2/c"]
    assert report.lost == []
    assert files(store) == files(whole)


def test_verification_notices_a_source_that_has_changed(corpus, store, tmp_path):
    before = {row.id: row.sha256 for row in ClipStore(store).manifest}
    root = shutil.copytree(corpus, tmp_path / "raw")
    flip(root / "s2/d.mpg")  # of the same size, so a preparation does not notice
    report = verify_store(scan_grid(root), store, FACE, 0, **HOW)
    assert report.repaired == ["s2/d"]
    after = {row.id: row.sha256 for row in ClipStore(store).manifest}
    assert {clip for clip in before if after[clip] != before[clip]} == {"s2/d"}


def test_verification_tries_skipped_sources_again(corpus, store, whole):
    record = store / "s1/silent.skipped.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps(told | {"reason": "not so any more"}))
    report = verify_store(scan_grid(corpus), store, FACE, 0, **HOW)
    assert [skipped.reason for skipped in report.skipped] == ["no sound"]
    assert report.repaired == []
    assert files(store) == files(whole)


def test_verification_notices_other_words(corpus, store, tmp_path):
    root = shutil.copytree(corpus, tmp_path / "raw")
    words = root / "alignments/s2/d.align"
    words.write_text(words.read_text().replace("bin", "ban"))
    report = verify_store(scan_grid(root), store, FACE, 0, **HOW)
    assert report.repaired == ["s2/d"]
    assert ClipStore(store).row("s2/d").transcript == "ban blue"


def test_clips_without_sources_stay_and_damaged_ones_are_named(corpus, store):
    sources = [source for source in scan_grid(corpus) if source.speaker == "s1"]
    flip(clip_path(store, "s2/d"))
    report = verify_store(sources, store, FACE, 0, **HOW)
    assert report.lost == ["s2/d"]
    assert [row.id for row in ClipStore(store).manifest] == ["s1/a", "s1/b-001", "s1/b-002", "s2/c"]
    with pytest.raises(ValueError, match="nothing to verify"):
        verify_store(sources, store / "nowhere", FACE, 0, **HOW)


def test_other_settings_replace_the_clips_and_leave_none_behind(corpus, store, tmp_path):
    sees_all = NumberDetector(TRUTH)
    sees_all.name = "numbers, all of them"
    prepare_corpus(scan_grid(corpus), store, FACE, 0, progress=False, detector=sees_all)
    prepare_corpus(scan_grid(corpus), tmp_path / "fresh", FACE, 0, progress=False, detector=sees_all)
    assert not clip_path(store, "s1/b-001").exists()  # it is one clip now
    assert files(store) == files(tmp_path / "fresh")


def test_sources_with_numbered_names_are_not_taken_for_parts(corpus, whole, tmp_path):
    root = tmp_path / "raw"
    write_grid(root, TRUTH, {"s1/x": 20, "s1/x-001": 21, "s1/x-002": 22})
    prepare_corpus(scan_grid(root), tmp_path / "store", FACE, 0, **HOW)
    assert is_prepared(scan_grid(root), tmp_path / "store", FACE, detector=HOW["detector"])
    (root / "s1/x.mpg").write_bytes((root / "s1/x-002.mpg").read_bytes())
    prepare_corpus(scan_grid(root), tmp_path / "store", FACE, 0, **HOW)
    assert [row.frames for row in ClipStore(tmp_path / "store").manifest] == [22, 21, 22]


def test_full_disk_in_a_run_leaves_a_store_that_is_valid_and_goes_on(corpus, whole, tmp_path, monkeypatch):
    write, written = clip_stage.write_clip, []

    def full(root, row, data):
        if len(written) == 2:
            raise StoreError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(row.id)
        return write(root, row, data)

    monkeypatch.setattr(clip_stage, "write_clip", full)
    with pytest.raises(StoreError):
        prepare_corpus(scan_grid(corpus), tmp_path, FACE, 0, **HOW)
    monkeypatch.undo()
    inventory = take_inventory(tmp_path)
    assert inventory.damaged == []
    assert [row.id for row in ClipStore(tmp_path).manifest] == ["s1/a"]
    prepare_corpus(scan_grid(corpus), tmp_path, FACE, 0, **HOW)
    assert files(tmp_path) == files(whole)


class Lethal(NumberDetector):
    """Ends its process at the first sight of frame 21, which clips c and d have, until it has done so twice."""

    def __init__(self, truth, blind, counter):
        super().__init__(truth, blind)
        self.counter = counter

    def landmarks(self, frame, box):
        from tests.datamodules.fake_corpus import read_number

        if read_number(frame) == 21 and self.counter.stat().st_size < 2:
            with open(self.counter, "ab") as file:
                file.write(b"x")
            os._exit(9)
        return super().landmarks(frame, box)


def test_a_worker_that_dies_by_chance_costs_nothing(tmp_path):
    root, counter = tmp_path / "raw", tmp_path / "counter"
    write_grid(root, TRUTH, {"s1/a": 20, "s2/c": 22})
    counter.touch()
    lethal = Lethal(TRUTH, BLIND, counter)
    report = prepare_corpus(scan_grid(root), tmp_path / "store", FACE, 1, progress=False, detector=lethal)
    assert counter.read_bytes() == b"xx"
    assert [row.id for row in report.rows] == ["s1/a", "s2/c"]
