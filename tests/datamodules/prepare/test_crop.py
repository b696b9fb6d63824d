"""The crop: where the eyes go, that it is exact, and that it does not move with the mouth."""

import cv2
import numpy as np
import pytest
import torch

from datamodules.prepare.crop import crop_from_fit, fill_gaps, smooth_over_time, warp_crop
from model_zoo.functional.camera import apply_similarity, project
from tests.datamodules.fake_corpus import fake_face

FACE = fake_face()


def head(num_frames: int, seed: int, hertz: float = 4.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shape, expression and pose of a head whose fit is contaminated: scale and centre move with the jaw."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(num_frames) / 25
    shape, expression, pose = torch.zeros(199), torch.zeros(num_frames, 29), torch.zeros(num_frames, 6)
    shape[:6] = torch.randn(6, generator=generator)
    phase = 6.3 * torch.rand(3, generator=generator)
    speech = torch.sin(2 * np.pi * hertz * time + phase[0])
    expression[:, 0] = 1 + speech * torch.exp(-((time - time.mean()) ** 2))
    pose[:, 1] = 0.2 * torch.sin(1.5 * time + phase[1])
    pose[:, 2] = 0.2 * torch.cos(1.2 * time + phase[2])
    pose[:, 3] = 180 + 12 * torch.sin(time + phase[0])
    pose[:, 4] = 120 + 6 * torch.cos(time) + 2 * speech
    pose[:, 5] = np.log(66) + 0.02 * torch.sin(time) + 0.02 * speech
    return shape, expression, pose


def test_neutral_frontal_head_has_its_eyes_where_the_design_says():
    shape, expression, pose = head(40, 0)
    pose[:, :3] = 0
    pose[:] = pose[:1]
    crop = crop_from_fit(FACE, shape, expression, pose, torch.ones(40, dtype=torch.bool))
    eyes = FACE.project_landmarks(shape, torch.zeros(29), crop.pose)[:, [36, 45]]
    assert torch.allclose((eyes[:, 1] - eyes[:, 0]).norm(dim=-1), torch.tensor(0.30 * 256), atol=0.6)
    assert torch.allclose(eyes.mean(1), torch.tensor([0.50, 0.38]) * 256 - 0.5, atol=1e-2)


def test_roll_is_taken_out_and_transforms_are_similarities():
    shape, expression, pose = head(60, 1)
    pose[:, :2], pose[:, 2] = 0, 0.4
    crop = crop_from_fit(FACE, shape, expression, pose, torch.ones(60, dtype=torch.bool))
    assert crop.pose[:, 2].abs().max() < 0.02
    linear = crop.transform[:, :, :2]
    product = linear @ linear.mT
    assert torch.allclose(product / product[:, :1, :1], torch.eye(2).expand(60, 2, 2), atol=1e-5)
    assert (torch.linalg.det(linear) > 0).all()


def test_stored_pose_projects_to_the_cropped_landmarks():
    shape, expression, pose = head(75, 2)
    crop = crop_from_fit(FACE, shape, expression, pose, torch.ones(75, dtype=torch.bool))
    in_frame = FACE.project_landmarks(shape, expression, pose)
    in_crop = FACE.project_landmarks(shape, expression, crop.pose)
    assert torch.allclose(in_crop, apply_similarity(crop.transform, in_frame), atol=2e-3)


@pytest.mark.parametrize("hertz", [0.4, 1.0, 4.0])
def test_crop_does_not_move_with_the_mouth(hertz):
    for seed in range(4):
        shape, expression, pose = head(75, seed, hertz)
        crop = crop_from_fit(FACE, shape, expression, pose, torch.ones(75, dtype=torch.bool))
        lips = FACE.landmarks(shape, expression)
        opening = (lips[:, 62] - lips[:, 66]).norm(dim=-1).numpy()
        linear = crop.transform[:, :, :2]
        centre = torch.linalg.solve(linear, torch.full((75, 2), 127.5) - crop.transform[:, :, 2])
        scale = torch.linalg.det(linear).log() / 2
        for parameter in (*centre.T.numpy(), scale.numpy()):
            assert abs(np.corrcoef(parameter, opening)[0, 1]) < 0.1


def test_crop_follows_the_head():
    shape, expression, pose = head(200, 3)
    pose[:, 3] = torch.linspace(80, 280, 200)
    crop = crop_from_fit(FACE, shape, expression, pose, torch.ones(200, dtype=torch.bool))
    eyes = project(FACE.landmarks(shape, torch.zeros(29))[[36, 45]], crop.pose).mean(1)
    assert eyes[:, 0].std() < 4  # of 200 px that the head went


def test_missing_frames_are_interpolated():
    shape, expression, pose = head(50, 4)
    valid = torch.ones(50, dtype=torch.bool)
    valid[:5] = valid[20:25] = False
    broken = pose.clone()
    broken[~valid] = 1e6
    crop = crop_from_fit(FACE, shape, expression, broken, valid)
    assert torch.isfinite(crop.transform).all()
    assert (crop.transform[:, 0, 2].diff().abs() < 5).all()
    with pytest.raises(ValueError, match="no frame"):
        crop_from_fit(FACE, shape, expression, pose, torch.zeros(50, dtype=torch.bool))


def test_smoothing_keeps_lines_and_kills_speech():
    time = torch.arange(200, dtype=torch.float64)
    line = (3 + 0.5 * time)[:, None]
    assert torch.allclose(smooth_over_time(line), line, atol=1e-9)
    speech = torch.sin(2 * np.pi * 3 * time / 25)[:, None]
    assert smooth_over_time(speech)[45:155].abs().max() < 1e-3
    one = torch.tensor([[2.0]], dtype=torch.float64)
    assert torch.equal(smooth_over_time(one), one)


def test_long_clips_are_smoothed_as_short_ones():
    """A Gaussian fit of a line is numpy's weighted polynomial fit, across the ends of blocks too."""
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(2300, 1)).cumsum(0))
    smooth, time = smooth_over_time(values, 10.0), np.arange(2300)
    for frame in (0, 1000, 1023, 1024, 1060, 2047, 2299):
        near = np.abs(time - frame) <= 40
        weight = np.exp(-0.25 * ((time[near] - frame) / 10) ** 2)  # numpy squares its weights
        line = np.polyfit(time[near] - frame, values[near, 0].numpy(), 1, w=weight)
        assert float(smooth[frame, 0]) == pytest.approx(line[1], abs=1e-9)


