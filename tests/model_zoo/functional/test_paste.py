import cv2
import numpy as np
import pytest
import torch

from model_zoo.functional.paste import paste_crop, sample_crop


def photograph(height: int, width: int) -> torch.Tensor:
    """Smooth colours with fine grain, uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, height // 16 + 2, width // 16 + 2, generator=generator) * 200 + 20
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    return (smooth + 6 * torch.randn(smooth.shape, generator=generator)).round().clamp(0, 255).byte()


def similarity(scale: float, degrees: float, x: float, y: float) -> torch.Tensor:
    turn = scale * torch.polar(torch.tensor(1.0), torch.deg2rad(torch.tensor(degrees)))
    return torch.tensor([[turn.real, -turn.imag, x], [turn.imag, turn.real, y]])


def disc(size: int = 256, radius: float = 0.3) -> torch.Tensor:
    steps = torch.linspace(-1, 1, size)
    distance = (steps[:, None].square() + steps.square()).sqrt()
    return ((2 * radius - distance) * 8).clamp(0, 1)[None]


CASES = {
    "small face": (288, 360, similarity(1.2, 5, -60, -30), 256),
    "large face": (1080, 1920, similarity(0.4, -10, -150, 0), 256),
    "at 128 px": (288, 360, similarity(1.2, 5, -60, -30), 128),
    "frame below the crop": (120, 100, similarity(2.3, 0, 10, 0), 256),
    "beyond the edge": (288, 360, similarity(1.2, 0, -250, -200), 256),
}


@pytest.mark.parametrize(("height", "width", "transform", "size"), CASES.values(), ids=CASES)
def test_an_unchanged_crop_gives_the_frame_back(height, width, transform, size):
    frame = photograph(height, width)
    unit = frame.float() / 127.5 - 1
    crop = sample_crop(frame, transform, size)
    assert torch.equal(paste_crop(unit, crop, transform, disc(size)), unit)
    as_bytes = ((crop + 1) * 127.5).round().clamp(0, 255).byte()
    assert torch.equal(paste_crop(frame, as_bytes, transform, disc(size)), frame)


@pytest.mark.parametrize(("height", "width", "transform", "size"), CASES.values(), ids=CASES)
def test_an_edit_arrives_where_it_belongs_and_nowhere_else(height, width, transform, size):
    """OpenCV's warp of the mask says where."""
    frame = photograph(height, width)
    unit = frame.float() / 127.5 - 1
    mask = disc(size)
    edited = torch.full((3, size, size), 0.5)
    pasted = paste_crop(unit, edited, transform, mask)
    matrix = transform.double().numpy().copy()
    matrix[:, 2] = (matrix[:, 2] + 0.5) * size / 256 - 0.5
    matrix[:, :2] *= size / 256
    inverse = cv2.invertAffineTransform(matrix)
    reach = torch.from_numpy(cv2.warpAffine(mask[0].numpy(), inverse, (width, height), flags=cv2.INTER_LINEAR))
    assert (reach > 0.99).sum() > 100
    far = torch.from_numpy(cv2.dilate((reach.numpy() > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    assert torch.equal(pasted[:, far], unit[:, far])
    inside = reach > 0.999
    changed = (edited[:, :1, :1] - unit).abs().amin(0) > 0.3
    torch.testing.assert_close(
        pasted[:, inside & changed], torch.full_like(pasted[:, inside & changed], 0.5), atol=0.02, rtol=0
    )


def test_detail_stays_where_nothing_changed_and_leaves_no_ghost_where_something_did():
    frame = photograph(1080, 1920).float() / 127.5 - 1
    transform = similarity(0.3, 0, -160, -30)
    edited = sample_crop(frame, transform)
    edited[:, :, 128:] += 0.5  # the right half of the crop
    pasted = paste_crop(frame, edited, transform, torch.ones(1, 256, 256))
    left, right = int((100 + 160) / 0.3), int((200 + 160) / 0.3)
    rows = slice(400, 600)
    assert torch.equal(pasted[:, rows, left : left + 40], frame[:, rows, left : left + 40])
    grain = [image[:, rows, right : right + 100].diff(n=3, dim=-1).std() for image in (pasted, frame)]
    assert grain[0] < 0.3 * grain[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": torch.zeros(1, 64, 64)}, "RGB"),
        ({"frame": torch.zeros(4, 64, 64)}, "RGB"),
        ({"frame": torch.full((3, 64, 64), torch.nan)}, "not finite"),
        ({"edited_crop": torch.full((3, 32, 32), torch.inf)}, "not finite"),
        ({"edited_crop": torch.zeros(3, 32, 16)}, "squares"),
        ({"edited_crop": torch.zeros(3, 32, 32, dtype=torch.uint8)}, "both be float or uint8"),
        ({"mask": torch.full((1, 32, 32), torch.nan)}, r"\[0, 1\]"),
        ({"transform": torch.zeros(2, 3)}, "invertible"),
        ({"transform": torch.full((2, 3), torch.nan)}, "not fitted"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, message):
    good = {
        "frame": torch.zeros(3, 64, 64),
        "edited_crop": torch.zeros(3, 32, 32),
        "transform": similarity(2, 0, 0, 0),
        "mask": torch.ones(1, 32, 32),
    }
    paste_crop(**good)
    with pytest.raises(ValueError, match=message) as caught:
        paste_crop(**good | change)
    assert "\n" not in str(caught.value)


def test_an_empty_mask_or_one_outside_of_the_frame_changes_nothing():
    frame = photograph(64, 64)
    crop = np.full((3, 256, 256), 255, np.uint8)
    empty = paste_crop(frame, torch.from_numpy(crop), similarity(4, 0, 0, 0), torch.zeros(1, 256, 256))
    assert torch.equal(empty, frame)
    outside = paste_crop(frame, torch.from_numpy(crop), similarity(4, 0, 5000, 0), torch.ones(1, 256, 256))
    assert torch.equal(outside, frame)
