"""The far jaw follows the outline of the mesh: checked against the outline of the drawn vertices themselves."""

import math

import pytest
import torch

from model_zoo.face.clip_solver import Clips, ClipState
from model_zoo.face.contour import Contour
from model_zoo.face.fitting import fit_clip
from model_zoo.face.morphable import CONTOUR_SLOTS, MorphableFace
from model_zoo.face.procedural import procedural_face
from model_zoo.functional.camera import project, rotation_matrix
from tests.model_zoo.face.small_face import talking

LEFT, RIGHT = range(8), range(9, 17)


@pytest.fixture(scope="module")
def face() -> MorphableFace:
    return procedural_face()


def outlined(face: MorphableFace, shape: torch.Tensor, expression: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """Landmarks, those of the far jaw moved to where the face ends at their own height in the image."""
    landmarks = face.project_landmarks(shape, expression, pose)
    front = face.mean[:, 2] < face.mean[face.landmark_index[[0, 16]], 2].mean()  # neither ears nor neck
    for t in range(len(pose)):
        points = project(face.vertices(shape, expression[t])[None], pose[t : t + 1])[0, front]
        turned_right = bool(pose[t, 1] > 0)
        for landmark in LEFT if turned_right else RIGHT:
            x, y = landmarks[t, landmark]
            row = torch.cat((x[None], points[(points[:, 1] - y).abs() < 2, 0]))
            landmarks[t, landmark, 0] = row.min() if turned_right else row.max()
    return landmarks


def state(pose: torch.Tensor) -> ClipState:
    pose = pose.double()
    neutral = pose.new_zeros(len(pose), 29)
    return ClipState(pose.new_zeros(1, 199), neutral, rotation_matrix(pose[:, :3]), pose[:, 3:5], pose[:, 5])


def test_rows_start_at_the_landmark_and_end_in_the_middle(face):
    rows = face.mean[face.contour_index]
    assert torch.equal(face.contour_index[:, 0], face.landmark_index[:17])
    own = rows[:, :1]
    assert ((rows[..., 1] - own[..., 1]).abs() < 0.07).all()
    for landmark in (*LEFT[1:], *RIGHT[:-1]):
        assert rows[landmark, -1, 0].abs() < 0.12
        assert len(face.contour_index[landmark].unique()) >= CONTOUR_SLOTS // 2


def test_only_the_far_side_of_turned_heads_slides(face):
    contour = Contour.of(face, torch.float64, torch.device("cpu"))
    pose = torch.zeros(3, 6)
    pose[:, 1] = torch.tensor([0.0, 0.6, -0.6])
    chosen = contour.choose(state(pose), Clips.of([3], torch.device("cpu")))
    assert not chosen[0].any()
    for frame, side in ((1, LEFT), (2, RIGHT)):
        assert contour.owner[chosen[frame]].tolist() == list(side)


def test_the_choice_turns_with_the_image(face):
    contour = Contour.of(face, torch.float64, torch.device("cpu"))
    pose = torch.zeros(1, 6)
    pose[:, 1] = 0.7
    clips = Clips.of([1], torch.device("cpu"))
    upright = state(pose)
    roll = rotation_matrix(torch.tensor([[0.0, 0.0, 1.1]], dtype=torch.float64))
    rolled = upright._replace(rotation=roll @ upright.rotation)
    assert torch.equal(contour.choose(upright, clips), contour.choose(rolled, clips))


@pytest.mark.parametrize("yaw", [20, -30])
def test_sliding_finds_the_head_where_fixed_landmarks_turn_it(face, yaw):
    angles = {"sliding": [], "fading": [], "fixed": []}
    for seed in range(2):
        shape, expression, pose, _ = talking(face, 15, seed=seed)
        shape, pose[:, 0] = 0.7 * shape, 0.5 * pose[:, 0]
        pose[:, 1] = math.radians(yaw) + 0.05 * torch.linspace(0, 6, 15).sin()
        seen = outlined(face, shape, expression, pose)
        seen += torch.randn(seen.shape, generator=torch.Generator().manual_seed(seed))
        for jaw, found in angles.items():
            fit = fit_clip(face, seen, jaw)
            turn = rotation_matrix(fit.pose[:, :3]).mT @ rotation_matrix(pose[:, :3])
            found.append(torch.rad2deg(((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos()).mean())
    sliding, fading, fixed = (float(sum(found)) / len(found) for found in angles.values())
    assert sliding < 1.05 * fading
    assert sliding < fixed
    assert sliding < 2.5


def test_landmarks_and_contours_alone_fit_as_the_whole_face(face):
    shape, expression, pose, _ = talking(face, 4, yaw=0.0)
    pose[:, 1] = 0.5
    seen = outlined(face, shape, expression, pose)
    whole, small = fit_clip(face, seen), fit_clip(face.landmark_face(), seen)
    torch.testing.assert_close(whole.pose, small.pose)
    torch.testing.assert_close(whole.expression, small.expression)
