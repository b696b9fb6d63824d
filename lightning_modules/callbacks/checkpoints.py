"""The newest state of a run, saved by the number of batches, by the clock, at the end, and when it is interrupted."""

from __future__ import annotations

import time
from pathlib import Path

import pytorch_lightning as pl


class LastCheckpoint(pl.Callback):
    """Writes `last.ckpt`, whole or not at all.

    Lightning's ModelCheckpoint counts optimiser steps, two a batch in a GAN, and its epoch-end files restart in the
    wrong place; here everything is counted in batches.

    Args:
        folder: where the file goes.
        every: batches between two saves.
        seconds: most time between two saves of a single process; the clocks of several would not agree.
    """

    def __init__(self, folder: Path, every: int, seconds: float = 600.0) -> None:
        self.path = folder / "last.ckpt"
        self.every = max(1, every)
        self.seconds = seconds
        self._saved, self._saved_at = -1, time.monotonic()

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if module.batches_done != self._saved:
            trainer.save_checkpoint(self.path)
            self._saved, self._saved_at = module.batches_done, time.monotonic()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        is_late = trainer.world_size == 1 and time.monotonic() - self._saved_at > self.seconds
        if module.batches_done % self.every == 0 or is_late:
            self._save(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._save(trainer, module)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        # Other ranks may be gone or at another batch: only a single process can save what it was doing.
        # Between the steps of a GAN's two optimisers nothing is saved: the last whole checkpoint stays.
        whole = trainer.global_step % module.optimizers_per_batch == 0
        if isinstance(exception, KeyboardInterrupt) and trainer.world_size == 1 and trainer.training and whole:
            self._save(trainer, module)
