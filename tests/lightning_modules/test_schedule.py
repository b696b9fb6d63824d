"""Learning rates over a run."""

import math

import pytest

from lightning_modules.base import Schedule


def test_constant_then_linear_to_zero():
    schedule = Schedule(decay=0.5)
    assert [schedule.scale(progress) for progress in (0, 0.5, 0.75, 1)] == [1, 1, 0.5, 0]


def test_half_a_cosine():
    schedule = Schedule(decay=1.0, cosine=True)
    for progress in (0, 0.25, 0.6, 1):
        assert schedule.scale(progress) == pytest.approx((1 + math.cos(math.pi * progress)) / 2)


def test_warm_up_rises_from_little_but_not_from_nothing():
    schedule = Schedule(warmup=0.1)
    assert 0 < schedule.scale(0) < 0.02
    assert schedule.scale(0.05) == pytest.approx(0.5)
    assert schedule.scale(0.1) == schedule.scale(1) == 1
