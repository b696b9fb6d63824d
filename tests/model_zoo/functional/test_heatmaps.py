import pytest
import torch

from model_zoo.functional.heatmaps import HEATMAP_LANDMARKS, landmark_heatmap

from .faces import talking_face


def naive_heatmap(landmarks: torch.Tensor, size: int, sigma: float = 2.5) -> torch.Tensor:
    """The definition: every Gaussian at every pixel, then the maximum."""
    drawn = (landmarks[..., list(HEATMAP_LANDMARKS), :] + 0.5) * size / 256 - 0.5
    pixels = torch.arange(size, dtype=landmarks.dtype)
    x, y = drawn[..., 0, None, None], drawn[..., 1, None, None]
    squared = (pixels[None, :] - x) ** 2 + (pixels[:, None] - y) ** 2
    return torch.exp(-squared / (2 * (sigma * size / 256) ** 2)).amax(-3)[..., None, :, :]


@pytest.mark.parametrize("size", [256, 64, 32])
def test_equals_the_naive_maximum(size):
    landmarks = torch.stack([talking_face(3), talking_face(3) + 0.37])  # (B, T, 68, 2)
    heat = landmark_heatmap(landmarks, size)
    assert heat.shape == (2, 3, 1, size, size)
    torch.testing.assert_close(heat, naive_heatmap(landmarks, size), atol=2e-7, rtol=2e-5)


@pytest.mark.parametrize("shift", [-130.0, 90.0, 1e7])
def test_landmarks_out_of_the_crop_give_what_their_gaussian_gives(shift):
    landmarks = talking_face(1) + shift
    torch.testing.assert_close(landmark_heatmap(landmarks, 64), naive_heatmap(landmarks, 64), atol=2e-7, rtol=2e-5)


@pytest.mark.parametrize("size", [256, 64])
def test_is_the_same_whether_a_gradient_is_asked_for_or_not(size):
    landmarks = talking_face(5)
    with_gradient = landmark_heatmap(landmarks.clone().requires_grad_(), size)
    torch.testing.assert_close(landmark_heatmap(landmarks, size), with_gradient.detach(), atol=1e-6, rtol=1e-5)


def test_peaks_at_landmarks_that_lie_on_pixel_centres():
    landmarks = torch.full((1, 68, 2), 20.0)
    landmarks[0, 48] = torch.tensor([120.0, 200.0])
    heat = landmark_heatmap(landmarks, 256)[0, 0]
    assert heat[200, 120] == 1
    torch.testing.assert_close(heat[200, 125], torch.tensor(-(5.0**2) / (2 * 2.5**2)).exp())


def test_gradcheck_in_float64():
    generator = torch.Generator().manual_seed(0)
    landmarks = 256 * torch.rand(1, 68, 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda points: landmark_heatmap(points, 16, sigma=16.0), landmarks.requires_grad_())


@pytest.mark.parametrize("size", [64, 128])
def test_gradient_equals_that_of_the_naive_maximum(size):
    landmarks = talking_face(2).double().requires_grad_()
    target = naive_heatmap(talking_face(2).double() + 1.3, size)
    gradients = [
        torch.autograd.grad((draw(landmarks, size) - target).square().sum(), landmarks)[0]
        for draw in (landmark_heatmap, naive_heatmap)
    ]
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=1e-9)
    assert gradients[0][:, list(HEATMAP_LANDMARKS)].abs().sum(-1).min() > 0
    assert gradients[0][:, 17:48].abs().max() == 0


def test_coinciding_landmarks_share_the_gradient():
    landmarks = torch.full((1, 68, 2), 100.0, requires_grad=True)
    weights = torch.arange(64.0).expand(64, 64)
    (gradient,) = torch.autograd.grad((landmark_heatmap(landmarks, 64) * weights).sum(), landmarks)
    single = torch.full((1, 68, 2), -9e3)
    single[:, 48] = 100
    single.requires_grad_()
    (whole,) = torch.autograd.grad((landmark_heatmap(single, 64) * weights).sum(), single)
    torch.testing.assert_close(gradient[0, 48], whole[0, 48] / len(HEATMAP_LANDMARKS))
    torch.testing.assert_close(gradient.sum(1), whole.sum(1))


def test_bad_landmarks_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        landmark_heatmap(talking_face(1).index_fill(1, torch.tensor([50]), float("nan")), 64)
    with pytest.raises(ValueError, match=r"\(\.\.\., 68, 2\)"):
        landmark_heatmap(torch.zeros(1, 20, 2), 64)


def test_half_precision_landmarks_are_drawn_in_float32():
    landmarks = talking_face(1).bfloat16()
    torch.testing.assert_close(landmark_heatmap(landmarks, 64), landmark_heatmap(landmarks.float(), 64))


@pytest.mark.slow
def test_compiles_without_a_break():
    landmarks = talking_face(2).requires_grad_()
    compiled = torch.compile(lambda points: landmark_heatmap(points, 64), fullgraph=True, backend="aot_eager")
    weights = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    values = [draw(landmarks) for draw in (compiled, lambda points: landmark_heatmap(points, 64))]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad((value * weights).sum(), landmarks)[0] for value in values))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu():
    landmarks = talking_face(7)
    torch.testing.assert_close(landmark_heatmap(landmarks.cuda(), 256).cpu(), landmark_heatmap(landmarks, 256))
