import cv2
import numpy as np
import pytest
import torch

from model_zoo.functional.poisson import poisson_blend

from .poisson_oracle import direct_blend, lower_face, portraits

GREY = 127.5  # grey levels of one unit
SIZE = 96


def masks() -> dict[str, torch.Tensor]:
    face = lower_face(SIZE)
    noise = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    touching = face.clone()
    touching[60:, 20:70] = True
    ring = face.clone()
    ring[50:80, 30:60] = False
    two = torch.zeros_like(face)
    two[5:20, 5:40], two[60:90, 50:51] = True, True  # the second is one pixel wide
    below = torch.ones_like(face)
    below[:40] = False
    return {
        "face": face,
        "ragged": face & (noise > 0.05),
        "noise": noise > 0.5,
        "ring": ring,
        "at the border": touching,
        "two": two,
        "given above only": below,
    }


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", masks())
def test_equals_a_sparse_direct_solve(name, compiled):
    mask = masks()[name]
    target, source = portraits(1, SIZE)
    expected = direct_blend(target[0], source[0], mask)
    blended = poisson_blend(target, source, mask[None, None], compiled=compiled)[0]
    error = (blended - expected).abs()[:, mask] * GREY
    assert error.mean() < 0.25
    assert error.max() < 2
    exact = poisson_blend(target, source, mask[None, None], tolerance=1e-3, compiled=compiled)[0]
    assert (exact - expected).abs().max() * GREY < 0.02
    assert torch.equal(blended[:, ~mask], target[0][:, ~mask])


def test_both_paths_agree_on_a_batch_of_different_masks():
    names = masks()
    target, source = portraits(len(names), SIZE)
    mask = torch.stack(list(names.values()))[:, None]
    mask[2] = False  # nothing to do
    both = [poisson_blend(target, source, mask, tolerance=0.01, compiled=compiled) for compiled in (True, False)]
    assert (both[0] - both[1]).abs().max() * GREY < 0.05
    assert torch.equal(both[0][2], target[2])
    alone = poisson_blend(target[1:2], source[1:2], mask[1:2], tolerance=0.01)
    assert torch.equal(both[0][1:2], alone)


def test_soft_masks_mix_the_same_solution_with_the_target():
    target, source = portraits(1, SIZE)
    soft = torch.from_numpy(cv2.GaussianBlur(lower_face(SIZE).float().numpy(), (9, 9), 2))[None, None]
    hard = poisson_blend(target, source, soft > 0)
    torch.testing.assert_close(poisson_blend(target, source, soft), torch.lerp(target, hard, soft))


def test_bytes_round_the_solution_and_the_rest_stays_bit_for_bit():
    target, source = (((image + 1) * GREY).round().byte() for image in portraits(1, SIZE))
    mask = lower_face(SIZE)[None, None]
    blended = poisson_blend(target, source, mask)
    as_float = poisson_blend(target.double(), source.double(), mask, tolerance=0.25 * GREY)  # the same in grey levels
    assert blended.dtype == torch.uint8
    difference = blended.float() - as_float.clamp(0, 255)
    assert difference.abs().max() <= 0.51
    assert torch.equal(blended[~mask.expand_as(target)], target[~mask.expand_as(target)])


def test_invariants():
    target, source = portraits(1, SIZE)
    mask = lower_face(SIZE)[None, None]
    torch.testing.assert_close(poisson_blend(target, target, mask), target)
    brighter = poisson_blend(target, target + 0.2, mask)  # an offset has no gradient
    torch.testing.assert_close(brighter, target, atol=0.005, rtol=0)
    before = target.clone(), source.clone()
    poisson_blend(target, source, mask)
    assert torch.equal(before[0], target)
    assert torch.equal(before[1], source)


def test_agrees_with_seamless_clone_in_the_interior():
    """OpenCV solves on the mask's bounding box, with the target's gradients around the mask: alike where these fit."""
    target, source = (((image + 1) * GREY).round().byte() for image in portraits(1))
    source = target.clone()
    source[..., 150:190, 100:150] -= 20
    source = (source.float() * 0.8 + 20).byte()  # another exposure
    mask = torch.zeros(256, 256, dtype=torch.bool)
    mask[120:221, 70:191] = True  # a box, whose border is the mask's own: here both solve the same equation
    ours = poisson_blend(target, source, mask[None, None])[0].permute(1, 2, 0).numpy()
    arrays = [image[0].permute(1, 2, 0).contiguous().numpy() for image in (source, target)]
    theirs = cv2.seamlessClone(*arrays, mask.numpy().astype(np.uint8) * 255, (130, 170), cv2.NORMAL_CLONE)
    inner = np.s_[125:216, 75:186]
    difference = np.abs(ours[inner].astype(float) - theirs[inner])
    unblended = np.abs(arrays[0][inner].astype(float) - theirs[inner])
    assert difference.mean() < 1.5
    assert difference.mean() < 0.15 * unblended.mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": torch.zeros(1, 1, 8, 8), "source": torch.zeros(1, 1, 8, 8)}, "RGB"),
        ({"target": torch.zeros(1, 4, 8, 8)}, "RGB"),
        ({"source": torch.zeros(1, 3, 8, 9)}, "alike"),
        ({"source": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, "both be float or uint8"),
        ({"mask": torch.zeros(1, 1, 4, 4)}, "mask must be"),
        ({"mask": torch.full((1, 1, 8, 8), torch.nan)}, r"\[0, 1\]"),
        ({"mask": torch.full((1, 1, 8, 8), 255.0)}, r"\[0, 1\]"),
        ({"mask": torch.ones(1, 1, 8, 8)}, "covers its whole frame"),
        ({"source": torch.full((1, 3, 8, 8), torch.nan)}, "not finite"),
        ({"target": torch.full((1, 3, 8, 8), torch.inf)}, "not finite"),
    ],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_bad_input_is_refused_in_one_line(change, message, compiled):
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    good = {"target": torch.zeros(1, 3, 8, 8), "source": torch.ones(1, 3, 8, 8), "mask": mask}
    with pytest.raises(ValueError, match=message) as caught:
        poisson_blend(**good | change, compiled=compiled)
    assert "\n" not in str(caught.value)


def test_nothing_to_do():
    target, source = portraits(2, 32)
    blended = poisson_blend(target, source, torch.zeros(2, 1, 32, 32))
    assert torch.equal(blended, target)
    assert blended.data_ptr() != target.data_ptr()
    assert poisson_blend(target[:0], source[:0], torch.zeros(0, 1, 32, 32)).shape == (0, 3, 32, 32)


def test_values_far_from_the_mask_do_not_matter():
    target, source = portraits(1, SIZE)
    mask = lower_face(SIZE)[None, None]
    expected = poisson_blend(target, source, mask)
    target[..., 0, 0], source[..., :10, :] = torch.nan, torch.inf
    blended = poisson_blend(target, source, mask)
    assert torch.equal(blended[mask.expand_as(target)], expected[mask.expand_as(target)])
    assert blended[..., 0, 0].isnan().all()
