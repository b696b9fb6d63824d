"""The built-in corpora: people who do not exist say GRID's sentences, with the truth beside the video.

`generate_grid_corpus` writes GRID's raw layout, `generate_collected_corpus` that of the paper's own recordings (§4: few
people, long takes, seven views). Every clip follows from (seed, speaker, clip) alone: the same seed writes the same
bytes, in whatever order and on however many workers, and a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation
from torch import Tensor

from datamodules.prepare.workers import map_in_processes
from datamodules.synthetic.head import HeadRenderer
from datamodules.synthetic.motion import FRAME_RATE
from datamodules.synthetic.performance import Speaker, draw_speaker, monologue, perform, recorded, seeded
from datamodules.synthetic.raw_video import write_mp4, write_mpeg1
from datamodules.synthetic.speech import Utterance, draw_sentences, placed, sentence, speak
from model_zoo.face.procedural import ProceduralHead, procedural_head

GRID_WIDTH, GRID_HEIGHT, GRID_FRAMES = 360, 288, 75  # px, px, 3 s
ALIGN_UNITS = 25_000  # a second, in .align files
# Where the face points as the camera sees it, degrees (up, towards the image's left).
VIEWS: dict[str, tuple[float, float]] = {
    "front": (0, 0), "up-30": (30, 0), "down-30": (-30, 0), "left-30": (0, 30), "left-60": (0, 60),
    "right-30": (0, -30), "right-60": (0, -60),
}  # fmt: skip
RESOLUTION = (640, 360)  # of the collected corpus' cameras, px
_FACE_SIZE = 0.19  # of the collected corpus: distance of the outer eye corners, share of the frame's height
_FINE_HEIGHT = 600  # px, below which edges are supersampled
_TEST_SHARE, _SHORTEST_TEST = 2 / 15, 3.0  # 2 minutes of test for 15 of training (paper, §4); s

Progress = Callable[[int, int], None]  # clips done, clips in all


def generate_grid_corpus(
    root: Path | str,
    num_speakers: int = 34,
    sentences_per_speaker: int = 10,
    seed: int = 0,
    workers: int = 2,
    progress: Progress | None = None,
) -> Path:
    """Write a corpus in GRID's raw layout, with the truth beside it; what is there already is kept.

    Files: s1/<id>.mpg (MPEG-1, 360×288, 25 fps, 75 frames, mp2 sound at 44.1 kHz), alignments/s1/<id>.align (start,
    end, word; 25,000 units a second), truth/s1/<id>.safetensors (expression (75, 29), pose (75, 6) and landmarks
    (75, 68, 2) in frame px, shape (199,)).

    Args:
        root: folder to write into.
        num_speakers: named s1, s2, ...
        sentences_per_speaker: different sentences of each.
        seed: the same seed writes the same bytes.
        workers: processes; 0 works in this one.
        progress: called after every clip.

    Raises:
        ValueError: a count is not positive.
        RuntimeError: a clip could not be made.
    """
    if num_speakers < 1 or sentences_per_speaker < 1:
        raise ValueError(f"a corpus needs speakers and sentences, not {num_speakers} and {sentences_per_speaker}")
    root = Path(root)
    names = [
        (index, name)
        for index in range(num_speakers)
        for name in draw_sentences(sentences_per_speaker, seeded(seed, "sentences", index))
    ]
    wanted = [clip for clip in names if not _grid_files(root, *clip)["video"].exists()]
    make_all(_start_grid, (root, num_speakers, seed), wanted, workers, len(names), progress)
    return root


def generate_collected_corpus(
    root: Path | str,
    num_speakers: int = 4,
    views: Sequence[str] = tuple(VIEWS),
    seconds: float = 12.0,
    resolution: tuple[int, int] = RESOLUTION,
    seed: int = 0,
    workers: int = 2,
    progress: Progress | None = None,
) -> Path:
    """Write a corpus in the layout of the collected one; what is there already is kept.

    Files: p1/<view>/train.mp4, p1/<view>/test.mp4 and truth/p1/<view>/<take>.safetensors, as `generate_grid_corpus`.
    All views of a take show one performance. The paper has 900 s at 1920×1080; the defaults are for a demonstration.

    Args:
        root: folder to write into.
        num_speakers: named p1, p2, ...
        views: keys of VIEWS.
        seconds: length of the training take; the test take has 2/15 of it, but 3 s at least.
        resolution: width and height, even, px.
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
    if num_speakers < 1 or not views or seconds < 1:
        raise ValueError("a corpus needs a speaker, a view and a second at least")
    root = Path(root)
    takes = collected_takes(seconds)
    everything = [(index, take, view) for index in range(num_speakers) for take in takes for view in views]
    wanted = [clip for clip in everything if not _take_files(root, *clip)[0].exists()]
    make_all(
        _start_collected, (root, num_speakers, takes, resolution, seed), wanted, workers, len(everything), progress
    )
    return root


