"""project ∘ fit is the identity, noise is removed, and what is missing or wrong stays without effect."""

import math

import pytest
import torch

from model_zoo.face import clip_fitter, fitting
from model_zoo.face.fitting import FaceFit, fit_clip, fit_clips
from model_zoo.functional.camera import apply_similarity, rotation_matrix, transform_pose
from tests.model_zoo.face.small_face import small_face, talking

FACE = small_face(199, 29)  # all 234 unknowns
MOUTH = slice(48, 68)


def noisy(landmarks: torch.Tensor, deviation: float, seed: int = 0) -> torch.Tensor:
    return landmarks + deviation * torch.randn(landmarks.shape, generator=torch.Generator().manual_seed(seed))


def projected(fit: FaceFit) -> torch.Tensor:
    return FACE.project_landmarks(fit.shape, fit.expression, fit.pose)


def rmse(first: torch.Tensor, second: torch.Tensor) -> float:
    """Root mean square distance of landmarks, px."""
    return float((first - second).square().sum(-1).mean().sqrt())


def assert_finite(fit: FaceFit) -> None:
    for value in (fit.shape, fit.expression, fit.pose, fit.residual):
        assert value.isfinite().all()
    assert math.isfinite(fit.noise)


@pytest.mark.parametrize("num_frames", [1, 2, 30, 75])
@pytest.mark.parametrize("yaw", [0.2, 0.9])
def test_noise_free_landmarks_are_met(num_frames, yaw):
    _, _, _, landmarks = talking(FACE, num_frames, seed=num_frames, yaw=yaw)
    fit = fit_clip(FACE, landmarks)
    assert fit.valid.all()
    assert rmse(projected(fit)[:, 17:], landmarks[:, 17:]) < 0.05
    if yaw < 0.3:  # at large yaw the jaw of the far side has no say
        assert rmse(projected(fit), landmarks) < 0.05
        assert fit.residual.max() < 0.05 / 77 * 2


