"""A long video from a short one, its packets again and again, and what a worker of its own needs to prepare it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch

from datamodules.synthetic.appearance import draw_look
from datamodules.synthetic.head import HeadRenderer
from model_zoo.face.procedural import procedural_head

SAMPLE_RATE = 16_000  # Hz


class Alone(NamedTuple):
    """What a process did that prepared one source and nothing else.

    Attributes:
        peak: resident memory, bytes.
        frames, valid: of each clip, all and with a fit.
        skipped: reasons. seconds: of CPU time.
    """

    peak: int
    frames: list[int]
    valid: list[int]
    skipped: list[str]
    seconds: float

    @property
    def rate(self) -> float:
        """Frames a CPU second."""
        return sum(self.frames) / self.seconds


# In a process of its own: the peak is that of a worker, and nothing else counts.
_WORKER = """
import json, sys, time
from pathlib import Path
import cv2, torch
torch.set_num_threads(1)
cv2.setNumThreads(1)
from datamodules.prepare.clip import prepare_clip
from datamodules.prepare.sources import SourceClip
from model_zoo.face.detector import DlibDetector
from model_zoo.face.procedural import procedural_face
video, store = map(Path, sys.argv[1:])
started = time.process_time()
result = prepare_clip(SourceClip("clip", "s", "front", video), store, procedural_face().landmark_face(), DlibDetector())
# Not ru_maxrss, which begins with the peak of the process that started this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps({
    "peak": int(peak.split()[1]) * 1024,
    "frames": [row.frames for row in result.rows],
    "valid": [row.valid_frames for row in result.rows],
    "skipped": [skipped.reason for skipped in result.skipped],
    "seconds": time.process_time() - started,
}))
"""

_POSED = 13  # frames; shown forth and back, so that the end joins the beginning without a cut


def write_looped(path: Path, seconds: int, width: int = 1920, height: int = 1080) -> None:
    """H.264 of a synthetic head that nods and speaks, 25 fps, with a hum for a voice.

    Args:
        path: ending in .mp4.
        seconds: of the video; a second of it is rendered.
        width, height: px, even.
    """
    head = procedural_head()
    home = torch.tensor([0.03, 0.1, 0.0, width / 2, 0.45 * height, np.log(0.2 * height)])
    look = draw_look(np.random.default_rng(0))
    renderer = HeadRenderer(head, look, torch.zeros(199), width, height, home, supersampling=1)
    phase = torch.linspace(0, 1, _POSED)
    expression, pose = torch.zeros(_POSED, 29), home.repeat(_POSED, 1)
    expression[:, 0], pose[:, 1] = 2 * phase, home[1] + 0.1 * phase
    forth = list(renderer.frames(expression, pose, np.zeros((_POSED, 2)), np.random.default_rng(0)))
    loop = [*forth, *forth[-2:0:-1], forth[0]]  # 25 frames
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "23", "preset": "veryfast", "bf": "0"})
        video.width, video.height, video.pix_fmt, video.gop_size = width, height, "yuv420p", len(loop)
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        encoded = []
        for number, image in enumerate(loop):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            encoded += video.encode(frame)
        encoded += video.encode()
        content = [(bytes(packet), packet.pts, packet.is_keyframe) for packet in encoded]
        time_base = encoded[0].time_base
        step = round(1 / time_base)
        time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
        hum = (0.3 * np.sin(2 * np.pi * 140 * time) * np.sin(np.pi * time) ** 2).astype(np.float32)[None]
        for second in range(seconds):
            for data, pts, is_key in content:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = video, time_base, is_key
                packet.pts = packet.dts = pts + second * step
                container.mux(packet)
            sound = av.AudioFrame.from_ndarray(hum, format="fltp", layout="mono")
            sound.sample_rate, sound.time_base, sound.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), second * SAMPLE_RATE
            container.mux(audio.encode(sound))
        container.mux(audio.encode())


def prepare_alone(video: Path, store: Path) -> Alone:
    """Prepare a file in a fresh process of one thread."""
    command = [sys.executable, "-c", _WORKER, str(video), str(store)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return Alone(**json.loads(run.stdout.splitlines()[-1]))
