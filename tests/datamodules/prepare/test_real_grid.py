"""Preparation of real GRID clips with a real face model; TALKIN_GRID_ROOT says where they are."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.clip_store import ClipStore
from datamodules.prepare.pipeline import prepare_corpus
from datamodules.prepare.sources import scan_grid
from model_zoo.face.procedural import procedural_face
from model_zoo.functional.camera import invert_similarity

GRID_ROOT = os.environ.get("TALKIN_GRID_ROOT")
pytestmark = pytest.mark.skipif(not GRID_ROOT, reason="TALKIN_GRID_ROOT is not set")


def opening(landmarks: torch.Tensor) -> torch.Tensor:
    """(T,) distance of the inner lips over the outer-eye distance."""
    return (landmarks[:, 62] - landmarks[:, 66]).norm(dim=-1) / (landmarks[:, 36] - landmarks[:, 45]).norm(dim=-1)


def crop_parameters(transform: torch.Tensor) -> torch.Tensor:
    """(T, 4) centre in the frame (px), log scale, roll."""
    inverse = invert_similarity(transform.double())
    centre = inverse[:, :, :2] @ torch.full((2,), 127.5, dtype=torch.float64) + inverse[:, :, 2]
    linear = transform[:, :, 0].double()
    return torch.cat([centre, linear.norm(dim=-1, keepdim=True).log(), linear[:, 1:].atan2(linear[:, :1])], 1)


def check(store: ClipStore, kept: float) -> None:
    frames = sum(row.frames for row in store.manifest)
    assert sum(row.valid_frames for row in store.manifest) >= kept * frames
    covariance, variance, spread = np.zeros(4), np.zeros(4), 0.0
    for row in store.manifest:
        clip = store.open(row.id)
        valid = clip.valid
        assert row.residual < 0.04
        # the fit's mouth opens as the detected one does
        seen, fitted = opening(clip.landmarks_detected[valid]), opening(clip.landmarks[valid])
        assert np.corrcoef(seen, fitted)[0, 1] > 0.9
        eyes = clip.landmarks[valid][:, [36, 45]].mean(1)
        assert (eyes.mean(0) - torch.tensor([127.5, 96.78])).abs().max() < 3
        parameters = crop_parameters(clip.crop_transform)[valid].numpy()
        parameters, mouth = parameters - parameters.mean(0), (seen - seen.mean()).numpy()
        covariance += (parameters * mouth[:, None]).sum(0)
        variance += (parameters**2).sum(0)
        spread += (mouth**2).sum()
    assert (np.abs(covariance) / np.sqrt(variance * spread) < 0.1).all()


def test_a_few_clips_from_file_to_store(tmp_path):
    sources = scan_grid(Path(GRID_ROOT))
    chosen = [*sources[:2], sources[-1]]
    report = prepare_corpus(chosen, tmp_path, procedural_face(), workers=0, progress=False)
    assert report.skipped == []
    check(ClipStore(tmp_path), kept=0.98)


@pytest.mark.slow
def test_all_clips_at_100_frames_a_second_a_core(tmp_path):
    sources = scan_grid(Path(GRID_ROOT))
    started = time.monotonic()
    report = prepare_corpus(sources, tmp_path, procedural_face(), workers=2, progress=False)
    seconds = time.monotonic() - started
    assert report.skipped == []
    check(ClipStore(tmp_path), kept=0.98)
    assert report.frames / seconds / 2 > 100  # meaningful on an idle machine only
