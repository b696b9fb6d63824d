"""Topic `face`: how near the fit of the parametric face comes, to landmarks that it made itself and to real clips."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from datamodules.prepare.crop import INNER_LIPS
from datamodules.prepare.decode import DecodeError, read_frames
from datamodules.prepare.sources import scan_grid
from experiments.checks.figure import Figure, Materials, at_least, at_most, told, unavailable
from model_zoo.face.detector import DlibDetector, FaceDetector, box_from_landmarks
from model_zoo.face.fitting import fit_clip
from model_zoo.face.importers import import_face
from model_zoo.face.morphable import NUM_EXPRESSION, NUM_SHAPE, MorphableFace
from model_zoo.face.procedural import procedural_face
from model_zoo.functional.camera import rotation_matrix, rotation_vector
from model_zoo.functional.masks import OUTER_EYES

CLIP_FRAMES = 75  # of a GRID clip
CLIPS = 14  # real ones, evenly spaced
TURNS = (0.12, 0.3)  # rad; GRID's speakers stay within the first
TIMED = 20  # fits, the fastest of which counts
MOUTH = slice(48, 68)  # iBUG
HEAD_SIZE = 77.0  # px between the outer eye corners, 0.30 of a crop of 256
# Most that is claimed: NME of all landmarks with each face, mouth alone, and RMS of the expression coefficients.
NME = {"built-in head": 0.035, "ICT-FaceKit": 0.025}
MOUTH_NME, EXPRESSION_RMS = 0.025, 1.2


def measure(materials: Materials) -> Iterator[Figure]:
    """Issue the figures of the face and its fit."""
    yield from rotations()
    built_in = procedural_face()
    yield from own_landmarks(built_in, materials.seed)
    yield from speed(built_in, materials.seed)
    ict = import_face(materials.ict).face if materials.ict is not None else None
    if materials.grid is None:
        yield unavailable("fit of real GRID clips", "give --grid <folder>")
        return
    landmarks = real_landmarks(materials.grid)
    yield told("real GRID clips with a face", f"{len(landmarks)}, {sum(map(len, landmarks))} frames")
    yield from real_clips("built-in head", built_in, landmarks)
    if ict is None:
        yield unavailable("fit of ICT-FaceKit", "give --ict <archive or folder>")
    else:
        yield from real_clips("ICT-FaceKit", ict, landmarks)


def rotations() -> Iterator[Figure]:
    """Rotation vectors there and back, at zero and near half a turn."""
    axes = torch.nn.functional.normalize(torch.randn(100, 3, dtype=torch.float64, generator=_generator(0)), dim=1)
    for name, angle in (("zero", 0.0), ("1e-9", 1e-9), ("π − 1e-6", torch.pi - 1e-6)):
        vectors = axes * angle
        error = float((rotation_vector(rotation_matrix(vectors)) - vectors).abs().max())
        yield at_most(f"rotation vector → matrix → vector, angle {name}", error, 1e-8, "{:.0e}")


def talking_clip(face: MorphableFace, num_frames: int, seed: int, turn: float = 0.3) -> Float[Tensor, "T 68 2"]:
    """True landmarks, px at 256, of somebody at random whose face moves as in speech and whose head turns (rad)."""
    generator = _generator(seed)
    shape = torch.randn(NUM_SHAPE, generator=generator)
    window = torch.hann_window(9, periodic=False)
    walk = torch.randn(NUM_EXPRESSION, 1, num_frames + len(window) - 1, generator=generator)
    expression = torch.nn.functional.conv1d(walk, (window / window.norm())[None, None])[:, 0].T
    time = torch.linspace(0, 6, num_frames)
    pose = torch.stack([
        0.10 * time.sin(), turn * (0.7 * time + 0.5).sin(), 0.05 * time.cos(),
        128 + 5 * time.sin(), 97 + 3 * time.cos(), np.log(HEAD_SIZE) + 0.03 * time.sin(),
    ], dim=1)  # fmt: skip
    return face.project_landmarks(shape, expression, pose)


def own_landmarks(face: MorphableFace, seed: int) -> Iterator[Figure]:
    """One default setting: landmarks without noise are met, landmarks with noise are denoised."""
    truth = talking_clip(face, CLIP_FRAMES, seed)
    error = (_fitted(face, truth) - truth).square().mean().sqrt()
    yield at_most("projection ∘ fit, exact landmarks, RMSE px at 256", float(error), 0.05, "{:.4f}")
    noise = torch.randn(truth.shape, generator=_generator(seed + 1))
    left = (_fitted(face, truth + noise) - truth)[:, MOUTH].square().mean() / noise[:, MOUTH].square().mean()
    yield at_most("1 px of noise: mouth error after / before the fit", float(left.sqrt()), 0.99, "{:.2f}")


def speed(face: MorphableFace, seed: int) -> Iterator[Figure]:
    """Frames a second of the fit of one clip, on as many threads as torch has; where the jaw slides it takes longer."""
    rates = []
    for turn in TURNS:
        landmarks = talking_clip(face, CLIP_FRAMES, seed, turn)
        landmarks = landmarks + torch.randn(landmarks.shape, generator=_generator(seed + 1))
        seconds = []
        for _ in range(TIMED):
            start = time.perf_counter()
            fit_clip(face, landmarks)
            seconds.append(time.perf_counter() - start)
        rates.append(CLIP_FRAMES / min(seconds))
    name = f"fit of {CLIP_FRAMES} frames, 234 parameters, frames/s ({torch.get_num_threads()} threads)"
    yield at_least(f"{name}, head as in GRID", rates[0], 1000, "{:.0f}")
    yield told("the same, head turning by 17 degrees", f"{rates[1]:.0f}")


def real_landmarks(root: Path, count: int = CLIPS) -> list[Float[Tensor, "T 68 2"]]:
    """Landmarks of evenly spaced clips of a GRID folder, px of the frame; without those that show no face."""
    clips = scan_grid(root)
    chosen = [clips[i] for i in np.linspace(0, len(clips) - 1, min(count, len(clips))).round().astype(int)]
    detector, tracked = DlibDetector(), []
    for clip in chosen:
        try:
            landmarks = followed(clip.video, detector)
        except DecodeError:  # preparation reports it
            continue
        if landmarks.isfinite().any():
            tracked.append(landmarks)
    return tracked


def followed(video: Path, detector: FaceDetector) -> Float[Tensor, "T 68 2"]:
    """Landmarks of a video of one person, NaN until somebody is found; the box then follows the landmarks."""
    rows, box = [], None
    for frame in read_frames(video):
        if box is None and (boxes := detector.detect(frame)):
            box = box_from_landmarks(detector.landmarks(frame, boxes[0]))
        rows.append(np.full((68, 2), np.nan, np.float32) if box is None else detector.landmarks(frame, box))
        box = None if box is None else box_from_landmarks(rows[-1])
    return torch.from_numpy(np.stack(rows))


def real_clips(name: str, face: MorphableFace, clips: list[Float[Tensor, "T 68 2"]]) -> Iterator[Figure]:
    """How near the fit comes to what dlib saw, and how far it goes for it."""
    everywhere, mouth, expression, kept = [], [], [], []
    for landmarks in clips:
        fit = fit_clip(face, landmarks)
        projected = face.project_landmarks(fit.shape, fit.expression, fit.pose)
        left, right = OUTER_EYES
        distance = (projected - landmarks).norm(dim=-1)[fit.valid]
        eyes = (landmarks[:, left] - landmarks[:, right]).norm(dim=-1, keepdim=True)[fit.valid]
        everywhere.append(distance / eyes)
        mouth.append((distance / eyes)[:, MOUTH])
        expression.append(fit.expression[fit.valid][:, face.expression_std > 0])
        kept.append(kept_opening(landmarks[fit.valid], projected[fit.valid]))
    nme, mouth_nme = (float(torch.cat(values).nanmean()) for values in (everywhere, mouth))
    yield at_most(f"real clips, {name}: NME", nme, NME[name], "{:.4f}")
    yield at_most(f"real clips, {name}: mouth NME", mouth_nme, MOUTH_NME, "{:.4f}")
    name_of_kept = f"real clips, {name}: standard deviation of the lips' opening, fit over detection, median"
    yield told(name_of_kept, f"{np.median(kept):.3f}")
    rms = float(torch.cat(expression).square().mean().sqrt())
    yield at_most(f"real clips, {name}: RMS of the expression", rms, EXPRESSION_RMS, "{:.2f}")


def kept_opening(seen: Float[Tensor, "T 68 2"], fitted: Float[Tensor, "T 68 2"]) -> float:
    """How much of the opening's movement a fit keeps: ratio of its standard deviation after and before.

    Of what successive frames share, so that the detector's noise, which the fit takes away, does not count as movement.
    """
    upper, lower = INNER_LIPS
    openings = ((landmarks[:, lower] - landmarks[:, upper]).norm(dim=-1).double() for landmarks in (fitted, seen))
    after, before = (opening - opening.mean() for opening in openings)
    return float(((after[1:] @ after[:-1]) / (before[1:] @ before[:-1])).sqrt())


def _fitted(face: MorphableFace, landmarks: Float[Tensor, "T 68 2"]) -> Float[Tensor, "T 68 2"]:
    fit = fit_clip(face, landmarks)
    return face.project_landmarks(fit.shape, fit.expression, fit.pose)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
