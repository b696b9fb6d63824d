"""A corpus of talking dots: every frame carries its number in its pixels, so a detector that reads it knows the truth.

The face is a coarse iBUG template with a few random modes; clips are MPEG-1 with mp2 sound like GRID's.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from model_zoo.face.detector import box_from_landmarks
from model_zoo.face.morphable import MorphableFace

WIDTH, HEIGHT = 368, 288
NUMBER_BITS = 8
BIT_SIDE = 16  # px; survives the codec
DOT_RADIUS = 5


def template() -> torch.Tensor:
    """(68, 3) landmarks, x right, y down, outer-eye distance 1."""
    points = torch.zeros(68, 3)
    angle = torch.linspace(0.05, 0.95, 17) * torch.pi
    points[:17] = torch.stack([-0.85 * angle.cos(), 1.15 * angle.sin() - 0.05, 0.5 - 0.5 * angle.sin()], 1)
    for start, x0, x1, y in ((17, -0.62, -0.12, -0.28), (22, 0.12, 0.62, -0.28)):
        points[start : start + 5, 0], points[start : start + 5, 1] = torch.linspace(x0, x1, 5), y
    points[27:31, 1] = torch.linspace(0, 0.42, 4)
    points[27:31, 2] = torch.linspace(-0.05, -0.35, 4)
    points[31:36] = torch.stack([torch.linspace(-0.15, 0.15, 5), torch.full((5,), 0.5), torch.full((5,), -0.15)], 1)
    for start, centre in ((36, -0.36), (42, 0.36)):
        turn = torch.pi - torch.arange(6) * torch.pi / 3
        points[start : start + 6, 0], points[start : start + 6, 1] = centre + 0.14 * turn.cos(), -0.05 * turn.sin()
    turn = torch.pi + torch.arange(12) * torch.pi / 6
    points[48:60] = torch.stack([0.28 * turn.cos(), 0.78 + 0.1 * turn.sin(), torch.full((12,), -0.12)], 1)
    turn = torch.pi + torch.arange(8) * torch.pi / 4
    points[60:68] = torch.stack([0.18 * turn.cos(), 0.78 + 0.01 * turn.sin(), torch.full((8,), -0.1)], 1)
    return points


def fake_face() -> MorphableFace:
    """68 vertices, 6 random shape modes, jaw opening and 3 random expression modes of the mouth."""
    generator = torch.Generator().manual_seed(1)
    mean = template()
    shape = torch.randn(68, 3, 6, generator=generator)
    expression = torch.zeros(68, 3, 4)
    expression[5:12, 1, 0] = 1.0
    expression[[*range(54, 60), 48, *range(64, 68)], 1, 0] = 1.0
    expression[48:, :, 1:] = torch.randn(20, 3, 3, generator=generator)
    shape, expression = (basis / basis.flatten(0, 1).norm(dim=0) for basis in (shape, expression))
    std_s, std_e = torch.full((6,), 0.2), torch.tensor([0.3, 0.05, 0.05, 0.05])
    return MorphableFace(mean, shape, std_s, expression, std_e, torch.zeros(0, 3, dtype=torch.long), torch.arange(68))


def true_landmarks(face: MorphableFace, seed: int, num_frames: int) -> np.ndarray:
    """(T, 68, 2) px of the frame: a head that drifts and speaks."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(num_frames) / 25
    shape, expression = torch.zeros(199), torch.zeros(num_frames, 29)
    shape[:6] = 0.5 * torch.randn(6, generator=generator)
    expression[:, 0] = 1 + torch.sin(2 * torch.pi * 4 * time)
    expression[:, 1] = torch.randn(num_frames, generator=generator)
    pose = torch.zeros(num_frames, 6)
    pose[:, 1], pose[:, 2] = 0.1 * torch.sin(2 * time), 0.05 * torch.cos(time)
    pose[:, 3], pose[:, 4] = 190 + 4 * torch.sin(time), 120 + 3 * time
    pose[:, 5] = np.log(66.0) + 0.02 * time
    return face.project_landmarks(shape, expression, pose).numpy()


def draw(landmarks: np.ndarray, number: int) -> np.ndarray:
    """RGB frame with a dot on each outer eye corner and its number as black and white blocks on the left."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for bit in range(NUMBER_BITS):
        value = 235 if number >> bit & 1 else 20
        image[bit * BIT_SIDE : (bit + 1) * BIT_SIDE, :BIT_SIDE] = value
    for point in landmarks[[36, 45]]:
        centre = np.round(point * 16).astype(int).tolist()
        cv2.circle(image, centre, DOT_RADIUS * 16, (250, 250, 250), -1, cv2.LINE_AA, shift=4)
    return image


def read_number(frame: np.ndarray) -> int:
    """The number that `draw` put into a frame."""
    return sum(
        1 << bit
        for bit in range(NUMBER_BITS)
        if frame[bit * BIT_SIDE + 4 : (bit + 1) * BIT_SIDE - 4, 4 : BIT_SIDE - 4].mean() > 128
    )


class NumberDetector:
    """Reads the frame's number and answers with the truth; sees nothing in numbers of `blind`."""

    name = "numbers"

    def __init__(self, landmarks: np.ndarray, blind: frozenset[int] = frozenset()) -> None:
        self.truth, self.blind = landmarks, blind

    def detect(self, frame: np.ndarray) -> list[np.ndarray]:
        number = read_number(frame)
        return [] if number in self.blind else [box_from_landmarks(self.truth[number])]

    def landmarks(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        return self.truth[read_number(frame)].astype(np.float32)


def write_clip_file(
    path: Path, frames: list[np.ndarray], sound: np.ndarray | None, rate: int = 25, sound_rate: int = 44_100
) -> None:
    """MPEG-1 video with mp2 sound in an MPEG program stream, like GRID's clips."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mpeg") as container:
        video = container.add_stream("mpeg1video", rate=rate)
        video.width, video.height, video.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        video.bit_rate = 2_000_000
        audio = container.add_stream("mp2", rate=sound_rate, layout="mono") if sound is not None else None
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            samples = np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = sound_rate, 0, Fraction(1, sound_rate)
            container.mux(audio.encode(frame))
            container.mux(audio.encode())


def tone(seconds: float, rate: int = 44_100, hertz: float = 440.0) -> np.ndarray:
    """A sine at half of full scale."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate).astype(np.float32)


def write_grid(root: Path, truth: np.ndarray, clips: dict[str, int]) -> None:
    """<root>/<speaker>/<name>.mpg for "speaker/name" -> number of frames, with alignments."""
    for identity, num_frames in clips.items():
        speaker, name = identity.split("/")
        frames = [draw(truth[t], t) for t in range(num_frames)]
        write_clip_file(root / speaker / f"{name}.mpg", frames, tone(num_frames / 25))
        alignment = root / "alignments" / speaker / f"{name}.align"
        alignment.parent.mkdir(parents=True, exist_ok=True)
        alignment.write_text(f"0 1000 sil\n1000 3000 bin\n3000 {num_frames * 1000} blue\n")
