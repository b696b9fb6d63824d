"""Pictures moved so that their landmarks come to lie on other landmarks.

The displacement between two sets of landmarks is spread over the picture by Gaussian radial basis functions with a
ridge (Arad et al. 1994), which vanish away from the landmarks: what is not driven stays where it is. A Gaussian is
separable, so that the field is two matrix products.

Shape legend: B pictures, C channels, L landmarks, S side of the run's crop, H/W pixels of a window of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from model_zoo.functional.heatmaps import CROP_UNITS

REACH = 16.0  # px at 256, the Gaussian's deviation: about the distance between neighbours on the lips and the jaw
Window = tuple[slice, slice]  # rows and columns of a crop
WHOLE = (slice(None), slice(None))
RIDGE = 0.1  # of the Gaussian's height: landmarks that contradict one another are averaged


def landmark_flow(
    source_BL2: Float[Tensor, "B L 2"], target_BL2: Float[Tensor, "B L 2"], size: int, window: Window = WHOLE
) -> Float[Tensor, "B H W 2"]:
    """Where each pixel of the moved picture comes from, less where it is: (x, y) in px of a crop of that size.

    Args:
        source_BL2: landmarks of the picture that is moved, px at 256.
        target_BL2: where they come to lie, px at 256.
        size: side of the crop, px.
        window: the part of it that is wanted.
    """
    displacement_BL2 = source_BL2 - target_BL2
    kernel_BLL = torch.exp(-(target_BL2[:, :, None] - target_BL2[:, None]).square().sum(-1) / (2 * REACH**2))
    ridge_LL = RIDGE * torch.eye(kernel_BLL.shape[-1], dtype=kernel_BLL.dtype, device=kernel_BLL.device)
    weight_BL2 = torch.linalg.solve(kernel_BLL + ridge_LL, displacement_BL2)
    scale = CROP_UNITS / size
    pixel_S = (torch.arange(size, dtype=target_BL2.dtype, device=target_BL2.device) + 0.5) * scale - 0.5
    along_BL2S = torch.exp(-(target_BL2[..., None] - pixel_S).square() / (2 * REACH**2))
    down_BHL, across_BLW = along_BL2S[:, :, 1, window[0]].mT, along_BL2S[:, :, 0, window[1]]
    field = [down_BHL @ (weight_BL2[..., axis, None] * across_BLW) for axis in range(2)]
    return torch.stack(field, -1) / scale


def warp(
    picture_BCSS: Float[Tensor, "B C S S"], flow_BHW2: Float[Tensor, "B H W 2"], window: Window = WHOLE
) -> Float[Tensor, "B C H W"]:
    """The picture at x + flow(x), bicubic, so that it is no softer than it was; what lies outside is reflected.

    Args:
        picture_BCSS: whole crops.
        flow_BHW2: px of the crop.
        window: the part of it that the flow covers.
    """
    size = picture_BCSS.shape[-1]
    place_S = torch.arange(size, dtype=flow_BHW2.dtype, device=flow_BHW2.device)
    place_HW2 = torch.stack(torch.meshgrid(place_S[window[1]], place_S[window[0]], indexing="xy"), -1)
    grid_BHW2 = 2 * (place_HW2 + flow_BHW2) / (size - 1) - 1
    return F.grid_sample(picture_BCSS, grid_BHW2, mode="bicubic", padding_mode="reflection", align_corners=True)
