"""Rendered people: dlib must see in them what the truth says, whatever their skin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules.synthetic.appearance import draw_look
from datamodules.synthetic.hair import HAIRSTYLES, grow_hair
from datamodules.synthetic.head import HeadRenderer
from model_zoo.face.detector import DlibDetector
from model_zoo.face.procedural import ProceduralHead, procedural_head

WIDTH, HEIGHT = 360, 288
HOME = torch.tensor([0.03, 0.0, 0.0, 180.0, 132.0, np.log(66)], dtype=torch.float32)


@pytest.fixture(scope="module")
def head() -> ProceduralHead:
    return procedural_head()


@pytest.fixture(scope="module")
def detector() -> DlibDetector:
    return DlibDetector()


def person(head: ProceduralHead, seed: int, tone: float | None = None) -> tuple[HeadRenderer, torch.Tensor]:
    shape = 0.7 * torch.randn(199, generator=torch.Generator().manual_seed(seed))
    look = draw_look(np.random.default_rng(seed), tone)
    return HeadRenderer(head, look, shape, WIDTH, HEIGHT, HOME), shape


@pytest.mark.parametrize("tone", [0.0, 0.5, 1.0])
def test_dlib_sees_the_truth(head, detector, tone):
    renderer, shape = person(head, 3, tone)
    jaw = torch.linspace(0, 0.55, 10)
    expression = head.expression({"jaw_open": jaw, "spread": 0.3 * torch.sin(8 * jaw)})
    pose = HOME.repeat(10, 1)
    pose[:, 1] = torch.linspace(-0.15, 0.15, 10)[torch.randperm(10, generator=torch.Generator().manual_seed(0))]
    truth = head.face.project_landmarks(shape, expression, pose).numpy()
    seen = []
    for e, p in zip(expression, pose, strict=True):
        frame = renderer.frame(e, p)
        boxes = detector.detect(frame)
        assert len(boxes) == 1
        seen.append(detector.landmarks(frame, boxes[0]))
    error = np.linalg.norm(np.stack(seen) - truth, axis=-1) / 66
    assert error[:, 17:].mean() < 0.045
    assert error[:, 48:].mean() < 0.045
    opening = [points[:, 66, 1] - points[:, 62, 1] for points in (np.stack(seen), truth)]
    assert np.corrcoef(*opening)[0, 1] > 0.93


def test_pixels_move_with_the_pose(head):
    """The whole person, four pixels further: the same pixels, four further."""
    renderer, _ = person(head, 1)
    moved = HOME + torch.tensor([0, 0, 0, 4.0, 0, 0])
    still = HeadRenderer(head, renderer._look, torch.zeros(199), WIDTH, HEIGHT, HOME)
    other = HeadRenderer(head, renderer._look, torch.zeros(199), WIDTH, HEIGHT, moved)
    for r in (still, other):
        r._noise[:] = 0
    face = np.s_[100:190, 150:210]
    a, b = still.frame(torch.zeros(29), HOME)[face], other.frame(torch.zeros(29), moved)[100:190, 154:214]
    assert np.abs(a.astype(int) - b).mean() < 0.1


def test_closed_lips_hide_the_teeth(head):
    renderer, _ = person(head, 2, tone=1.0)
    points = head.face.project_landmarks(torch.zeros(199), torch.zeros(29), HOME)
    renderer = HeadRenderer(head, renderer._look, torch.zeros(199), WIDTH, HEIGHT, HOME)
    x, y = points[62].round().int().tolist()
    mouth = np.s_[y - 8 : y + 14, x - 10 : x + 11]
    closed = renderer.frame(torch.zeros(29), HOME)[mouth]
    smile = head.expression({f"{a}_{s}": 0.5 for a in ("upper_raise", "lower_drop") for s in ("left", "right")})
    shown = renderer.frame(smile, HOME)[mouth]
    assert shown.max() > closed.max() + 40  # white teeth in a dark face


def test_eyes_follow_the_camera_when_the_head_turns(head):
    """The pupil stays nearer to the middle of the lids than the head's turn would leave it."""
    renderer, _ = person(head, 4, tone=0.0)
    turned = HOME.clone()
    turned[1] = 0.35
    frames = {gaze: renderer.frame(torch.zeros(29), turned, gaze) for gaze in ((0.0, 0.0), (-0.35, 0.0))}
    points = head.face.project_landmarks(person(head, 4)[1], torch.zeros(29), turned)
    # The eye on the image's right, darkest where the pupil is.
    x0, x1 = points[42, 0].int().item() + 1, points[45, 0].int().item()
    y0, y1 = points[43:45, 1].min().int().item() + 1, points[46:48, 1].max().int().item()
    columns = np.arange(x1 - x0)
    where = {}
    for gaze, frame in frames.items():
        dark = 255.0 - frame[y0:y1, x0:x1].mean(axis=(0, 2))
        where[gaze] = (columns * (dark - dark.min()) ** 2).sum() / ((dark - dark.min()) ** 2).sum()
    assert where[0.0, 0.0] > where[-0.35, 0.0] + 0.5  # looking ahead of the head is looking to the image's left


def test_frames_are_seeded(head):
    renderer, _ = person(head, 5)
    expression, pose, gaze = torch.zeros(3, 29), HOME.repeat(3, 1), np.zeros((3, 2))
    runs = [np.stack(list(renderer.frames(expression, pose, gaze, np.random.default_rng(s)))) for s in (7, 7, 8)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


@pytest.mark.parametrize("style", HAIRSTYLES)
def test_hair_grows_on_the_scalp_and_leaves_the_face_free(head, style):
    hair = grow_hair(head, HAIRSTYLES[style], np.full(3, 0.3), seed=0)
    assert np.allclose(hair.weights.sum(axis=1), 1, atol=1e-5)
    roots = (head.face.mean.numpy()[hair.anchors] * hair.weights[..., None]).sum(axis=1)
    face = (roots[:, 2] < 0.1) & (roots[:, 1] > -0.25) & (np.abs(roots[:, 0]) < 0.55)
    assert not face.any()
    assert hair.offsets.max() > 0.03
