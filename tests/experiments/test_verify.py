"""The command that measures the claims again, and the measurements that it rests on."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from datamodules.synthetic.corpus import generate_grid_corpus
from experiments import verify
from experiments.checks import face, synthetic
from experiments.checks.detector_judgement import INNER_51, Judgement
from experiments.checks.figure import Figure, Materials, at_least, at_most, told, unavailable
from experiments.checks.pitch import median_pitch
from experiments.command_line import UserError
from model_zoo.face.procedural import procedural_face


def test_unknown_topic_is_one_line():
    with pytest.raises(UserError, match="did you mean synthetic"):
        verify.parse(["synthetics"])
    with pytest.raises(UserError, match="there are face, synthetic"):
        verify.parse(["zzz"])


def test_paths_come_from_options_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(verify.ICT_VARIABLE, raising=False)
    monkeypatch.setenv(verify.GRID_VARIABLE, str(tmp_path))
    names, materials = verify.parse(["--seed", "3"])
    assert names == list(verify.TOPICS)
    assert materials == Materials(grid=tmp_path, seed=3)
    with pytest.raises(UserError, match=r"--ict: .*nowhere does not exist"):
        verify.parse(["--ict", str(tmp_path / "nowhere")])


def test_a_missed_bound_fails_after_all_figures_are_printed(monkeypatch):
    figures = [at_most("low enough", 1.0, 2.0), at_least("too low", 1.0, 2.0), told("by the way", "seen")]
    monkeypatch.setattr(verify, "measure", lambda topic, materials: iter(figures))
    console = Console(width=132, record=True, file=io.StringIO())
    with pytest.raises(UserError, match=r"^1 figure missed"):
        verify.verify(["face"], Materials(), console)
    text = console.export_text()
    assert text.index("low enough") < text.index("too low") < text.index("by the way")
    figures.pop(1)
    verify.verify(["face"], Materials(), console)


def test_every_topic_can_be_measured():
    for topic in verify.TOPICS:
        assert callable(__import__(f"experiments.checks.{topic}", fromlist=["measure"]).measure)


def test_nan_holds_nothing():
    assert at_least("r", float("nan"), 0.9).holds is False
    assert at_most("error", float("nan"), 0.1).holds is False
    assert unavailable("clips", "give --grid").holds is None


@pytest.mark.parametrize("pitch", [75.0, 123.4, 310.0])
def test_pitch_of_tones_and_of_noise(pitch):
    time = np.arange(22_050) / 44_100
    harmonics = sum(np.sin(2 * np.pi * k * pitch * time + k) / k for k in range(1, 8))
    assert median_pitch(harmonics, 44_100) == pytest.approx(pitch, rel=2e-3)
    assert np.isnan(median_pitch(np.random.default_rng(0).normal(size=22_050), 44_100))
    assert np.isnan(median_pitch(np.zeros(100), 44_100))


def test_judgement_against_known_errors():
    rng = np.random.default_rng(0)
    truth = np.tile(rng.uniform(0, 100, (68, 2)), (20, 1, 1))
    truth[:, [36, 45]] = (20, 50), (80, 50)
    truth[:, [62, 66]] = (50, 80), (50, 80)
    truth[:, 66, 1] += np.linspace(0, 10, 20)
    seen = truth.copy()
    seen[:, :17] += (3, 4)  # 5 px on the jaw alone
    seen[3] = np.nan
    judgement = Judgement(seen, truth)
    assert judgement.found.sum() == 19
    assert judgement.nme() == pytest.approx(17 / 68 * 5 / 60)
    assert judgement.nme(INNER_51) == pytest.approx(0)
    assert judgement.opening_correlation() == pytest.approx(1)
    assert Judgement(truth[::-1], truth).opening_correlation() == pytest.approx(-1)


def test_probe_sees_voices_and_only_voices():
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(6, 8, generator=generator)
    told_apart = [[centre + torch.randn(8, generator=generator) for _ in range(10)] for centre in centres]
    assert synthetic.probe_accuracy(told_apart) > 0.9
    alike = [[torch.randn(8, generator=generator) for _ in range(10)] for _ in range(6)]
    assert synthetic.probe_accuracy(alike) < 0.5


def test_face_figures_hold_on_the_built_in_head():
    figures = [*face.rotations(), *face.own_landmarks(procedural_face(), seed=0)]
    assert all(figure.holds for figure in figures), figures


def test_noise_that_a_fit_takes_away_is_no_damping():
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(2000, 68, 2)
    truth[:, 66, 1] = 8 + 3 * torch.sin(torch.arange(2000) / 3)
    seen = truth + 0.7 * torch.randn(truth.shape, generator=generator)
    damped = truth.clone()
    damped[:, 66, 1] = 8 + 0.9 * (truth[:, 66, 1] - 8)
    assert face.kept_opening(seen, truth) == pytest.approx(1.0, abs=0.02)
    assert face.kept_opening(seen, damped) == pytest.approx(0.9, abs=0.02)


def test_real_clips_without_data_are_unavailable(monkeypatch):
    monkeypatch.setattr(face, "speed", lambda *_: told("speed", "not timed here"))
    figures = list(face.measure(Materials()))
    assert figures[-1].reached.startswith("unavailable")
    assert figures[-1].holds is None


@pytest.mark.slow
def test_synthetic_figures_hold(tmp_path):
    """The topic on a few people; times are for an idle machine and not asked for here."""
    generate_grid_corpus(tmp_path, 3, 2, seed=0, workers=0)
    figures: list[Figure] = [*synthetic.voices(0), synthetic.same_bytes(0)]
    figures += synthetic.judged(tmp_path, seed=0, num_speakers=3)
    assert all(figure.holds is not False for figure in figures), figures
    front = next(synthetic.turned_heads(0, seconds=1))
    assert front.name.endswith("front")
    assert front.reached.startswith("found 100%")


@pytest.mark.slow
def test_fit_figures_of_real_clips_hold(tmp_path):
    """The path of the real clips, walked on synthetic ones."""
    generate_grid_corpus(tmp_path, 2, 1, seed=0, workers=0)
    landmarks = face.real_landmarks(tmp_path, 2)
    assert len(landmarks) == 2
    assert all(figure.holds for figure in face.real_clips("built-in head", procedural_face(), landmarks))
