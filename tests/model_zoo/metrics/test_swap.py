import numpy as np
import pytest
import torch
from scipy.stats import linregress

from model_zoo.metrics.swap import SwapTest, measure_openings, mouth_opening, swap_test

from ..functional.faces import talking_face


def openings(num_frames: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    given, hidden = torch.rand(2, num_frames, generator=torch.Generator().manual_seed(0))
    return given, hidden


def test_equals_scipy_and_holds_for_a_mouth_that_follows():
    given, hidden = openings()
    measured = 0.8 * given + 0.03 * torch.randn(60, generator=torch.Generator().manual_seed(1))
    result = swap_test(measured, given, hidden)
    fit = linregress(given.numpy(), measured.numpy())
    np.testing.assert_allclose([result.given, result.slope], [fit.rvalue, fit.slope], rtol=1e-5)
    np.testing.assert_allclose(result.hidden, np.corrcoef(measured, hidden)[0, 1], rtol=1e-5)
    np.testing.assert_allclose(result.chance, np.corrcoef(given, hidden)[0, 1], rtol=1e-5)
    assert result.holds
    assert (result.frames, result.missed) == (60, 0)


def test_does_not_hold_for_a_generator_that_looks_at_the_face_instead():
    given, hidden = openings()
    assert not swap_test(hidden, given, hidden).holds
    assert not swap_test((given + hidden) / 2, given, hidden).holds


def test_missed_frames_are_counted_and_too_few_give_nan():
    given, hidden = openings()
    measured = given.clone()
    measured[::3] = torch.nan
    result = swap_test(measured, given, hidden)
    assert (result.frames, result.missed) == (40, 20)
    assert result.given == pytest.approx(1)
    empty = swap_test(measured[:3], given[:3], hidden[:3])
    assert np.isnan(empty.given)
    assert not empty.holds
    still = swap_test(torch.ones(60), given, hidden)
    assert np.isnan(still.given)
    assert not still.holds
    with pytest.raises(ValueError, match="one opening a frame"):
        swap_test(given, hidden[:-1], hidden)


def test_opening_is_relative_to_the_eyes():
    face = talking_face()
    opening = mouth_opening(face)
    assert (opening.diff() > 0).all()
    torch.testing.assert_close(mouth_opening(2 * face + 5), opening)


def test_frames_are_measured_with_what_is_injected():
    face = talking_face(3)
    frames = torch.linspace(-1, 1, 3)[:, None, None, None].expand(3, 3, 8, 8)

    def detect(image: np.ndarray) -> np.ndarray | None:
        assert image.shape == (8, 8, 3)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        return None if image[0, 0, 0] == 0 else face[2 if image[0, 0, 0] == 255 else 1].numpy()

    measured = measure_openings(frames, detect)
    assert measured[0].isnan()
    torch.testing.assert_close(measured[1:], mouth_opening(face)[1:])
    assert measure_openings([], detect).shape == (0,)


def test_metric_collects_batches():
    given, hidden = openings()
    metric = SwapTest()
    for part in torch.arange(60).split(16):
        metric.update(given[part] ** 2, given[part], hidden[part])
    assert metric.compute() == pytest.approx(swap_test(given**2, given, hidden), rel=1e-5)
    metric.reset()
    metric.update(given, given, hidden)
    assert metric.compute().given == pytest.approx(1)
