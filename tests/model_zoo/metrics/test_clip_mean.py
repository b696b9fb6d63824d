from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from model_zoo.metrics.clip_mean import ClipMean

CLIPS = torch.tensor([0, 0, 0, 2, 2, 4, 4, 4, 4])
VALUES = torch.tensor([1.0, 2.0, 3.0, 10.0, 20.0, 5.0, 5.0, 5.0, 9.0])
PER_CLIP = [2.0, 15.0, 6.0]


def test_clips_count_alike_whatever_their_length_and_order():
    metric = ClipMean(5)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    for batch in order.split(2):
        metric.update(VALUES[batch], CLIPS[batch])
    torch.testing.assert_close(metric.compute(), torch.tensor(PER_CLIP).mean())
    per_clip = metric.per_clip()
    torch.testing.assert_close(per_clip[[0, 2, 4]], torch.tensor(PER_CLIP))
    assert per_clip[[1, 3]].isnan().all()
    low, high = metric.interval()
    assert 2 <= low < metric.compute() < high <= 15


def test_nothing_and_one_clip():
    metric = ClipMean(3)
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute().isnan()
    metric.update(torch.ones(2), torch.zeros(2, dtype=torch.int64))
    assert metric.compute() == 1
    assert all(bound.isnan() for bound in metric.interval())
    metric.reset()
    assert metric.count.sum() == 0


@pytest.mark.parametrize(
    ("values", "clip"), [(torch.ones(2), [0, 3]), (torch.ones(2), [-1, 0]), (torch.ones(3), [0, 1])]
)
def test_bad_updates_are_refused(values, clip):
    with pytest.raises(ValueError, match="clip"):
        ClipMean(3).update(values, torch.tensor(clip))


def test_ranks_are_summed():
    """Two ranks in one process: what torchmetrics gathers from both is handed to each."""
    whole, *ranks = (ClipMean(5) for _ in range(3))
    whole.update(VALUES, CLIPS)
    for rank, metric in enumerate(ranks):
        metric.update(VALUES[rank::2], CLIPS[rank::2])
    gathered = {torch.float64: [m.total.clone() for m in ranks], torch.int64: [m.count.clone() for m in ranks]}
    for metric in ranks:
        metric.distributed_available_fn = lambda: True
        metric.dist_sync_fn = lambda state, group: gathered[state.dtype]
        assert metric.compute() == whole.compute()
        assert torch.equal(metric.per_clip().nan_to_num(), whole.per_clip().nan_to_num())
        assert metric.interval() == whole.interval()
        assert metric.count.sum() < len(VALUES)  # its own share is restored


def rank_main(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        metric = ClipMean(5)
        metric.update(VALUES[rank::2], CLIPS[rank::2])
        torch.save([metric.compute(), metric.per_clip(), *metric.interval()], f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow  # two processes import torch
def test_two_processes_equal_one(tmp_path: Path):
    whole = ClipMean(5)
    whole.update(VALUES, CLIPS)
    expected = [whole.compute(), whole.per_clip(), *whole.interval()]
    mp.spawn(rank_main, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected, equal_nan=True)
