"""Reference frames in the generator's input, earlier windows, and the full-face variant's input."""

import pytest
import torch

from model_zoo.functional.heatmaps import landmark_heatmap
from model_zoo.render.discriminator import PatchDiscriminator
from model_zoo.render.frame_windows import FrameWindows, shifted
from model_zoo.render.full_face_renderer import FullFaceRenderer
from model_zoo.render.generator import UNetGenerator
from model_zoo.render.layers import ReferenceOutput
from model_zoo.render.mouth_renderer import MouthRenderer

from ..functional.faces import talking_face
from ..golden import fill, wave

SIZE = 32
BOX, NOISE = torch.tensor([[60.0, 120.0, 200.0, 240.0]]).expand(2, 4), torch.tensor([3, 77])


def windows(references: int = 2) -> FrameWindows:
    frames, landmarks = wave(2, 7, 3, SIZE, SIZE), talking_face(7).expand(2, -1, -1, -1)
    beside = wave(2, references, 3, SIZE, SIZE, phase=1.0) if references else None
    return FrameWindows.of(frames, landmarks, beside)


def test_references_are_stacked_unmasked_behind_the_heatmaps():
    given, plain = windows(), windows(0)
    stack = given.stack(BOX, NOISE, torch.float32)
    assert stack.shape == (2, 34, SIZE, SIZE)
    torch.testing.assert_close(stack[:, :28], plain.stack(BOX, NOISE, torch.float32))
    torch.testing.assert_close(stack[:, 28:], wave(2, 2, 3, SIZE, SIZE, phase=1.0).flatten(1, 2))
    for moved in (given.to("cpu"), given.cut(0, 2), given.earlier(0)):
        assert torch.equal(moved.reference_frames, given.reference_frames)
    assert torch.equal(given.cut(1, 2).reference_frames, given.reference_frames[1:])
    assert given.earlier(1).num_references == 2
    assert plain.reference_frames is None


def test_an_untrained_residual_generator_shows_the_reference():
    torch.manual_seed(0)
    renderer = MouthRenderer(UNetGenerator(34, SIZE, 4, output=ReferenceOutput(28)))
    given = windows()
    rendering = renderer(given, BOX, NOISE)
    inside = rendering.mask.bool().expand(-1, 3, -1, -1)
    assert (rendering.frame - given.reference_frames[:, 0])[inside].abs().mean() < 0.3
    assert torch.equal(rendering.frame[~inside], given.last[~inside])


def test_earlier_windows_repeat_their_first_frame():
    given = windows(0)
    assert torch.equal(given.earlier(2).rows, given.rows[:, [0, 0, 0, 1, 2, 3, 4]])
    assert torch.equal(given.earlier(1).last, wave(2, 7, 3, SIZE, SIZE)[:, 5])
    values = torch.arange(14).view(2, 7)
    assert torch.equal(shifted(values, 2), values[:, [0, 0, 0, 1, 2, 3, 4]])
    assert shifted(values, 0) is values


@pytest.fixture
def full_face() -> FullFaceRenderer:
    return FullFaceRenderer(fill(UNetGenerator(24, SIZE, 4)))


def test_the_full_face_does_not_depend_on_frame_t(full_face):
    frames, landmarks = wave(2, 7, 3, SIZE, SIZE), talking_face(7).expand(2, -1, -1, -1)
    other = torch.cat([frames[:, :-1], wave(2, 1, 3, SIZE, SIZE, phase=2.0)], 1)
    moved = landmarks.clone()
    moved[:, -1] += 9
    first = full_face(FrameWindows.of(frames, landmarks), BOX, NOISE)
    second = full_face(FrameWindows.of(other, moved), BOX, NOISE)
    assert torch.equal(first.frame, second.frame)
    assert torch.equal(first.heatmap, landmark_heatmap(landmarks[:, -2], SIZE))
    assert first.mask.min() == 1
    earlier = frames.clone()
    earlier[:, 5, :, :4] += 0.1
    assert not torch.equal(first.frame, full_face(FrameWindows.of(earlier, landmarks), BOX, NOISE).frame)


def test_the_full_face_follows_given_landmarks(full_face):
    given = windows(0)
    landmarks = talking_face(7).expand(2, -1, -1, -1).clone().requires_grad_()
    rendering = full_face(given, BOX, NOISE, landmarks)
    torch.testing.assert_close(rendering.frame, full_face(given, BOX, NOISE).frame)
    (gradient,) = torch.autograd.grad(rendering.frame.sum(), landmarks)
    assert gradient[:, :-1].abs().max() > 0
    assert gradient[:, -1].abs().max() == 0


def test_features_of_the_discriminator_end_in_its_scores():
    network = fill(PatchDiscriminator(7, 64, 4))
    x = wave(2, 7, 64, 64)
    *maps, scores = network.features(x)
    assert torch.equal(scores, network(x))
    assert [each.shape[1] for each in maps] == [4, 8, 16][: len(maps)]
    assert maps[0].shape[-1] == 32
