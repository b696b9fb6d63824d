import pytest
import torch

from model_zoo.functional.losses import gradient_penalty
from model_zoo.render.discriminator import PatchDiscriminator

from ..golden import digest, fill, wave


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_receptive_field_is_as_large_as_fits_half_the_crop(size):
    network = fill(PatchDiscriminator(7, size, 2))
    x = wave(1, 7, size, size).requires_grad_()
    scores = network(x)
    centre = scores.shape[-1] // 2
    scores[0, 0, centre, centre].backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero()
    field = int(rows.max() - rows.min()) + 1
    assert field <= size / 2
    assert 2 * field + 2 > size / 2


def test_channels_and_small_crops_are_refused():
    with pytest.raises(ValueError, match="expects 7 channels, got 3"):
        PatchDiscriminator(7, 64, 2)(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="at least 32 px"):
        PatchDiscriminator(7, 16, 2)


@pytest.mark.parametrize("kind", ["r1", "wgan"])
def test_penalty_reaches_every_weight_and_no_sample_sees_another(kind):
    network = fill(PatchDiscriminator(7, 32, 4))
    real, fake, condition = wave(3, 3, 32, 32), wave(3, 3, 32, 32, phase=1.0), wave(3, 4, 32, 32, phase=2.0)
    gradient_penalty(network, real, fake, condition, kind).backward()
    for name, parameter in network.named_parameters():
        if name.endswith("weight"):
            assert parameter.grad.abs().max() > 0
    if kind == "r1":
        singles = [gradient_penalty(network, real[i : i + 1], fake[i : i + 1], condition[i : i + 1]) for i in range(3)]
        whole = gradient_penalty(network, real, fake, condition)
        torch.testing.assert_close(whole, torch.stack(singles).mean())


def test_penalty_equals_finite_differences():
    network = fill(PatchDiscriminator(7, 32, 4)).double()
    image, condition = wave(1, 3, 32, 32).double(), wave(1, 4, 32, 32, phase=2.0).double()

    def score(x):
        return network(torch.cat([x, condition], dim=1)).mean()

    direction = wave(1, 3, 32, 32, phase=5.0).double()
    image.requires_grad_()
    (gradient,) = torch.autograd.grad(score(image), image)
    step = 1e-6 * direction
    slope = (score(image + step) - score(image - step)) / 2e-6
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-4, atol=1e-9)
    penalty = gradient_penalty(network.float(), image.float(), image.float(), condition.float())
    torch.testing.assert_close(penalty, gradient.square().sum().float(), rtol=1e-4, atol=1e-9)


def test_golden_values():
    output = fill(PatchDiscriminator(7, 32, 4))(wave(2, 7, 32, 32))
    torch.testing.assert_close(
        digest(output), torch.tensor([-0.21718, 0.266083, -0.195936, -0.077236]), atol=1e-5, rtol=1e-4
    )
