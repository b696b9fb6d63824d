import pytest
import torch
from scipy.spatial import Delaunay

from model_zoo.functional.masks import (
    box_mask,
    box_slices,
    hull_mask,
    mouth_box,
    mouth_region,
    noise_fields,
    noise_number,
)

from .faces import talking_face


def test_mouth_box_covers_the_lower_face_at_its_widest():
    face = talking_face()
    x0, y0, x1, y1 = mouth_box(face)
    covered = torch.cat([face[:, 3:14], face[:, 31:36], face[:, 48:]], dim=1)
    assert (covered[..., 0] > x0 + 12).all()
    assert (covered[..., 0] < x1 - 12).all()
    assert (covered[..., 1] > y0 + 12).all()
    assert (covered[..., 1] < y1 - 12).all()
    assert y0 > face[0, 36:48, 1].max()  # the eyes stay visible


def test_mouth_region_is_the_grown_bounding_box_and_independent_of_the_jaw():
    face = talking_face()
    grow = 0.10 * 0.30 * 256
    expected = torch.cat([face[:, 48:].amin((0, 1)) - grow, face[:, 48:].amax((0, 1)) + grow])
    torch.testing.assert_close(mouth_region(face), expected, atol=1e-4, rtol=0)
    moved = face.clone()
    moved[:, :17] += 5
    torch.testing.assert_close(mouth_region(moved), mouth_region(face))


@pytest.mark.parametrize("function", [mouth_box, mouth_region])
def test_boxes_are_clipped_to_the_crop_and_refuse_nonsense(function):
    box = function(talking_face() + torch.tensor([0.0, 70.0]))
    assert box.min() >= 0
    assert box.max() <= 255
    with pytest.raises(ValueError, match="outside of its crop"):
        function(talking_face() + 400)
    with pytest.raises(ValueError, match="NaN"):
        function(talking_face() * float("nan"))


@pytest.mark.parametrize("size", [256, 128, 64])
def test_box_mask_is_true_at_pixel_centres_inside(size):
    boxes = torch.tensor([[40.0, 60.5, 200.0, 230.0], [0.0, 0.0, 255.0, 255.0]])
    mask = box_mask(boxes, size)
    assert mask.shape == (2, 1, size, size)
    centres = (torch.arange(size) + 0.5) * 256 / size - 0.5
    inside_x = (centres >= 40) & (centres <= 200)
    inside_y = (centres >= 60.5) & (centres <= 230)
    assert torch.equal(mask[0, 0], inside_y[:, None] & inside_x[None])
    assert mask[1].all()


@pytest.mark.parametrize("size", [256, 128, 64])
def test_box_slices_cut_out_what_box_mask_marks(size):
    generator = torch.Generator().manual_seed(size)
    corners = (320 * torch.rand(50, 2, 2, generator=generator) - 32).round(decimals=1).sort(dim=1).values
    for box in corners.flatten(1):
        mask = torch.zeros(size, size, dtype=torch.bool)
        mask[box_slices(box, size)] = True
        assert torch.equal(mask, box_mask(box[None], size)[0, 0])


def test_noise_depends_on_its_seed_alone():
    before = torch.random.get_rng_state()
    numbers = [noise_number(1, "s1/bbaf2n"), noise_number(2, "s1/bbaf2n"), noise_number(1, "s1/bbaf3n")]
    field, *others = noise_fields(64, torch.device("cpu"))[numbers]
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(field, noise_fields(64, torch.device("cpu"))[noise_number(1, "s1/bbaf2n")])
    for other in others:
        assert abs(torch.corrcoef(torch.stack([field.ravel(), other.ravel()]))[0, 1]) < 0.05
    assert field.min() >= -1
    assert field.max() <= 1
    assert field.mean().abs() < 0.02
    assert abs(field.std() - 3**-0.5) < 0.01


@pytest.mark.parametrize("size", [256, 128, 64])
def test_hull_mask_holds_both_chins_and_stays_inside_the_box(size):
    face = talking_face()
    closed, opened = face[:1], face[-1:]
    box = mouth_box(face)[None]
    mask = hull_mask(closed, opened, box, size)
    assert mask.shape == (1, 1, size, size)
    assert torch.equal(mask, hull_mask(opened, closed, box, size))
    assert mask[~box_mask(box, size)].max() == 0
    columns, rows = ((torch.cat([closed, opened]) + 0.5) * size / 256 - 0.5).round().long().unbind(-1)
    assert mask[0, 0, rows[:, 8], columns[:, 8]].min() > 0.5
    assert mask[0, 0, rows[:, 48:], columns[:, 48:]].min() > 0.99
    assert ((mask > 0.02) & (mask < 0.98)).any()


def test_hull_mask_without_erosion_and_blur_is_the_convex_hull():
    face = talking_face()[:1]
    everywhere = torch.tensor([[0.0, 0.0, 255.0, 255.0]])
    mask = hull_mask(face, face, everywhere, 256, erode=0, blur=0)[0, 0]
    points = torch.cat([face[0, 3:14], face[0, 31:36], face[0, 48:]])
    ys, xs = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    inside = Delaunay(points.numpy()).find_simplex(torch.stack([xs, ys], -1).numpy()) >= 0
    different = (mask.numpy() > 0.5) != inside
    assert different.mean() < 0.01  # OpenCV draws the border pixels too


def test_hull_mask_refuses_nan():
    with pytest.raises(ValueError, match="NaN"):
        hull_mask(talking_face()[:1] * float("nan"), talking_face()[:1], torch.zeros(1, 4), 64)
