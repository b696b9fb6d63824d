"""What the four LightningModules share: the count of batches, logging by name, and scores beside trivial predictors."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from model_zoo.metrics.clip_mean import ClipMean

LEAST_WARMUP = 1e-3  # of the run: the first step of a warm-up moves too

Row = str
Column = str


class ScoreTable(nn.Module):
    """One mean over clips for each row (a method or a trivial predictor) and column (a metric).

    Args:
        rows: the first is ours.
        columns: for each row, the metrics that it has.
        num_clips: clips of the evaluation set.
    """

    def __init__(self, columns: dict[Row, list[Column]], num_clips: int) -> None:
        super().__init__()
        self.columns = columns
        self.means = nn.ModuleDict(
            {self._key(row, column): ClipMean(num_clips) for row, names in columns.items() for column in names}
        )

    @staticmethod
    def _key(row: Row, column: Column) -> str:
        return f"{row}|{column}".replace(".", "_")

    def update(self, row: Row, scores: dict[Column, Tensor], clip_B: Tensor) -> None:
        """Add one batch; `scores` holds one value a sample for each column of the row."""
        for column in self.columns[row]:
            self.means[self._key(row, column)].update(scores[column].detach().float(), clip_B)

    def items(self):
        """(row, column, ClipMean) of every cell."""
        for row, names in self.columns.items():
            for column in names:
                yield row, column, self.means[self._key(row, column)]

    def reset(self) -> None:
        """Forget every batch."""
        for mean in self.means.values():
            mean.reset()


def score_name(stage: str, row: Row, column: Column, ours: Row) -> str:
    """Name under which a score is logged: `val/PSNR` for ours, `val/PSNR_mean-frame` for a trivial predictor."""
    return f"{stage}/{column}" if row == ours else f"{stage}/{column}_{row}"


class Schedule(NamedTuple):
    """Learning rates over a run: up, constant, down to zero; a function of progress alone, so restarts are exact.

    Attributes:
        warmup: share of the run over which they rise, linearly.
        decay: share of the run, at its end, over which they fall.
        cosine: fall along half a cosine rather than a line.
    """

    warmup: float = 0.0
    decay: float = 0.0
    cosine: bool = False

    def scale(self, progress: float) -> float:
        """Factor of every learning rate when a share `progress` of the run is done."""
        up = min(1.0, max(progress, LEAST_WARMUP) / self.warmup) if self.warmup > 0 else 1.0
        down = min(1.0, (1 - progress) / self.decay) if self.decay > 0 else 1.0
        return up * ((1 - math.cos(math.pi * down)) / 2 if self.cosine else down)


class TalkinModule(pl.LightningModule):
    """Counts batches whatever the number of optimisers, logs every term by name, scores by clip.

    Args:
        rows: columns of each row of the score table; the first row is ours.
        num_clips: clips that the evaluation batches' `clip` indexes.
    """

    def __init__(self, rows: dict[Row, list[Column]], num_clips: int) -> None:
        super().__init__()
        self.scores = ScoreTable(rows, num_clips)
        self.ours = next(iter(rows))
        self.seed = 0  # of whatever a step draws
        self.schedule = Schedule()

    @property
    def optimizers_per_batch(self) -> int:
        """Optimiser steps that one batch takes; Lightning's `global_step` counts each of them."""
        return max(1, len(self.trainer.optimizers)) if self._trainer is not None else 1

    @property
    def batches_done(self) -> int:
        """Training batches seen since the first step, over restarts.

        Lightning's `global_step` counts optimiser steps: https://github.com/Lightning-AI/pytorch-lightning/issues/17958
        """
        return self.trainer.global_step // self.optimizers_per_batch

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        limit = self.trainer.max_steps
        return min(1.0, self.trainer.global_step / limit) if limit > 0 else 0.0

    @property
    def logs_now(self) -> bool:
        """Whether this batch is one that is logged."""
        every = self.trainer.log_every_n_steps
        return every > 0 and (self.batches_done + 1) % every == 0  # when Lightning writes

    def logs_every(self, batches: int) -> bool:
        """Whether this batch is one that is logged, and of these one in so many batches."""
        every = self.trainer.log_every_n_steps
        return self.logs_now and (self.batches_done + 1) // every % max(1, round(batches / every)) == 0

    def on_train_batch_start(self, batch, batch_index: int) -> None:
        """Set the learning rates."""
        scale = self.schedule.scale(self.progress)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * scale

    def active_losses(self) -> list[str]:
        """Names of the loss terms that train the networks; runs with different ones are never compared."""
        raise NotImplementedError

    def log_terms(self, prefix: str, terms: dict[str, Tensor | float], batch_size: int) -> None:
        """Log the mean of each term as `<prefix>/<name>`; only on logged batches, so that no other waits for it."""
        for name, value in terms.items():
            value = value.detach().float().mean() if isinstance(value, Tensor) else float(value)
            self.log(f"{prefix}/{name}", value, batch_size=batch_size, on_step=True, on_epoch=False)

    def on_validation_epoch_start(self) -> None:
        self.scores.reset()

    def on_test_epoch_start(self) -> None:
        self.scores.reset()

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, stage: str) -> None:
        for row, column, mean in self.scores.items():
            value = mean.compute()
            if not value.isnan():  # rows that only the test has
                self.log(score_name(stage, row, column, self.ours), value, rank_zero_only=False, sync_dist=False)


def weighted_sum(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Σ weight · term over the terms present; a term without a weight is an error of ours."""
    assert terms, "nothing to train on"
    total = torch.zeros((), device=next(iter(terms.values())).device)
    for name, value in terms.items():
        total = total + weights[name] * value
    return total
