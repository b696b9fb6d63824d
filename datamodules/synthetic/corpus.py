"""The built-in corpora: people who do not exist saying GRID's sentences, with the truth beside the video.

Every person and every clip follows from (seed, speaker, clip) alone: the same seed writes the same bytes, in whatever
order and on however many workers, and a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import multiprocessing
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from datamodules.prepare.workers import map_in_processes
from datamodules.synthetic.appearance import Look, draw_look
from datamodules.synthetic.articulation import Style, articulate, draw_style
from datamodules.synthetic.head import HeadRenderer
from datamodules.synthetic.motion import FRAME_RATE, draw_motion
from datamodules.synthetic.raw_video import write_mpeg1
from datamodules.synthetic.speech import (
    Utterance,
    Voice,
    draw_sentences,
    draw_voice,
    placed,
    sentence,
    speak,
)
from model_zoo.face.procedural import ProceduralHead, procedural_head

GRID_WIDTH, GRID_HEIGHT, GRID_FRAMES = 360, 288, 75  # px, px, 3 s
ALIGN_UNITS = 25_000  # a second, in .align files
_SHAPE_SPREAD = 0.8  # of the shape prior's standard deviations: extremes of all modes at once look odd
_LOUDNESS, _FLOOR = 0.07, 0.0006  # RMS of speech and of the room, full scale = 1

Progress = Callable[[int, int], None]  # clips done, clips in all


@dataclass(frozen=True)
class Speaker:
    """A synthetic person.

    Attributes:
        index: counted from 0. voice, style, look: how they sound, articulate and look.
        shape: (199,) coefficients. habit: weights of facial actions at rest.
    """

    index: int
    voice: Voice
    style: Style
    look: Look
    shape: Float[Tensor, "199"]
    habit: dict[str, float]


def draw_speaker(seed: int, index: int, num_speakers: int) -> Speaker:
    """Person `index` of a corpus; skin tones are spread evenly over the speakers."""
    rng = seeded(seed, "speaker", index)
    order = seeded(seed, "tones").permutation(max(num_speakers, index + 1))
    tone = (order[index] + rng.uniform(0.2, 0.8)) / len(order)
    return Speaker(
        index,
        draw_voice(index, rng),
        draw_style(rng),
        draw_look(rng, float(tone)),
        torch.from_numpy(rng.normal(0, _SHAPE_SPREAD, 199)).float(),
        {"corner_up_left": (smile := float(rng.uniform(-0.05, 0.20))), "corner_up_right": smile},
    )


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
    run_clips(_start_grid, (root, num_speakers, seed), wanted, workers, len(names), progress)
    return root


def perform(
    head: ProceduralHead, speaker: Speaker, utterance: Utterance, home: Float[Tensor, "6"], rng: np.random.Generator
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Let a person say something.

    Returns:
        expression (T, 29), pose (T, 6) in frame px, and gaze (T, 2) in rad; T frames cover the utterance.
    """
    num_frames = round(utterance.duration * FRAME_RATE)
    motion = draw_motion(num_frames, home, rng)
    spoken = articulate(utterance.phonemes, speaker.style, np.arange(num_frames) / FRAME_RATE)
    weights = {name: torch.from_numpy(np.asarray(w)).float() for name, w in (spoken | motion.actions).items()}
    expression = head.expression(weights) + head.expression(speaker.habit)
    return expression, motion.pose, motion.gaze


def _start_grid(root: Path, num_speakers: int, seed: int) -> Callable[[tuple[int, str]], None]:
    """What a worker does once: then one call a clip."""
    head = start_worker()

    @lru_cache(maxsize=1)
    def person(index: int) -> tuple[Speaker, Tensor, HeadRenderer]:
        speaker, home = draw_speaker(seed, index, num_speakers), _grid_home(seeded(seed, "home", index))
        return speaker, home, HeadRenderer(head, speaker.look, speaker.shape, GRID_WIDTH, GRID_HEIGHT, home)

    def make(clip: tuple[int, str]) -> None:
        index, name = clip
        speaker, home, renderer = person(index)
        rng = seeded(seed, "clip", index, name)
        spoken = speak(sentence(name), speaker.voice)
        start = min(rng.uniform(0.35, 0.65), GRID_FRAMES / FRAME_RATE - 0.3 - spoken.duration)
        utterance = recorded(placed([(max(start, 0.0), spoken)], GRID_FRAMES / FRAME_RATE), rng)
        expression, pose, gaze = perform(head, speaker, utterance, home, rng)
        frames = renderer.frames(expression, pose, gaze, rng)
        files = _grid_files(root, index, name)
        write_truth(files["truth"], head, speaker, expression, pose)
        write_whole(files["align"], lambda path: path.write_text(alignment(utterance)))
        # The video comes last: where it is, the clip is complete.
        write_whole(files["video"], lambda path: write_mpeg1(path, frames, utterance.waveform, GRID_WIDTH, GRID_HEIGHT))

    return make


def start_worker() -> ProceduralHead:
    """What every worker does first. One thread each: they share the machine."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
    return procedural_head()


def write_truth(path: Path, head: ProceduralHead, speaker: Speaker, expression: Tensor, pose: Tensor) -> None:
    """Write what a fit of the clip should find: expression, pose and landmarks in frame px, and shape."""
    landmarks = head.face.project_landmarks(speaker.shape, expression, pose)
    truth = {"expression": expression, "pose": pose, "landmarks": landmarks, "shape": speaker.shape}
    write_whole(path, lambda temporary: save_file({k: v.contiguous() for k, v in truth.items()}, temporary))


def alignment(utterance: Utterance) -> str:
    """Words in GRID's .align format, silence as `sil`."""
    marks = [(round(w.start * ALIGN_UNITS), round(w.end * ALIGN_UNITS), w.label) for w in utterance.words]
    total = round(utterance.duration * ALIGN_UNITS)
    lines = [(0, marks[0][0], "sil"), *marks, (marks[-1][1], total, "sil")]
    return "".join(f"{start} {end} {word}\n" for start, end, word in lines)


def _grid_home(rng: np.random.Generator) -> Tensor:
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


def recorded(utterance: Utterance, rng: np.random.Generator) -> Utterance:
    """Speech at a usual level, in a room that is not dead silent."""
    spoken = utterance.waveform[utterance.waveform != 0]
    level = np.sqrt(np.mean(spoken**2)) + 1e-9
    sound = utterance.waveform * (_LOUDNESS / level) + rng.normal(0, _FLOOR, len(utterance.waveform))
    return Utterance(np.clip(sound, -1, 1).astype(np.float32), utterance.words, utterance.phonemes)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def run_clips(
    start: Callable, arguments: tuple, wanted: Iterable, workers: int, total: int, progress: Progress | None
) -> None:
    """Make the wanted clips, then say which failed."""
    wanted = list(wanted)
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


def seeded(*parts: int | str) -> np.random.Generator:
    """Generator of its own for each purpose, speaker and clip."""
    return np.random.default_rng([zlib.crc32(p.encode()) if isinstance(p, str) else p for p in parts])
