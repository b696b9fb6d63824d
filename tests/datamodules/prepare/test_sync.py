"""Offset between sound and picture: known shifts come back with their sign, and doubt is said."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, sosfilt

from datamodules.prepare.decode import fit_length, read_audio, read_frames, video_start
from datamodules.prepare.sound import to_float, to_int16
from datamodules.prepare.sync import _correlations, band_pass, smoothed, sound_offset, speech_level
from datamodules.prepare.track import track_landmarks
from datamodules.synthetic.corpus import generate_grid_corpus
from model_zoo.face.detector import DlibDetector
from model_zoo.face.fitting import fit_clip
from model_zoo.face.procedural import procedural_head

RATE = 16_000
SHIFTS = (-0.4, -0.2, -0.08, 0.08, 0.2, 0.4)


def babble(seed: int, seconds: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Opening (25 fps) and sound of syllables at irregular times: noise as loud as the mouth is open."""
    rng = np.random.default_rng(seed)
    centres = 0.5 + np.cumsum(rng.uniform(0.15, 0.45, int(seconds / 0.3)))
    height, width = rng.uniform(0.4, 1.0, len(centres)), rng.uniform(0.05, 0.09, len(centres))

    def opened(time: np.ndarray) -> np.ndarray:
        return (height * np.exp(-(((time[:, None] - centres) / width) ** 2))).sum(axis=1)

    time = np.arange(int(seconds * RATE)) / RATE
    sound = 0.2 * opened(time) * rng.normal(0, 0.3, len(time)) + 1e-3 * rng.normal(0, 1, len(time))
    return 10 * opened(np.arange(int(seconds * 25)) / 25), to_int16(sound)


def shifted(sound: np.ndarray, seconds: float) -> np.ndarray:
    """The same sound later (positive) or earlier, of the same length."""
    count = round(seconds * RATE)
    return np.pad(sound, (max(count, 0), max(-count, 0)))[max(-count, 0) :][: len(sound)]


@pytest.mark.parametrize("shift", [0.0, *SHIFTS, 0.033, -0.117])
def test_known_shift_comes_back_with_its_sign(shift):
    opening, sound = babble(1)
    estimate = sound_offset(opening, shifted(sound, shift))
    assert estimate.offset == pytest.approx(shift, abs=0.012)
    assert estimate.confidence > 0.5


def test_shifting_back_by_the_estimate_leaves_nothing():
    opening, sound = babble(2)
    late = shifted(sound, 0.23)
    again = sound_offset(opening, shifted(late, -sound_offset(opening, late).offset))
    assert abs(again.offset) < 0.012


def test_frames_without_a_mouth_do_not_matter():
    opening, sound = babble(3)
    opening[30:45] = np.nan
    opening[:4] = opening[-3:] = np.nan
    assert sound_offset(opening, shifted(sound, 0.1)).offset == pytest.approx(0.1, abs=0.02)


def test_scale_of_opening_and_sound_do_not_matter():
    opening, sound = babble(4)
    plain, scaled = sound_offset(opening, sound), sound_offset(0.01 * opening + 7, to_int16(0.1 * to_float(sound)))
    assert scaled.offset == pytest.approx(plain.offset, abs=1e-3)


@pytest.mark.parametrize("case", ["silence", "still", "unseen", "short", "nothing"])
def test_what_cannot_be_told_is_nan(case):
    opening, sound = babble(5)
    if case == "silence":
        sound[:] = 0
    elif case == "still":
        opening[:] = 3.0
    elif case == "unseen":
        opening[10:] = np.nan
    elif case == "short":
        opening, sound = opening[:20], sound[: 20 * 640]
    else:
        sound = sound[:0]
    offset, confidence = sound_offset(opening, sound)
    assert np.isnan(offset)
    assert confidence == 0


def test_somebody_elses_speech_gives_little_confidence():
    doubtful = [sound_offset(babble(seed)[0], babble(seed + 50)[1]).confidence for seed in range(10, 30)]
    sure = [sound_offset(*babble(seed)).confidence for seed in range(10, 30)]
    assert np.median(doubtful) < 0.5 < 0.9 < np.median(sure)


