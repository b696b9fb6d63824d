"""The fit against scipy.optimize.least_squares on the same objective, and its frames per second.

The reference gets the noise level and the weights that the fit found, and an analytic Jacobian but for the pose; it
starts from the same pose. So it solves an easier problem: one weighted least-squares problem instead of a search for
weights and noise as well. Its clip is short, as its dense algebra grows with the cube of the frames.
"""

import time

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from model_zoo.face import fitting
from model_zoo.face.clip_solver import initial_pose
from model_zoo.face.fitting import FaceFit, fit_clip
from tests.benchmarks.ratio import compare
from tests.model_zoo.face.small_face import small_face, talking

FACE = small_face(199, 29)  # all 234 unknowns: 199 of the clip and 35 a frame
CLIP = 75  # frames of a GRID clip
SHORT = 3  # frames that dense least squares can take at once


def clip(num_frames: int) -> torch.Tensor:
    landmarks = talking(FACE, num_frames, seed=1)[3]
    return landmarks + torch.randn(landmarks.shape, generator=torch.Generator().manual_seed(0))


class DenseObjective:
    """Residuals of a clip as one dense vector of (199 + 35 T) unknowns; half their sum of squares is the objective."""

    def __init__(self, landmarks: torch.Tensor, fit: FaceFit) -> None:
        self.landmarks = landmarks.double().numpy()
        self.num_frames = len(landmarks)
        self.mean = FACE.landmark_mean.double().numpy()
        self.shape = FACE.landmark_shape.double().numpy().reshape(199, 68, 3)
        self.expression = FACE.landmark_expression.double().numpy().reshape(29, 68, 3)
        points, mean = landmarks.double().mT, FACE.landmark_mean.double().T
        rotation, translation, log_scale = initial_pose(mean, points, torch.ones_like(points[:, 0]))
        self.rotation = rotation.numpy()
        self.unit = float(log_scale.median().exp())
        self.start = np.zeros((self.num_frames, 35))
        self.start[:, 32:34], self.start[:, 34] = translation / self.unit, log_scale - np.log(self.unit)
        self.start = np.concatenate((np.zeros(199), self.start.ravel()))
        projected = FACE.project_landmarks(fit.shape, fit.expression, fit.pose)
        noise = fit.noise * fitting._GAUSSIAN_FACTOR
        squares = (projected - landmarks).square().sum(-1).numpy() / noise**2
        freedom = fitting._FREEDOM
        self.root_weight = np.sqrt((freedom + 2) / (freedom + squares)) * self.unit / noise

    def unknowns(self, fit: FaceFit) -> np.ndarray:
        turn = Rotation.from_rotvec(fit.pose[:, :3].double().numpy()) * Rotation.from_matrix(self.rotation).inv()
        shift, zoom = fit.pose[:, 3:5].double() / self.unit, fit.pose[:, 5:].double() - np.log(self.unit)
        frames = np.concatenate((fit.expression.double(), turn.as_rotvec(), shift, zoom), 1)
        return np.concatenate((fit.shape.double(), frames.ravel()))

    def _camera(self, frames: np.ndarray) -> np.ndarray:
        turn = Rotation.from_rotvec(frames[:, 29:32]).as_matrix() @ self.rotation
        return np.exp(frames[:, 34])[:, None, None] * turn[:, :2]

    def _project(self, shape: np.ndarray, frames: np.ndarray) -> np.ndarray:
        points = self.mean + np.tensordot(shape, self.shape, 1) + np.tensordot(frames[:, :29], self.expression, 1)
        return points @ self._camera(frames).transpose(0, 2, 1) + frames[:, None, 32:34]

    def residuals(self, unknowns: np.ndarray) -> np.ndarray:
        shape, frames = unknowns[:199], unknowns[199:].reshape(-1, 35)
        error = (self._project(shape, frames) - self.landmarks / self.unit) * self.root_weight[..., None]
        steps = [np.diff(frames[:, :29], axis=0) / fitting._EXPRESSION_STEP]
        turn = Rotation.from_rotvec(frames[:, 29:32])
        pose = np.concatenate(
            ((turn[1:] * self._between() * turn[:-1].inv()).as_rotvec(), np.diff(frames[:, 32:], axis=0)), 1
        )
        steps.append(pose / fitting._POSE_STEP)
        return np.concatenate(
            (error.ravel(), np.sqrt(self.num_frames) * shape, frames[:, :29].ravel(), *(step.ravel() for step in steps))
        )

    def _between(self) -> Rotation:
        start = Rotation.from_matrix(self.rotation)
        return start[1:] * start[:-1].inv()

    def jacobian(self, unknowns: np.ndarray) -> np.ndarray:
        """Exact for the coefficients, forward differences for the six columns of each pose."""
        frames = unknowns[199:].reshape(-1, 35)
        here = self.residuals(unknowns)
        columns = np.zeros((len(here), len(unknowns)))
        camera, data = self._camera(frames), self.landmarks.size
        rows = np.arange(data).reshape(self.num_frames, -1)
        prior = data + 199
        columns[data + np.arange(199), np.arange(199)] = np.sqrt(self.num_frames)
        for t in range(self.num_frames):
            weight = self.root_weight[t][:, None]
            first = 199 + 35 * t
            columns[rows[t], :199] = (self.shape @ camera[t].T * weight).reshape(199, -1).T
            columns[rows[t], first : first + 29] = (self.expression @ camera[t].T * weight).reshape(29, -1).T
            own = np.arange(29)
            columns[prior + 29 * t + own, first + own] = 1
            links = prior + 29 * self.num_frames
            if t:
                columns[links + 29 * (t - 1) + own, first + own] = 1 / fitting._EXPRESSION_STEP
            if t < self.num_frames - 1:
                columns[links + 29 * t + own, first + own] = -1 / fitting._EXPRESSION_STEP
            for unknown in range(first + 29, first + 35):
                moved = unknowns.copy()
                moved[unknown] += 1e-7
                columns[:, unknown] = (self.residuals(moved) - here) / 1e-7
        return columns

    def solve(self) -> np.ndarray:
        return least_squares(self.residuals, self.start, self.jacobian, method="trf", ftol=1e-6, xtol=1e-6).x


