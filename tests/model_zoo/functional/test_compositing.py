import math

import pytest
import torch

from model_zoo.functional.compositing import composite_mouth
from model_zoo.functional.masks import box_mask, hull_mask, mouth_box

from .faces import talking_face
from .poisson_oracle import direct_blend, portraits

SIZE = 128


def inputs(batch: int = 2) -> list[torch.Tensor]:
    """Target, generated, driven, original, box."""
    face = talking_face(batch + 1)
    box = mouth_box(face).expand(batch, 4).clone()
    return [*portraits(batch, SIZE), face[1:].clone(), face[:1].expand(batch, -1, -1).clone(), box]


def test_equals_a_direct_solve_mixed_by_the_soft_hull():
    target, generated, driven, original, box = inputs()
    frame, mask, flagged = composite_mouth(target, generated, driven, original, box)
    assert not flagged.any()
    soft = hull_mask(driven, original, box, SIZE)
    assert ((mask == soft) | (soft < 0.02)).all()  # but for its foot at the border of the box
    for i in range(2):
        solved = direct_blend(target[i], generated[i], mask[i, 0] > 0).float()
        expected = torch.lerp(target[i], solved, mask[i]).clamp(-1, 1)
        assert (frame[i] - expected).abs().mean() < 0.05 / 127.5
    outside = (mask == 0).expand_as(frame)
    assert torch.equal(frame[outside], target[outside])


def test_a_hull_that_the_box_cuts_brings_no_seam_of_the_box():
    """Generated pixels end at the box; a mask up to its last pixel would take their seam for detail."""
    target, _, driven, original, box = inputs()
    box[:, 2] = 140.0  # right through the face
    inside = box_mask(box, SIZE)
    frame, mask, flagged = composite_mouth(target, target + 0.2 * inside, driven, original, box)
    assert not flagged.any()
    assert mask.amax() > 0.99
    assert (frame - target).abs().max() * 127.5 < 0.25


def test_a_change_of_light_leaves_no_trace():
    target, _, driven, original, box = inputs()
    frame, mask, _ = composite_mouth(target, target + 0.2, driven, original, box)
    assert (frame - target).abs().max() * 127.5 < 0.25
    assert mask.amax() > 0.99


def spoilt(name: str) -> list[torch.Tensor]:
    """Inputs whose second frame can't be composited."""
    target, generated, driven, original, box = inputs(3)
    match name:
        case "NaN landmarks":
            driven[1, 50, 0] = math.nan
        case "NaN landmarks of the original":
            original[1, 3] = math.nan
        case "infinite landmarks":
            driven[1, 8] = math.inf
        case "landmarks outside of the crop":
            driven[1] += 300
        case "a chin far away":
            driven[1, 8, 1] = 1e12
        case "generated NaN":
            generated[1, 0, 90, 64] = math.nan
        case "a box of nothing":
            box[1] = torch.tensor([100.0, 100.0, 99.0, 99.0])
        case "a box outside of the crop":
            box[1] += 300
        case "a NaN box":
            box[1] = math.nan
        case "a box that leaves nothing to blend":
            box[1] = torch.tensor([120.0, 172.0, 136.0, 176.0])
    return [target, generated, driven, original, box]


@pytest.mark.parametrize(
    "name",
    [
        "NaN landmarks",
        "NaN landmarks of the original",
        "infinite landmarks",
        "landmarks outside of the crop",
        "a chin far away",
        "generated NaN",
        "a box of nothing",
        "a box outside of the crop",
        "a NaN box",
        "a box that leaves nothing to blend",
    ],
)
def test_a_bad_frame_is_flagged_and_stays_the_true_one_and_its_neighbours_are_drawn(name):
    good, bad = composite_mouth(*inputs(3)), composite_mouth(*spoilt(name))
    assert bad.flagged.tolist() == [False, True, False]
    assert torch.equal(bad.frame[1], inputs(3)[0][1])
    assert not bad.mask[1].any()
    for i in (0, 2):
        assert torch.equal(bad.frame[i], good.frame[i])


def test_a_mouth_box_at_the_edge_of_the_crop_is_blended():
    """Beyond the chin the crop ends: nothing is prescribed there, and nothing is invented."""
    target, _, driven, original, _ = inputs(1)
    down = torch.tensor([0.0, 255.0 - driven[0, 8, 1].item()])  # the chin on the last row
    face = torch.cat([driven, original]) + down
    frame, mask, flagged = composite_mouth(target, target + 0.2, face[:1], face[1:], mouth_box(face)[None])
    assert not flagged.any()
    assert mask[0, 0, -8:].any()
    assert (frame - target).abs().max() * 127.5 < 0.25


@pytest.mark.parametrize(("channels", "shape"), [(1, (SIZE, SIZE)), (4, (SIZE, SIZE)), (3, (SIZE, SIZE + 2))])
def test_grey_rgba_and_oblong_frames_are_refused_in_one_line(channels, shape):
    _, _, driven, original, box = inputs()
    with pytest.raises(ValueError, match="convert grayscale and RGBA") as caught:
        composite_mouth(torch.zeros(2, channels, *shape), torch.zeros(2, channels, *shape), driven, original, box)
    assert "\n" not in str(caught.value)


def test_an_empty_batch_is_empty():
    empty = composite_mouth(*(part[:0] for part in inputs()))
    assert empty.frame.shape == (0, 3, SIZE, SIZE)
    assert len(empty.flagged) == 0
