import numpy as np
import pytest
import torch
from scipy import ndimage

from model_zoo.metrics.compositing import seam_gradient, sharpness

from .test_functional import images, region, unit


def test_sharpness_equals_scipys_sobel_energy():
    predicted, true = (unit(image) for image in images())
    mask = region()
    whole, inside = sharpness(predicted, true), sharpness(predicted, true, mask)
    for i in range(3):
        energy = []
        for image in (predicted[i], true[i]):
            luma = np.tensordot([0.299, 0.587, 0.114], image.double().numpy(), 1)
            energy.append(sum(ndimage.sobel(luma, axis, mode="nearest") ** 2 for axis in (0, 1)))
        np.testing.assert_allclose(whole[i], energy[0].mean() / energy[1].mean(), rtol=1e-3)
        where = mask[i, 0].numpy()
        np.testing.assert_allclose(inside[i], energy[0][where].mean() / energy[1][where].mean(), rtol=1e-3)


def test_blur_lowers_sharpness_and_noise_raises_it():
    _, true = (unit(image) for image in images(noise=0))
    detailed = true + 0.3 * torch.randn(true.shape, generator=torch.Generator().manual_seed(1))
    blurred = torch.from_numpy(ndimage.gaussian_filter(detailed.numpy(), (0, 0, 1, 1)))
    torch.testing.assert_close(sharpness(detailed, detailed), torch.ones(3))
    assert (sharpness(blurred, detailed) < 0.6).all()
    assert (sharpness(detailed, true) > 1.1).all()


def test_the_mean_of_two_mouths_is_less_sharp_than_either():
    """What minimising a distance to several possible mouths gives."""
    one = torch.zeros(1, 3, 32, 32)
    one[..., 16:, :] = 1
    other = torch.zeros(1, 3, 32, 32)
    other[..., 20:, :] = 1
    average = (one + other) / 2
    assert sharpness(average, one, torch.ones(1, 1, 32, 32, dtype=torch.bool)) < 0.6


def test_a_seam_shows_at_the_border_alone():
    _, true = (unit(image) for image in images(noise=0))
    mask = torch.zeros(3, 1, 48, 40)
    mask[:, :, 10:30, 8:33] = 0.5
    torch.testing.assert_close(seam_gradient(true, true, mask), torch.ones(3))
    offset = torch.where(mask > 0, true + 0.3, true)
    jumps = []
    for image in (offset, true):
        jump = [image[:, :, 10:30, 8] - image[:, :, 10:30, 7], image[:, :, 10:30, 32] - image[:, :, 10:30, 33]]
        jump += [image[:, :, 10, 8:33] - image[:, :, 9, 8:33], image[:, :, 29, 8:33] - image[:, :, 30, 8:33]]
        jumps.append(torch.cat(jump, -1).abs().mean((1, 2)))
    torch.testing.assert_close(seam_gradient(offset, true, mask), jumps[0] / jumps[1], rtol=1e-4, atol=0)
    assert (seam_gradient(offset, true, mask) > 2).all()
    inner = true.clone()
    inner[:, :, 12:28, 10:31] = 0  # inside, away from the border
    torch.testing.assert_close(seam_gradient(inner, true, mask), torch.ones(3))


def test_bad_input_is_refused():
    predicted, true = (unit(image) for image in images())
    with pytest.raises(ValueError, match="alike"):
        sharpness(predicted, true[:1])
    with pytest.raises(ValueError, match="RGB"):
        sharpness(predicted[:, :1], true[:, :1])
    with pytest.raises(ValueError, match="empty"):
        seam_gradient(predicted, true, torch.zeros(3, 1, 48, 40))
    with pytest.raises(ValueError, match="no border"):
        seam_gradient(predicted, true, torch.ones(3, 1, 48, 40))
