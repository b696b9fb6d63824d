"""How long training stands still because no batch is there yet."""

from __future__ import annotations

import time

import pytorch_lightning as pl


class LoaderWait(pl.Callback):
    """Logs `train/loader_wait`: seconds in which the loader was waited for, over those of the steps since the last log.

    The first value holds the loading of the first batches, for which there is nothing to do meanwhile. Where steps are
    queued on a GPU it is an upper bound: the queue may go on while the loader is waited for.
    """

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._stepped = self._waited = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch, batch_index: int) -> None:
        waited = getattr(trainer.train_dataloader, "waited", None)  # only `BatchLoader` knows
        if waited is not None and module.logs_now and self._stepped > 0:
            share = (waited - self._waited) / self._stepped
            module.log("train/loader_wait", share, on_step=True, on_epoch=False, batch_size=len(batch))
            self._stepped, self._waited = 0.0, waited
        self._began = time.perf_counter()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        self._stepped += time.perf_counter() - self._began
