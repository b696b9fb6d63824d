import pytest
import torch
from torch import nn

from model_zoo.render.generator import UNetGenerator, Up

from ..golden import digest, fill, wave


def test_has_the_papers_75_million_parameters():
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in UNetGenerator(28, 256, 64).parameters())
    assert round(count / 1e6, 1) == 74.9


def test_without_its_extra_convolutions_it_is_the_unet_256_of_pix2pix():
    with torch.device("meta"):
        network = UNetGenerator(3, 256, 64)
    plain = sum(p.numel() for name, p in network.named_parameters() if ".refine." not in name and p.dim() == 4)
    # The published unet_256 has 54,413,955 parameters: beside these, 2 for each of 4,928 normalised channels, 3 biases.
    assert plain == 54_413_955 - 2 * 4_928 - 3


@pytest.mark.parametrize("norm", ["none", "group"])
@pytest.mark.parametrize(("size", "in_channels"), [(64, 28), (32, 24)])
def test_shape_range_and_dtype(size, in_channels, norm):
    torch.manual_seed(0)
    network = UNetGenerator(in_channels, size, 8, norm)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(wave(2, in_channels, size, size))
    assert output.shape == (2, 3, size, size)
    assert output.dtype == torch.float32
    assert output.abs().max() < 1
    assert output.std() > 0.02  # the signal survives all levels


@pytest.mark.parametrize("norm", ["none", "group"])
def test_samples_do_not_depend_on_their_batch(norm):
    network = fill(UNetGenerator(28, 32, 8, norm)).train()
    x = wave(3, 28, 32, 32)
    torch.testing.assert_close(network(x)[:1], network(x[:1]), atol=1e-5, rtol=1e-4)


def test_every_pixel_sees_the_whole_crop_and_every_parameter_is_used():
    network = fill(UNetGenerator(4, 32, 8))
    x = wave(1, 4, 32, 32).requires_grad_()
    network(x)[0, :, 0, 0].sum().backward()
    assert (x.grad[0].abs().sum(0) > 0).float().mean() > 0.99
    for parameter in network.parameters():
        assert parameter.grad.abs().max() > 0


def test_refinement_starts_as_the_identity():
    up = Up(8, 4, "none")
    x = wave(1, 8, 4, 4)
    torch.testing.assert_close(up(x), up.activation(up.convolution(x)))


def test_activations_keep_their_scale_through_the_unet():
    """Kaiming's invariant: mean squares stay near one; only at the 1 to 4 px maps zero padding takes most of them."""
    torch.manual_seed(0)
    network = UNetGenerator(28, 128, 16)
    scales = []
    for module in [*network.down, *network.up]:
        module.register_forward_hook(lambda _, __, output: scales.append(output.square().mean().item()))
    network(torch.randn(2, 28, 128, 128))
    assert min(scales) > 0.01
    assert min(scales[:4] + scales[-3:]) > 0.3
    assert max(scales) < 10


def test_weights_are_channels_last_and_stay_so():
    network = UNetGenerator(28, 32, 8)
    network.load_state_dict(UNetGenerator(28, 32, 8).state_dict())
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("arguments", [{"size": 96}, {"size": 512}, {"norm": "batch"}])
def test_what_is_not_offered_is_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        UNetGenerator(width=1, **arguments)
    with pytest.raises(ValueError, match=r"expects \(B, 28, 64, 64\)"):
        UNetGenerator(28, 64, 1)(torch.zeros(1, 28, 32, 32))


def test_golden_values():
    output = fill(UNetGenerator(28, 32, 8))(wave(2, 28, 32, 32))
    torch.testing.assert_close(
        digest(output), torch.tensor([0.031686, 0.368659, -0.17644, -0.171936]), atol=1e-5, rtol=1e-4
    )
