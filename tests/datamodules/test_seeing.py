"""Reference frames and changes in training: what is chosen and drawn, and that all frames of a window agree."""

import numpy as np
import pytest
import torch

from datamodules.batch import VideoBatch
from datamodules.clip_store import ClipStore, write_clip
from datamodules.crop_codec import encode_crop
from datamodules.manifest import write_manifest
from datamodules.picture_augmentation import MIRRORED, PictureAugmentation
from datamodules.sampler import Unit
from datamodules.seeing import (
    GUARD,
    STRETCH,
    LandmarkErrors,
    Seeing,
    by_rank,
    choose_reference,
    hidden_from,
    mouth_gallery,
)
from datamodules.windows import ClipWindows, Names
from model_zoo.functional.heatmaps import HEATMAP_LANDMARKS
from model_zoo.metrics.speech_metrics import inner_lip_gap
from tests.datamodules.test_clip_store import data, photo, row
from tests.model_zoo.functional.faces import talking_face

FRAMES = 2 * STRETCH + 10
PICTURE = PictureAugmentation(flip=0.5, colour=0.05, rotate=3, zoom=0.05, shift=4)


def moving_face(frames: int) -> torch.Tensor:
    """A face whose mouth opens and closes, slowly and not periodically."""
    time = torch.arange(frames) / 25
    opening = (1 + torch.sin(5 * time)) * (1.2 + torch.sin(2.3 * time + 1))
    face = talking_face(1).repeat(frames, 1, 1)
    face[:, [65, 66, 67, 56, 57, 58, 8], 1] += 4 * opening[:, None]
    return face


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ClipStore:
    root = tmp_path_factory.mktemp("store")
    picture = encode_crop(photo(3))
    rows = [row("s1/a", frames=FRAMES, valid_frames=FRAMES)]
    face = moving_face(FRAMES)
    frames = {name: torch.zeros(FRAMES, *shape) for name, shape in {"expression": (29,), "pose": (6,)}.items()}
    transform = torch.eye(2, 3).expand(FRAMES, 2, 3).contiguous()
    content = data(
        crops=[picture] * FRAMES,
        landmarks=face,
        landmarks_detected=face,
        valid=torch.ones(FRAMES, dtype=torch.bool),
        crop_transform=transform,
        mouth_box=torch.tensor([60.0, 120.0, 200.0, 240.0]),
        mouth_region=torch.tensor([90.0, 150.0, 170.0, 210.0]),
        **frames,
    )
    write_clip(root, rows[0], content)
    write_manifest(root, rows)
    return ClipStore(root)


def windows(store: ClipStore, seeing: Seeing, training: bool = True, size: int = 64) -> ClipWindows:
    frames = {"s1/a": range(FRAMES)}
    return ClipWindows(store, frames, Names(("s1/a",), ("s1",)), "video", size, 5, training, seeing=seeing)


def drawn(given: ClipWindows, *samples: int, epoch: int = 0) -> VideoBatch:
    return given.__getitems__(Unit(epoch, np.array(samples)))


def test_references_are_the_closed_and_the_open_mouth_away_from_the_window(store):
    gap = inner_lip_gap(store.open("s1/a").landmarks)
    given = windows(store, Seeing(references=2))
    every = drawn(given, *range(FRAMES))
    chosen = Seeing(references=2).reference_frames(store.open("s1/a"), np.arange(FRAMES), torch.arange(FRAMES))
    assert ((chosen - torch.arange(FRAMES)[:, None]).abs() > GUARD).all()
    assert len(chosen[:, 0].unique()) <= 2  # so that it rarely changes
    far = torch.arange(FRAMES)[(torch.arange(FRAMES) - gap.argmin()).abs() > GUARD]
    assert (chosen[far, 0] == gap.argmin()).all()
    far = torch.arange(FRAMES)[(torch.arange(FRAMES) - gap.argmax()).abs() > GUARD]
    assert (chosen[far, 1] == gap.argmax()).all()
    assert every.windows.references.shape == (FRAMES, 2)
    assert every.windows.reference_frames.shape == (FRAMES, 2, 3, 64, 64)
    assert drawn(windows(store, Seeing()), 3).windows.references is None
    with pytest.raises(ValueError, match="references must be"):
        Seeing(references=3)


def test_a_gallery_shows_every_shape_of_the_mouth_but_those_around_the_window(store):
    clip, allowed = store.open("s1/a"), np.arange(FRAMES)
    gallery = mouth_gallery(clip.landmarks, allowed, 8)
    shapes = clip.landmarks[:, HEATMAP_LANDMARKS].flatten(1)
    spread = torch.cdist(shapes, shapes.mean(0, keepdim=True)).amax()
    assert torch.cdist(shapes, shapes[gallery]).amin(1).max() < spread / 5  # one opening, hence one dimension
    inside = mouth_gallery(clip.landmarks, allowed[20:60], 8)
    assert inside.min() >= 20
    assert inside.max() < 60
    assert mouth_gallery(clip.landmarks, allowed[:3], 8).unique().tolist() == [0, 1, 2]

    batch = drawn(windows(store, Seeing(gallery=8)), *range(FRAMES))
    assert batch.windows.references.shape == (FRAMES, 8)
    away = (gallery - torch.arange(FRAMES)[:, None]).abs()
    hidden = batch.windows.reference_landmarks.isnan().all((2, 3))
    assert torch.equal(hidden, away <= GUARD)
    assert hidden.any()
    assert torch.equal(batch.windows.reference_landmarks[~hidden], clip.landmarks[gallery.expand(FRAMES, -1)[~hidden]])
    with pytest.raises(ValueError, match="either"):
        Seeing(references=1, gallery=8)


