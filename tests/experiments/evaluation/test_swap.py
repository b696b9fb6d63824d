import numpy as np
import pytest
import torch

from experiments.evaluation.clips import DrawnClip, ShownClip
from experiments.evaluation.opened import open_run
from experiments.evaluation.swap import COMPOSITED, GENERATED, ON_TRUTH, SwapScores, partners
from model_zoo.face.procedural import procedural_face
from model_zoo.metrics.swap import mouth_opening


class BrightnessDetector:
    """Reads the opening from a frame's first pixel: black is 0, white one outer-eye distance."""

    def landmarks(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        face = np.zeros((68, 2), np.float32)
        face[45, 0] = 1
        face[65:68, 1] = frame[0, 0, 0] / 255
        return face


def shows(shown: ShownClip, opening: torch.Tensor) -> DrawnClip:
    frames = (2 * opening[:, None, None, None] - 1).expand(-1, 3, shown.size, shown.size).contiguous()
    nothing = torch.zeros(len(shown), dtype=torch.bool)
    return DrawnClip(frames, frames, torch.zeros(len(shown), 1, shown.size, shown.size), nothing)


@pytest.fixture(scope="module")
def opened(run):
    return open_run(run, None, None, None, 0)


def measure(opened, draw) -> dict:
    scores = SwapScores(procedural_face(), torch.zeros(29))
    scores.detector = BrightnessDetector()
    partner = partners(opened.clips, 0)
    for clip in opened.clips:
        shown = ShownClip.read(opened.data, clip, 100)
        shown.true[:, :, 0, 0] = 2 * mouth_opening(shown.landmarks)[:, None] - 1
        scores.add(shown, opened.data.store.open(partner[clip]), draw)
    return scores.results()


def test_a_renderer_that_follows_its_landmarks_passes_and_rests(opened):
    rows = measure(opened, lambda shown, driven: shows(shown, mouth_opening(driven)[shown.frame]))
    for row in (GENERATED, COMPOSITED, ON_TRUTH):
        assert rows[row]["given"]["mean"] > 0.97
        assert rows[row]["pooled"]["given"] > 0.97
        assert rows[row]["pooled"]["frames"] == 20 * len(opened.clips)
    assert rows[GENERATED]["stillness"]["mean"] < 0.05
    assert rows[GENERATED]["hidden"]["mean"] == pytest.approx(rows[GENERATED]["chance"]["mean"], abs=0.1)


def test_a_renderer_that_knows_the_truth_is_found_out(opened):
    rows = measure(opened, lambda shown, driven: shows(shown, mouth_opening(shown.landmarks)))
    assert rows[GENERATED]["hidden"]["mean"] > 0.97
    assert rows[GENERATED]["given"]["mean"] < 0.9
    assert rows[GENERATED]["stillness"]["mean"] == pytest.approx(1, abs=0.05)


def test_partners_are_others_and_depend_on_the_seed_alone():
    clips = [f"clip{i}" for i in range(9)]
    assert all(clip != other for clip, other in partners(clips, 1).items())
    assert sorted(partners(clips, 1).values()) == clips
    assert partners(clips, 1) == partners(clips, 1) != partners(clips, 2)
    assert partners(["alone"], 0) == {"alone": "alone"}


def test_another_mouth_through_the_own_face(opened):
    """The given landmarks are the other clip's expression on this clip's shape and pose."""
    first, second = (opened.data.store.open(clip) for clip in opened.data.train_clips[:2])
    given = SwapScores(procedural_face(), torch.zeros(29)).given(first, second)
    expected = procedural_face().project_landmarks(first.shape, second.expression, first.pose)
    torch.testing.assert_close(given, expected)
