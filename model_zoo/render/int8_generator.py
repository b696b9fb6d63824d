"""The generator in 8-bit integers, for CPUs with VNNI or AMX: the convolutions of oneDNN, own loops in between.

Every convolution takes bytes and has weights of 8 bits with a scale per output channel. Activations have a scale per
CHANNEL, which costs nothing: it goes into the weights of the convolution that reads them. It is also how the two halves
of a skip connection are joined without being rescaled. Sums and LeakyReLU are taken in bfloat16. Scales are calibrated
on example stacks.

A transposed 4×4 convolution with stride 2 is a 2×2 convolution with four times the output channels, one set for each of
the four phases of its output pixels.

Shape legend: B batch, C channels, H/W pixels, N pixels of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from model_zoo.render import int8_kernels as kernels
from model_zoo.render.generator import Down, UNetGenerator, Up
from model_zoo.render.layers import BlendOutput, ReferenceOutput, TanhOutput

INPUT_SCALE, INPUT_ZERO = 2 / 255, 128  # one grey level
CHANNEL_BLOCK = 4  # bytes that one VNNI instruction multiplies; the input is padded to a multiple
SHARED_FROM = 2**16  # values of a map that more than one thread works on
HEADROOM = 1.2  # of the calibrated range, for what calibration has not seen
FLOOR = 1e-3  # of a map's largest range: no channel's range is smaller


class _Convolution:
    """An integer convolution with packed weights, bytes to bfloat16.

    Args:
        weight: (out, in, k, k) float32, the scales of the input's channels not yet in it. bias: (out,).
        scales: (in,) of the input's channels. zero: byte of 0 in the input.
        shape: (B, in, H, W) of the input.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, scales: Tensor, zero: int, stride: int, padding: int, shape: tuple
    ) -> None:
        scaled = weight * scales[:, None, None]
        self.scale = scaled.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
        quantised = (scaled / self.scale[:, None, None, None]).round().to(torch.int8)
        self.zero, self.stride, self.padding, self.bias = zero, [stride] * 2, [padding] * 2, bias
        self.weight = torch.ops.onednn.qconv_prepack(
            quantised, self.scale, 1.0, zero, self.stride, self.padding, [1, 1], 1, list(shape)
        )
        self.weight_zero = torch.zeros(len(weight), dtype=torch.int64)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.ops.onednn.qconv2d_pointwise(
            x, 1.0, self.zero, self.weight, self.scale, self.weight_zero, self.bias, self.stride, self.padding,
            [1, 1], 1, 1.0, 0, torch.bfloat16, "none", [], "",
        )  # fmt: skip


