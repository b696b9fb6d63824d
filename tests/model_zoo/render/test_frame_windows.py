"""The generator's input: each window from shared frames is what its own seven frames would give."""

import pickle

import pytest
import torch

from model_zoo.functional.heatmaps import landmark_heatmap
from model_zoo.functional.masks import box_mask, noise_fields
from model_zoo.render.frame_windows import FrameBank, FrameWindows

from ..functional.faces import talking_face

SIZE = 64
BOXES = torch.tensor([[40.0, 60.5, 200.0, 230.0], [10.0, 100.0, 255.0, 255.0], [70.2, 120.7, 190.1, 240.9]])
NOISE = torch.tensor([5, 99, 12345])


def windows(device: str = "cpu") -> FrameWindows:
    generator = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (12, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    rows = torch.randint(0, 10, (3, 7), generator=generator)
    return FrameWindows(FrameBank(crops, talking_face(10)), rows).to(device)


def plain_stack(given: FrameWindows, heatmaps: torch.Tensor) -> torch.Tensor:
    """The definition: seven masked RGB frames, then seven heatmaps."""
    frames = given.bank.crops[given.rows] / 127.5 - 1
    inside = box_mask(BOXES.to(frames.device), SIZE)[:, None]
    return torch.cat(
        [
            torch.where(inside, noise_fields(SIZE, frames.device)[NOISE.to(frames.device)][:, None], frames).flatten(
                1, 2
            ),
            heatmaps,
        ],
        1,
    )


def devices() -> list:
    return ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=devices())
def device(request) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return request.param


def test_stack_is_seven_masked_frames_and_their_own_heatmaps(device):
    given = windows(device)
    heatmaps = landmark_heatmap(given.bank.landmarks[given.rows], SIZE).squeeze(2)
    stack = given.stack(BOXES.to(device), NOISE.to(device), torch.float32)
    assert stack.shape == (3, 28, SIZE, SIZE)
    torch.testing.assert_close(stack, plain_stack(given, heatmaps), atol=2e-7, rtol=1e-6)
    rounded = given.stack(BOXES.to(device), NOISE.to(device), torch.bfloat16)
    assert rounded.is_contiguous()
    torch.testing.assert_close(rounded, stack.bfloat16(), atol=0, rtol=0)


def test_gradients_flow_through_given_heatmaps_alone():
    given = windows()
    landmarks = talking_face(7).expand(3, -1, -1, -1).clone().requires_grad_()
    heatmaps = landmark_heatmap(landmarks, SIZE).squeeze(2)
    stack = given.stack(BOXES, NOISE, torch.float32, heatmaps)
    torch.testing.assert_close(stack, plain_stack(given, heatmaps), atol=2e-7, rtol=1e-6)
    weight = torch.randn(stack.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((stack * weight).sum(), landmarks, retain_graph=True)
    (expected,) = torch.autograd.grad((heatmaps * weight[:, 21:]).sum(), landmarks)
    assert torch.equal(gradient, expected)


def test_what_is_made_of_a_bank_is_made_once():
    bank = windows().bank
    assert bank.rgb(torch.bfloat16) is bank.rgb(torch.bfloat16)
    assert bank.heatmaps(torch.float32) is bank.heatmaps(torch.float32)
    assert bank.to("meta") is bank.to("meta")
    assert bank.to("cpu") is bank
    assert len(pickle.dumps(bank)) < 1.2 * (bank.crops.numel() + 4 * bank.landmarks.numel())  # without what was made


def test_frames_from_elsewhere():
    frames = torch.rand(2, 7, 3, SIZE, SIZE) * 2 - 1
    given = FrameWindows.of(frames, talking_face(7).expand(2, -1, -1, -1))
    assert torch.equal(given.last, frames[:, -1])
    assert torch.equal(given.cut(1, 2).last, frames[1:, -1])
    stack = given.stack(BOXES[:2], NOISE[:2], torch.float32)
    outside = ~box_mask(BOXES[:2], SIZE)[:, None].expand(-1, 7, 3, -1, -1)
    assert torch.equal(stack[:, :21].unflatten(1, (7, 3))[outside], frames[outside])
