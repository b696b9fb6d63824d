"""Scores of Song et al. 2020: PSNR and SSIM of frames, E_exp and E_ldmk of Eq. 5, one value a sample.

Images are scored as floating-point numbers in the range of the networks, where the data range is 2: PSNR and SSIM are
those of the same images in [0, 255] with a data range of 255, and never those of wrapped unsigned bytes.

Shape legend: B batch, C channels, H/W pixels, E expression, L landmarks, N clips, R resamples.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

DATA_RANGE = 2.0  # of images in [-1, 1]
MAX_PSNR = 100.0  # dB, of equal images: means stay finite
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # px, of the Gaussian window of Wang et al. 2004
SSIM_C1, SSIM_C2 = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2
BLUR_BLOCK = 32  # px that are blurred by one matrix product
NUM_RESAMPLES = 2_000
CONFIDENCE = 0.95


def psnr(
    predicted: Float[Tensor, "B C H W"], true: Float[Tensor, "B C H W"], region: Bool[Tensor, "B 1 H W"] | None = None
) -> Float[Tensor, "B"]:
    """Peak signal-to-noise ratio of each frame, dB, over all of its pixels or over those of a region.

    Args:
        predicted, true: images in [-1, 1].
        region: pixels that count.

    Raises:
        ValueError: the shapes differ, or a region is empty.
    """
    _check_images(predicted, true, region)
    squared = (predicted.float() - true.float()).square().mean(1)
    error = _region_mean(squared, region)
    return 10 * torch.log10(DATA_RANGE**2 / error.clamp_min(DATA_RANGE**2 * 10 ** (-MAX_PSNR / 10)))


def psnr_uint8_wrapped(predicted: Float[Tensor, "B C H W"], true: Float[Tensor, "B C H W"]) -> Float[Tensor, "B"]:
    """What "PSNR" is when unsigned bytes are subtracted and squared as they are, dB; only to explain Table 5.

    Differences and their squares wrap around at 256: uniform random noise scores 27.9 dB against any image.

    Raises:
        ValueError: the shapes differ.
    """
    _check_images(predicted, true, None)
    predicted, true = (((image.float() + 1) * 127.5).round().clamp(0, 255).byte() for image in (predicted, true))
    wrapped = (predicted - true).square().float().mean((1, 2, 3))
    return 10 * torch.log10(255**2 / wrapped.clamp_min(255**2 * 10 ** (-MAX_PSNR / 10)))


def ssim(
    predicted: Float[Tensor, "B C H W"], true: Float[Tensor, "B C H W"], region: Bool[Tensor, "B 1 H W"] | None = None
) -> Float[Tensor, "B"]:
    """Structural similarity of each frame, the mean of its map over the region.

    Without a region the map's border of 5 px is left out, where the window reaches beyond the image; both as in skimage
    with `gaussian_weights=True, use_sample_covariance=False`, the definition of Wang et al. 2004.

    Args:
        predicted, true: images in [-1, 1].
        region: pixels that count.

    Raises:
        ValueError: the shapes differ, a region is empty, or the image is smaller than the window.
    """
    _check_images(predicted, true, region)
    return ssim_of_map(ssim_map(predicted, true), region)


def ssim_of_map(
    similarity: Float[Tensor, "B H W"], region: Bool[Tensor, "B 1 H W"] | None = None
) -> Float[Tensor, "B"]:
    """`ssim` from its map, where several regions of one image are scored."""
    if region is None:
        similarity = similarity[:, SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS]
    return _region_mean(similarity, region)


def ssim_map(predicted: Float[Tensor, "B C H W"], true: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H W"]:
    """Structural similarity around each pixel, the mean over channels; the image is mirrored beyond its border.

    Raises:
        ValueError: the image is smaller than the window.
    """
    if min(predicted.shape[-2:]) < 2 * SSIM_RADIUS + 1:
        raise ValueError(f"SSIM needs images of at least 11 px, got {tuple(predicted.shape[-2:])}")
    predicted, true = predicted.float(), true.float()
    moments = torch.stack([predicted, true, predicted.square(), true.square(), predicted * true])
    mean_p, mean_t, square_p, square_t, product = _gaussian(moments.flatten(0, 1)).unflatten(0, (5, -1))
    variances = square_p - mean_p.square() + square_t - mean_t.square()
    covariance = product - mean_p * mean_t
    # Black is -1 here. Variances do not depend on where zero is, and rounding is least with zero in the middle.
    mean_p, mean_t = mean_p + 1, mean_t + 1
    luminance = (2 * mean_p * mean_t + SSIM_C1) / (mean_p.square() + mean_t.square() + SSIM_C1)
    return (luminance * (2 * covariance + SSIM_C2) / (variances + SSIM_C2)).mean(1)


def expression_error(predicted: Float[Tensor, "B E"], true: Float[Tensor, "B E"]) -> Float[Tensor, "B"]:
    """E_exp of Eq. 5 for each sample: the mean over coefficients of their absolute error."""
    return (predicted.float() - true.float()).abs().mean(-1)


def landmark_error(predicted: Float[Tensor, "B L 2"], true: Float[Tensor, "B L 2"]) -> Float[Tensor, "B"]:
    """E_ldmk of Eq. 5 for each sample: the mean over landmarks of their distance, px at 256."""
    return (predicted.float() - true.float()).norm(dim=-1).mean(-1)


def bootstrap_interval(
    values: Float[Tensor, "N"], confidence: float = CONFIDENCE, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Percentile bootstrap interval of a mean over clips; NaN for fewer than two.

    For a paired comparison pass the differences of two methods on the same clips.

    Args:
        values: one value a clip.
        confidence: share of resamples within the interval.
        num_resamples: R.
        seed: of the resampling; no global random state is touched.
    """
    if len(values) < 2:
        return values.new_full((), torch.nan), values.new_full((), torch.nan)
    generator = torch.Generator().manual_seed(seed)
    picks_RN = torch.randint(len(values), (num_resamples, len(values)), generator=generator)
    means_R = values[picks_RN.to(values.device)].mean(1)
    low, high = torch.quantile(means_R, means_R.new_tensor([(1 - confidence) / 2, (1 + confidence) / 2]))
    return low, high


