"""Progress for people: a bar with rate and remaining time on a terminal, ten plain lines in a log file."""

from __future__ import annotations

import sys
import time

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINES = 10  # a run, where there is no terminal


class TrainingProgress(pl.Callback):
    """One bar a stage, with the last logged losses.

    Args:
        title: what is trained.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.console = Console(stderr=True)
        self.bar: Progress | None = None

    def _open(self, total: int, done: int = 0, what: str = "") -> None:
        self.close()
        self.total, self.started, self.first, self.printed = total, time.monotonic(), done, done
        self.label = f"{self.title} {what}".strip()
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
            )
            self.bar = Progress(
                *columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=self.console
            )
            self.task = self.bar.add_task(self.label, total=total, completed=done, rate="", note="")
            self.bar.start()

    def _advance(self, done: int, note: str = "") -> None:
        rate = (done - self.first) / max(time.monotonic() - self.started, 1e-9)
        speed = f"{rate:.1f}/s" if rate >= 1 else f"{1 / max(rate, 1e-9):.1f} s each"
        if self.bar is not None:
            self.bar.update(self.task, completed=done, rate=speed, note=note)
        elif done >= self.total or done - self.printed >= self.total / LINES:
            self.printed = done
            self.console.print(f"{self.label}: {done}/{self.total}, {speed} {note}".rstrip(), highlight=False)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self._open(trainer.max_steps // module.optimizers_per_batch, module.batches_done, "training")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        if not trainer.is_global_zero:
            return
        losses = {name: value for name, value in trainer.logged_metrics.items() if name.startswith("train/loss_")}
        due = self.bar is None or module.batches_done % max(trainer.log_every_n_steps, 1) == 0
        note = (
            " ".join(f"{name.removeprefix('train/loss_')} {value:.3g}" for name, value in losses.items())
            if due
            else None
        )
        if note is not None:
            self._advance(module.batches_done, note)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.close()

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self._open(int(sum(trainer.num_test_batches)), what="scoring of the held-out clips")

    def on_test_batch_end(self, trainer, module, outputs, batch, batch_index, dataloader_index=0) -> None:
        if trainer.is_global_zero:
            self._advance(batch_index + 1)

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.close()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self.close()