@pytest.mark.parametrize("num_frames", [1, 75])
def test_noise_is_removed(num_frames):
    _, _, pose, landmarks = talking(FACE, num_frames, seed=3)
    given = noisy(landmarks, 1.0)
    fit = fit_clip(FACE, given)
    assert rmse(projected(fit)[:, MOUTH], landmarks[:, MOUTH]) < 0.75 * rmse(given[:, MOUTH], landmarks[:, MOUTH])
    assert rmse(projected(fit), landmarks) < 0.75 * rmse(given, landmarks)
    assert fit.noise == pytest.approx(1.0, rel=0.3)
    turn = rotation_matrix(fit.pose[:, :3]).mT @ rotation_matrix(pose[:, :3])
    assert torch.rad2deg(((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos()).mean() < 2.5


def test_mouth_is_not_damped():
    """Opening of the lips keeps its movement, else the fit mumbles."""
    _, _, _, landmarks = talking(FACE, 75, seed=4)
    fit = fit_clip(FACE, noisy(landmarks, 0.5))
    opening = [points[:, 66, 1] - points[:, 62, 1] for points in (projected(fit), landmarks)]
    assert torch.corrcoef(torch.stack(opening))[0, 1] > 0.95
    assert 0.93 < opening[0].std() / opening[1].std() < 1.07


def test_coefficients_are_no_larger_than_the_landmarks_warrant():
    _, _, _, landmarks = talking(FACE, 75, seed=5)
    fit = fit_clip(FACE, noisy(landmarks, 1.0))
    assert fit.expression.square().mean().sqrt() < 1.2
    assert fit.shape.square().mean().sqrt() < 1.2


@pytest.mark.parametrize("seed", range(5))
def test_few_noisy_landmarks_are_not_taken_for_exact(seed):
    """One frame, 25 landmarks, 234 unknowns: the coefficients must stay those of a face."""
    _, _, _, landmarks = talking(FACE, 1, seed=seed)
    given = noisy(landmarks, 1.0, seed)
    given[:, torch.randperm(68, generator=torch.Generator().manual_seed(seed))[25:]] = math.nan
    fit = fit_clip(FACE, given)
    assert 0.6 < fit.noise < 2
    assert rmse(projected(fit), landmarks) < 2.5
    assert fit.expression.square().mean().sqrt() < 1.2


def test_fit_moves_with_the_image():
    """A similarity of the image changes the pose and nothing else."""
    _, _, _, landmarks = talking(FACE, 20, seed=6)
    landmarks = noisy(landmarks, 0.5).double()
    matrix = torch.tensor([[0.6, -0.8, 300.0], [0.8, 0.6, 50.0]], dtype=torch.float64) * 3
    before, after = fit_clip(FACE, landmarks), fit_clip(FACE, apply_similarity(matrix, landmarks))
    torch.testing.assert_close(after.expression, before.expression, atol=1e-4, rtol=0)
    torch.testing.assert_close(after.shape, before.shape, atol=1e-4, rtol=0)
    torch.testing.assert_close(after.pose, transform_pose(matrix, before.pose.double()).float(), atol=1e-2, rtol=0)
    assert after.noise == pytest.approx(3 * before.noise, rel=1e-3)


def test_outliers_lose_their_weight():
    _, _, _, landmarks = talking(FACE, 75, seed=7)
    given = noisy(landmarks, 0.5)
    wrong = torch.rand(75, 68, generator=torch.Generator().manual_seed(1)) < 0.08
    given[wrong] += noisy(torch.zeros_like(given), 40.0, seed=2)[wrong]
    clean, fit = fit_clip(FACE, noisy(landmarks, 0.5)), fit_clip(FACE, given)
    assert fit.valid.all()
    assert rmse(projected(fit), landmarks) < 2 * rmse(projected(clean), landmarks)


def test_missing_and_foreign_frames_are_flagged_and_filled():
    _, _, _, landmarks = talking(FACE, 75, seed=8)
    given = noisy(landmarks, 0.5)
    given[:3] = math.nan
    given[20, 5:] = math.inf
    given[30] = 256 * torch.rand(68, 2, generator=torch.Generator().manual_seed(3))
    given[40] = 100.0
    given[50, :30] = math.nan  # half of the landmarks are enough
    given[-1, 0, 0] = math.nan
    fit = fit_clip(FACE, given)
    assert_finite(fit)
    assert torch.equal((~fit.valid).nonzero()[:, 0], torch.tensor([0, 1, 2, 20, 30, 40]))
    assert (fit.residual[~fit.valid] == 0).all()
    assert torch.equal(fit.pose[0], fit.pose[3])
    torch.testing.assert_close(fit.expression[20], (fit.expression[19] + fit.expression[21]) / 2)
    assert rmse(projected(fit)[fit.valid], landmarks[fit.valid]) < 0.7
    assert rmse(projected(fit)[[20, 30, 40]], landmarks[[20, 30, 40]]) < 4


@pytest.mark.parametrize("side", [-1, 1])
def test_a_fading_jaw_does_not_turn_the_head(side):
    """Detectors follow the visible contour, which at large yaw lies outside of the jaw's vertices."""
    shape, expression, pose, _ = talking(FACE, 25, seed=10)
    pose[:, 1] = side * 0.7
    true = noisy(FACE.project_landmarks(shape, expression, pose), 0.5)
    seen = true.clone()
    far = slice(0, 8) if side > 0 else slice(9, 17)
    seen[:, far, 0] -= side * 12.0  # 0.16 eye distances, as on ICT-FaceKit at 50 degrees
    expected, fit = fit_clip(FACE, true, "fading"), fit_clip(FACE, seen, "fading")
    assert torch.rad2deg(fit.pose[:, 1] - expected.pose[:, 1]).abs().max() < 0.5
    assert rmse(projected(fit)[:, 17:], projected(expected)[:, 17:]) < 0.1


def test_long_clips_are_solved_in_pieces_without_a_seam(monkeypatch):
    _, _, _, landmarks = talking(FACE, 120, seed=9)
    given = noisy(landmarks, 0.5)
    whole = projected(fit_clip(FACE, given))
    monkeypatch.setattr(clip_fitter, "_PIECE", 50)
    assert rmse(projected(fit_clip(FACE, given)), whole) < 0.001


def test_clips_together_get_the_fits_that_they_get_alone():
    """Ragged lengths, missing frames, a clip that is no face, and one that turns its head."""
    clips = [noisy(talking(FACE, length, seed=length)[3], 0.5, length).double() for length in (30, 1, 7, 150)]
    clips[0][4:9] = math.nan
    clips[2][3] = 256 * torch.rand(68, 2, generator=torch.Generator().manual_seed(1))  # found out after the first round
    clips.append(noisy(talking(FACE, 20, seed=2, yaw=0.9)[3], 0.5).double())
    clips.insert(2, torch.full((5, 68, 2), math.nan, dtype=torch.float64))
    clips.insert(4, torch.zeros(0, 68, 2, dtype=torch.float64))
    together = fit_clips(FACE, clips)
    for landmarks, fit in zip(clips, together, strict=True):
        (alone,) = fit_clips(FACE, [landmarks])
        if alone is None:
            assert fit is None
            continue
        assert torch.equal(fit.valid, alone.valid)
        assert fit.noise == pytest.approx(alone.noise, rel=1e-6)
        for name in ("shape", "expression", "pose", "residual", "weight"):
            torch.testing.assert_close(getattr(fit, name), getattr(alone, name), rtol=1e-6, atol=1e-6)
    assert [fit is None for fit in together] == [False, False, True, False, True, False, False]


def test_groups_of_clips_do_not_matter(monkeypatch):
    clips = [noisy(talking(FACE, 20, seed=seed)[3], 0.5, seed) for seed in range(4)]
    together = fit_clips(FACE, clips)
    monkeypatch.setattr(fitting, "_TOGETHER", {"cpu": 50})
    for first, second in zip(together, fit_clips(FACE, clips), strict=True):
        torch.testing.assert_close(first.expression, second.expression, rtol=1e-6, atol=1e-6)


def test_no_clips_no_fits():
    assert fit_clips(FACE, []) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_equals_cpu():
    clips = [noisy(talking(FACE, length, seed=length, yaw=0.9)[3], 0.5, length) for length in (30, 75)]
    for cpu, gpu in zip(fit_clips(FACE, clips), fit_clips(FACE, [clip.cuda() for clip in clips]), strict=True):
        assert gpu.expression.is_cuda
        for name in ("shape", "expression", "pose", "residual", "valid"):
            torch.testing.assert_close(getattr(gpu, name).cpu(), getattr(cpu, name), rtol=1e-4, atol=1e-4)


def test_landmark_face_fits_as_the_whole_face():
    _, _, _, landmarks = talking(FACE, 5)
    whole, small = fit_clip(FACE, landmarks), fit_clip(FACE.landmark_face(), landmarks)
    torch.testing.assert_close(whole.expression, small.expression)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_comes_in_what_comes_out_is_finite_or_one_clear_line(seed):
    """Noise, lines, spikes and repeated points at any scale."""
    generator = torch.Generator().manual_seed(seed)
    landmarks = torch.randn(6, 68, 2, generator=generator) * 10.0 ** torch.randint(
        -6, 9, (6, 1, 1), generator=generator
    )
    landmarks[0] = talking(FACE, 1)[3]
    landmarks[1, :, 1] = landmarks[1, :, 0]
    landmarks[2, 1:] = landmarks[2, 0]
    fit = fit_clip(FACE, landmarks)
    assert_finite(fit)
    assert fit.valid[0]
    assert not fit.valid[1:].any()
    with pytest.raises(ValueError, match="no face in 5 frames") as error:
        fit_clip(FACE, landmarks[1:])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 128.0])
