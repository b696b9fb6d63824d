"""The compiled loops against torch's own conversion, for every byte and for boxes of all kinds."""

import numpy as np
import pytest
import torch

from model_zoo.render.window_kernels import occupied_rows, write_heatmaps, write_masked_frames

SIZE = 16
# first column and row, those behind the last: inside, all, none, none at a corner, one pixel, up to the borders
BOXES = [(3, 4, 9, 11), (0, 0, 16, 16), (5, 5, 5, 5), (16, 16, 16, 16), (15, 15, 16, 16), (0, 7, 16, 16), (6, 0, 7, 16)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frames_are_converted_and_their_boxes_filled(dtype):
    rng = np.random.default_rng(0)
    crops = torch.from_numpy(rng.permutation(np.arange(5 * 3 * SIZE**2, dtype=np.int64) % 256).astype(np.uint8))
    crops = crops.view(5, 3, SIZE, SIZE)
    assert len(crops.unique()) == 256
    rows = torch.from_numpy(rng.integers(0, 5, (len(BOXES), 4)))
    noise, numbers = torch.rand(3 * SIZE**2 + 50).to(dtype), torch.from_numpy(rng.integers(0, 50, len(BOXES)))
    out = torch.full((len(BOXES), 15, SIZE, SIZE), 9.0, dtype=dtype)
    seen_as = torch.uint16 if dtype == torch.bfloat16 else dtype
    views = (crops, rows, torch.tensor(BOXES), noise.view(seen_as), numbers, out.view(seen_as))
    write_masked_frames(*(tensor.numpy() for tensor in views))

    expected = (crops[rows].float() / 127.5 - 1).to(dtype)
    for window, (left, top, right, bottom) in enumerate(BOXES):
        field = noise[numbers[window] :][: 3 * SIZE**2].view(3, SIZE, SIZE)
        expected[window, :, :, top:bottom, left:right] = field[:, top:bottom, left:right]
    assert torch.equal(out[:, :12], expected.flatten(1, 2))
    assert (out[:, 12:] == 9).all()  # what follows the frames is not touched


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_heatmaps_are_copied_whatever_rows_they_take(dtype):
    rng = np.random.default_rng(0)
    heatmaps = np.zeros((5, SIZE, SIZE), dtype)
    for image, (top, bottom) in enumerate([(3, 9), (0, SIZE), (0, 0), (SIZE - 1, SIZE), (0, 1)]):
        heatmaps[image, top:bottom] = rng.integers(1, 99, (bottom - top, SIZE))
    heatmaps[0, 5] = 0  # a gap within
    bands = occupied_rows(heatmaps)
    assert bands.tolist() == [[3, 9], [0, SIZE], [0, 0], [SIZE - 1, SIZE], [0, 1]]
    rows = rng.integers(0, 5, (8, 4))
    out = np.full((8, 18, SIZE, SIZE), 7, dtype)
    write_heatmaps(heatmaps, bands, rows, out)
    assert np.array_equal(out[:, 12:16], heatmaps[rows])
    assert (out[:, :12] == 7).all()
    assert (out[:, 16:] == 7).all()
