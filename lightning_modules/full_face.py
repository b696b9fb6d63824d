"""The full-face variant of Table 5 of Song et al. 2020: the whole frame is generated and scored.

"Teacher-forced", the paper's reading, gives the generator six true frames before every frame. Autoregressive, it is fed
what it made itself: only the frames before a clip's first one are true.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from datamodules.batch import VideoBatch
from lightning_modules.base import Column, Row
from lightning_modules.renderer import MEAN_FRAME, OURS, VIDEO_COLUMNS, RendererModule, video_scores
from model_zoo.metrics.functional import psnr_uint8_wrapped
from model_zoo.render.frame_windows import FrameWindows

AUTOREGRESSIVE = "ours-autoregressive"
PREVIOUS_FRAME = "previous-frame"  # trivial predictor: the true frame t-1
COPY_FRAME = "copy-frame"  # trivial predictor: another frame of the same clip
WRAPPED = "PSNR_uint8_wrapped"  # what published code computed; see `psnr_uint8_wrapped`
FULL_FACE_COLUMNS = [*VIDEO_COLUMNS, WRAPPED]


class FullFaceModule(RendererModule):
    """A renderer that makes whole frames; its trivial predictors fill the whole frame too."""

    rows: ClassVar[dict[Row, list[Column]]] = {
        row: FULL_FACE_COLUMNS for row in (OURS, AUTOREGRESSIVE, MEAN_FRAME, COPY_FRAME, PREVIOUS_FRAME)
    }

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self._made: tuple[int, int, Float[Tensor, "6 3 H W"]] | None = None  # clip, frame, the last frames made of it

    def trivial(self, batch: VideoBatch) -> dict[Row, Tensor]:
        is_first = (batch.frame == 0)[:, None, None, None]  # the window repeats frame 0: it would be its own past
        previous = torch.where(is_first, batch.other_frame, batch.windows.earlier(1).last)
        return {MEAN_FRAME: batch.mean_frame, COPY_FRAME: batch.other_frame, PREVIOUS_FRAME: previous}

    @torch.no_grad()
    def continued(self, batch: VideoBatch) -> Float[Tensor, "B 3 H W"]:
        """Frames of one clip in order, each from the ones made before it, over the borders of batches."""
        frames, landmarks, made = batch.frames, batch.landmarks, []
        for index, (clip, frame) in enumerate(zip(batch.clip.tolist(), batch.frame.tolist(), strict=True)):
            past = frames[index, :-1]
            if self._made is not None and self._made[:2] == (clip, frame - 1):
                past = self._made[2]
            own = batch.cut(index, index + 1)
            window = torch.cat([past, frames[index, -1:]])[None]
            windows = FrameWindows.of(window, landmarks[index : index + 1], own.windows.reference_frames)
            made.append(self.renderer(windows, own.mouth_box, own.noise_number).frame)
            self._made = (clip, frame, torch.cat([past[1:], made[-1]]))
        return torch.cat(made)

    def score(self, batch: VideoBatch) -> None:
        self._add(batch, OURS, self.draw(batch).frame)
        for row, frame in self.trivial(batch).items():
            self._add(batch, row, frame)

    def test_step(self, batch: VideoBatch, batch_index: int) -> None:
        self.score(batch)
        self._add(batch, AUTOREGRESSIVE, self.continued(batch))  # validation leaves frames out

    def _add(self, batch: VideoBatch, row: Row, frame: Tensor) -> None:
        wrapped = psnr_uint8_wrapped(frame, batch.target)
        self.scores.update(row, video_scores(batch, frame) | {WRAPPED: wrapped}, batch.clip)
