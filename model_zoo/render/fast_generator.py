"""The trained generator at its fastest on the machine at hand, and as a file for other programs.

Chosen by measuring (tests/benchmarks/test_generator.py): on a CPU that multiplies bytes (VNNI, AMX), integers by
`Int8Generator`; else bfloat16 weights, channels-last. In bfloat16 the convolutions take 93% of the time and run as fast
as a matrix product of the same size, so a frozen or compiled graph has little to win, and torch.compile needs a C++
compiler where it runs.

Shape legend: B batch, C channels, H/W pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from model_zoo.render.generator import UNetGenerator
from model_zoo.render.int8_generator import Int8Generator, supports

Generator = Callable[[Float[Tensor, "B C H W"]], Float[Tensor, "B 3 H W"]]


def fast_generator(generator: UNetGenerator, calibration: Float[Tensor, "B C H W"] | None = None) -> Generator:
    """A callable like the trained generator, for inference alone; the generator itself is left as it is.

    Args:
        generator: in any mode, on the device where it will run.
        calibration: example stacks, such as a training batch. With them, and where layers and CPU allow, arithmetic is
            in 8-bit integers; without, in bfloat16.

    Returns:
        Stacks to frames, float32 in [-1, 1]; on a CPU to be called with one size of batch, as others are packed anew.
    """
    device = next(generator.parameters()).device
    if calibration is not None and device.type == "cpu" and multiplies_bytes() and supports(generator):
        return Int8Generator(generator, calibration)
    return _Bfloat16Generator(generator)


def multiplies_bytes() -> bool:
    """Whether this CPU has an instruction for 8-bit products; without, integers are slower than bfloat16."""
    return bool(torch.cpu._is_vnni_supported()) and torch.backends.mkldnn.is_available()


def export_generator(generator: UNetGenerator, path: Path | str, batch: int = 1) -> None:
    """Write the float32 generator as a program of torch.export, which runs without this package.

    Load with `torch.export.load(path).module()`; the size of the batch is fixed.

    Args:
        generator: in any mode; a copy is exported.
        path: of the file, by custom ending in .pt2.
        batch: B.
    """
    network = copy.deepcopy(generator).float().cpu().eval().requires_grad_(False)
    stack = torch.zeros(batch, network.in_channels, network.size, network.size)
    torch.export.save(torch.export.export(network, (stack,)), path)


class _Bfloat16Generator:
    """Weights and arithmetic in bfloat16, maps channels-last."""

    def __init__(self, generator: UNetGenerator) -> None:
        self.network = copy.deepcopy(generator).bfloat16().eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, stack: Tensor) -> Tensor:
        return self.network(stack.bfloat16())
