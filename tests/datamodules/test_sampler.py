"""Order as a function of (seed, epoch, rank), and resuming by arithmetic."""

from itertools import chain

import pytest

from datamodules.sampler import ClipChunks, EpochSampler


def batches(sampler: EpochSampler) -> list[list[tuple[int, int]]]:
    keys = [tuple(key) for key in sampler]
    return [keys[start : start + sampler.batch_size] for start in range(0, len(keys), sampler.batch_size)]


def test_an_epoch_is_a_permutation_and_the_next_is_another():
    first = EpochSampler(60, 5, seed=3)
    second = EpochSampler(60, 5, seed=3, batches_done=lambda: 12)
    assert sorted(key.sample for key in first) == list(range(60))
    assert sorted(key.sample for key in second) == list(range(60))
    assert [key.sample for key in first] != [key.sample for key in second]
    assert {key.epoch for key in second} == {1}
    assert [*first] == [*EpochSampler(60, 5, seed=3)]
    assert [*first] != [*EpochSampler(60, 5, seed=4)]


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_batch_of_a_single_process(world_size):
    whole = batches(EpochSampler(100, 6, seed=0))
    parts = [batches(EpochSampler(100, 6 // world_size, 0, rank, world_size)) for rank in range(world_size)]
    assert {len(part) for part in parts} == {len(whole)}
    for batch, shards in zip(whole, zip(*parts, strict=True), strict=True):
        assert sorted(batch) == sorted(chain(*shards))


@pytest.mark.parametrize("done", [0, 1, 7, 11, 12, 13, 30])
def test_resumed_order_is_the_unbroken_one(done):
    unbroken = [*batches(EpochSampler(60, 5, 0))]
    for epoch in (1, 2, 3):
        unbroken += batches(EpochSampler(60, 5, 0, batches_done=lambda epoch=epoch: 12 * epoch))
    assert batches(EpochSampler(60, 5, 0, batches_done=lambda: done)) == unbroken[done : done + 12]


def test_length_of_an_epoch_can_be_set():
    longer = EpochSampler(10, 4, 0, samples_per_epoch=26)
    assert len(longer) == 24
    counts = [[key.sample for key in longer].count(index) for index in range(10)]
    assert set(counts) <= {2, 3}
    shorter = EpochSampler(1000, 4, 0, samples_per_epoch=9)
    assert len({key.sample for key in shorter}) == 8


def test_less_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="lower the batch size"):
        EpochSampler(7, 4, 0, world_size=2)
    with pytest.raises(ValueError, match="lower the batch size"):
        EpochSampler(0, 4, 0, samples_per_epoch=100)


def test_chunks_are_consecutive_and_never_mix_clips():
    clips = [(0, 10), (10, 13), (13, 13), (13, 30)]
    chunks = [[key.sample for key in batch] for batch in ClipChunks(clips, 4)]
    assert [*chain(*chunks)] == [*range(30)]
    for chunk in chunks:
        assert len(chunk) <= 4
        assert any(start <= chunk[0] and chunk[-1] < stop for start, stop in clips)
    assert len(ClipChunks(clips, 4)) == len(chunks) == 3 + 1 + 5


def test_ranks_share_the_clips_and_frames_can_be_thinned_out():
    clips = [(0, 10), (10, 20), (20, 30)]
    parts = [[key.sample for key in chain(*ClipChunks(clips, 4, rank, 2, every=3))] for rank in range(2)]
    assert parts == [[0, 3, 6, 9, 20, 23, 26, 29], [10, 13, 16, 19]]