def _start_grid(root: Path, num_speakers: int, seed: int) -> Callable[[tuple[int, str]], None]:
    """What a worker does once: then one call a clip."""
    head = start_worker()

    @lru_cache(maxsize=1)
    def person(index: int) -> tuple[Speaker, Tensor, HeadRenderer]:
        speaker, home = draw_speaker(seed, index, num_speakers), grid_home(seeded(seed, "home", index))
        return speaker, home, HeadRenderer(head, speaker.look, speaker.shape, GRID_WIDTH, GRID_HEIGHT, home)

    def make(clip: tuple[int, str]) -> None:
        index, name = clip
        speaker, home, renderer = person(index)
        rng = seeded(seed, "clip", index, name)
        utterance = grid_utterance(speaker, name, rng)
        expression, pose, gaze = perform(head, speaker, utterance, home, rng)
        frames = renderer.frames(expression, pose, gaze, rng)
        files = _grid_files(root, index, name)
        _write_truth(files["truth"], head, speaker, expression, pose)
        _write(files["align"], lambda path: path.write_text(alignment(utterance)))
        # The video comes last: where it is, the clip is complete.
        _write(files["video"], lambda path: write_mpeg1(path, frames, utterance.waveform, GRID_WIDTH, GRID_HEIGHT))

    return make


def _start_collected(
    root: Path, num_speakers: int, takes: dict[str, float], resolution: tuple[int, int], seed: int
) -> Callable[[tuple[int, str, str]], None]:
    head = start_worker()

    @lru_cache(maxsize=1)
    def said(index: int, take: str) -> tuple[Speaker, Utterance]:
        speaker = draw_speaker(seed, index, num_speakers)
        return speaker, monologue(speaker.voice, takes[take], seeded(seed, "monologue", index, take))

    def make(clip: tuple[int, str, str]) -> None:
        index, take, view = clip
        speaker, utterance = said(index, take)
        turn, home = collected_home(view, resolution)
        # The same numbers for every view: one performance, seen by all cameras.
        expression, pose, glances = perform(head, speaker, utterance, home, seeded(seed, "performance", index, take))
        look = replace(speaker.look, light=turn.apply(speaker.look.light))
        away = turn.apply([0.0, 0.0, -1.0])  # towards the front camera, which the eyes look at
        gaze = glances + np.array([np.arctan2(away[0], -away[2]), np.arcsin(away[1])])
        supersampling = 2 if resolution[1] < _FINE_HEIGHT else 1
        renderer = HeadRenderer(head, look, speaker.shape, *resolution, home, supersampling)
        frames = renderer.frames(expression, pose, gaze, seeded(seed, "noise", index, take, view))
        video, truth = _take_files(root, *clip)
        _write_truth(truth, head, speaker, expression, pose)
        _write(video, lambda path: write_mp4(path, frames, utterance.waveform, *resolution))

    return make


def grid_utterance(speaker: Speaker, name: str, rng: np.random.Generator) -> Utterance:
    """A GRID sentence as it is recorded, in 3 s."""
    spoken = speak(sentence(name), speaker.voice)
    start = min(rng.uniform(0.35, 0.65), GRID_FRAMES / FRAME_RATE - 0.3 - spoken.duration)
    return recorded(placed([(max(start, 0.0), spoken)], GRID_FRAMES / FRAME_RATE), rng)


