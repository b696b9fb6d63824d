"""The full-face variant of Table 5 of Song et al. 2020: the whole frame t from the six before it.

The paper takes the RGB frame and the heatmap of time t away from the generator's input, which leaves 24 channels, and
has it generate the complete frame. What remains is masked as ever, so nothing says what the mouth does at t but the
landmarks up to t-1.

Shape legend: B batch, T = 7 frames, L landmarks, H/W pixels of the run's crop.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from model_zoo.functional.heatmaps import landmark_heatmap
from model_zoo.render.frame_windows import FrameWindows
from model_zoo.render.mouth_renderer import MouthRenderer, Rendering


class FullFaceRenderer(MouthRenderer):
    """Generates frame t from masked frames and heatmaps of t-6..t-1.

    Args:
        generator: maps 24 channels (6 RGB, then 6 heatmaps) to RGB, and 3 for each reference frame.
        dtype: arithmetic of the generator; everything around it stays in float32.
    """

    def forward(
        self,
        windows: FrameWindows,
        mouth_box_B4: Float[Tensor, "B 4"],
        noise_B: Int[Tensor, "B"],
        landmarks_BTL2: Float[Tensor, "B T 68 2"] | None = None,
    ) -> Rendering:
        """Generate frame t; all of the frame is the generator's. The heatmap is the last one that it was given.

        Args:
            windows: crops t-6..t; the last is not looked at.
            mouth_box_B4: x0, y0, x1, y1, px at 256.
            noise_B: numbers of the noise fields that fill the boxes.
            landmarks_BTL2: of t-6..t, px at 256; gradients flow through them. None: the frames' own.
        """
        size, before = windows.bank.size, replace(windows, rows=windows.rows[:, :-1])
        if landmarks_BTL2 is None:
            landmarks_BTL2 = windows.bank.landmarks[windows.rows]
        heatmaps_BTHW = landmark_heatmap(landmarks_BTL2[:, :-1], size).squeeze(2)
        frame_B3HW = self.generate(before.stack(mouth_box_B4, noise_B, self.dtype, heatmaps_BTHW))
        return Rendering(frame_B3HW, torch.ones_like(frame_B3HW[:, :1]), heatmaps_BTHW[:, -1:])
