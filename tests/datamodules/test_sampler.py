"""Order as a function of (seed, epoch, rank), and resuming by arithmetic."""

from itertools import chain

import numpy as np
import pytest

from datamodules.sampler import LANES, ClipChunks, EpochSampler, epoch_groups


def keys(order) -> list[tuple[int, int]]:
    """(epoch, sample), one after the other."""
    return [(unit.epoch, sample) for unit in order for sample in unit.samples.tolist()]


def batches(sampler: EpochSampler) -> list[list[tuple[int, int]]]:
    seen = keys(sampler)
    return [seen[start : start + sampler.batch_size] for start in range(0, len(seen), sampler.batch_size)]


@pytest.mark.parametrize("segment", [1, 4, 32])
def test_an_epoch_is_a_permutation_and_the_next_is_another(segment):
    first, second = ([*EpochSampler(60, 5, 3, batches_done=lambda d=done: d, segment=segment)] for done in (0, 12))
    assert sorted(keys(first)) == [(0, sample) for sample in range(60)]
    assert sorted(keys(second)) == [(1, sample) for sample in range(60)]
    assert [sample for _, sample in keys(first)] != [sample for _, sample in keys(second)]
    assert keys(first) == keys(EpochSampler(60, 5, seed=3, segment=segment))
    assert keys(first) != keys(EpochSampler(60, 5, seed=4, segment=segment))


@pytest.mark.parametrize(("num_samples", "joint", "segment"), [(100, 6, 1), (1000, 6, 8), (3001, 24, 32)])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_batch_of_a_single_process(num_samples, joint, segment, world_size):
    whole = batches(EpochSampler(num_samples, joint, seed=0, segment=segment))
    ranks = [
        EpochSampler(num_samples, joint // world_size, 0, r, world_size, segment=segment) for r in range(world_size)
    ]
    parts = [batches(rank) for rank in ranks]
    assert {len(part) for part in parts} == {len(whole)}
    for batch, shards in zip(whole, zip(*parts, strict=True), strict=True):
        assert sorted(batch) == sorted(chain(*shards))


@pytest.mark.parametrize("segment", [1, 4])
@pytest.mark.parametrize("done", [0, 1, 7, 11, 12, 13, 30])
def test_resumed_order_is_the_unbroken_one(done, segment):
    def epoch_from(start: int) -> list[list[tuple[int, int]]]:
        return batches(EpochSampler(400, 33, 0, batches_done=lambda: start, segment=segment))

    unbroken = [*chain(*(epoch_from(12 * epoch) for epoch in range(4)))]
    assert epoch_from(done) == unbroken[done : done + 12]


@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("samples_per_epoch", [None, 2000, 9000])
def test_units_are_whole_batches(start, samples_per_epoch):
    sampler = EpochSampler(3001, 8, 0, samples_per_epoch=samples_per_epoch, segment=32, batches_done=lambda: start)
    sizes = [len(unit.samples) for unit in sampler]
    assert all(size % 8 == 0 for size in sizes)
    assert sum(sizes) == len(sampler) == 8 * sampler.num_batches


def test_a_unit_reads_few_segments_and_a_batch_mixes_them():
    sampler = EpochSampler(30_000, 16, seed=1, segment=32)
    units = [unit.samples for unit in sampler]
    assert all(len(unit) == LANES * 32 for unit in units[:-1])
    for unit in units[:-1]:
        parts = np.split(np.sort(unit), np.flatnonzero(np.diff(np.sort(unit)) > 1) + 1)
        assert len(parts) <= LANES + 1  # one of them may go over the end of the dataset
        for batch in unit.reshape(-1, 16):
            owners = np.searchsorted([part[-1] for part in parts], batch)
            assert len(np.unique(owners)) >= 8
    shuffled = np.concatenate(units[:-1])
    assert abs(np.corrcoef(shuffled[:-1], shuffled[1:])[0, 1]) < 0.05


@pytest.mark.parametrize("num_samples", [1234, 4800, 4801, 5023, 5343])
def test_every_batch_mixes_clips_the_last_of_an_epoch_too(num_samples):
    for epoch in range(20):
        order = np.concatenate(epoch_groups(num_samples, num_samples, seed=0, epoch=epoch, segment=32, lanes=LANES))
        clips = order[: num_samples // 16 * 16].reshape(-1, 16) // 75
        assert min(len(np.unique(batch)) for batch in clips) >= 8


def test_a_rank_reads_segments_of_its_own():
    ranks = [[*EpochSampler(30_000, 4, 1, rank, 4, segment=32)] for rank in range(4)]
    for units in zip(*(units[:-1] for units in ranks), strict=True):
        spans = [np.diff(np.sort(unit.samples)) for unit in units]
        assert all((span > 1).sum() <= LANES // 4 for span in spans)


@pytest.mark.parametrize("num_samples", [1, 2, 15, 16, 17, 511, 512, 700, 5000])
def test_groups_hold_every_sample_once_and_few_of_them(num_samples):
    groups = epoch_groups(num_samples, num_samples, seed=0, epoch=0, segment=32, lanes=16)
    assert np.array_equal(np.sort(np.concatenate(groups)), np.arange(num_samples))
    assert max(map(len, groups)) <= 1.5 * 16 * 32 + 32


def test_length_of_an_epoch_can_be_set():
    longer = EpochSampler(10, 4, 0, samples_per_epoch=26)
    assert len(longer) == 24
    counts = np.bincount([sample for _, sample in keys(longer)], minlength=10)
    assert set(counts) <= {2, 3}
    shorter = EpochSampler(1000, 4, 0, samples_per_epoch=9)
    assert len({sample for _, sample in keys(shorter)}) == 8


def test_less_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="lower the batch size"):
        EpochSampler(7, 4, 0, world_size=2)
    with pytest.raises(ValueError, match="lower the batch size"):
        EpochSampler(0, 4, 0, samples_per_epoch=100)


def test_chunks_are_consecutive_and_never_mix_clips():
    clips = [(0, 10), (10, 13), (13, 13), (13, 30)]
    chunks = [unit.samples.tolist() for unit in ClipChunks(clips, 4)]
    assert [*chain(*chunks)] == [*range(30)]
    for chunk in chunks:
        assert len(chunk) <= 4
        assert any(start <= chunk[0] and chunk[-1] < stop for start, stop in clips)
    assert ClipChunks(clips, 4).num_batches == len(chunks) == 3 + 1 + 5


def test_ranks_share_the_clips_and_frames_can_be_thinned_out():
    clips = [(0, 10), (10, 20), (20, 30)]
    parts = [[sample for _, sample in keys(ClipChunks(clips, 4, rank, 2, every=3))] for rank in range(2)]
    assert parts == [[0, 3, 6, 9, 20, 23, 26, 29], [10, 13, 16, 19]]