def collected_takes(seconds: float) -> dict[str, float]:
    """The takes of a speaker and how long they are, s."""
    return {"train": seconds, "test": max(seconds * _TEST_SHARE, _SHORTEST_TEST)}


def collected_home(view: str, resolution: tuple[int, int]) -> tuple[Rotation, Tensor]:
    """Turn and mean pose of a view: the middle of the head, not the eyes, stays in one place of the frame."""
    up, left = VIEWS[view]
    turn = Rotation.from_euler("yx", [left, -up], degrees=True)
    width, height = resolution
    scale = _FACE_SIZE * height
    middle = turn.apply([0.0, 0.35, 0.45]) * scale
    place = (width / 2 - middle[0], 0.46 * height + 0.15 * scale - middle[1])
    return turn, torch.tensor([*turn.as_rotvec(), *place, np.log(scale)], dtype=torch.float32)


def _take_files(root: Path, index: int, take: str, view: str) -> tuple[Path, Path]:
    place = Path(f"p{index + 1}") / view / take
    return root / place.with_suffix(".mp4"), root / "truth" / place.with_suffix(".safetensors")


def start_worker() -> ProceduralHead:
    """What every worker does first. One thread each: they share the machine."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
    return procedural_head()


def _write_truth(path: Path, head: ProceduralHead, speaker: Speaker, expression: Tensor, pose: Tensor) -> None:
    """Write what a fit of the clip should find: expression, pose and landmarks in frame px, and shape."""
    landmarks = head.face.project_landmarks(speaker.shape, expression, pose)
    truth = {"expression": expression, "pose": pose, "landmarks": landmarks, "shape": speaker.shape}
    _write(path, lambda temporary: save_file({k: v.contiguous() for k, v in truth.items()}, temporary))


def alignment(utterance: Utterance) -> str:
    """Words in GRID's .align format, silence as `sil`."""
    marks = [(round(w.start * ALIGN_UNITS), round(w.end * ALIGN_UNITS), w.label) for w in utterance.words]
    total = round(utterance.duration * ALIGN_UNITS)
    lines = [(0, marks[0][0], "sil"), *marks, (marks[-1][1], total, "sil")]
    return "".join(f"{start} {end} {word}\n" for start, end, word in lines)


def grid_home(rng: np.random.Generator) -> Tensor:
    """Where a speaker sits in GRID's frame: outer eyes 61 to 72 px apart, as in the real clips."""
    turn = np.radians(rng.normal(0, (2.0, 3.0, 1.0))) + np.radians([2.0, 0, 0])
    place = (GRID_WIDTH / 2 + rng.normal(0, 5), 0.46 * GRID_HEIGHT + rng.normal(0, 4))
    return torch.tensor([*turn, *place, np.log(rng.uniform(61, 72))], dtype=torch.float32)


def _grid_files(root: Path, index: int, name: str) -> dict[str, Path]:
    speaker = f"s{index + 1}"
    return {
        "video": root / speaker / f"{name}.mpg",
        "align": root / "alignments" / speaker / f"{name}.align",
        "truth": root / "truth" / speaker / f"{name}.safetensors",
    }


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_all(
    start: Callable, arguments: tuple, wanted: list, workers: int, total: int, progress: Progress | None
) -> None:
    """Make the wanted clips, then say which failed.

    Raises:
        RuntimeError: a clip could not be made.
    """
    procedural_head()  # built once, before several workers would
    done, failed = total - len(wanted), []
    for clip, result in map_in_processes(start, arguments, wanted, workers):
        if isinstance(result, Exception):
            failed.append((clip, result))
            continue
        done += 1
        if progress:
            progress(done, total)
    if failed:
        raise RuntimeError(f"{len(failed)} of {total} clips could not be made, first {failed[0][0]}: {failed[0][1]}")
