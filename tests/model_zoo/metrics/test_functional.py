import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from model_zoo.metrics import functional


def images(height: int = 48, width: int = 40, noise: float = 20.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two batches of uint8 images: smooth shapes, and the same with noise that grows over the batch."""
    generator = torch.Generator().manual_seed(0)
    coarse = 255 * torch.rand(3, 3, 6, 5, generator=generator)
    true = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)
    scale = torch.tensor([0.3, 1.0, 3.0])[:, None, None, None]
    predicted = true + noise * scale * torch.randn(true.shape, generator=generator)
    return predicted.clamp(0, 255).round().byte(), true.round().byte()


def unit(image: torch.Tensor) -> torch.Tensor:
    return image.float() / 127.5 - 1


def region(height: int = 48, width: int = 40) -> torch.Tensor:
    mask = torch.zeros(3, 1, height, width, dtype=torch.bool)
    mask[0, :, 10:20, 5:30] = True
    mask[1, :, :, :7] = True  # touches three borders
    mask[2, :, -1, -1] = True
    return mask


def test_psnr_equals_skimage_on_uint8():
    predicted, true = images()
    scores = functional.psnr(unit(predicted), unit(true))
    mask = region()
    inside = functional.psnr(unit(predicted), unit(true), mask)
    for i in range(3):
        a, b = predicted[i].numpy(), true[i].numpy()
        np.testing.assert_allclose(scores[i], peak_signal_noise_ratio(b, a, data_range=255), rtol=1e-5)
        where = mask[i, 0].numpy()
        expected = peak_signal_noise_ratio(b[:, where], a[:, where], data_range=255)
        np.testing.assert_allclose(inside[i], expected, rtol=1e-5)


def test_equal_images_score_the_maximum_and_wrapping_does_not_happen():
    _, true = images()
    assert torch.equal(functional.psnr(unit(true), unit(true)), torch.full((3,), 100.0))
    torch.testing.assert_close(functional.ssim(unit(true), unit(true)), torch.ones(3))
    black, white = -torch.ones(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
    torch.testing.assert_close(functional.psnr(black, white), torch.zeros(1))  # as bytes they would differ by 1


def test_wrapped_psnr_is_that_of_numpy_bytes_and_is_nonsense():
    predicted, true = images()
    scores = functional.psnr_uint8_wrapped(unit(predicted), unit(true))
    for i in range(3):
        wrapped = np.mean((predicted[i].numpy() - true[i].numpy()) ** 2)
        np.testing.assert_allclose(scores[i], 10 * np.log10(255**2 / wrapped), rtol=1e-5)
    noise = torch.randint(0, 256, (3, 3, 48, 40), generator=torch.Generator().manual_seed(0)).byte()
    torch.testing.assert_close(
        functional.psnr_uint8_wrapped(unit(noise), unit(true)), torch.full((3,), 27.9), atol=0.2, rtol=0
    )


def test_ssim_equals_skimage_over_the_image_and_over_a_region():
    predicted, true = images()
    mask = region()
    whole = functional.ssim(unit(predicted), unit(true))
    inside = functional.ssim(unit(predicted), unit(true), mask)
    for i in range(3):
        score, full = structural_similarity(
            true[i].numpy().astype(np.float64),
            predicted[i].numpy().astype(np.float64),
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            full=True,
        )
        np.testing.assert_allclose(whole[i], score, atol=2e-5)
        np.testing.assert_allclose(inside[i], full[:, mask[i, 0].numpy()].mean(), atol=5e-5)


def test_half_precision_is_widened():
    predicted, true = images()
    half = unit(predicted).bfloat16()
    torch.testing.assert_close(functional.psnr(half, unit(true)), functional.psnr(half.float(), unit(true)))


def test_bad_images_and_regions_are_refused():
    predicted, true = (unit(image) for image in images())
    with pytest.raises(ValueError, match="alike"):
        functional.psnr(predicted, true[:1])
    with pytest.raises(ValueError, match="empty"):
        functional.ssim(predicted, true, torch.zeros(3, 1, 48, 40, dtype=torch.bool))
    with pytest.raises(ValueError, match="region must be"):
        functional.psnr(predicted, true, torch.ones(3, 48, 40, dtype=torch.bool))
    with pytest.raises(ValueError, match="11 px"):
        functional.ssim(true[..., :10], true[..., :10])


def test_eq_5_errors():
    generator = torch.Generator().manual_seed(0)
    predicted, true = torch.randn(2, 50, 29, generator=generator)
    expected = [np.abs(p - t).mean() for p, t in zip(predicted.numpy(), true.numpy(), strict=True)]
    np.testing.assert_allclose(functional.expression_error(predicted, true), expected, rtol=1e-5)
    offset = torch.tensor([3.0, 4.0])
    points = 256 * torch.rand(5, 20, 2, generator=generator)
    torch.testing.assert_close(functional.landmark_error(points + offset, points), torch.full((5,), 5.0))


def test_bootstrap_interval_agrees_with_scipy_and_repeats():
    values = torch.randn(40, generator=torch.Generator().manual_seed(0)).double()
    low, high = functional.bootstrap_interval(values, num_resamples=20_000)
    theirs = bootstrap((values.numpy(),), np.mean, method="percentile", n_resamples=20_000, rng=0).confidence_interval
    np.testing.assert_allclose([low, high], theirs, atol=0.02)
    state = torch.random.get_rng_state()
    assert functional.bootstrap_interval(values) == functional.bootstrap_interval(values)
    assert functional.bootstrap_interval(values) != functional.bootstrap_interval(values, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(bound.isnan() for bound in functional.bootstrap_interval(values[:1]))
