"""The fit on real clips: close to the detections without large coefficients, with every face model.

NME: mean distance over the distance of the outer eye corners.
"""

import os
from pathlib import Path

import pytest
import torch

from datamodules.prepare.decode import read_frames
from datamodules.prepare.track import track_landmarks
from model_zoo.face.detector import DlibDetector
from model_zoo.face.fitting import fit_clip
from model_zoo.face.importers import import_ict
from model_zoo.face.morphable import MorphableFace
from model_zoo.face.procedural import procedural_face

CLIPS = ("s1/bbaf2n.mpg", "s1/swbo8n.mpg")


@pytest.fixture(scope="module")
def detected() -> list[torch.Tensor]:
    root = os.environ.get("TALKIN_GRID_ROOT")
    if root is None:
        pytest.skip("TALKIN_GRID_ROOT does not name the GRID corpus")
    detector = DlibDetector()
    return [torch.from_numpy(track_landmarks(read_frames(Path(root) / clip), detector)) for clip in CLIPS]


def errors(face: MorphableFace, landmarks: torch.Tensor) -> dict[str, float]:
    fit = fit_clip(face, landmarks)
    seen = fit.valid
    projected = face.project_landmarks(fit.shape, fit.expression, fit.pose)[seen]
    given = landmarks[seen]
    eyes = (given[:, 36] - given[:, 45]).norm(dim=-1)
    distance = (projected - given).norm(dim=-1) / eyes[:, None]
    opening = torch.stack([points[:, 66, 1] - points[:, 62, 1] for points in (projected, given)])
    active = face.expression_std > 0
    return {
        "seen": float(seen.float().mean()),
        "nme": float(distance.mean()),
        "reported": float(fit.residual[seen].mean()),
        "mouth": float(distance[:, 48:].mean()),
        "expression": float(fit.expression[seen][:, active].square().mean().sqrt()),
        "shape": float(fit.shape[face.shape_std > 0].square().mean().sqrt()),
        "opening": float(torch.corrcoef(opening)[0, 1]),
        "slope": float(torch.cov(opening)[0, 1] / opening[1].var()),
    }


def assert_close(found: dict[str, float], nme: float) -> None:
    assert found["seen"] > 0.95
    assert found["nme"] == pytest.approx(found["reported"], abs=1e-4)
    assert found["nme"] < nme
    assert found["mouth"] < 0.025
    assert found["expression"] < 1.2
    assert found["shape"] < 1.2
    assert found["opening"] > 0.97
    assert 0.85 < found["slope"] < 1.15  # damped, the mouth would mumble


def test_built_in_head(detected):
    for landmarks in detected:
        assert_close(errors(procedural_face(), landmarks), nme=0.035)


@pytest.mark.slow
def test_ict_facekit(detected):
    if "TALKIN_ICT_FACEKIT" not in os.environ:
        pytest.skip("TALKIN_ICT_FACEKIT does not name the ICT-FaceKit archive")
    face = import_ict(os.environ["TALKIN_ICT_FACEKIT"])
    for landmarks in detected:
        assert_close(errors(face, landmarks), nme=0.025)