def test_gaps_are_filled_linearly_and_held_at_the_ends():
    values = torch.tensor([[9.0], [1.0], [9.0], [3.0], [9.0]])
    valid = torch.tensor([False, True, False, True, False])
    assert fill_gaps(values, valid).ravel().tolist() == [1, 1, 2, 3, 3]


@pytest.mark.parametrize("scale", [0.2, 0.6, 1.3])
@pytest.mark.parametrize("size", [256, 128])
def test_warped_pixels_are_where_the_transform_says(scale, size):
    """A blob's centre of mass in the crop is the transform of its centre in the frame."""
    y, x = np.mgrid[:500, :601]
    centre, sigma = np.array([310.3, 222.7]), 12 / min(scale, 1)
    blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    frame = np.repeat((255 * blob).astype(np.uint8)[..., None], 3, 2)
    transform = np.array([[scale, 0.1 * scale, 0], [-0.1 * scale, scale, 0]])
    transform[:, 2] = np.array([140.2, 120.9]) - transform[:, :2] @ centre
    crop = warp_crop(frame, transform, size)[..., 0].astype(float)
    v, u = np.mgrid[:size, :size]
    found = np.array([(u * crop).sum(), (v * crop).sum()]) / crop.sum()
    expected = (np.array([140.2, 120.9]) + 0.5) * size / 256 - 0.5
    np.testing.assert_allclose(found, expected, atol=0.15)


def test_border_is_replicated():
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[-1] = 200
    crop = warp_crop(frame, np.array([[1.0, 0, 100], [0, 1.0, 0]]))
    assert (crop[40:, 120] == 200).all()


@pytest.mark.parametrize("offset", [(-60, -20), (90, 140), (-400, 0), (0, 300), (2000, -3000)])
@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_only_what_is_looked_at_is_touched_and_nothing_changes(offset, scale):
    frame = np.random.default_rng(0).integers(0, 255, (150, 170, 3), np.uint8)
    transform = np.array([[scale, 0.1, offset[0]], [-0.1, scale, offset[1]]])
    whole = cv2.warpAffine(frame, transform, (256, 256), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(warp_crop(frame, transform).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("offset", [(20, 30), (-300, -90), (0, 280), (3000, -2000)])
def test_a_large_face_is_averaged_from_the_whole_frames_blocks(offset):
    frame = np.random.default_rng(0).integers(0, 255, (901, 1203, 3), np.uint8)
    transform = np.array([[0.3, 0.02, offset[0]], [-0.02, 0.3, offset[1]]])
    halved = cv2.resize(frame[:900, :1202], (601, 450), interpolation=cv2.INTER_AREA)
    transform_halved = np.column_stack([2 * transform[:, :2], transform[:, 2] + transform[:, :2] @ [0.5, 0.5]])
    whole = cv2.warpAffine(
        halved, transform_halved, (256, 256), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    assert np.abs(warp_crop(frame, transform).astype(int) - whole).max() <= 1