def _region_mean(values: Float[Tensor, "B H W"], region: Bool[Tensor, "B 1 H W"] | None) -> Float[Tensor, "B"]:
    if region is None:
        return values.mean((1, 2))
    weights = region[:, 0].to(values.dtype)
    return (values * weights).sum((1, 2)) / weights.sum((1, 2))


def _gaussian(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    across = torch.cat([images[..., seen] @ weights.to(images).T for seen, weights in _blur(images.shape[-1])], -1)
    return torch.cat([weights.to(images) @ across[..., seen, :] for seen, weights in _blur(images.shape[-2])], -2)


@lru_cache(maxsize=8)
def _blur(length: int) -> list[tuple[slice, Float[Tensor, "N M"]]]:
    """The Gaussian window over a row of pixels that goes on as its mirror image (scipy's 'reflect'), as matrices.

    Each makes a block of pixels of those that their windows see. Matrix products take a fraction of the time of
    convolutions with a single channel, and blocks leave out most of the zeros of one matrix for all pixels.
    """
    steps = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=torch.float64)
    kernel = torch.exp(-steps.square() / (2 * SSIM_SIGMA**2))
    inside = torch.arange(length)
    mirrored = torch.cat([inside[:SSIM_RADIUS].flip(0), inside, inside[-SSIM_RADIUS:].flip(0)])
    matrix = torch.zeros(length, length, dtype=torch.float64)
    for offset, weight in enumerate(kernel / kernel.sum()):
        matrix.index_put_((inside, mirrored[offset : offset + length]), weight, accumulate=True)
    blocks = []
    for start in range(0, length, BLUR_BLOCK):
        seen = slice(max(0, start - SSIM_RADIUS), start + BLUR_BLOCK + SSIM_RADIUS)
        blocks.append((seen, matrix[start : start + BLUR_BLOCK, seen].float()))
    return blocks


def _check_images(predicted: Tensor, true: Tensor, region: Tensor | None) -> None:
    if torch.compiler.is_compiling():
        return
    if predicted.shape != true.shape or predicted.dim() != 4:
        raise ValueError(f"images must be (B, C, H, W) alike, got {tuple(predicted.shape)} and {tuple(true.shape)}")
    if region is None:
        return
    if region.shape != (len(true), 1, *true.shape[-2:]):
        raise ValueError(f"region must be (B, 1, H, W) of the images, got {tuple(region.shape)}")
    if not region.flatten(1).any(1).all():
        raise ValueError("the region of a sample is empty: its box must cover a pixel of the crop")
