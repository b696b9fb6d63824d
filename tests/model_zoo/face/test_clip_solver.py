"""The block solver against dense linear algebra on derivatives by autograd."""

import torch
from torch.func import jacfwd

from model_zoo.face.clip_solver import (
    ClipPrior,
    ClipState,
    LandmarkModel,
    initial_pose,
    normal_equations,
    predict,
    solve_arrow,
)
from model_zoo.functional.camera import rotation_matrix
from tests.model_zoo.face.small_face import small_face, talking

FRAMES, SHAPE, EXPRESSION = 4, 9, 5
UNKNOWNS = EXPRESSION + 6


def small_problem() -> tuple[LandmarkModel, ClipState, torch.Tensor, torch.Tensor, ClipPrior]:
    """A clip of four frames, away from its solution, some landmarks left out."""
    generator = torch.Generator().manual_seed(0)

    def random(*size: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(*size, generator=generator, dtype=torch.float64)

    model = LandmarkModel.of(small_face(SHAPE, EXPRESSION), torch.float64, torch.device("cpu"))
    state = ClipState(
        random(SHAPE),
        random(FRAMES, EXPRESSION),
        rotation_matrix(random(FRAMES, 3, scale=0.3)),
        random(FRAMES, 2),
        random(FRAMES, scale=0.1),
    )
    landmarks = predict(model, state)[1] + random(FRAMES, 2, 68, scale=0.05)
    weights = 1e3 * torch.rand(FRAMES, 68, generator=generator, dtype=torch.float64)
    weights[1, :20] = 0
    prior = ClipPrior(3.0, 1.5, 1 + torch.rand(FRAMES - 1, UNKNOWNS, generator=generator, dtype=torch.float64))
    prior.change[:, EXPRESSION : EXPRESSION + 3] = 2.0  # isotropic, as rotations are composed
    return model, state, landmarks, weights, prior


def test_step_equals_a_dense_gauss_newton_step():
    model, state, landmarks, weights, prior = small_problem()
    size = FRAMES * UNKNOWNS + SHAPE

    def moved(step: torch.Tensor) -> ClipState:
        return state.advance(step[:-SHAPE].unflatten(0, (FRAMES, UNKNOWNS)), step[-SHAPE:])

    def residuals(step: torch.Tensor) -> torch.Tensor:
        new = moved(step)
        return torch.cat(
            (
                (weights.sqrt()[:, None] * (predict(model, new)[1] - landmarks)).flatten(),
                prior.expression**0.5 * new.expression.flatten(),
                prior.shape**0.5 * new.shape,
            )
        )

    def roughness(step: torch.Tensor) -> torch.Tensor:
        return 0.5 * (prior.change * moved(step).change().square()).sum()

    zero = torch.zeros(size, dtype=torch.float64)
    jacobian = jacfwd(residuals)(zero)
    gradient = jacobian.T @ residuals(zero) + jacfwd(roughness)(zero)
    links = torch.zeros(FRAMES, UNKNOWNS, dtype=torch.float64)
    links[1:] += prior.change
    links[:-1] += prior.change
    dense = jacobian.T @ jacobian
    dense[: FRAMES * UNKNOWNS].diagonal().add_(links.flatten())

    solution = solve_arrow(normal_equations(model, state, landmarks, weights, prior))
    expected = -torch.linalg.solve(dense, gradient)
    torch.testing.assert_close(solution.frame_step.flatten(), expected[:-SHAPE], rtol=0, atol=1e-8)
    torch.testing.assert_close(solution.shape_step, expected[-SHAPE:], rtol=0, atol=1e-8)


def test_repeated_steps_reach_the_minimum_of_the_coupled_objective():
    """The smoothness that couples frames is left out of the blocks, but must not be left out of the result."""
    model, state, landmarks, weights, prior = small_problem()
    prior = prior._replace(change=torch.full_like(prior.change, 5.0))  # five times what the fit uses

    def objective(step: torch.Tensor) -> torch.Tensor:
        new = state.advance(step[:-SHAPE].unflatten(0, (FRAMES, UNKNOWNS)), step[-SHAPE:])
        error = (weights * (predict(model, new)[1] - landmarks).square().sum(1)).sum()
        ridge = prior.expression * new.expression.square().sum() + prior.shape * new.shape.square().sum()
        return 0.5 * (error + ridge + (prior.change * new.change().square()).sum())

    for _ in range(100):
        solution = solve_arrow(normal_equations(model, state, landmarks, weights, prior))
        state = state.advance(solution.frame_step, solution.shape_step)
    zero = torch.zeros(FRAMES * UNKNOWNS + SHAPE, dtype=torch.float64)
    assert jacfwd(objective)(zero).norm() < 1e-6


def test_initial_pose_is_exact_for_the_mean_face():
    face = small_face()
    _, _, pose, _ = talking(face, 20, yaw=1.2)
    points = face.landmark_mean.double().T
    rotation = rotation_matrix(pose[:, :3].double())
    seen = pose[:, 5].double().exp()[:, None, None] * (rotation @ points)[:, :2] + pose[:, 3:5, None].double()
    weights = torch.ones(20, 68, dtype=torch.float64)
    weights[:, ::3] = 0
    found = initial_pose(points, seen, weights)
    for value, expected in zip(found, (rotation, pose[:, 3:5].double(), pose[:, 5].double()), strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-9)
