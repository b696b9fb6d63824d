"""The block solver against dense linear algebra on derivatives by autograd."""

import torch
from torch.func import jacfwd

from model_zoo.face.clip_solver import (
    ClipPrior,
    Clips,
    ClipState,
    LandmarkModel,
    initial_pose,
    normal_equations,
    solve_arrow,
    view,
)
from model_zoo.face.joint_minimum import Preconditioner, Problem, Vector, minimise
from model_zoo.functional.camera import rotation_matrix
from tests.model_zoo.face.small_face import small_face, talking

LENGTHS, SHAPE, EXPRESSION = (3, 1, 4), 9, 5  # a ragged batch of clips
FRAMES, CLIPS, UNKNOWNS = sum(LENGTHS), len(LENGTHS), EXPRESSION + 6
MEMBERS = Clips.of(LENGTHS, torch.device("cpu"))


def small_problem() -> tuple[Problem, ClipState]:
    """Clips away from their solution, some landmarks left out."""
    generator = torch.Generator().manual_seed(0)

    def random(*size: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(*size, generator=generator, dtype=torch.float64)

    model = LandmarkModel.of(small_face(SHAPE, EXPRESSION), torch.float64, torch.device("cpu"))
    state = ClipState(
        random(CLIPS, SHAPE),
        random(FRAMES, EXPRESSION),
        rotation_matrix(random(FRAMES, 3, scale=0.3)),
        random(FRAMES, 2),
        random(FRAMES, scale=0.1),
    )
    landmarks = view(model, state, MEMBERS).projected + random(FRAMES, 2, 68, scale=0.05)
    visible = torch.rand(FRAMES, 68, generator=generator, dtype=torch.float64)
    visible[1, :20] = 0
    change = 1 + torch.rand(FRAMES - 1, UNKNOWNS, generator=generator, dtype=torch.float64)
    change[:, EXPRESSION : EXPRESSION + 3] = 2.0  # isotropic, as rotations are composed
    change[MEMBERS.clip.diff() > 0] = 0
    prior = ClipPrior(3.0 + torch.arange(CLIPS).double(), 1.5, change)
    variance = torch.tensor([1e-3, 2e-3, 3e-3], dtype=torch.float64)
    return Problem(model, MEMBERS, landmarks, visible, variance, prior), state


def stepped(state: ClipState, step: torch.Tensor) -> ClipState:
    frames, shape = step.split((FRAMES * UNKNOWNS, CLIPS * SHAPE))
    return state.advance(frames.unflatten(0, (FRAMES, UNKNOWNS)), shape.unflatten(0, (CLIPS, SHAPE)))


def flat(vector: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.flatten() for part in vector])


ZERO = torch.zeros(FRAMES * UNKNOWNS + CLIPS * SHAPE, dtype=torch.float64)


def roughness(prior: ClipPrior, state: ClipState) -> torch.Tensor:
    return 0.5 * (prior.change * state.change().square()).sum()


def test_step_equals_a_dense_gauss_newton_step():
    """Of all clips at once, ragged as they are; to 1e-8."""
    problem, state = small_problem()
    prior, here = problem.prior, view(problem.model, state, MEMBERS)
    weights = problem.weights(here)

    def residuals(step: torch.Tensor) -> torch.Tensor:
        new = stepped(state, step)
        error = view(problem.model, new, MEMBERS).projected - problem.landmarks
        ridge = prior.expression**0.5 * new.expression, prior.shape.sqrt()[:, None] * new.shape
        return torch.cat([part.flatten() for part in (weights.sqrt()[:, None] * error, *ridge)])

    jacobian = jacfwd(residuals)(ZERO)
    gradient = jacobian.T @ residuals(ZERO) + jacfwd(lambda step: roughness(prior, stepped(state, step)))(ZERO)
    links = torch.zeros(FRAMES, UNKNOWNS, dtype=torch.float64)
    links[1:] += prior.change
    links[:-1] += prior.change
    dense = jacobian.T @ jacobian
    dense[: FRAMES * UNKNOWNS].diagonal().add_(links.flatten())

    residual = problem.landmarks - here.projected
    solution = solve_arrow(normal_equations(here, state, residual, weights, prior), MEMBERS)
    expected = -torch.linalg.solve(dense, gradient)
    torch.testing.assert_close(flat(solution[:2]), expected, rtol=0, atol=1e-8)

    whole = Preconditioner(here, weights, solution.frame_root, solution.schur_factor)
    force = Vector(-gradient[: FRAMES * UNKNOWNS].view(FRAMES, -1), -gradient[FRAMES * UNKNOWNS :].view(CLIPS, -1))
    torch.testing.assert_close(flat(whole.solve(force)), expected, rtol=0, atol=1e-8)


def test_force_is_minus_the_gradient_of_the_objective():
    problem, state = small_problem()

    def objective(step: torch.Tensor) -> torch.Tensor:
        new = stepped(state, step)
        squares = (problem.landmarks - view(problem.model, new, MEMBERS).projected).square().sum(1)
        loss = problem.visible * (1 + squares / (6 * problem.variance[MEMBERS.clip, None])).log() * 8 / 2
        ridge = problem.prior.expression * new.expression.square().sum()
        ridge = ridge + (problem.prior.shape[:, None] * new.shape.square()).sum()
        return loss.sum() + ridge / 2 + roughness(problem.prior, new)

    energy, force = problem.evaluate(state)
    torch.testing.assert_close(energy.sum(), objective(ZERO))
    torch.testing.assert_close(flat(force), -jacfwd(objective)(ZERO), rtol=1e-9, atol=1e-9)


def test_minimum_is_one_of_the_coupled_objective():
    """Robust loss and links between frames included, from a poor start and with a rough preconditioner."""
    problem, state = small_problem()
    prior = problem.prior._replace(change=5 * problem.prior.change)
    problem = problem._replace(prior=prior)
    here = view(problem.model, state, MEMBERS)
    residual, weights = problem.landmarks - here.projected, problem.weights(here)
    solution = solve_arrow(normal_equations(here, state, residual, weights, prior), MEMBERS)
    rough = Preconditioner(here, weights, solution.frame_root, 1.5 * solution.schur_factor)
    found = minimise(problem, state, rough)
    before, _ = problem.evaluate(state)
    least, _ = problem.evaluate(minimise(problem, minimise(problem, found, rough), rough))
    energy, force = problem.evaluate(found)
    assert (energy < before).all()
    torch.testing.assert_close(energy, least, rtol=1e-7, atol=0)
    assert (force.dot(rough.solve(force), MEMBERS) < 1e-7 * energy).all()


def test_a_clip_without_a_solution_leaves_the_others_alone():
    problem, state = small_problem()
    here = view(problem.model, state, MEMBERS)
    residual, weights = problem.landmarks - here.projected, problem.weights(here)
    expected = solve_arrow(normal_equations(here, state, residual, weights, problem.prior), MEMBERS)
    weights[3] = float("nan")  # the one frame of the second clip
    broken = solve_arrow(normal_equations(here, state, residual, weights, problem.prior), MEMBERS)
    others = torch.tensor([0, 2])
    torch.testing.assert_close(broken.shape_step[others], expected.shape_step[others])
    assert not broken.shape_step[1].isfinite().any()


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
