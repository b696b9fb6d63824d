"""A clip store of painted faces whose pixels show their landmarks: made in a second, with the built-in head's fit."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.clip_store import ClipData, write_clip
from datamodules.crop_codec import encode_crop
from datamodules.manifest import ClipRow, write_manifest
from model_zoo.face.procedural import procedural_face
from model_zoo.functional.masks import mouth_box, mouth_region

NUM_FRAMES = 20
SIDE = 256


def paint(landmarks: Tensor, seed: int) -> np.ndarray:
    """(SIDE, SIDE, 3) RGB: a textured disc with dark lips where the landmarks say."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    generator = torch.Generator().manual_seed(seed)
    coarse = 40 * torch.rand(1, 3, 17, 17, generator=generator)
    image = 120 + torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic")[0]
    low, high = landmarks[60:].amin(0), landmarks[60:].amax(0)
    middle, radius = (low + high) / 2, (high - low) / 2 + 2
    mouth = ((x - middle[0]) / radius[0]) ** 2 + ((y - middle[1]) / radius[1]) ** 2
    return (image - 90 * torch.sigmoid(4 * (1 - mouth))).clamp(0, 255).byte().permute(1, 2, 0).numpy()


def write_store(root: Path, clips: list[str], invalid: dict[str, list[int]] | None = None) -> None:
    """Clips "<speaker>/<name>" whose mouths open by seeded waves; `invalid` frames carry no fit of their own."""
    face = procedural_face()
    rows = []
    for clip in clips:
        seed = int(hashlib.sha1(clip.encode()).hexdigest()[:6], 16)
        generator = torch.Generator().manual_seed(seed)
        phase = 2 * torch.pi * (torch.arange(NUM_FRAMES) / 9 + torch.rand(1, generator=generator))
        expression, shape = torch.zeros(NUM_FRAMES, 29), torch.zeros(199)
        expression[:, 0] = 2 * phase.sin()
        pose = torch.tensor([0.0, 0.0, 0.0, 128.0, 110.0, math.log(76.8)]).repeat(NUM_FRAMES, 1)
        landmarks = face.project_landmarks(shape, expression, pose)
        pictures = [paint(each, seed) for each in landmarks]
        valid = torch.ones(NUM_FRAMES, dtype=torch.bool)
        valid[(invalid or {}).get(clip, [])] = False
        rows.append(
            ClipRow(
                id=clip,
                source=clip,
                part=1,
                parts=1,
                speaker=clip.split("/")[0],
                view="front",
                start=0.0,
                frames=NUM_FRAMES,
                valid_frames=int(valid.sum()),
                transcript="",
                sha256=hashlib.sha256(clip.encode()).hexdigest(),
                source_bytes=1,
                residual=0.0,
                noise=0.1,
                faces=1,
                offset=0.0,
                offset_confidence=0.0,
                consent="synthetic",
                consent_reference="",
                settings="painted",
                versions="",
                jpeg_quality=95,
            )
        )
        data = ClipData(
            crops=[encode_crop(picture) for picture in pictures],
            mean_crop=encode_crop(np.mean(pictures, axis=0).round().astype(np.uint8)),
            landmarks=landmarks,
            landmarks_detected=landmarks,
            expression=expression,
            pose=pose,
            shape=shape,
            valid=valid,
            sound=torch.zeros(640 * NUM_FRAMES, dtype=torch.int16),
            mfcc=torch.randn(4 * NUM_FRAMES, 13, generator=generator),
            crop_transform=torch.tensor([[1.0, 0, 0], [0, 1, 0]]).repeat(NUM_FRAMES, 1, 1),
            mouth_box=mouth_box(landmarks),
            mouth_region=mouth_region(landmarks),
        )
        write_clip(root, rows[-1], data)
    write_manifest(root, rows)
