"""Flicker of a rendered clip: the warping error of Lai et al. 2018, "Learning Blind Video Temporal Consistency", §5.1.

E_warp of frame t is the mean over pixels that can be seen in both frames of ‖O_t − warp(O_{t−1})‖², colours in [0, 1],
summed over channels, averaged over pixels; a clip's score is the mean over its frames. The warp follows the optical
flow of the TRUE frames, so a rendered mouth that moves otherwise than the true one scores worse too; the truth's own
error, from noise and from what flow can't follow, is what to compare with. Chosen here: DIS flow (Kroeger et al. 2016)
instead of FlowNet2, only inside of the mouth region.

A pixel counts where forward and backward flow agree and away from motion boundaries (Ruder et al. 2016, as there).

Shape legend: T frames, H/W pixels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

# Ruder et al. 2016, Eq. 5 and 6: px², of squared flows, their disagreement and their gradients.
DISAGREEMENT, DISAGREEMENT_FLOOR = 0.01, 0.5
BOUNDARY, BOUNDARY_FLOOR = 0.01, 0.002


class ClipFlow(NamedTuple):
    """Motion of a clip.

    Attributes:
        backward: from pixels of frame t to where they were in t − 1, px (x, y), for t = 1..T−1.
        visible: pixels of frame t that can be found in t − 1.
    """

    backward: Float[Tensor, "T-1 H W 2"]
    visible: Bool[Tensor, "T-1 H W"]


def clip_flow(true: Float[Tensor, "T 3 H W"]) -> ClipFlow:
    """DIS optical flow of a clip's true frames, and where it holds.

    Args:
        true: consecutive frames in [-1, 1].

    Raises:
        ValueError: fewer than two frames, or not RGB.
    """
    if true.dim() != 4 or true.shape[1] != 3 or len(true) < 2:
        raise ValueError(f"flow needs two RGB frames or more, (T, 3, H, W), got {tuple(true.shape)}")
    grey = [
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        for frame in ((true.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    ]
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # its stub forbids to pass no initial flow
    backward = np.stack([dis.calc(now, before, None) for before, now in pairwise(grey)])
    forward = np.stack([dis.calc(before, now, None) for before, now in pairwise(grey)])
    backward_flow, forward_flow = (torch.from_numpy(flow).to(true.device) for flow in (backward, forward))
    return ClipFlow(backward_flow, _visible(backward_flow, forward_flow))


def warping_error(
    video: Float[Tensor, "T 3 H W"], flow: ClipFlow, region: Bool[Tensor, "H W"] | None = None
) -> Float[Tensor, "T-1"]:
    """E_warp of frames 1..T−1 of a clip; NaN where no pixel of the region is visible in both.

    Args:
        video: rendered (or true) frames in [-1, 1].
        flow: of the true frames, `clip_flow`.
        region: pixels that count, all by default.

    Raises:
        ValueError: the clip and its flow differ in frames or size.
    """
    if video.dim() != 4 or (len(video) - 1, *video.shape[-2:]) != flow.visible.shape:
        raise ValueError(f"the flow {tuple(flow.visible.shape)} is not of the clip {tuple(video.shape)}")
    frames = (video.float() + 1) / 2
    error = (frames[1:] - _warp(frames[:-1], flow.backward)).square().sum(1)
    counted = flow.visible if region is None else flow.visible & region
    return (error * counted).sum((1, 2)) / counted.sum((1, 2))


def _visible(backward: Float[Tensor, "N H W 2"], forward: Float[Tensor, "N H W 2"]) -> Bool[Tensor, "N H W"]:
    there = _warp(forward.permute(0, 3, 1, 2), backward).permute(0, 2, 3, 1)
    size = there.square().sum(-1) + backward.square().sum(-1)
    agree = (there + backward).square().sum(-1) <= DISAGREEMENT * size + DISAGREEMENT_FLOOR
    dy, dx = backward.diff(dim=1).square().sum(-1), backward.diff(dim=2).square().sum(-1)
    gradient = F.pad(dy, (0, 0, 0, 1)) + F.pad(dx, (0, 1))
    return agree & (gradient <= BOUNDARY * backward.square().sum(-1) + BOUNDARY_FLOOR)


def _warp(images: Float[Tensor, "N C H W"], flow: Float[Tensor, "N H W 2"]) -> Float[Tensor, "N C H W"]:
    """Values at p + flow(p), bilinear; the border is replicated."""
    height, width = images.shape[-2:]
    steps = [torch.arange(length, device=flow.device, dtype=flow.dtype) for length in (width, height)]
    points = torch.stack(torch.meshgrid(*steps, indexing="xy"), -1) + flow
    grid = (2 * points + 1) / flow.new_tensor([width, height]) - 1
    return F.grid_sample(images, grid, "bilinear", padding_mode="border", align_corners=False)
