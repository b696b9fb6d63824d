"""Exponential moving average of the generator's weights, used wherever the generator is scored or shown."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor


class GeneratorAverage(pl.Callback):
    """Averages the generator alone; Lightning's own callback would average the discriminator and frozen networks too.

    The weight of a new value is 1 - min(decay, (1 + n) / (10 + n)) after n batches, so that a short run is not held
    back by its random start. Evaluation uses the average, and the checkpoint keeps it as `generator_average`.

    Args:
        decay: share of the old average that a batch keeps.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay must lie between 0 and 1, got {decay}: 0.999 is usual; 0 switches it off")
        self.decay = decay
        self.average: dict[str, Tensor] | None = None
        self._trained: dict[str, Tensor] | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.average is None:
            self.average = _copy(module)
        self.average = {name: value.to(module.device) for name, value in self.average.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        done = module.batches_done
        weight = 1 - min(self.decay, (1 + done) / (10 + done))
        state = module.renderer.generator.state_dict()
        names = [name for name in self.average if self.average[name].is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in names], [state[name] for name in names], weight)

    def on_validation_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._use_average(module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._use_trained(module)

    def on_test_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._use_average(module)

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._use_trained(module)

    def _use_average(self, module: pl.LightningModule) -> None:
        if self.average is not None and self._trained is None:
            self._trained = _copy(module)
            module.renderer.generator.load_state_dict(self.average)

    def _use_trained(self, module: pl.LightningModule) -> None:
        if self._trained is not None:
            module.renderer.generator.load_state_dict(self._trained)
            self._trained = None

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict) -> None:
        if self._trained is not None:  # saved in the middle of an evaluation: the trained weights are what continues
            checkpoint["state_dict"] |= {f"renderer.generator.{name}": value for name, value in self._trained.items()}
        checkpoint["generator_average"] = self.average

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict) -> None:
        self.average = checkpoint.get("generator_average")


def _copy(module: pl.LightningModule) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.renderer.generator.state_dict().items()}
