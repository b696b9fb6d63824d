"""The 74.9 M generator at 256 px, batch 4, in bfloat16 and channels-last against float32 and the default layout."""

import pytest
import torch
from torch import nn

from model_zoo.render.generator import UNetGenerator

from .ratio import compare


@pytest.fixture(scope="module")
def reference() -> UNetGenerator:
    torch.manual_seed(0)
    return UNetGenerator(28, 256, 64).to(memory_format=torch.contiguous_format)


@pytest.fixture(scope="module")
def stack() -> torch.Tensor:
    return torch.randn(4, 28, 256, 256, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_inference_with_bfloat16_weights(benchmark, reference, stack):
    ours = UNetGenerator(28, 256, 64).bfloat16()
    ours.load_state_dict(reference.state_dict())
    half = stack.bfloat16()
    assert_bfloat16_agrees(ours(half), reference(stack))
    assert compare(benchmark, lambda: ours(half), lambda: reference(stack)) > 1


@torch.no_grad()
def test_inference_against_a_matrix_product(benchmark, stack):
    """The generator's 94 GFLOP (batch 4) beside as many in one bfloat16 matrix product; 1 would be perfect."""
    ours = UNetGenerator(28, 256, 64).bfloat16()
    half = stack.bfloat16()
    a, b = torch.randn(2, 3603, 3603).bfloat16()
    compare(benchmark, lambda: ours(half), lambda: a @ b)


def test_training_under_autocast(benchmark, reference, stack):
    ours = UNetGenerator(28, 256, 64)
    ours.load_state_dict(reference.state_dict())

    def train(network: nn.Module, enabled: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = network(stack)
        output.abs().mean().backward()
        network.zero_grad()

    assert compare(benchmark, lambda: train(ours, True), lambda: train(reference, False)) > 1


def assert_bfloat16_agrees(half: torch.Tensor, full: torch.Tensor) -> None:
    assert (half.float() - full).abs().mean() < 0.05 * full.abs().mean()