def test_a_clip_that_is_all_too_near_shows_its_furthest_frame():
    assert hidden_from(torch.tensor([0, 5, 9]), torch.tensor([1, 40])).tolist() == [[True, True, False], [False] * 3]


def test_a_gallery_is_changed_like_the_windows(store):
    batch = drawn(windows(store, Seeing(gallery=8, picture=PICTURE, seed=1)), *range(STRETCH, STRETCH + 20))
    pictures = batch.windows.reference_frames
    assert torch.equal(pictures, batch.frames[:, :1].expand_as(pictures))  # of a clip of one picture
    still = [0, 16, 36, 45, 30]
    seen = batch.windows.reference_landmarks[:, :, still]
    there = seen.isfinite().all((2, 3))
    assert torch.allclose(seen[there], batch.landmarks[:1, :1, still].expand_as(seen)[there])


def test_short_clips_give_the_frame_that_is_furthest_away():
    best, second = by_rank(np.array([5, 6, 4, 3, 7, 2, 8, 1, 9, 0]))
    assert (best, second) == (5, 0)
    assert choose_reference(best, second, 7) == 0
    assert choose_reference(best, second, 1) == 5
    assert choose_reference(5, 5, 5) == 5  # a clip of one frame has no other


def test_changes_are_those_of_the_stretch_whatever_else_is_read(store):
    given = windows(store, Seeing(errors=LandmarkErrors(0.5, 0.3), picture=PICTURE, seed=3))
    alone, together = drawn(given, 70), drawn(given, 100, 70, 3)
    assert torch.equal(alone.frames[0], together.frames[1])
    assert torch.equal(alone.landmarks[0], together.landmarks[1])
    assert torch.equal(alone.mouth_box[0], together.mouth_box[1])
    assert torch.equal(together.mouth_box[0], together.mouth_box[1])  # of the same stretch
    assert not torch.equal(together.mouth_box[0], together.mouth_box[2])
    assert not torch.equal(alone.mouth_box, drawn(given, 70, epoch=1).mouth_box)
    plain, unseen = windows(store, Seeing()), windows(store, given.seeing, training=False)
    assert torch.equal(drawn(plain, 70).frames, drawn(unseen, 70).frames)
    assert torch.equal(drawn(plain, 70).landmarks, drawn(unseen, 70).landmarks)


def test_frames_of_a_window_are_moved_alike(store):
    """Every frame of the clip is the same picture, so every frame of a window must be; landmarks move like one face."""
    batch = drawn(windows(store, Seeing(picture=PICTURE, seed=1)), *range(STRETCH, STRETCH + 20))
    assert torch.equal(batch.frames, batch.frames[:, :1].expand_as(batch.frames))
    still = [0, 16, 36, 45, 30]  # moving_face moves the mouth alone
    assert torch.allclose(batch.landmarks[:, :, still], batch.landmarks[:1, :1, still])


@pytest.mark.parametrize("size", [256, 128])
def test_a_dot_on_a_landmark_stays_there(size):
    rng = np.random.default_rng(2)
    augmentation = PictureAugmentation(flip=0.5, rotate=5, zoom=0.1, shift=8)
    for _ in range(6):
        change = augmentation.draw(rng)
        point = torch.tensor([90.0, 170.0]) + 20 * torch.from_numpy(rng.random(2)).float()
        x, y = ((point + 0.5) * size / 256 - 0.5).tolist()
        columns, rows = np.meshgrid(np.arange(size), np.arange(size))
        dot = 200 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (4 * size / 256) ** 2))
        moved = change.picture(np.repeat(dot[..., None], 3, 2).round().astype(np.uint8))[..., 0].astype(float)
        centre = torch.tensor([(moved * columns).sum(), (moved * rows).sum()]) / moved.sum()
        expected = change.landmarks(point.expand(1, 68, 2))[0, 0]
        torch.testing.assert_close((centre.float() + 0.5) * 256 / size - 0.5, expected, atol=0.3, rtol=0)


def test_the_mirror_image_is_exact_and_names_the_other_side():
    change = PictureAugmentation(flip=1.0).draw(np.random.default_rng(0))
    picture = photo(1)
    assert np.array_equal(change.picture(picture), picture[:, ::-1])
    face = talking_face(1)
    mirrored = change.landmarks(face)
    assert torch.allclose(change.landmarks(mirrored), face)
    assert sorted(MIRRORED) == list(range(68))
    left_eye, right_eye = mirrored[0, 36:42], mirrored[0, 42:48]
    assert left_eye[:, 0].max() < right_eye[:, 0].min()  # as in any face
    assert mirrored[0, 36, 0] < mirrored[0, 39, 0]
    assert mirrored[0, 48, 0] < mirrored[0, 54, 0]
    assert mirrored[0, 0, 0] < mirrored[0, 16, 0]
    assert (mirrored[0, 62, 1] < mirrored[0, 66, 1]) == (face[0, 62, 1] < face[0, 66, 1])


def test_boxes_hold_what_they_held():
    change = PICTURE.draw(np.random.default_rng(4))
    face = talking_face()
    box = torch.cat([face[:, 48:].amin((0, 1)), face[:, 48:].amax((0, 1))])
    moved, mouth = change.box(box), change.landmarks(face)[:, 48:]
    assert (mouth.amin((0, 1)) >= moved[:2] - 1e-3).all()
    assert (mouth.amax((0, 1)) <= moved[2:] + 1e-3).all()
