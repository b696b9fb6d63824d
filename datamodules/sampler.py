"""The order in which samples are seen, a function of (seed, epoch, rank) alone.

Nothing is remembered while iterating: where a run stands is one number, the batches it has done, so it resumes at any
batch by arithmetic and the order does not depend on the number of loader workers. A key carries its epoch: randomness
of a sample is a function of (seed, epoch, sample), and loader processes that outlive an epoch still know which one they
work for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class SampleKey(NamedTuple):
    """One sample to be drawn: its place in the dataset, and the epoch that seeds its randomness."""

    epoch: int
    sample: int


class EpochSampler(Sampler[SampleKey]):
    """Shuffled keys of one rank, the same number of whole batches on every rank.

    Args:
        num_samples: size of the dataset.
        batch_size: samples a batch on this rank.
        seed: of the order.
        rank, world_size: this process among all.
        samples_per_epoch: over all ranks; default every sample once. More than `num_samples` start the dataset anew
            in another order.
        batches_done: says how many batches the run has done; asked whenever an iteration starts.

    Raises:
        ValueError: there is not one whole batch a rank.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        samples_per_epoch: int | None = None,
        batches_done: Callable[[], int] = lambda: 0,
    ) -> None:
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.rank, self.world_size, self.batches_done = rank, world_size, batches_done
        wanted = num_samples if samples_per_epoch is None else samples_per_epoch
        self.num_batches = wanted // (batch_size * world_size)
        if num_samples == 0 or self.num_batches == 0:
            raise ValueError(
                f"{min(wanted, num_samples)} samples do not fill one batch of {batch_size} on each of {world_size} "
                f"ranks: lower the batch size or give more clips"
            )

    def __len__(self) -> int:
        return self.num_batches * self.batch_size

    def __iter__(self) -> Iterator[SampleKey]:
        """An epoch's worth of keys from where the run stands, over the end of the epoch that it is in if need be."""
        epoch, batch = divmod(self.batches_done(), self.num_batches)
        skipped = batch * self.batch_size
        keys = [*self._epoch(epoch)[skipped:], *(self._epoch(epoch + 1)[:skipped] if skipped else ())]
        return iter(keys)

    def _epoch(self, epoch: int) -> list[SampleKey]:
        order = epoch_order(self.num_samples, len(self) * self.world_size, self.seed, epoch)
        return [SampleKey(epoch, index) for index in order[self.rank :: self.world_size].tolist()]


def epoch_order(num_samples: int, length: int, seed: int, epoch: int) -> np.ndarray:
    """`length` indices of an epoch over all ranks: permutations of the dataset, one after the other.

    Rank r of n takes every n-th, so the batch over all ranks is the same whatever their number.
    """
    generator = np.random.default_rng((seed, epoch))
    repeats = -(-length // num_samples)
    return np.concatenate([generator.permutation(num_samples) for _ in range(repeats)])[:length]


class ClipChunks(Sampler[list[SampleKey]]):
    """Batches of consecutive frames for evaluation; none holds frames of two clips.

    The windows of a chunk overlap, so every crop is decoded once a batch instead of seven times.

    Args:
        samples: (start, stop) of each clip's samples in the dataset.
        batch_size: most samples a batch.
        rank, world_size: clips go to the ranks in turn, so that none is scored twice.
        every: only every n-th sample of a clip.
    """

    def __init__(
        self,
        samples: Sequence[tuple[int, int]],
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        every: int = 1,
    ) -> None:
        self._batches = []
        for start, stop in samples[rank::world_size]:
            chosen = range(start, stop, every)
            for first in range(0, len(chosen), batch_size):
                self._batches.append([SampleKey(0, index) for index in chosen[first : first + batch_size]])

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return iter(self._batches)
