"""Which frames of a gallery are shown, and that the driving landmarks alone decide."""

from dataclasses import replace

import pytest
import torch

from model_zoo.functional.masks import box_mask
from model_zoo.render.frame_windows import FrameBank, FrameWindows
from model_zoo.render.generator import UNetGenerator
from model_zoo.render.layers import BlendOutput, ReferenceOutput
from model_zoo.render.mouth_renderer import MouthRenderer
from model_zoo.render.warped_references import FIT_NOISE, nearest_references, warped_references

from ..functional.faces import talking_face
from ..golden import wave

SIZE, GALLERY = 32, 6
BOX, NOISE = torch.tensor([[60.0, 120.0, 200.0, 240.0]]).expand(2, 4), torch.tensor([3, 77])


def opened(*openings: float) -> torch.Tensor:
    """Faces whose lower lips hang so many px lower."""
    face = talking_face(1).repeat(len(openings), 1, 1)
    face[:, 55:60, 1] += torch.tensor(openings)[:, None]
    face[:, 64:68, 1] += torch.tensor(openings)[:, None]
    return face


def windows() -> FrameWindows:
    """Two windows over the same seven frames, and a gallery of ever wider mouths."""
    frames, beside = wave(7, 3, SIZE, SIZE), wave(GALLERY, 3, SIZE, SIZE, phase=1.0)
    bank = FrameBank(torch.cat([frames, beside]), opened(*[0.0] * 7))
    gallery = opened(*range(0, 3 * GALLERY, 3)).expand(2, -1, -1, -1)
    rows, references = torch.arange(7).expand(2, -1), torch.arange(7, 7 + GALLERY).expand(2, -1)
    return FrameWindows(bank, rows, references, gallery)


def test_the_nearest_are_chosen_and_weighted_by_their_distance():
    given = windows()
    index, weight = nearest_references(given.reference_landmarks, opened(7.0, 0.0), 3)
    assert index.tolist() == [[2, 3, 1], [0, 1, 2]]
    moved = 9 / 31  # of the landmarks that drive, 9 of the lower lip move
    distance = torch.tensor([1.0, 4.0, 16.0]) * moved
    expected = 1 / (distance + FIT_NOISE)
    torch.testing.assert_close(weight[0], expected / expected.sum())


def test_hidden_frames_are_not_looked_at():
    hidden = windows().reference_landmarks.clone()
    hidden[0, 2:4], hidden[1, 1:] = torch.nan, torch.nan
    index, weight = nearest_references(hidden, opened(7.0, 0.0), 3)
    assert index.tolist() == [[1, 4, 0], [0, 0, 0]]
    assert weight[1].tolist() == [1, 0, 0]
    index, weight = nearest_references(hidden[:, :1], opened(7.0, 0.0), 3)  # a gallery of one
    assert index.tolist() == [[0, 0, 0]] * 2
    assert weight.tolist() == [[1, 0, 0]] * 2


def test_a_frame_that_fits_is_shown_as_it_is_and_the_mean_comes_first():
    given = windows()
    shown = warped_references(given, opened(9.0, 0.0), BOX, 2)
    assert shown.shape == (2, 3, 3, SIZE, SIZE)
    inside = box_mask(BOX, SIZE)
    frames = given.reference_frames * inside[:, None]
    assert shown[~inside[:, None].expand_as(shown)].abs().max() == 0
    torch.testing.assert_close(shown[0, 1], frames[0, 3], atol=1e-4, rtol=0)
    torch.testing.assert_close(shown[1, 1], frames[1, 0], atol=1e-4, rtol=0)
    assert not torch.allclose(shown[0, 2], frames[0, 2], atol=1e-3)  # another opening: its lip was moved
    _, weight = nearest_references(given.reference_landmarks, opened(9.0, 0.0), 2)
    torch.testing.assert_close(shown[:, 0], (weight[..., None, None, None] * shown[:, 1:]).sum(1))
    with pytest.raises(ValueError, match="no gallery"):
        warped_references(replace(given, reference_landmarks=None), opened(9.0, 0.0), BOX, 2)


def test_the_driving_landmarks_alone_decide():
    torch.manual_seed(0)
    renderer = MouthRenderer(UNetGenerator(28 + 9, SIZE, 4, output=ReferenceOutput(28)), warped=2)
    given = windows()
    driven = opened(9.0).expand(2, 7, -1, -1)
    first = renderer(given, BOX, NOISE, driven)
    inside = first.mask.bool().expand(-1, 3, -1, -1)
    base = warped_references(given, driven[:, -1], BOX, 2)[:, 0]
    assert (first.frame - base)[inside].abs().mean() < 0.3  # untrained
    assert torch.equal(first.base, torch.where(inside, base, given.last))
    moved = replace(given, bank=FrameBank(given.bank.crops, given.bank.landmarks + 5))
    torch.testing.assert_close(renderer(moved, BOX, NOISE, driven).frame, first.frame)
    own = renderer(given, BOX, NOISE)
    torch.testing.assert_close(own.frame, renderer(given, BOX, NOISE, given.bank.landmarks[given.rows]).frame)
    assert not torch.allclose(own.frame, first.frame)


def test_the_blend_starts_as_the_mean_and_weighs_what_differs():
    mean, frames = torch.tensor([0.1]), torch.tensor([0.5, -0.2])
    x = torch.cat([torch.zeros(28), mean.expand(3), frames[:1].expand(3), frames[1:].expand(3)])[None, :, None, None]
    output = BlendOutput(28, 2)
    assert output.features == 5
    features = torch.zeros(1, 5, 1, 1)
    assert torch.allclose(output(features, x), mean)
    features[0, :, 0, 0] = torch.tensor([0.0, 0.0, 0.2, 0.5, -1.0])
    expected = mean + 0.5 * (frames[0] - mean) - (frames[1] - mean) + 2 * torch.tensor([0.0, 0.0, 0.2]).tanh()
    torch.testing.assert_close(output(features, x)[0, :, 0, 0], expected)
    features[0, 2] = 9.0
    assert output(features, x).max() > 1
    assert output.eval()(features, x).max() == 1
    with pytest.raises(ValueError, match="raise in_channels"):
        output(features, x[:, :34])


def test_windows_keep_their_gallery():
    given = windows()
    for moved in (given.to("cpu"), given.cut(0, 2), given.earlier(1)):
        assert torch.equal(moved.reference_landmarks, given.reference_landmarks)
    assert given.cut(1, 2).reference_landmarks.shape == (1, GALLERY, 68, 2)
