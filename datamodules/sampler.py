"""The order in which samples are seen, a function of (seed, epoch, rank) alone.

Nothing is remembered while iterating: where a run stands is one number, the batches it has done, so it resumes at any
batch by arithmetic and the order does not depend on the number of loader workers. A unit carries its epoch: randomness
of a sample is a function of (seed, epoch, sample), and loader threads that outlive an epoch still know which one they
work for.

Windows of seven frames overlap, so the order is made of segments: an epoch cuts the dataset into segments of
consecutive samples, deals these out at random into groups, and a group's batches take one sample of each segment in
turn. A group is read and decoded as a whole, and its batches still mix as many places of the corpus as it has segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

LANES = 32  # least segments of a group: places of the corpus that follow one another in the order
GROUP = 1024  # most samples of a group, which bounds the memory of a loader


class Unit(NamedTuple):
    """Consecutive batches that one loader process reads as a whole.

    Attributes:
        epoch: seeds the randomness of the samples.
        samples: places in the dataset, batch after batch.
    """

    epoch: int
    samples: np.ndarray


class EpochSampler(Sampler[Unit]):
    """Shuffled samples of one rank, the same number of whole batches on every rank.

    Args:
        num_samples: size of the dataset.
        batch_size: samples a batch on this rank.
        seed: of the order.
        rank, world_size: this process among all.
        samples_per_epoch: over all ranks; default every sample once. More than `num_samples` start the dataset anew
            in another order.
        batches_done: says how many batches the run has done; asked whenever an iteration starts.
        segment: consecutive samples that are read together; 1 shuffles every sample by itself.

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
        segment: int = 1,
    ) -> None:
        self.num_samples, self.batch_size, self.seed, self.segment = num_samples, batch_size, seed, segment
        self.rank, self.world_size, self.batches_done = rank, world_size, batches_done
        self.wanted = num_samples if samples_per_epoch is None else samples_per_epoch
        self.num_batches = self.wanted // (batch_size * world_size)
        if num_samples == 0 or self.num_batches == 0:
            raise ValueError(
                f"{min(self.wanted, num_samples)} samples do not fill one batch of {batch_size} on each of "
                f"{world_size} ranks: lower the batch size or give more clips"
            )

    def __len__(self) -> int:
        return self.num_batches * self.batch_size

    def __iter__(self) -> Iterator[Unit]:
        """An epoch's worth of batches from where the run stands, over the end of the epoch that it is in if need be."""
        epoch, done = divmod(self.batches_done(), self.num_batches)
        yield from self._units(epoch, done, self.num_batches)
        if done:
            yield from self._units(epoch + 1, 0, done)

    def _units(self, epoch: int, first: int, last: int) -> Iterator[Unit]:
        """Batches first..last-1 of an epoch, cut where groups end."""
        joint = self.batch_size * self.world_size
        # The joint batch alone decides on the groups, so that they are the same whatever the number of ranks.
        groups = epoch_groups(self.num_samples, self.wanted, self.seed, epoch, self.segment, -(-LANES // joint) * joint)
        order = np.concatenate(groups)
        starts = -(-np.cumsum([0, *map(len, groups[:-1])]) // joint)  # a group that starts within a batch comes after
        bounds = np.unique([first, *starts[(starts > first) & (starts < last)], last]).tolist()
        for start, stop in pairwise(bounds):
            yield Unit(epoch, order[start * joint + self.rank : stop * joint : self.world_size])


def epoch_groups(num_samples: int, length: int, seed: int, epoch: int, segment: int, lanes: int) -> list[np.ndarray]:
    """The order of an epoch over all ranks, in groups: at least `length` places, the dataset as often as needed.

    Rank r of n takes every n-th, so the batch over all ranks is the same whatever their number; where n divides
    `lanes`, each rank meets segments of its own in all groups but the last of each pass over the dataset.
    """
    rng = np.random.default_rng((seed, epoch))
    groups: list[np.ndarray] = []
    for _ in range(-(-length // num_samples)):
        groups += _shuffled_segments(rng, num_samples, segment, lanes)
    return groups


def _shuffled_segments(rng: np.random.Generator, num_samples: int, segment: int, lanes: int) -> list[np.ndarray]:
    """One pass over the dataset: groups of `lanes` segments, and a last one of what is left, half as many at least."""
    segment = max(1, min(segment, GROUP // lanes, num_samples // lanes))  # rather short segments than few places
    places = np.roll(np.arange(num_samples), rng.integers(num_samples))  # other cuts in every epoch
    num_segments = num_samples // segment
    segments = places[: num_segments * segment].reshape(num_segments, segment)
    segments = rng.permuted(segments[rng.permutation(num_segments)], axis=1)
    num_groups = max(0, round(num_segments / lanes) - 1)
    whole = segments[: num_groups * lanes].reshape(num_groups, lanes, segment)
    rest = [*segments[num_groups * lanes :], rng.permutation(places[num_segments * segment :])]
    return [*whole.transpose(0, 2, 1).reshape(num_groups, lanes * segment), _in_turn(rest)]


def _in_turn(lanes: Sequence[np.ndarray]) -> np.ndarray:
    """One sample of each lane after the other; those of a shorter lane are spread over the length of the others."""
    turns = [(np.arange(len(lane)) + number / len(lanes)) / max(1, len(lane)) for number, lane in enumerate(lanes)]
    return np.concatenate(lanes)[np.concatenate(turns).argsort(kind="stable")]


class ClipChunks(Sampler[Unit]):
    """Batches of consecutive frames for evaluation, a unit each; none holds frames of two clips.

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
        self._units = []
        for start, stop in samples[rank::world_size]:
            chosen = np.arange(start, stop, every)
            self._units += [Unit(0, chosen[at : at + batch_size]) for at in range(0, len(chosen), batch_size)]

    @property
    def num_batches(self) -> int:
        """Batches on this rank."""
        return len(self._units)

    def __len__(self) -> int:
        return len(self._units)

    def __iter__(self) -> Iterator[Unit]:
        return iter(self._units)
