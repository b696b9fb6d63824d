"""What people look at: held-out clips as mp4 with sound (target | mask + heatmap | generated) and as contact sheets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.batch import JointBatch, VideoBatch
from datamodules.video_file import write_video
from model_zoo.render.mouth_renderer import Rendering

SHEET_COLUMNS = 8  # frames of a contact sheet
PANEL = 256  # px, side of a panel


class PreviewData(Protocol):
    """What a datamodule offers to be shown."""

    test_clips: list[str]

    def clip_batches(self, clip_id: str) -> Iterator[VideoBatch | JointBatch]:
        """Every frame of a held-out clip in order, in batches."""

    def clip_sound(self, clip_id: str) -> NDArray[np.float32]:
        """Its waveform at 16 kHz."""


class Previews(pl.Callback):
    """Renders held-out clips after the last validation and the test, into the run folder and to W&B.

    The module offers `show(batch) -> (VideoBatch, Rendering)`.

    Args:
        data: where the clips come from.
        folder: where pictures and videos go.
        clips: how many clips are rendered.
    """

    def __init__(self, data: PreviewData, folder: Path, clips: int = 2) -> None:
        self.data, self.folder, self.clips = data, folder, clips
        self.written: list[Path] = []

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            self._write(module, clips=1, name=f"step{module.batches_done:06d}", with_video=False)

    @torch.no_grad()
    def on_test_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self._write(module, clips=self.clips, name="test", with_video=True)

    def _write(self, module: pl.LightningModule, clips: int, name: str, with_video: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for clip in self.data.test_clips[:clips]:
            stem = f"{name}_{clip.replace('/', '_')}"
            panels = torch.cat(
                [_panels(*module.show(batch.to(module.device))) for batch in self.data.clip_batches(clip)]
            )
            frames = panels.cpu().numpy()
            sheet = self.folder / f"{stem}.png"
            cv2.imwrite(str(sheet), cv2.cvtColor(contact_sheet(frames), cv2.COLOR_RGB2BGR))
            paths = [sheet]
            if with_video:
                video = self.folder / f"{stem}.mp4"
                write_video(video, frames, self.data.clip_sound(clip))
                paths.append(video)
            self.written += paths
            self._to_wandb(module, name, paths)

    @staticmethod
    def _to_wandb(module: pl.LightningModule, name: str, paths: list[Path]) -> None:
        for logger in module.loggers:
            if isinstance(logger, pl.loggers.WandbLogger):
                import wandb

                key = "test" if name == "test" else "val"
                media = {f"{key}/contact_sheet": wandb.Image(str(paths[0]))}
                if len(paths) > 1:
                    media[f"{key}/preview"] = wandb.Video(str(paths[1]), format="mp4")
                logger.experiment.log(media)


def contact_sheet(panels: NDArray[np.uint8], columns: int = SHEET_COLUMNS) -> NDArray[np.uint8]:
    """Evenly spaced frames side by side, each with its panels on top of one another.

    Args:
        panels: (T, H, 3 H, 3) RGB, three panels beside one another.
    """
    chosen = panels[np.linspace(0, len(panels) - 1, min(columns, len(panels))).round().astype(int)]
    side = chosen.shape[1]
    stacked = chosen.reshape(len(chosen), side, 3, side, 3).transpose(2, 1, 0, 3, 4)
    return stacked.reshape(3 * side, len(chosen) * side, 3)


def _panels(batch: VideoBatch, rendering: Rendering) -> Tensor:
    """Target | mask + heatmap | generated, (B, PANEL, 3 PANEL, 3) uint8."""
    heatmap = rendering.heatmap.expand(-1, 3, -1, -1)
    # Zero-filled here: the generator sees noise in the box, which hides the heatmap from people.
    masked = torch.maximum(batch.target.lerp(torch.full_like(heatmap, -1.0), rendering.mask), 2 * heatmap - 1)
    row = torch.cat([batch.target, masked, rendering.frame], dim=3)
    row = torch.nn.functional.interpolate(row, size=(PANEL, 3 * PANEL), mode="bicubic", antialias=True)
    return ((row.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