class Int8Generator:
    """A trained generator in integers; called as the generator is, on the CPU, without gradients.

    Args:
        generator: without normalisation, and with the default layers; it may add to reference frames.
        calibration: example stacks, such as a batch of training frames; 4 or more.

    Raises:
        ValueError: the generator has layers that are not the default ones, or the examples are not its input.
    """

    def __init__(self, generator: UNetGenerator, calibration: Float[Tensor, "B C H W"]) -> None:
        if not supports(generator):
            raise ValueError("only the default generator, without normalisation, is offered in 8 bits")
        self.generator = generator
        self.size, self.in_channels = generator.size, generator.in_channels
        self.ranges = _calibrate(generator, calibration.float())
        self.workspaces: dict[int, _Workspace] = {}

    @torch.inference_mode()
    def __call__(self, stack: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 H W"]:
        """The last frame, float32 in [-1, 1]."""
        if stack.shape[1:] != (self.in_channels, self.size, self.size):
            expected = (self.in_channels, self.size, self.size)
            raise ValueError(f"the generator expects (B, {', '.join(map(str, expected))}), got {tuple(stack.shape)}")
        if len(stack) not in self.workspaces:  # packed weights and buffers depend on the size of the batch
            self.workspaces = {len(stack): _Workspace(self.generator, self.ranges, len(stack))}
        return self.workspaces[len(stack)](stack)


def supports(generator: nn.Module) -> bool:
    """Whether a generator has the default layers alone; it may add to reference frames."""
    return (
        isinstance(generator, UNetGenerator)
        and isinstance(generator.output, TanhOutput | ReferenceOutput | BlendOutput)
        and isinstance(generator.to_rgb, nn.ConvTranspose2d)
        and all(isinstance(layer, nn.Identity) for layer in generator.attention)
        and all(isinstance(level.norm, nn.Identity) for level in [*generator.down, *generator.up])
        and all(isinstance(level.convolution, nn.Conv2d) for level in generator.down)
        and all(isinstance(level.convolution, nn.ConvTranspose2d) for level in generator.up)
        and all(isinstance(level, Up) and isinstance(level.refine[0], nn.Conv2d) for level in generator.up)
    )


class _DownLevel(NamedTuple):
    """A convolution and the bytes behind its activation."""

    convolution: _Convolution
    out: Tensor


class _UpLevel(NamedTuple):
    """The convolutions of a level; its maps as they are, activated, and between the two 3×3 convolutions."""

    expand: _Convolution
    first: _Convolution
    second: _Convolution
    values: np.ndarray
    activated: Tensor
    between: Tensor


class _Workspace:
    """Packed convolutions, factors and buffers for one size of batch."""

    def __init__(self, generator: UNetGenerator, ranges: dict[str, Tensor], batch: int) -> None:
        depth, size, zero = len(generator.down), generator.size, kernels.ZERO
        self.batch, self.size, self.output = batch, size, generator.output
        self.factors = {name: (1 / scale).numpy() for name, scale in ranges.items()}
        padded = -(-generator.in_channels // CHANNEL_BLOCK) * CHANNEL_BLOCK
        self.input = _bytes(batch, size, padded, INPUT_ZERO)
        self.down: list[_DownLevel] = []
        self.up: list[_UpLevel] = []
        self.joined: list[Tensor] = []  # (up, skip) at size / 2, size / 4, ...
        scales = torch.full((padded,), INPUT_SCALE)
        for i, level in enumerate(generator.down):
            weight, bias = _parameters(level.convolution)
            weight = F.pad(weight, (0, 0, 0, 0, 0, len(scales) - weight.shape[1]))
            shape = (batch, len(scales), size >> i, size >> i)
            convolution = _Convolution(weight, bias, scales, INPUT_ZERO if i == 0 else zero, 2, 1, shape)
            scales = ranges[f"down{i}"]
            self.down.append(_DownLevel(convolution, _bytes(batch, size >> (i + 1), len(scales))))
            if i < depth - 1:
                self.joined.append(_bytes(batch, size >> (i + 1), 2 * len(scales)))
        for i, level in enumerate(generator.up):
            assert isinstance(level, Up)
            side = size >> (depth - i)  # of the input
            expand = _Convolution(*_phases(level.convolution), scales, zero, 1, 1, (batch, len(scales), side, side))
            inner, channels = ranges[f"up{i}.x"], len(ranges[f"up{i}.x"])
            shape, between = (batch, channels, 2 * side, 2 * side), ranges[f"up{i}.refine"]
            first = _Convolution(*_parameters(level.refine[0]), inner, zero, 1, 1, shape)
            second = _Convolution(*_parameters(level.refine[2]), between, zero, 1, 1, shape)
            values = np.empty((batch, 2 * side, 2 * side, channels), np.uint16)
            buffers = (_bytes(batch, 2 * side, channels) for _ in range(2))
            self.up.append(_UpLevel(expand, first, second, values, *buffers))
            scales = torch.cat([ranges[f"up{i}"], ranges[f"down{depth - 2 - i}"]])
        shape = (batch, len(scales), size // 2, size // 2)
        self.to_rgb = _Convolution(*_phases(generator.to_rgb), scales, zero, 1, 1, shape)

    def __call__(self, stack: Tensor) -> Tensor:
        factors, share = self.factors, self._share
        stack, unit = stack.float(), (np.float32(1 / INPUT_SCALE), np.float32(INPUT_ZERO))
        if stack.is_contiguous(memory_format=torch.channels_last):
            values = stack.permute(0, 2, 3, 1).flatten(0, 2).numpy()
            share(kernels.quantise_pixels, len(values), values, *unit, _pixels(self.input))
        else:
            planes = stack.contiguous().flatten(2).numpy()
            blocks = -(-planes.shape[2] // kernels.PLANE_BLOCK) * self.batch
            share(
                kernels.quantise_planes,
                blocks,
                planes,
                *unit,
                _pixels(self.input).reshape(self.batch, self.size**2, -1),
            )
        x = self.input
        for i, (convolution, out) in enumerate(self.down):
            values = _halves(convolution(x))
            if i < len(self.joined):
                joined = _pixels(self.joined[i])
                share(kernels.activate_twice, len(values), values, factors[f"down{i}"], _pixels(out), joined)
            else:
                share(kernels.activate, len(values), values, factors[f"down{i}"], _pixels(out))
            x = out
        for i, level in enumerate(self.up):
            phases = level.expand(x).permute(0, 2, 3, 1).contiguous().view(torch.uint16).numpy()
            maps, rows = (level.values, level.activated.permute(0, 2, 3, 1).numpy()), self.size >> (len(self.up) - i)
            share(kernels.unfold_phases, self.batch * rows, phases, factors[f"up{i}.x"], *maps)
            between = _halves(level.first(level.activated))
            share(kernels.activate, len(between), between, factors[f"up{i}.refine"], _pixels(level.between))
            x = self.joined[len(self.up) - 1 - i]
            values, residual = level.values.reshape(len(between), -1), _halves(level.second(level.between))
            share(kernels.activate_sum, len(values), values, residual, factors[f"up{i}"], _pixels(x))
        count, half = self.output.features, self.size // 2
        phases = self.to_rgb(x).unflatten(1, (2, 2, count))  # (B, 2, 2, count, H/2 + 1, W/2 + 1)
        features = torch.empty(self.batch, count, self.size, self.size)
        for a in range(2):
            for b in range(2):
                features[:, :, a::2, b::2] = phases[:, a, b, :, a : a + half, b : b + half]
        return self.output(features, stack)

    def _share(self, kernel: Callable[..., None], length: int, values: np.ndarray, *rest: object) -> None:
        """Run a kernel over its rows, on as many threads as torch uses where it is worth it."""
        threads = torch.get_num_threads() if values.size > SHARED_FROM else 1
        if threads == 1:
            kernel(0, length, values, *rest)
            return
        ends = [length * part // threads for part in range(threads + 1)]
        with ThreadPoolExecutor(threads - 1) as pool:
            others = [pool.submit(kernel, *pair, values, *rest) for pair in pairwise(ends[:-1])]
            kernel(*ends[-2:], values, *rest)
            for other in others:
                other.result()


def _parameters(layer: nn.Module | Tensor) -> tuple[Tensor, Tensor]:
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    return layer.weight, layer.bias


def _phases(convolution: nn.Module) -> tuple[Tensor, Tensor]:
    """A transposed 4×4 convolution with stride 2 and padding 1 as a 2×2 one with padding 1: (4 out, in, 2, 2).

    Output row 2y + a sums input rows y + a − 1 and y + a with kernel rows 3 − a and 1 − a.
    """
    assert isinstance(convolution, nn.ConvTranspose2d)
    assert convolution.bias is not None
    weight = convolution.weight.transpose(0, 1)  # (out, in, 4, 4)
    picked = [weight[:, :, [3 - a, 1 - a]][..., [3 - b, 1 - b]] for a in range(2) for b in range(2)]
    return torch.cat(picked), convolution.bias.repeat(4)


@torch.inference_mode()
def _calibrate(generator: UNetGenerator, stacks: Tensor) -> dict[str, Tensor]:
    """Scale (C,) of every activation that is turned to bytes."""
    scales: dict[str, Tensor] = {}

    def watch(name: str, module: nn.Module, of_input: bool) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            scales[name] = _scale(inputs[0] if of_input else output)

        handles.append(module.register_forward_hook(hook))

    handles: list = []
    try:
        for i, level in enumerate(generator.down):
            assert isinstance(level, Down)
            watch(f"down{i}", level, of_input=False)
        for i, level in enumerate(generator.up):
            assert isinstance(level, Up)
            watch(f"up{i}.x", level.refine, of_input=True)
            watch(f"up{i}.refine", level.refine[1], of_input=False)
            watch(f"up{i}", level, of_input=False)
        generator(stacks)
    finally:
        for handle in handles:
            handle.remove()
    return scales


def _scale(values: Float[Tensor, "B C H W"]) -> Float[Tensor, "C"]:
    """Of a byte's step, so that the range of each channel fits above and below the zero."""
    flat = values.float().transpose(0, 1).flatten(1)
    above, below = flat.amax(1) / (255 - kernels.ZERO), -flat.amin(1) / kernels.ZERO
    scale = torch.maximum(above, below) * HEADROOM
    return scale.clamp_min(FLOOR * float(scale.amax().clamp_min(1e-6))).contiguous()


def _bytes(batch: int, side: int, channels: int, fill: int = kernels.ZERO) -> Tensor:
    """A channels-last map (B, C, H, W) of bytes."""
    return torch.full((batch, side, side, channels), fill, dtype=torch.uint8).permute(0, 3, 1, 2)


def _pixels(x: Tensor) -> np.ndarray:
    """The (N, C) view of a channels-last map of bytes."""
    return x.permute(0, 2, 3, 1).flatten(0, 2).numpy()


def _halves(x: Tensor) -> np.ndarray:
    """The (N, C) bits of a bfloat16 map."""
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(0, 2).view(torch.uint16).numpy()
