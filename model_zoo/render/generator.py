"""Generator of the Neural Video Rendering Network, §3.3.1 of Song et al. 2020.

The paper modifies "a Unet-based network", of 75 million parameters (Table 3), fed with 7 masked RGB frames and their
heatmaps.
Chosen here: the unet_256 of pix2pix (Isola et al. 2017) with two 3×3 convolutions after each of the first seven
up-convolutions, which makes 74.9 M. They form a residual branch that starts at zero, so that training starts from the
plain U-Net. No normalisation by default: batch normalisation couples the samples of a batch. Smaller crops have fewer
levels, down to a bottleneck of one pixel. Alternatives to each part are in `layers`, and are passed as arguments.

Shape legend: B batch, C channels, H/W pixels of the run's crop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from model_zoo.render.layers import (
    NEGATIVE_SLOPE,
    Convolution,
    TanhOutput,
    UpConvolution,
    initialise,
    transposed_convolution,
    zero,
)

MULTIPLIERS = (1, 2, 4, 8, 8, 8, 8, 8)  # of the width, at 1/2, 1/4, ... of the crop
KERNEL = 4  # of strided convolutions
GROUP_CHANNELS = 16  # per group of the normalisation
OUTPUT_GAIN = 0.1  # tanh starts in its linear range
ATTENTION_SIZE = 32  # px of the map that attends
Norm = Literal["none", "group"]


class UNetGenerator(nn.Module):
    """Masked frames and heatmaps to the complete last frame, in [-1, 1].

    Args:
        in_channels: 28 = 7 RGB frames and 7 heatmaps; 24 without those of the last frame (Table 5).
        size: side of the crop, px, a power of two from 8 to 256.
        width: channels at half the crop; 64 as published.
        norm: 'none' or 'group'.
        convolution: makes all other convolutions, `nn.Conv2d` or `layers.GatedConv2d`.
        up_convolution: makes what doubles the resolution, `layers.transposed_convolution` or
            `layers.UpsampleConvolution`.
        attention: makes a layer of C channels for the 32-px map on the way up (that of half the crop where this is
            smaller), `layers.SelfAttention`; none by default.
        output: features and the network's input to the image, `layers.TanhOutput`, `ReferenceOutput` or `BlendOutput`.

    Raises:
        ValueError: a size or norm that is not offered.
    """

    def __init__(
        self,
        in_channels: int = 28,
        size: int = 256,
        width: int = 64,
        norm: Norm = "none",
        convolution: Convolution = nn.Conv2d,
        up_convolution: UpConvolution = transposed_convolution,
        attention: Callable[[int], nn.Module] | None = None,
        output: nn.Module | None = None,
    ) -> None:
        super().__init__()
        depth = int(math.log2(size))
        if 2**depth != size or not 3 <= depth <= len(MULTIPLIERS):
            raise ValueError(f"the crop's side must be a power of two from 8 to 256, got {size}")
        if norm not in ("none", "group"):
            raise ValueError(f"norm of the generator must be 'none' or 'group', got {norm!r}")
        self.in_channels, self.size = in_channels, size
        widths = [width * multiplier for multiplier in MULTIPLIERS[:depth]]
        inputs = [in_channels, *widths[:-1]]
        # Neither the outermost layers nor the one-pixel bottleneck are normalised, as in pix2pix.
        norms = ["none", *[norm] * (depth - 2), "none"]
        self.down = nn.ModuleList(Down(*sizes, convolution) for sizes in zip(inputs, widths, norms, strict=True))
        # From the bottleneck outwards; each but the first also takes the skip connection of its level.
        skips = [*widths[:-1], 0]
        levels = range(depth - 1, 0, -1)
        self.up = nn.ModuleList(
            Up(widths[i] + skips[i], widths[i - 1], norm, convolution, up_convolution) for i in levels
        )
        self.output = TanhOutput() if output is None else output
        self.to_rgb = up_convolution(widths[0] + skips[0], self.output.features)
        initialise(self.to_rgb, OUTPUT_GAIN)
        self.attention = nn.ModuleList(nn.Identity() for _ in levels)
        if attention is not None:
            level = int(math.log2(min(ATTENTION_SIZE, size // 2))) - 1  # the first map on the way up has 2 px
            self.attention[level] = attention(widths[depth - 2 - level])
        self.to(memory_format=torch.channels_last)

    def forward(self, x_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 H W"]:
        """The last frame, float32 in [-1, 1]."""
        expected = (self.in_channels, self.size, self.size)
        if not torch.compiler.is_compiling() and x_BCHW.shape[1:] != expected:
            raise ValueError(f"the generator expects (B, {', '.join(map(str, expected))}), got {tuple(x_BCHW.shape)}")
        x_BCHW = stack_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        skips = []
        for down in self.down:
            x_BCHW = down(x_BCHW)
            skips.append(x_BCHW)
        x_BCHW = skips.pop()
        for up, attention in zip(self.up, self.attention, strict=True):
            x_BCHW = torch.cat([attention(up(x_BCHW)), skips.pop()], dim=1)
        return self.output(self.to_rgb(x_BCHW), stack_BCHW)


class Down(nn.Module):
    """Strided convolution, normalisation, LeakyReLU: half the resolution.

    Args:
        in_channels, out_channels: C before and after.
        norm: 'none' or 'group'.
        convolution: makes the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, convolution: Convolution = nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution(in_channels, out_channels, KERNEL, stride=2, padding=1)
        self.norm = _normalisation(norm, out_channels)
        self.activation = nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)
        initialise(self.convolution)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.convolution(x)))


class Up(nn.Module):
    """Strided up-convolution and two 3×3 convolutions around which it is passed: twice the resolution.

    Args:
        in_channels, out_channels: C before and after.
        norm: 'none' or 'group'.
        convolution: makes the 3×3 convolutions. up_convolution: makes what doubles the resolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: Norm,
        convolution: Convolution = nn.Conv2d,
        up_convolution: UpConvolution = transposed_convolution,
    ) -> None:
        super().__init__()
        self.convolution = up_convolution(in_channels, out_channels)
        self.norm = _normalisation(norm, out_channels)
        self.activation = nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)
        first, second = (convolution(out_channels, out_channels, 3, padding=1) for _ in range(2))
        self.refine = nn.Sequential(first, nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True), second)
        initialise(self.convolution)
        initialise(first)
        zero(second)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.convolution(x))
        return self.activation(x + self.refine(F.leaky_relu(x, NEGATIVE_SLOPE)))


def _normalisation(norm: Norm, channels: int) -> nn.Module:
    return (
        nn.GroupNorm(math.gcd(channels, max(1, channels // GROUP_CHANNELS)), channels)
        if norm == "group"
        else nn.Identity()
    )
