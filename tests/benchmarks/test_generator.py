"""The 74.9 M generator at 256 px, batch 4, against float32, and what the faster ways cost in quality."""

import pytest
import torch
from torch import nn

from model_zoo.metrics.functional import psnr
from model_zoo.render.fast_generator import fast_generator, multiplies_bytes
from model_zoo.render.generator import UNetGenerator

from ..model_zoo.render.trained import smooth_stacks, trained_generator
from .ratio import compare

BATCH = 4
GFLOP = 23.4  # a frame
SIDE = 3603  # of a square matrix product with as many operations as the batch


@pytest.fixture(scope="module", autouse=True)
def two_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reference() -> UNetGenerator:
    torch.manual_seed(0)
    return UNetGenerator(28, 256, 64).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def stack() -> torch.Tensor:
    stack = torch.rand(BATCH, 28, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return stack.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("arithmetic", ["bfloat16", "integers"])
@torch.inference_mode()
def test_inference(benchmark, reference, stack, arithmetic):
    if arithmetic == "integers" and not multiplies_bytes():
        pytest.skip("this CPU does not multiply bytes")
    fast = fast_generator(reference, stack if arithmetic == "integers" else None)
    # bfloat16 is slower than float32 where a CPU has no instruction for it
    least = 2.0 if arithmetic == "integers" else 0.5
    speedup = compare(benchmark, lambda: fast(stack), lambda: reference(stack))
    frame = benchmark.stats.stats.min / BATCH
    print(f"{arithmetic}: {1e3 * frame:.1f} ms a frame, {GFLOP / frame:.0f} GFLOP/s, {speedup:.2f} × float32 eager")
    assert speedup > least


@pytest.mark.parametrize("arithmetic", ["bfloat16", "integers"])
@torch.inference_mode()
def test_inference_against_a_matrix_product(benchmark, reference, stack, arithmetic):
    """The same number of operations in one bfloat16 matrix product: 1 is the bound of bfloat16, 2 that of integers."""
    if arithmetic == "integers" and not multiplies_bytes():
        pytest.skip("this CPU does not multiply bytes")
    fast = fast_generator(reference, stack if arithmetic == "integers" else None)
    a, b = torch.randn(2, SIDE, SIDE).bfloat16()
    compare(benchmark, lambda: fast(stack), lambda: a @ b)


def test_quality_lost(benchmark):
    """On a generator that was trained for seconds, on frames that were neither trained nor calibrated with."""
    generator = trained_generator(64, width=16, steps=60)
    stacks, true = smooth_stacks(16, 64, seed=1)
    exact = generator(stacks)
    for name, calibration in (("bfloat16", None), ("integers", smooth_stacks(8, 64, seed=2)[0])):
        fast = fast_generator(generator, calibration)  # bfloat16 again where the CPU does not multiply bytes
        same, lost = psnr(fast(stacks), exact).mean(), (psnr(exact, true) - psnr(fast(stacks), true)).mean()
        benchmark.extra_info |= {f"{name}: dB to float32": same.item(), f"{name}: dB lost": lost.item()}
        print(
            f"\n{name}: {same:.1f} dB to float32, {lost:.3f} dB lost of {psnr(exact, true).mean():.1f} dB to the truth"
        )
        assert lost < 0.1
    benchmark.pedantic(lambda: fast(stacks), rounds=3)


def test_training_under_autocast(benchmark, stack):
    ours, reference = UNetGenerator(28, 256, 64), UNetGenerator(28, 256, 64)

    def train(network: nn.Module, enabled: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = network(stack)
        output.abs().mean().backward()
        network.zero_grad()

    assert compare(benchmark, lambda: train(ours, True), lambda: train(reference, False), rounds=5) > 1
