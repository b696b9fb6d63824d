"""The Neural Video Rendering Network with its input and output, §3.3.1 of Song et al. 2020.

Seven frames whose mouth box is filled with noise, and the heatmaps of their landmarks, go in; the last frame with its
box completed comes out. Pixels outside the box are given, so the generated box is pasted into the true frame before
anything looks at it: losses, discriminator and scores see what a viewer would.

Windows may bring reference frames of the same person along, which are stacked behind the heatmaps, as they are or
warped to the driving landmarks.

Shape legend: B batch, T = 7 frames, L landmarks, H/W pixels of the run's crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model_zoo.functional.heatmaps import landmark_heatmap
from model_zoo.functional.masks import box_mask
from model_zoo.render.frame_windows import FrameWindows
from model_zoo.render.generator import UNetGenerator
from model_zoo.render.warped_references import warped_references


@dataclass(frozen=True)
class Rendering:
    """The last frame of each sample.

    Attributes:
        frame: the true frame with the generated mouth box, in [-1, 1].
        mask: 1 inside the mouth box, 0 outside.
        heatmap: of the landmarks that drove it, in [0, 1].
        base: the true frame with what the generator added to in its box, where that is the mean of warped frames.
    """

    frame: Float[Tensor, "B 3 H W"]
    mask: Float[Tensor, "B 1 H W"]
    heatmap: Float[Tensor, "B 1 H W"]
    base: Float[Tensor, "B 3 H W"] | None = None


class MouthRenderer(nn.Module):
    """Completes the mouth box of frame t from seven masked frames and seven heatmaps.

    Args:
        generator: maps 28 channels (7 RGB, then 7 heatmaps) to RGB, and 3 for each reference frame.
        dtype: arithmetic of the generator; everything around it stays in float32.
        warped: so many frames of the windows' galleries are warped to the driving landmarks, and their mean is shown
            before them; 0: reference frames are shown as they are.
    """

    def __init__(self, generator: UNetGenerator, dtype: torch.dtype = torch.float32, warped: int = 0) -> None:
        super().__init__()
        self.generator = generator.to(memory_format=torch.channels_last)
        self.dtype = dtype
        self.warped = warped

    def forward(
        self,
        windows: FrameWindows,
        mouth_box_B4: Float[Tensor, "B 4"],
        noise_B: Int[Tensor, "B"],
        landmarks_BTL2: Float[Tensor, "B T 68 2"] | None = None,
    ) -> Rendering:
        """Render frame t.

        Args:
            windows: crops t-6..t.
            mouth_box_B4: x0, y0, x1, y1, px at 256.
            noise_B: numbers of the noise fields that fill the boxes.
            landmarks_BTL2: that drive the mouth, px at 256; gradients flow through them. None: the frames' own.
        """
        size = windows.bank.size
        heatmaps_BTHW = None if landmarks_BTL2 is None else landmark_heatmap(landmarks_BTL2, size).squeeze(2)
        shown_BQ3HW = self.shown(windows, mouth_box_B4, landmarks_BTL2)
        stack = windows.stack(mouth_box_B4, noise_B, self.dtype, heatmaps_BTHW, shown_BQ3HW=shown_BQ3HW)
        generated_B3HW = self.generate(stack)
        real_B3HW = windows.last
        mask_B1HW = box_mask(mouth_box_B4, size).to(real_B3HW.dtype)
        frame_B3HW = torch.lerp(real_B3HW, generated_B3HW, mask_B1HW)
        base_B3HW = None if shown_BQ3HW is None else torch.lerp(real_B3HW, shown_BQ3HW[:, 0], mask_B1HW)
        if heatmaps_BTHW is None:  # not that of the stack, which may be rounded
            heatmap_B1HW = landmark_heatmap(windows.bank.landmarks[windows.rows[:, -1]], size)
        else:
            heatmap_B1HW = heatmaps_BTHW[:, -1:]
        return Rendering(frame_B3HW, mask_B1HW, heatmap_B1HW, base_B3HW)

    def shown(
        self,
        windows: FrameWindows,
        mouth_box_B4: Float[Tensor, "B 4"],
        landmarks_BTL2: Float[Tensor, "B T 68 2"] | None = None,
    ) -> Float[Tensor, "B Q 3 H W"] | None:
        """What stands in the place of the reference frames: the warped ones and their mean; None: they as they are."""
        if not self.warped:
            return None
        driven_BTL2 = windows.bank.landmarks[windows.rows] if landmarks_BTL2 is None else landmarks_BTL2
        return warped_references(windows, driven_BTL2[:, -1], mouth_box_B4, self.warped)

    def stack(
        self, windows: FrameWindows, mouth_box_B4: Float[Tensor, "B 4"], noise_B: Int[Tensor, "B"]
    ) -> Float[Tensor, "B C H W"]:
        """What the generator is fed from the frames' own landmarks; arguments as `forward`."""
        shown_BQ3HW = self.shown(windows, mouth_box_B4)
        return windows.stack(mouth_box_B4, noise_B, self.dtype, shown_BQ3HW=shown_BQ3HW)

    def generate(self, stack_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 H W"]:
        """What the generator makes of its input, float32."""
        with torch.autocast(stack_BCHW.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.generator(stack_BCHW.contiguous(memory_format=torch.channels_last)).float()
