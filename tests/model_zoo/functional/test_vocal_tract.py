import math

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from model_zoo.functional.mfcc import mfcc
from model_zoo.functional.vocal_tract import warp_matrix

# Formants and their bandwidths, Hz.
VOWELS = {
    "i": ((300, 60), (2300, 100), (3000, 150)),
    "a": ((700, 80), (1200, 90), (2600, 150)),
    "u": ((350, 60), (800, 80), (2400, 150)),
}


def cepstra(vowel: str, factor: float) -> torch.Tensor:
    """Rows of a vowel at 110 Hz whose formants are `factor` times as high."""
    sound = np.zeros(16_000)
    sound[:: 16_000 // 110] = 1
    for frequency, bandwidth in VOWELS[vowel]:
        radius = math.exp(-math.pi * bandwidth * factor / 16_000)
        turn = 2 * math.pi * frequency * factor / 16_000
        sound = lfilter([1], [1, -2 * radius * math.cos(turn), radius**2], sound)
    return mfcc(torch.from_numpy(0.3 * sound / np.abs(sound).max()))[20:80]


@pytest.mark.parametrize("factor", [0.85, 1.15])
@pytest.mark.parametrize("vowel", VOWELS)
def test_a_warped_vowel_is_the_vowel_of_another_tract(vowel, factor):
    usual, other = cepstra(vowel, 1.0), cepstra(vowel, factor)
    there, wrong_way = (warp_matrix(torch.tensor([sign * math.log(factor)])).double() for sign in (-1, 1))
    warped = usual @ there.T
    assert torch.equal(warped[:, 0], usual[:, 0])
    change = (other - usual)[:, 1:].mean(0).norm()
    left = (other - warped)[:, 1:].mean(0).norm()
    assert left < 0.45 * change
    assert (other - usual @ wrong_way.T)[:, 1:].mean(0).norm() > change


@pytest.mark.parametrize("num_cepstra", [2, 13, 28])
def test_no_warp_is_the_identity(num_cepstra):
    torch.testing.assert_close(warp_matrix(torch.zeros(3), num_cepstra), torch.eye(num_cepstra), atol=1e-6, rtol=0)


def test_equal_knots_are_one_factor_and_formants_move_apart():
    one, three = torch.tensor([0.1]), torch.full((3,), 0.1)
    torch.testing.assert_close(warp_matrix(one), warp_matrix(three))
    assert (warp_matrix(torch.tensor([0.1, 0.0, -0.1])) - warp_matrix(one)).norm() > 0.1


def test_the_largest_factors_give_finite_maps():
    assert warp_matrix(torch.tensor([5.0, -5.0, 5.0])).isfinite().all()
