import pytest
import torch
import torch.nn.functional as F

from model_zoo.metrics.flicker import ClipFlow, clip_flow, warping_error


def moving(num_frames: int = 4, step: int = 2, size: int = 64) -> torch.Tensor:
    """A texture that moves right by `step` px a frame."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 20, 40, generator=generator) * 2 - 1
    wide = F.interpolate(coarse, (size, 2 * size), mode="bicubic").clamp(-1, 1)[0]
    return torch.stack([wide[:, :, size // 2 - step * t :][:, :, :size] for t in range(num_frames)])


def test_flow_finds_the_motion():
    flow = clip_flow(moving(step=2))
    inner = flow.backward[:, 16:48, 16:48]
    torch.testing.assert_close(inner[..., 0].median(), torch.tensor(-2.0), atol=0.2, rtol=0)
    torch.testing.assert_close(inner[..., 1].median(), torch.tensor(0.0), atol=0.2, rtol=0)


def test_what_moves_with_the_flow_has_no_error_and_flicker_has_its_own():
    """With a flow that is known exactly, flicker of amplitude a costs 3 (2a / 2)² for colours in [0, 1]."""
    video = moving(step=2)
    motion = torch.zeros(3, 64, 64, 2)
    motion[..., 0] = -2
    visible = torch.zeros(3, 64, 64, dtype=torch.bool)
    visible[:, 8:-8, 8:-8] = True
    flow = ClipFlow(motion, visible)
    torch.testing.assert_close(warping_error(video, flow), torch.zeros(3), atol=1e-9, rtol=0)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None, None]
    flickering = video + 0.1 * sign
    torch.testing.assert_close(warping_error(flickering, flow), torch.full((3,), 3 * 0.1**2), rtol=1e-4, atol=0)


def test_flicker_shows_above_the_truths_own_error():
    video = moving()
    flow = clip_flow(video)
    assert flow.visible[:, 8:-8, 8:-8].float().mean() > 0.5
    region = torch.zeros(64, 64, dtype=torch.bool)
    region[16:48, 16:48] = True
    noise = 0.1 * torch.randn(video.shape, generator=torch.Generator().manual_seed(0))
    own, flickering = warping_error(video, flow, region).mean(), warping_error(video + noise, flow, region).mean()
    assert own < 2e-3
    assert flickering > 5 * own
    still = video[:1].expand_as(video)  # does not move with the truth
    assert warping_error(still, flow, region).mean() > 5 * own
    elsewhere = torch.where(region, video, video + noise)
    inner = region.clone()
    inner[16:19], inner[45:48], inner[:, 16:22], inner[:, 42:48] = False, False, False, False
    torch.testing.assert_close(warping_error(elsewhere, flow, inner), warping_error(video, flow, inner))


def test_uncovered_pixels_do_not_count():
    video = moving(step=0)
    video[:, :, 20:40, 20:40] = -1
    video[2:, :, 20:40, 20:40], video[2:, :, 20:40, 30:50] = 0.5, -1  # a square jumps by 10 px
    visible = clip_flow(video).visible
    assert visible[0].float().mean() > 0.95
    assert visible[1, 20:40, 20:30].float().mean() < 0.7
    none = warping_error(video, ClipFlow(torch.zeros(3, 64, 64, 2), torch.zeros(3, 64, 64, dtype=torch.bool)))
    assert none.isnan().all()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="two RGB frames"):
        clip_flow(moving()[:1])
    with pytest.raises(ValueError, match="not of the clip"):
        warping_error(moving()[:3], clip_flow(moving()))
