"""A built-in corpus in the layout of the collected one: few people, long takes, seven cameras around them.

Paper, §4: four speakers seen from seven views. All views of a take show one performance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from datamodules.synthetic.corpus import (
    Progress,
    Speaker,
    draw_speaker,
    perform,
    recorded,
    run_clips,
    seeded,
    write_whole,
)
from datamodules.synthetic.head import HeadRenderer
from datamodules.synthetic.raw_video import write_mp4
from datamodules.synthetic.speech import Utterance, draw_sentences, placed, sentence, speak

# Where the face points as the camera sees it, degrees (up, towards the image's left).
VIEWS: dict[str, tuple[float, float]] = {
    "front": (0, 0), "up-30": (30, 0), "down-30": (-30, 0), "left-30": (0, 30), "left-60": (0, 60),
    "right-30": (0, -30), "right-60": (0, -60),
}  # fmt: skip
_FACE_SIZE = 0.19  # distance of the outer eye corners, share of the frame's height
_FINE_HEIGHT = 600  # px, below which edges are supersampled


def generate_collected_corpus(
    root: Path | str,
    num_speakers: int = 4,
    views: Sequence[str] = tuple(VIEWS),
    seconds: float = 60.0,
    resolution: tuple[int, int] = (1920, 1080),
    takes: int = 2,
    seed: int = 0,
    workers: int = 2,
    progress: Progress | None = None,
) -> Path:
    """Write <root>/<speaker>/<view>/<take>.mp4 and truth/<speaker>/<view>/<take>.safetensors; what is there is kept.

    Args:
        root: folder to write into.
        num_speakers: named p1, p2, ...
        views: keys of VIEWS.
        seconds: length of a take.
        resolution: width and height, even, px.
        takes: named take1, take2, ...; the last one may serve as the test set.
        seed: the same seed writes the same bytes.
        workers: processes; 0 works in this one.
        progress: called after every take of every view.

    Raises:
        ValueError: an unknown view, an odd resolution, or nothing to do.
        RuntimeError: a take could not be made.
    """
    if unknown := set(views) - set(VIEWS):
        raise ValueError(f"no view {sorted(unknown)}; there are {', '.join(VIEWS)}")
    if any(side % 2 or side < 64 for side in resolution):
        raise ValueError(f"H.264 wants an even width and height, of at least 64 px here, got {resolution}")
    if min(num_speakers, takes, len(views)) < 1 or seconds < 1:
        raise ValueError("a corpus needs a speaker, a view, a take and a second at least")
    root = Path(root)
    everything = [(index, take, view) for index in range(num_speakers) for take in range(takes) for view in views]
    wanted = [clip for clip in everything if not _files(root, *clip)[0].exists()]
    run_clips(_start, (root, num_speakers, seconds, resolution, seed), wanted, workers, len(everything), progress)
    return root


def _start(
    root: Path, num_speakers: int, seconds: float, resolution: tuple[int, int], seed: int
) -> Callable[[tuple[int, int, str]], None]:
    head = start_worker()
    width, height = resolution

    @lru_cache(maxsize=1)
    def person(index: int) -> Speaker:
        return draw_speaker(seed, index, num_speakers)

    @lru_cache(maxsize=1)
    def said(index: int, take: int) -> Utterance:
        return _monologue(person(index), seconds, seeded(seed, "monologue", index, take))

    def make(clip: tuple[int, int, str]) -> None:
        index, take, view = clip
        speaker, utterance = person(index), said(index, take)
        turn = _camera(view)
        home = _home(turn, resolution)
        # The same numbers for every view: one performance, seen by all cameras.
        expression, pose, glances = perform(head, speaker, utterance, home, seeded(seed, "performance", index, take))
        look = replace(speaker.look, light=turn.apply(speaker.look.light))
        away = turn.apply([0.0, 0.0, -1.0])  # the front camera, which the eyes look at
        gaze = glances + np.array([np.arctan2(away[0], -away[2]), np.arcsin(away[1])])
        supersampling = 2 if height < _FINE_HEIGHT else 1
        renderer = HeadRenderer(head, look, speaker.shape, width, height, home, supersampling)
        frames = renderer.frames(expression, pose, gaze, seeded(seed, "noise", index, take, view))
        video, truth = _files(root, *clip)
        write_truth(truth, head, speaker, expression, pose)
        write_whole(video, lambda path: write_mp4(path, frames, utterance.waveform, width, height))

    return make


def _monologue(speaker: Speaker, seconds: float, rng: np.random.Generator) -> Utterance:
    """Sentence after sentence with pauses for breath."""
    parts, time = [], float(rng.uniform(0.3, 0.6))
    for name in draw_sentences(int(seconds) + 2, rng):
        utterance = speak(sentence(name), speaker.voice)
        if time + utterance.duration > seconds - 0.2 and parts:
            break
        parts.append((time, utterance))
        time += utterance.duration + float(rng.uniform(0.2, 0.7))
    return recorded(placed(parts, seconds), rng)


def _camera(view: str) -> Rotation:
    up, left = VIEWS[view]
    return Rotation.from_euler("yx", [left, -up], degrees=True)


def _home(turn: Rotation, resolution: tuple[int, int]) -> Tensor:
    width, height = resolution
    scale = _FACE_SIZE * height
    middle = turn.apply([0.0, 0.35, 0.45]) * scale  # of the head: it, not the eyes, is in the middle of every view
    place = (width / 2 - middle[0], 0.46 * height + 0.15 * scale - middle[1])
    return torch.tensor([*turn.as_rotvec(), *place, np.log(scale)], dtype=torch.float32)


def _files(root: Path, index: int, take: int, view: str) -> tuple[Path, Path]:
    place = Path(f"p{index + 1}") / view / f"take{take + 1}"
    return root / place.with_suffix(".mp4"), root / "truth" / place.with_suffix(".safetensors")
