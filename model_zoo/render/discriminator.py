"""Discriminator of the Neural Video Rendering Network, §3.3.2 of Song et al. 2020.

The paper trains with LSGAN and a gradient penalty and does not describe the network. Chosen here: PatchGAN (Isola et
al. 2017) with as many strided layers as keep a patch's receptive field within half of the crop, and without batch
normalisation, which would couple samples whose gradients are penalised one by one. It sees the generated mouth
composited into the true frame: otherwise it could win by comparing pixels outside of the box.

Shape legend: B batch, C channels, H/W pixels of the run's crop, h/w patches.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

KERNEL = 4
NARROWEST_FIELD = 7  # px, of the two last convolutions alone
MAX_WIDENING = 8
NEGATIVE_SLOPE = 0.2


def num_strided_layers(size: int) -> int:
    """How many stride-2 layers fit: each doubles the receptive field and adds 2 px (16, 34, 70, 142, ...).

    Raises:
        ValueError: not even one fits.
    """
    layers, field = 0, NARROWEST_FIELD
    while 2 * (2 * field + 2) <= size:
        layers, field = layers + 1, 2 * field + 2
    if layers == 0:
        raise ValueError(f"the discriminator needs a crop of at least 32 px, got {size}")
    return layers


class PatchDiscriminator(nn.Module):
    """Scores of overlapping patches: 1 real, 0 generated.

    Args:
        in_channels: 7 = 3 of the composited image, 1 of the heatmap, 3 of the masked frame with its box filled with
            zeros; 15 = 9 of three frames, their 3 heatmaps, 3 of the last one masked.
        size: side of the crop, px; sets the number of layers.
        width: channels after the first layer.
    """

    def __init__(self, in_channels: int = 7, size: int = 256, width: int = 64) -> None:
        super().__init__()
        self.in_channels = in_channels
        strides = [2] * num_strided_layers(size) + [1]
        widths = [width * min(2**i, MAX_WIDENING) for i in range(len(strides))]
        layers: list[nn.Module] = []
        for before, after, stride in zip([in_channels, *widths], widths, strides, strict=False):
            layers += [nn.Conv2d(before, after, KERNEL, stride, padding=1), nn.LeakyReLU(NEGATIVE_SLOPE)]
        layers.append(nn.Conv2d(widths[-1], 1, KERNEL, stride=1, padding=1))
        self.layers = nn.Sequential(*layers)
        for parameter in self.layers[:-1].parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, NEGATIVE_SLOPE)
            else:
                nn.init.zeros_(parameter)

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 h w"]:
        """Patch scores of the composited image, stacked with the heatmap and the zero-filled masked frame."""
        if not torch.compiler.is_compiling() and x_BCHW.shape[1] != self.in_channels:
            raise ValueError(f"the discriminator expects {self.in_channels} channels, got {x_BCHW.shape[1]}")
        return self.layers(x_BCHW)

    def features(self, x_BCHW: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """Maps behind each activation, from fine to coarse, and the patch scores last."""
        maps = []
        for layer in self.layers[:-1]:
            x_BCHW = layer(x_BCHW)
            if isinstance(layer, nn.LeakyReLU):
                maps.append(x_BCHW)
        return [*maps, self.layers[-1](x_BCHW)]
