"""Building blocks of the generator, the alternatives among them: each is passed to `UNetGenerator` as it is.

Chosen where the paper is silent: gated convolutions (Yu et al. 2019, the paper's [59]), up-sampling followed by a
convolution (Odena et al. 2016, against checkerboards), self-attention on the 32-px map (Zhang et al. 2019).

Shape legend: B batch, C channels, H/W pixels, D channels of an attention head.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NEGATIVE_SLOPE = 0.2
OPEN_GATE = 2.0  # bias of a gate: it starts at sigmoid(2) = 0.88
HEAD_CHANNELS = 64


class Convolution(Protocol):
    """What makes the generator's convolutions: `nn.Conv2d` or `GatedConv2d`."""

    def __call__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> nn.Module: ...


class UpConvolution(Protocol):
    """What makes the layers that double the resolution: `transposed_convolution` or `UpsampleConvolution`."""

    def __call__(self, in_channels: int, out_channels: int) -> nn.Module: ...


def transposed_convolution(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """4×4 with stride 2, as in pix2pix."""
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1)


class UpsampleConvolution(nn.Module):
    """Bilinear up-sampling, then a 3×3 convolution: every output pixel is made alike, so no checkerboard can arise.

    Args:
        in_channels, out_channels: C before and after.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 2H 2W"]:
        return self.convolution(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))


class GatedConv2d(nn.Module):
    """A convolution whose output is multiplied by learned gates, so that noise in the box need not pass.

    The activation may follow the gate: LeakyReLU(f)·σ(g) = LeakyReLU(f·σ(g)), as σ is positive.

    Args: those of `nn.Conv2d`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.features = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)
        self.gate = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return self.features(x) * self.gate(x).sigmoid()


class SelfAttention(nn.Module):
    """Every pixel looks at every other, around which the map is passed; starts as the identity.

    Args:
        channels: C; heads have 64 or all of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD_CHANNELS)
        if channels % self.heads:
            raise ValueError(f"attention needs a multiple of {HEAD_CHANNELS} channels or fewer, got {channels}")
        self.norm = nn.GroupNorm(1, channels)
        self.queries_keys_values = nn.Conv2d(channels, 3 * channels, 1)
        self.output = nn.Conv2d(channels, channels, 1)
        initialise(self.queries_keys_values, gain=1.0)
        zero(self.output)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        qkv = (
            self.queries_keys_values(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1))
        )  # (B, 3, heads, D, HW)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(x.shape)
        return x + self.output(attended.contiguous(memory_format=torch.channels_last))


class TanhOutput(nn.Module):
    """The whole image from the features: tanh."""

    features = 3  # that the generator's last convolution makes

    def forward(self, features: Float[Tensor, "B 3 H W"], _: Tensor) -> Float[Tensor, "B 3 H W"]:
        return features.float().tanh()


class ReferenceOutput(nn.Module):
    """What differs from a reference frame of the same person: it starts as that frame.

    In training the sum may leave [-1, 1]: clamped pixels have no gradient and would never come back.

    Args:
        channel: first of the reference's three RGB channels in the generator's input, 28 where it is stacked behind
            7 frames and 7 heatmaps.
    """

    features = 3

    def __init__(self, channel: int = 28) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, features: Float[Tensor, "B 3 H W"], x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 H W"]:
        if not torch.compiler.is_compiling() and x.shape[1] < self.channel + 3:
            raise ValueError(
                f"the reference frame is expected in input channels {self.channel} to {self.channel + 2}, got "
                f"{x.shape[1]} channels: stack it behind frames and heatmaps, and raise in_channels by 3"
            )
        reference = x[:, self.channel : self.channel + 3].float()
        frame = reference + 2 * features.float().tanh()  # from any value any other can be reached
        return frame if self.training else frame.clamp(-1, 1)


class BlendOutput(nn.Module):
    """Added to the mean of K warped frames of the same person: shares of what differs in each, and new colours.

    Nearly the mean at the start; as in `ReferenceOutput`, the sum is clamped in evaluation alone.

    Args:
        channel: first of the mean's three RGB channels in the generator's input; the K frames follow.
        count: K.
    """

    def __init__(self, channel: int = 28, count: int = 4) -> None:
        super().__init__()
        self.channel, self.count = channel, count
        self.features = 3 + count

    def forward(self, features: Float[Tensor, "B 3+K H W"], x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 H W"]:
        if not torch.compiler.is_compiling() and x.shape[1] < self.channel + 3 * (self.count + 1):
            raise ValueError(
                f"a mean and {self.count} frames are expected in the input from channel {self.channel} on, got "
                f"{x.shape[1]} channels: stack them behind frames and heatmaps, and raise in_channels"
            )
        shown = x[:, self.channel : self.channel + 3 * (self.count + 1)].float().unflatten(1, (self.count + 1, 3))
        mean, frames = shown[:, 0], shown[:, 1:]
        colours, shares = features.float().split([3, self.count], dim=1)
        frame = mean + (shares[:, :, None] * (frames - mean[:, None])).sum(1) + 2 * colours.tanh()
        return frame if self.training else frame.clamp(-1, 1)


def initialise(module: nn.Module, gain: float | None = None) -> None:
    """Kaiming initialisation by the number of inputs that an output pixel really sees."""
    if isinstance(module, UpsampleConvolution):
        initialise(module.convolution, gain)
    elif isinstance(module, GatedConv2d):
        initialise(module.features, gain)
        nn.init.normal_(module.gate.weight, std=0.1 / math.sqrt(module.gate.weight[0].numel()))
        assert module.gate.bias is not None
        nn.init.constant_(module.gate.bias, OPEN_GATE)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        gain = nn.init.calculate_gain("leaky_relu", NEGATIVE_SLOPE) if gain is None else gain
        taps = module.kernel_size[0] * module.kernel_size[1]
        if isinstance(module, nn.ConvTranspose2d):
            taps //= module.stride[0] * module.stride[1]
        nn.init.normal_(module.weight, std=gain / math.sqrt(module.in_channels * taps))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    else:
        raise TypeError(f"no initialisation is known for {type(module).__name__}")


def zero(module: nn.Module) -> None:
    """Make a convolution's output zero; gates stay open, so that gradients reach what they multiply."""
    for parameter in (module.features if isinstance(module, GatedConv2d) else module).parameters():
        nn.init.zeros_(parameter)
