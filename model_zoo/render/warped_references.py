"""Frames of the target's own video, moved to the landmarks that drive the mouth; beyond the paper.

Each window brings a gallery of unmasked frames of its clip along. Those whose mouth and jaw are nearest to the driving
landmarks are warped onto them. Choice and warp follow from the driving landmarks alone, so that whoever drives the
mouth, truth or speech or another clip, drives these too.

Shape legend: B windows, G frames of a gallery, K <= G chosen ones, L landmarks, H/W pixels of the run's crop.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from model_zoo.functional.heatmaps import HEATMAP_LANDMARKS
from model_zoo.functional.masks import box_mask, box_slices
from model_zoo.functional.warping import WHOLE, landmark_flow, warp
from model_zoo.render.frame_windows import FrameWindows

FIT_NOISE = 1.0  # px² at 256, mean square of a landmark's error: frames nearer than that are equally near


def nearest_references(
    gallery_BGL2: Float[Tensor, "B G 68 2"], driven_BL2: Float[Tensor, "B 68 2"], count: int
) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B K"]]:
    """The frames of each gallery whose mouth and jaw lie nearest, and their weights in a mean, which sum to 1.

    Frames with landmarks that are not finite are not there; where fewer than K are left, the nearest one stands for
    the rest with weight 0.
    """
    difference = gallery_BGL2[:, :, HEATMAP_LANDMARKS] - driven_BL2[:, None, HEATMAP_LANDMARKS]
    distance_BG = difference.square().sum(-1).mean(-1).nan_to_num(nan=torch.inf)
    near_BK, index_BK = distance_BG.topk(min(count, distance_BG.shape[1]), largest=False)
    index_BK = torch.where(near_BK.isfinite(), index_BK, index_BK[:, :1])
    weight_BK = 1 / (near_BK + FIT_NOISE)
    if missing := count - index_BK.shape[1]:
        index_BK = torch.cat([index_BK, index_BK[:, :1].expand(-1, missing)], 1)
        weight_BK = torch.cat([weight_BK, weight_BK.new_zeros(len(weight_BK), missing)], 1)
    return index_BK, weight_BK / weight_BK.sum(1, keepdim=True)


@torch.no_grad()
def warped_references(
    windows: FrameWindows, driven_BL2: Float[Tensor, "B 68 2"], box_B4: Float[Tensor, "B 4"], count: int
) -> Float[Tensor, "B K+1 3 H W"]:
    """The weighted mean of the nearest frames of each gallery, warped to the driving landmarks, then each of them.

    They show the mouth box alone, 0 elsewhere.

    Args:
        windows: with galleries and their landmarks.
        driven_BL2: of frame t, px at 256. No gradient flows into them from here.
        box_B4: mouth boxes, px at 256.
        count: K.

    Raises:
        ValueError: the windows bring no gallery.
    """
    if windows.references is None or windows.reference_landmarks is None:
        raise ValueError("the windows bring no gallery of frames with landmarks: load them with renderer.output=warped")
    index_BK, weight_BK = nearest_references(windows.reference_landmarks, driven_BL2, count)
    rows = torch.arange(len(index_BK), device=index_BK.device)[:, None]
    source = windows.reference_landmarks[rows, index_BK][:, :, HEATMAP_LANDMARKS].flatten(0, 1)
    target = driven_BL2[:, None, HEATMAP_LANDMARKS].expand(-1, count, -1, -1).flatten(0, 1)
    frames = windows.bank.frames(windows.references[rows, index_BK]).flatten(0, 1)
    size, window = windows.bank.size, WHOLE
    if box_B4.device.type == "cpu":  # elsewhere, to ask for its bounds costs more than to warp all
        window = box_slices(torch.cat([box_B4[:, :2].amin(0), box_B4[:, 2:].amax(0)]), size)
    moved = warp(frames, landmark_flow(source, target, size, window), window).clamp_(-1, 1)
    moved_BK3HW = moved.unflatten(0, (-1, count)) * box_mask(box_B4, size)[:, None, :, window[0], window[1]]
    shown_BK3HW = frames.new_zeros(len(index_BK), count + 1, 3, size, size)
    shown_BK3HW[:, 1:, :, window[0], window[1]] = moved_BK3HW
    mean_B3HW = (weight_BK[..., None, None, None] * moved_BK3HW).sum(1)
    shown_BK3HW[:, 0, :, window[0], window[1]] = mean_B3HW
    return shown_BK3HW
