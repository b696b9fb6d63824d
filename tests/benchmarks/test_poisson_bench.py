"""Poisson blending of a lower face in a 256-px colour frame on one core, against OpenCV and a sparse direct solve."""

import cv2
import numpy as np
import pytest
import torch

from model_zoo.functional.poisson import poisson_blend

from ..model_zoo.functional.poisson_oracle import direct_blend, lower_face, portraits
from .ratio import compare

GREY = 127.5


@pytest.fixture
def one_core():
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    yield
    cv2.setNumThreads(threads[0])
    torch.set_num_threads(threads[1])


def test_against_seamless_clone(benchmark, one_core):
    mask = lower_face()
    target, source = portraits()
    expected = direct_blend(target[0], source[0], mask)
    error = (poisson_blend(target, source, mask[None, None])[0] - expected).abs()[:, mask] * GREY
    frames = [((image + 1) * GREY).round().byte() for image in (target, source)]
    arrays = [image[0].permute(1, 2, 0).contiguous().numpy() for image in frames]
    white = mask.numpy().astype(np.uint8) * 255
    x, y, width, height = cv2.boundingRect(white)
    centre = (x + width // 2, y + height // 2)
    speedup = compare(
        benchmark,
        lambda: poisson_blend(*frames, mask[None, None]),
        lambda: cv2.seamlessClone(arrays[1], arrays[0], white, centre, cv2.NORMAL_CLONE),
    )
    benchmark.extra_info |= {"mean error": error.mean().item(), "largest error": error.max().item()}
    print(
        f"{int(mask.sum())} px, {width} × {height}: "
        f"mean error {error.mean():.3f}, largest {error.max():.3f} grey levels of the direct solve"
    )
    assert error.mean() < 0.5
    assert speedup > 3
