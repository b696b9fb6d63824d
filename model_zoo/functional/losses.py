"""The losses of Song et al. 2020, one pure function each: Eq. 2, Eq. 3 and the terms of Eq. 4.

Every loss is a mean, so that its weight does not depend on batch, crop or clip. The norms of Eq. 3 are taken per sample
with a small term below the root: their gradient is finite where the prediction is exact.

Shape legend: B batch, T frames, N speakers, E expression, L landmarks, C channels, H/W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NORM_EPSILON = 1e-8  # below the root of every norm
_FEWEST_WINDOWS = 4  # of the unbiased criterion
_VARIANCE_EPSILON = 1e-5
PENALTY_TARGET = 1.0  # gradient norm that WGAN-GP asks for, Gulrajani et al. 2017


def norm_loss(logits: Float[Tensor, "B N"]) -> Float[Tensor, ""]:
    """L_norm, Eq. 2: −Σ_c 1/N log p(c | x'), less its minimum log N, so that zero means indistinguishable speakers.

    Args:
        logits: speaker scores of the frozen VGGVox on the ID-removed MFCC.
    """
    return -logits.float().log_softmax(dim=-1).mean() - math.log(logits.shape[-1])


def identity_loss(features: Float[Tensor, "B A C"], speaker: Int[Tensor, "B"]) -> Float[Tensor, ""]:
    """How far each window's mean and deviation depend on who speaks, 0 (not at all) to 1; not in the paper.

    The Hilbert-Schmidt independence criterion (Gretton et al. 2005), its unbiased estimate (Song et al. 2012) over that
    of both sides with themselves. There is no judge to fool: it is zero only where no probe of these moments could
    tell speakers apart. A Gaussian kernel as wide as the features lie apart, so that shrinking them gains nothing.

    Args:
        features: x' of windows that do not overlap.
        speaker: index of the true one; windows of unknown ones (-1) do not count.
    """
    known = speaker >= 0
    features, speaker = features[known].float(), speaker[known]
    same = (speaker[:, None] == speaker).float().fill_diagonal_(0)
    if len(speaker) < _FEWEST_WINDOWS or not 0 < same.sum() < len(speaker) * (len(speaker) - 1):
        return features.sum() * 0  # one speaker, or nobody twice
    variance, mean = torch.var_mean(features, dim=1, correction=0)
    moments = torch.cat([mean, (variance + _VARIANCE_EPSILON).log() / 2], dim=1)
    apart = (moments[:, None] - moments).square().sum(-1)
    near = (-apart / (apart.mean() + _VARIANCE_EPSILON)).exp() * (1 - torch.eye(len(apart), device=apart.device))
    scale = (_dependence(near, near) * _dependence(same, same)).clamp_min(_VARIANCE_EPSILON**2).sqrt()
    return _dependence(near, same) / scale


def _dependence(first: Float[Tensor, "B B"], second: Float[Tensor, "B B"]) -> Float[Tensor, ""]:
    """Eq. 5 of Song et al. 2012, of kernel matrices with zero diagonals; positive factors of B left out."""
    count = len(first)
    apart = first.sum() * second.sum() / ((count - 1) * (count - 2))
    return (first * second).sum() + apart - 2 / (count - 2) * (first.sum(0) @ second.sum(0))


def expression_loss(predicted: Float[Tensor, "... E"], true: Float[Tensor, "... E"]) -> Float[Tensor, ""]:
    """L_exp of Eq. 3: ‖ê − e‖₂, the mean over samples."""
    return _norm(predicted - true, dim=(-1,)).mean()


def shape_loss(predicted: Float[Tensor, "... L 2"], true: Float[Tensor, "... L 2"]) -> Float[Tensor, ""]:
    """L_shape of Eq. 3: ‖l̂ − l‖₂ over all coordinates of the mouth landmarks (px at 256), the mean over samples."""
    return _norm(predicted - true, dim=(-2, -1)).mean()


def velocity_loss(predicted: Float[Tensor, "B T E"], true: Float[Tensor, "B T E"]) -> Float[Tensor, ""]:
    """‖Δê − Δe‖₂ of the change from frame to frame, the mean over samples; not in the paper, off by default.

    Raises:
        ValueError: there is no second frame.
    """
    if predicted.shape[1] < 2:
        raise ValueError("the velocity term needs two frames or more: set its weight to 0 for single-frame batches")
    return _norm((predicted - true).diff(dim=1), dim=(-1,)).mean()


def silence_loss(gap: Float[Tensor, "B"], closed: Float[Tensor, "B"], silent: Bool[Tensor, "B"]) -> Float[Tensor, ""]:
    """How far lips stand apart (px at 256) beyond the closed gap where nobody speaks; not in the paper.

    The mean over all samples, so that its weight does not grow where silence is rare.

    Args:
        gap: inner-lip gap of each frame.
        closed: gap of the same mouth with closed lips.
        silent: frames that count.
    """
    return ((gap - closed).clamp_min(0) * silent).mean()


def reconstruction_loss(generated: Float[Tensor, "B C H W"], true: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """L_recon of Eq. 4: the pixel-wise L1 distance."""
    return (generated - true).abs().mean()


def region_loss(
    generated: Float[Tensor, "B C H W"], true: Float[Tensor, "B C H W"], region: Float[Tensor, "B 1 H W"]
) -> Float[Tensor, ""]:
    """The pixel-wise L1 distance over a region, averaged over its pixels, then over samples; not in the paper.

    Args:
        region: 1 for pixels that count, 0 for others.
    """
    distance = ((generated - true).abs().mean(1, keepdim=True) * region).sum((1, 2, 3))
    return (distance / region.sum((1, 2, 3)).clamp_min(1)).mean()


def adversarial_generator_loss(fake_scores: Float[Tensor, "B 1 h w"]) -> Float[Tensor, ""]:
    """L_adv of Eq. 4 as the generator sees it: least squares towards 1 (LSGAN, Mao et al. 2017)."""
    return (fake_scores.float() - 1).square().mean()


def adversarial_discriminator_loss(
    real_scores: Float[Tensor, "B 1 h w"], fake_scores: Float[Tensor, "B 1 h w"]
) -> Float[Tensor, ""]:
    """L_adv of Eq. 4 as the discriminator sees it: least squares, real towards 1 and fake towards 0, halved."""
    return ((real_scores.float() - 1).square().mean() + fake_scores.float().square().mean()) / 2


def perceptual_loss(generated: Sequence[Tensor], true: Sequence[Tensor]) -> Float[Tensor, ""]:
    """L_vgg of Eq. 4: L1 distance of features at several scales, the mean over scales (Johnson et al. 2016).

    Args:
        generated, true: features of the two images, a list of (B, C, H, W) from fine to coarse; those of VGG-19, or of
            the discriminator (feature matching, Wang et al. 2018).
    """
    distances = [(a.float() - b.float()).abs().mean() for a, b in zip(generated, true, strict=True)]
    return torch.stack(distances).mean()


def total_variation_loss(generated: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """L_tv of Eq. 4: mean absolute difference of horizontal plus that of vertical neighbours."""
    return generated.diff(dim=-1).abs().mean() + generated.diff(dim=-2).abs().mean()


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor],
    real: Float[Tensor, "B F H W"],
    fake: Float[Tensor, "B F H W"],
    condition: Float[Tensor, "B C H W"],
    kind: Literal["r1", "wgan"] = "r1",
    share: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """L_gp of Eq. 4: a penalty on the gradient of a sample's mean patch score with respect to the image.

    'r1' is zero-centred at real images, E‖∇D(x)‖² (Mescheder et al. 2018, without their factor ½). 'wgan' asks for a
    norm of 1 on random interpolates, E(‖∇D(x̃)‖ − 1)² (Gulrajani et al. 2017, the paper's [19]). Only the image is
    interpolated and differentiated, the condition stays. Computed in float32 whatever autocast says.

    Args:
        discriminator: scores (B, 1, h, w) of image and condition, stacked along channels in this order.
        real, fake: images in [-1, 1], of one frame or several; 'r1' does not look at `fake`.
        condition: what the discriminator sees beside the image.
        share: of the real image in each interpolate; drawn from torch's global generator by default.

    Raises:
        ValueError: `kind` is neither 'r1' nor 'wgan'.
    """
    real, fake, condition = (images.detach().float() for images in (real, fake, condition))
    if kind == "r1":
        image = real
    elif kind == "wgan":
        share = torch.rand(len(real), device=real.device) if share is None else share.to(real)
        image = torch.lerp(fake, real, share[:, None, None, None])
    else:
        raise ValueError(f"gradient penalty must be 'r1' or 'wgan', got {kind!r}")
    image = image.requires_grad_()
    with torch.enable_grad(), torch.autocast(image.device.type, enabled=False):
        scores = discriminator(torch.cat([image, condition], dim=1)).flatten(1).mean(1)
        (gradient,) = torch.autograd.grad(scores.sum(), image, create_graph=True)
        if kind == "r1":
            return gradient.square().sum((1, 2, 3)).mean()
        return (_norm(gradient, dim=(1, 2, 3)) - PENALTY_TARGET).square().mean()


def _norm(difference: Tensor, dim: tuple[int, ...]) -> Tensor:
    return (difference.float().square().sum(dim) + NORM_EPSILON).sqrt()
