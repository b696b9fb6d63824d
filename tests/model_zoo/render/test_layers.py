"""The generator's alternatives: shapes, golden values, invariants, and a step that lowers the loss."""

import pytest
import torch
from torch import nn

from model_zoo.render.generator import UNetGenerator
from model_zoo.render.layers import GatedConv2d, ReferenceOutput, SelfAttention, UpsampleConvolution

from ..golden import digest, fill, wave

VARIANTS = {
    "upsample": ({"up_convolution": UpsampleConvolution}, [-0.096262, 0.222399, -0.067981, 0.180864]),
    "gated": ({"convolution": GatedConv2d}, [-0.047621, 0.198715, -0.165286, 0.06513]),
    "attention": ({"attention": SelfAttention}, [-0.008463, 0.370799, -0.197221, -0.181062]),
    "residual": ({"output": ReferenceOutput(28), "in_channels": 31}, [0.04694, 0.736823, 0.43651, 0.396164]),
    "all": (
        {
            "up_convolution": UpsampleConvolution,
            "convolution": GatedConv2d,
            "attention": SelfAttention,
            "output": ReferenceOutput(28),
            "in_channels": 31,
        },
        [-0.172683, 0.680091, 0.3034, 0.38355],
    ),
}


def network(arguments: dict, size: int = 32, width: int = 8) -> UNetGenerator:
    torch.manual_seed(0)
    return UNetGenerator(**({"in_channels": 28} | arguments), size=size, width=width)


@pytest.mark.parametrize(("arguments", "expected"), VARIANTS.values(), ids=VARIANTS)
def test_golden_values(arguments, expected):
    generator = fill(network(arguments))
    output = generator(wave(2, generator.in_channels, 32, 32))
    torch.testing.assert_close(digest(output), torch.tensor(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("arguments", "_"), VARIANTS.values(), ids=VARIANTS)
def test_trains_one_step(arguments, _):
    generator = network(arguments, size=64)
    x, true = wave(2, generator.in_channels, 64, 64), 0.5 * wave(2, 3, 64, 64, phase=1)
    optimizer = torch.optim.Adam(generator.parameters(), 2e-4)
    losses = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            output = generator(x)
        assert output.shape == true.shape
        assert output.dtype == torch.float32
        assert output.abs().max() <= 1
        losses.append((output - true).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        assert all(parameter.grad is not None for parameter in generator.parameters())
        assert all(parameter.grad.isfinite().all() for parameter in generator.parameters())
        optimizer.step()
    assert losses[1] < losses[0]


@pytest.mark.parametrize(("arguments", "_"), VARIANTS.values(), ids=VARIANTS)
def test_activations_keep_their_scale(arguments, _):
    generator = network(arguments, size=128, width=16)
    scales = []
    for module in [*generator.down, *generator.up]:
        module.register_forward_hook(lambda _, __, output: scales.append(output.square().mean().item()))
    generator(torch.randn(1, generator.in_channels, 128, 128))
    assert min(scales) > 0.005
    assert max(scales) < 10


def test_what_starts_as_the_identity_does():
    plain, attending = network({}, size=64), network({"attention": SelfAttention}, size=64)
    attending.load_state_dict(plain.state_dict(), strict=False)
    x = wave(1, 28, 64, 64)
    torch.testing.assert_close(attending(x), plain(x))
    x = wave(1, 31, 64, 64)
    assert (network({"output": ReferenceOutput(28), "in_channels": 31}, 64)(x) - x[:, 28:]).abs().mean() < 0.2


@pytest.mark.parametrize(("size", "at"), [(256, 32), (128, 32), (64, 32), (32, 16), (8, 4)])
def test_attention_is_on_the_32_px_map(size, at):
    generator = network({"attention": SelfAttention}, size=size, width=4)
    seen = []
    for module in generator.attention:
        module.register_forward_hook(
            lambda layer, _, output: seen.append(output.shape[-1]) if isinstance(layer, SelfAttention) else None
        )
    generator(torch.zeros(1, 28, size, size))
    assert seen == [at]


def test_attention_equals_torchs_own():
    layer = fill(SelfAttention(128))
    x = wave(2, 128, 4, 6)
    oracle = nn.MultiheadAttention(128, 2, batch_first=True)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(layer.queries_keys_values.weight[..., 0, 0])
        oracle.in_proj_bias.copy_(layer.queries_keys_values.bias)
        oracle.out_proj.weight.copy_(layer.output.weight[..., 0, 0])
        oracle.out_proj.bias.copy_(layer.output.bias)
    tokens = layer.norm(x).flatten(2).mT
    expected = x + oracle(tokens, tokens, tokens)[0].mT.unflatten(2, (4, 6))
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


def test_upsampling_makes_no_checkerboard():
    """A constant map stays constant away from the border; a transposed convolution shows its four phases."""
    flat = torch.ones(1, 8, 8, 8)
    torch.manual_seed(0)
    smooth = UpsampleConvolution(8, 4)(flat)[..., 2:-2, 2:-2]
    torch.testing.assert_close(smooth, smooth[..., :1, :1].expand_as(smooth))


def test_a_shut_gate_lets_nothing_pass():
    layer = GatedConv2d(4, 4, 3, padding=1)
    nn.init.constant_(layer.gate.bias, -30.0)
    nn.init.zeros_(layer.gate.weight)
    assert layer(wave(1, 4, 8, 8)).abs().max() < 1e-10


def test_a_frame_that_left_the_range_finds_back():
    output, stack = ReferenceOutput(28), torch.full((1, 31, 4, 4), 0.9)
    features = torch.ones(1, 3, 4, 4, requires_grad=True)
    output(features, stack).mean().backward()
    assert (features.grad > 0).all()
    frame = output.eval()(features, stack)
    assert torch.equal(frame, torch.ones_like(frame))


def test_a_missing_reference_is_said():
    generator = network({"output": ReferenceOutput(28)})
    with pytest.raises(ValueError, match="raise in_channels by 3"):
        generator(torch.zeros(1, 28, 32, 32))
    with pytest.raises(ValueError, match="multiple of 64"):
        SelfAttention(200)