def test_clip_without_a_face_is_refused(value):
    with pytest.raises(ValueError, match="no face in 3 frames"):
        fit_clip(FACE, torch.full((3, 68, 2), value))


@pytest.mark.parametrize("size", [(68, 2), (3, 51, 2), (3, 68, 3)])
def test_wrong_shapes_are_refused(size):
    with pytest.raises(ValueError, match=r"landmarks must be \(T, 68, 2\), got"):
        fit_clip(FACE, torch.zeros(size))


@pytest.mark.parametrize("value", [1e30, -1e300, -math.inf])
def test_huge_values_are_missing(value):
    landmarks = talking(FACE, 10, seed=1)[3].double()
    given = landmarks.clone()
    given[3] = value
    given[5, 10, 0] = value
    fit = fit_clip(FACE, given)
    assert_finite(fit)
    assert (~fit.valid).nonzero()[:, 0].tolist() == [3]
    assert fit.weight[5, 10] == 0
    assert rmse(projected(fit)[fit.valid], landmarks[fit.valid]) < 0.1
    with pytest.raises(ValueError, match="no face in 2 frames"):
        fit_clip(FACE, torch.full((2, 68, 2), value, dtype=torch.float64))


@pytest.mark.parametrize("rest", [math.nan, 0.0, 128.0, math.inf, 1e12])
def test_one_good_frame_among_75(rest):
    landmarks = talking(FACE, 75, seed=11)[3]
    given = torch.full_like(landmarks, rest)
    given[40] = landmarks[40]
    fit = fit_clip(FACE, given)
    assert_finite(fit)
    assert fit.valid.nonzero()[:, 0].tolist() == [40]
    assert rmse(projected(fit)[40], landmarks[40]) < 0.05
    assert (fit.expression == fit.expression[40]).all()
    assert (fit.weight[:40] == 0).all()


def test_landmarks_on_a_line_or_mirrored_are_finite_or_refused():
    landmarks = talking(FACE, 3, seed=12)[3]
    line = landmarks * torch.tensor([1.0, 0.0])
    for wrong in (line, line.flip(-1), landmarks.flip(1), torch.zeros(3, 68, 2).index_fill(1, torch.arange(3), 90.0)):
        (fit,) = fit_clips(FACE, [wrong])
        if fit is not None:
            assert_finite(fit)
    (mirrored,) = fit_clips(FACE, [landmarks * torch.tensor([-1.0, 1.0])])
    if mirrored is not None:  # a face seen in a mirror is nearly a face
        assert_finite(mirrored)


def test_empty_clip_is_refused():
    with pytest.raises(ValueError, match="no face in 0 frames"):
        fit_clip(FACE, torch.zeros(0, 68, 2))
