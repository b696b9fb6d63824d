"""From the order of samples to batches: threads read whole units ahead, batches are cut from them.

Threads rather than processes: what takes time (JPEG decoding, array work) runs outside the interpreter's lock, and
what was decoded needs no shared memory, of which containers have little, and no copy to reach the trainer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import cv2
import torch

from datamodules.sampler import ClipChunks, EpochSampler, Unit
from datamodules.windows import Batch, ClipWindows

_UNITS_AHEAD = 1  # beyond those that the threads work on; each takes memory


class BatchLoader:
    """Batches in the order of a sampler; its threads live as long as it does.

    Args:
        data: where samples come from.
        order: units of samples.
        batch_size: samples a batch.
        num_workers: loader threads; 0 loads when a batch is asked for.

    Attributes:
        waited: seconds for which whoever asked for batches has had nothing else to do.
    """

    def __init__(
        self, data: ClipWindows, order: EpochSampler | ClipChunks, batch_size: int, num_workers: int = 0
    ) -> None:
        cv2.setNumThreads(1)  # the loader's own threads are as many as were asked for
        self.data, self.order, self.batch_size, self.num_workers = data, order, batch_size, num_workers
        self.waited = 0.0
        self._threads = ThreadPoolExecutor(num_workers, "loader") if num_workers > 0 else None

    def __len__(self) -> int:
        return self.order.num_batches

    def __iter__(self) -> Iterator[Batch]:
        units = self._units()
        while True:
            asked = time.perf_counter()
            unit = next(units, None)
            self.waited += time.perf_counter() - asked
            if unit is None:
                return
            for start in range(0, len(unit), self.batch_size):
                yield unit.cut(start, start + self.batch_size)

    def _units(self) -> Iterator[Batch]:
        """Units in order, as many under way as the threads can work on."""
        wanted = iter(self.order)
        if self._threads is None:
            yield from map(self._read, wanted)
            return
        ahead: deque[Future[Batch]] = deque()
        try:
            while True:
                for unit in islice(wanted, self.num_workers + _UNITS_AHEAD - len(ahead)):
                    ahead.append(self._threads.submit(self._read, unit))
                if not ahead:
                    return
                yield ahead.popleft().result()
        finally:
            for future in ahead:  # of a caller who stops before the end
                future.cancel()

    def _read(self, unit: Unit) -> Batch:
        batch = self.data.__getitems__(unit)
        return batch.pin_memory() if torch.cuda.is_available() else batch