def test_each_lag_has_the_correlation_of_what_it_brings_together():
    rng = np.random.default_rng(0)
    a, b, known = rng.normal(5, 1, 90), rng.normal(-40, 9, 90), rng.random(90) > 0.3
    found = _correlations(a, b, known, 20)
    for lag, value in zip(range(-20, 21), found, strict=True):
        time = [t for t in range(90) if known[t] and 0 <= t + lag < 90]
        assert value == pytest.approx(np.corrcoef(a[time], b[np.add(time, lag)])[0, 1], abs=1e-9)
    assert not _correlations(a, b, np.zeros(90, bool), 20).any()


@pytest.mark.parametrize("length", [160, 4801, 48_000])
def test_filters_are_scipys(length):
    sound = np.random.default_rng(length).normal(size=length)
    sections = butter(2, (100, 4000), "bandpass", fs=16_000, output="sos")
    np.testing.assert_allclose(band_pass(sound), sosfilt(sections, sound), atol=1e-9)
    for values in (sound[:9], sound):
        np.testing.assert_allclose(smoothed(values, 4.0), gaussian_filter1d(values, 4.0), atol=1e-12)


def test_long_sound_is_filtered_in_blocks_without_seams():
    sound = to_int16(np.random.default_rng(0).normal(scale=0.1, size=70 * 16_000))
    whole = band_pass(to_float(sound)).reshape(-1, 160)
    level = 10 * np.log10((whole**2).mean(1) + 1e-12)
    np.testing.assert_allclose(speech_level(sound), gaussian_filter1d(level, 4.0), atol=1e-6)


def test_level_follows_the_band_and_not_the_blocks():
    rng = np.random.default_rng(0)
    time = np.arange(70 * RATE) / RATE  # more than two blocks
    tone = np.where((time % 2) < 1, 0.5, 0.05) * np.sin(2 * np.pi * 500 * time)
    level = speech_level(to_int16(tone))
    steps = np.arange(len(level)) % 200
    loud, soft = level[(steps > 30) & (steps < 70)], level[(steps > 130) & (steps < 170)]
    assert loud.mean() - soft.mean() == pytest.approx(20, abs=0.2)
    assert loud.std() < 0.1
    low = speech_level(to_int16(0.5 * np.sin(2 * np.pi * 10 * time))).mean()
    assert low < loud.mean() - 30
    assert speech_level(to_int16(rng.normal(0, 1, 100))).shape == (0,)


@pytest.mark.slow
def test_built_in_speakers_seen_by_the_detector(tmp_path):
    generate_grid_corpus(tmp_path, 6, 2, seed=5, workers=0)
    errors = []
    for path in sorted(tmp_path.rglob("*.mpg")):
        opening, sound = measured_clip(path)
        errors += [sound_offset(opening, shifted(sound, shift)).offset - shift for shift in SHIFTS]
    assert abs(np.median(errors)) < 0.02
    assert np.quantile(np.abs(errors), 0.9) < 0.06


@pytest.mark.slow
@pytest.mark.skipif("TALKIN_GRID_ROOT" not in os.environ, reason="needs GRID")
def test_real_clips_are_in_step():
    paths = sorted(Path(os.environ["TALKIN_GRID_ROOT"]).rglob("*.mpg"))
    estimates = np.array([sound_offset(*measured_clip(path)) for path in paths[:: max(1, len(paths) // 30)]])
    assert abs(np.median(estimates[:, 0])) < 0.02
    confident = estimates[estimates[:, 1] >= 0.5, 0]
    assert len(confident) > 0.5 * len(estimates)
    assert np.median(np.abs(confident)) < 0.03


def measured_clip(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Opening as preparation sees it, and sound."""
    face = procedural_head().face
    landmarks = torch.from_numpy(track_landmarks(read_frames(path), DlibDetector()))
    fit = fit_clip(face, landmarks)
    points = face.project_landmarks(fit.shape, fit.expression, fit.pose).numpy()
    opening = np.linalg.norm(points[:, 66] - points[:, 62], axis=1)
    return opening, fit_length(read_audio(path, video_start(path)), len(landmarks))
