"""From the order of samples to batches: loader processes read whole units, batches are cut from them here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import cv2
import torch
from torch.utils.data import DataLoader

from datamodules.sampler import ClipChunks, EpochSampler
from datamodules.windows import Batch, ClipWindows

_PREFETCHED_UNITS = 2  # a loader process; one may take long while another is used up


class BatchLoader:
    """Batches in the order of a sampler; its processes live as long as it does.

    Args:
        data: where samples come from.
        order: units of samples.
        batch_size: samples a batch.
        num_workers: loader processes; 0 loads in this one.
        seed: of the loader's own generator, which must not draw from the global one.
    """

    def __init__(
        self, data: ClipWindows, order: EpochSampler | ClipChunks, batch_size: int, num_workers: int, seed: int = 0
    ) -> None:
        cv2.setNumThreads(0)  # ends OpenCV's thread pool: a loader process that is forked with one waits for it forever
        self.order, self.batch_size = order, batch_size
        self._units = DataLoader(
            data,
            batch_sampler=cast(Any, order),  # a unit is a batch to DataLoader, whatever type says so
            collate_fn=_as_it_is,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            prefetch_factor=_PREFETCHED_UNITS if num_workers > 0 else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(seed),
        )

    def __len__(self) -> int:
        return self.order.num_batches

    def __iter__(self) -> Iterator[Batch]:
        for unit in self._units:
            for start in range(0, len(unit), self.batch_size):
                yield unit.cut(start, start + self.batch_size)


def _as_it_is(unit: Any) -> Any:
    return unit
