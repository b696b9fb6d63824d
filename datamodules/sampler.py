"""The order in which samples are seen, a function of (seed, epoch, rank) alone.

No state is kept while iterating, so a run resumes at any batch by arithmetic, and the order does not depend on the
number of loader workers. A key carries its epoch: randomness of a sample is a function of (seed, epoch, sample), and
loader processes that outlive an epoch still know which one they work for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class SampleKey(NamedTuple):
    """One sample to be drawn: its index in the dataset, and the epoch that seeds its randomness."""

    epoch: int
    index: int


class EpochSampler(Sampler[SampleKey]):
    """Shuffled keys of one rank, the same number of whole batches on every rank.

    Args:
        num_samples: size of the dataset.
        batch_size: samples a batch on this rank.
        seed: of the order.
        rank, world_size: this process among all.
        samples_per_epoch: over all ranks; default every sample once. More than `num_samples` start the dataset anew
            in another order.

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
    ) -> None:
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.rank, self.world_size = rank, world_size
        wanted = num_samples if samples_per_epoch is None else samples_per_epoch
        self.num_batches = wanted // (batch_size * world_size)
        if num_samples == 0 or self.num_batches == 0:
            raise ValueError(
                f"{min(wanted, num_samples)} samples do not fill one batch of {batch_size} on each of {world_size} "
                f"ranks: lower the batch size or give more clips"
            )
        self.epoch = self.batches_done = 0

    def set_progress(self, epoch: int, batches_done: int) -> None:
        """Start `epoch` after its first `batches_done` batches; the epochs after it start at their beginning."""
        self.epoch, self.batches_done = epoch, batches_done

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of an epoch."""
        if epoch != self.epoch:
            self.set_progress(epoch, 0)

    def __len__(self) -> int:
        """Samples of a whole epoch on this rank, whether it starts at its beginning or not."""
        return self.num_batches * self.batch_size

    def __iter__(self) -> Iterator[SampleKey]:
        epoch, start = self.epoch, self.batches_done * self.batch_size
        for index in epoch_order(self.num_samples, len(self) * self.world_size, self.seed, epoch)[
            self.rank :: self.world_size
        ][start:]:
            yield SampleKey(epoch, int(index))


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
        limit_clips: only the first so many.
        every: only every n-th sample of a clip.
    """

    def __init__(
        self,
        samples: Sequence[tuple[int, int]],
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        limit_clips: int | None = None,
        every: int = 1,
    ) -> None:
        self._batches = []
        for start, stop in list(samples[:limit_clips])[rank::world_size]:
            chosen = range(start, stop, every)
            for first in range(0, len(chosen), batch_size):
                self._batches.append([SampleKey(0, index) for index in chosen[first : first + batch_size]])

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return iter(self._batches)