def test_against_scipy(benchmark):
    """Same minimum on the short clip; time a frame, each on the clip that suits it."""
    landmarks = clip(SHORT)
    fit = fit_clip(FACE, landmarks)
    objective = DenseObjective(landmarks, fit)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        solution = objective.solve()
        seconds.append((time.perf_counter() - start) / SHORT)
    cost = [float((objective.residuals(unknowns) ** 2).sum()) for unknowns in (objective.unknowns(fit), solution)]
    landmarks = clip(CLIP)
    benchmark.pedantic(lambda: fit_clip(FACE, landmarks), rounds=20, warmup_rounds=1)
    speedup = min(seconds) * CLIP / benchmark.stats.stats.min
    benchmark.extra_info |= {"speedup": speedup, "objective over scipy's": cost[0] / cost[1]}
    print(f"\n{speedup:.0f} times as fast a frame as scipy, objective {cost[0] / cost[1]:.5f} of scipy's")
    assert cost[0] < 1.005 * cost[1]
    assert speedup > 50


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_frames_per_second(benchmark, two_threads):
    """A whole clip, all 234 unknowns; the time of a float64 matrix product tells how busy the machine is."""
    landmarks = clip(CLIP)
    square = torch.randn(1000, 1000, dtype=torch.float64)
    compare(benchmark, lambda: fit_clip(FACE, landmarks), lambda: square @ square)
    benchmark.extra_info["frames per second"] = CLIP / benchmark.stats.stats.min
    print(f"{CLIP / benchmark.stats.stats.min:.0f} frames a second")
