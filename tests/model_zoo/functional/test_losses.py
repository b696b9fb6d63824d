import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model_zoo.functional import losses


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_norm_loss_is_cross_entropy_to_the_uniform_less_log_n():
    logits = random(6, 9)
    uniform = torch.full((6, 9), 1 / 9)
    torch.testing.assert_close(losses.norm_loss(logits), F.cross_entropy(logits, uniform) - math.log(9))
    torch.testing.assert_close(losses.norm_loss(torch.full((6, 9), 3.0)), torch.tensor(0.0))
    assert losses.norm_loss(logits) > 0


def test_eq_3_norms_are_per_sample_with_finite_gradients_at_zero():
    predicted, true = random(5, 29), random(5, 29, seed=1)
    torch.testing.assert_close(losses.expression_loss(predicted, true), torch.cdist(predicted, true).diag().mean())
    points, targets = random(5, 20, 2), random(5, 20, 2, seed=1)
    expected = (points - targets).flatten(1).norm(dim=1).mean()
    torch.testing.assert_close(losses.shape_loss(points, targets), expected)
    exact = true.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(losses.expression_loss(exact, true), exact)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_velocity_loss_ignores_a_constant_offset():
    true = random(3, 7, 29)
    torch.testing.assert_close(losses.velocity_loss(true + 2, true), torch.tensor(1e-4), atol=1e-5, rtol=0)
    assert losses.velocity_loss(true.flip(1), true) > 1
    with pytest.raises(ValueError, match="two frames"):
        losses.velocity_loss(true[:, :1], true[:, :1])


def test_image_losses_equal_their_definitions():
    a, b = random(2, 3, 8, 8), random(2, 3, 8, 8, seed=1)
    torch.testing.assert_close(losses.reconstruction_loss(a, b), F.l1_loss(a, b))
    ramp = torch.arange(8.0).expand(2, 3, 8, 8)
    torch.testing.assert_close(losses.total_variation_loss(ramp), torch.tensor(1.0))
    torch.testing.assert_close(losses.total_variation_loss(ramp + 2 * ramp.mT), torch.tensor(3.0))
    torch.testing.assert_close(losses.perceptual_loss([a, b], [b, b]), F.l1_loss(a, b) / 2)
    with pytest.raises(ValueError, match="zip"):
        losses.perceptual_loss([a], [a, b])


def test_least_squares_gan_targets():
    ones, zeros = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    assert losses.adversarial_generator_loss(ones) == 0
    assert losses.adversarial_generator_loss(zeros) == 1
    assert losses.adversarial_discriminator_loss(ones, zeros) == 0
    assert losses.adversarial_discriminator_loss(zeros, ones) == 1


@pytest.fixture
def linear_discriminator() -> nn.Conv2d:
    """Four patches, each a linear function of its quarter of image (3 channels) and condition (2 channels)."""
    torch.manual_seed(0)
    return nn.Conv2d(5, 1, kernel_size=4, stride=4)


@pytest.mark.parametrize("kind", ["r1", "wgan"])
def test_penalty_of_a_linear_discriminator_is_known(linear_discriminator, kind):
    real, fake, condition = random(3, 3, 8, 8), random(3, 3, 8, 8, seed=1), random(3, 2, 8, 8, seed=2)
    # Each of four patches carries a quarter of the mean: ‖∇‖² = 4 · ‖w/4‖² over the image's channels alone.
    squared = linear_discriminator.weight[:, :3].square().sum() / 4
    expected = squared if kind == "r1" else (squared.sqrt() - 1).square()
    penalty = losses.gradient_penalty(linear_discriminator, real, fake, condition, kind)
    torch.testing.assert_close(penalty, expected, rtol=1e-4, atol=1e-7)
    penalty.backward()
    assert linear_discriminator.weight.grad[:, :3].abs().min() > 0
    assert linear_discriminator.weight.grad[:, 3:].abs().max() == 0


def test_r1_looks_at_real_and_wgan_between_real_and_fake():
    def quadratic(stacked):  # gradient of the mean score: 2 x / 3 a pixel
        return stacked[:, :3].square().mean(1, keepdim=True)

    real, fake, condition = torch.ones(4, 3, 1, 1), 3 * torch.ones(4, 3, 1, 1), torch.zeros(4, 1, 1, 1)
    torch.testing.assert_close(losses.gradient_penalty(quadratic, real, fake, condition), torch.tensor(4 / 3))
    values = [
        losses.gradient_penalty(quadratic, real, fake, condition, "wgan", torch.full((4,), share))
        for share in (1.0, 0.5, 0.0)
    ]
    expected = [torch.tensor((2 * x * 3**-0.5 - 1) ** 2) for x in (1.0, 2.0, 3.0)]  # x: value of the interpolate
    torch.testing.assert_close(values, expected)


def test_penalty_is_float32_under_autocast_and_works_without_grad_mode(linear_discriminator):
    arguments = random(3, 3, 8, 8), random(3, 3, 8, 8, seed=1), random(3, 2, 8, 8, seed=2)
    expected = losses.gradient_penalty(linear_discriminator, *arguments)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(losses.gradient_penalty(linear_discriminator, *arguments), expected)


def test_unknown_penalty_is_refused(linear_discriminator):
    with pytest.raises(ValueError, match="'r1' or 'wgan'"):
        losses.gradient_penalty(linear_discriminator, *torch.zeros(3, 1, 3, 8, 8), kind="r2")
