"""The full-face variant: whole frames, fed with the truth or with what it made."""

from __future__ import annotations

import torch

from lightning_modules.full_face import AUTOREGRESSIVE, COPY_FRAME, OURS, PREVIOUS_FRAME, WRAPPED, FullFaceModule
from model_zoo.render.frame_windows import FrameBank, FrameWindows
from model_zoo.render.full_face_renderer import FullFaceRenderer
from model_zoo.render.generator import UNetGenerator
from tests.lightning_modules import tiny


def module() -> FullFaceModule:
    torch.manual_seed(0)
    renderer = FullFaceRenderer(UNetGenerator(24, tiny.SIZE, 4))
    return FullFaceModule(renderer, tiny.render_objective(), num_clips=2).eval()


def clip(num_frames: int = 10, number: int = 0):
    """Consecutive windows of one clip, as an evaluation loads them."""
    (sample, *_) = [each.video for each in tiny.clip_samples(tiny.face(), seed=number, num_samples=1)]
    frames = torch.cat([sample.frames[0], sample.frames[0].flip(0)])[:num_frames]
    landmarks = torch.cat([sample.landmarks[0], sample.landmarks[0].flip(0)])[:num_frames]
    rows = (torch.arange(num_frames)[:, None] + torch.arange(-6, 1)).clamp_min(0)
    bank = FrameBank(torch.cat([frames, frames.mean(0, keepdim=True)]), landmarks)
    values = {
        name: getattr(sample, name).expand(num_frames, *getattr(sample, name).shape[1:])
        for name in ("mouth_box", "mouth_region", "noise_number")
    }
    return type(sample)(
        windows=FrameWindows(bank, rows),
        mean_row=torch.full((num_frames,), num_frames),
        other_row=torch.full((num_frames,), 2),
        clip=torch.full((num_frames,), number),
        frame=torch.arange(num_frames),
        **values,
    )


@torch.no_grad()
def test_every_frame_is_made_from_those_made_before():
    given, video = module(), clip()
    made = given.continued(video)
    past = video.frames[0, :-1]  # before the clip: its first frame
    for frame in range(len(video)):
        own = video.cut(frame, frame + 1)
        windows = FrameWindows.of(torch.cat([past, video.target[frame : frame + 1]])[None], own.landmarks)
        expected = given.renderer(windows, own.mouth_box, own.noise_number).frame
        torch.testing.assert_close(made[frame : frame + 1], expected)
        past = torch.cat([past[1:], expected])
    assert (made - given.draw(video).frame)[3:].abs().max() > 1e-4  # teacher-forced is another thing


@torch.no_grad()
def test_batches_of_a_clip_go_on_and_another_clip_starts_afresh():
    whole, parts = module(), module()
    first, second = clip(number=0), clip(number=1)
    expected = torch.cat([whole.continued(first), whole.continued(second)])
    cuts = [part for video in (first, second) for part in (video.cut(0, 4), video.cut(4, 10))]
    torch.testing.assert_close(torch.cat([parts.continued(part) for part in cuts]), expected)
    torch.testing.assert_close(module().continued(second), whole.continued(second))


def test_rows():
    given, video = module(), clip()
    given.test_step(video, 0)
    scores = {(row, column): mean.compute().item() for row, column, mean in given.scores.items()}
    assert all(value == value for value in scores.values())
    assert scores[OURS, WRAPPED] > scores[OURS, "PSNR"]  # squares that wrap around are smaller
    assert scores[AUTOREGRESSIVE, "PSNR"] != scores[OURS, "PSNR"]
    trivial = given.trivial(video)
    assert torch.equal(trivial[PREVIOUS_FRAME][1:], video.target[:-1])
    assert torch.equal(trivial[PREVIOUS_FRAME][0], trivial[COPY_FRAME][0])  # frame 0 is not its own past
