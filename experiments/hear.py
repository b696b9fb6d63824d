"""Expressions of any sound file: `python -m experiments.hear <run folder> <sound or video file> [output.safetensors]`.

The file is read in blocks, so that its length does not matter; what is written is expression (T, 29) at 25 frames a
second, in standard deviations of the run's face model.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from datamodules.atomic import atomic_path
from datamodules.sound_blocks import sound_blocks
from experiments.command_line import UserError, guarded
from experiments.trained import open_speech
from model_zoo.audio.streaming import SpeechStream, utterance_weights


def hear_file(run: Path, sound: Path, output: Path) -> tuple[int, float]:
    """Write the expressions of a file; its video frames and the seconds that the networks took.

    Raises:
        ValueError: the file holds no readable sound, or the run no speech networks.
    """
    next(sound_blocks(sound))  # before anything slow: can it be read?
    trained = open_speech(run)
    if trained.config.audio.normalise_speakers:
        raise UserError("this run wants every speaker's own statistics, which a single file has not: give another run")
    weights = utterance_weights(trained.speech, sound_blocks(sound))
    stream = SpeechStream(trained.speech, weights)
    parts: list[torch.Tensor] = []
    notes: list[str] = []
    started = time.perf_counter()
    for block in sound_blocks(sound, notes=notes):
        parts.append(stream.push(block))
    parts.append(stream.finish())
    seconds = time.perf_counter() - started
    for note in notes:
        print(note, file=sys.stderr)
    expression = torch.cat(parts)
    with atomic_path(output) as path:
        save_file({"expression": expression}, path)
    return len(expression), seconds


def main() -> None:
    """Write the expressions of one file."""
    if len(sys.argv) not in (3, 4) or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m experiments.hear <run folder> <sound or video file> [output.safetensors]")
        sys.exit(0 if sys.argv[1:2] in (["-h"], ["--help"]) else 2)
    run, sound = Path(sys.argv[1]), Path(sys.argv[2])
    output = Path(sys.argv[3]) if len(sys.argv) == 4 else Path(f"{sound.stem}.expression.safetensors")
    frames, seconds = hear_file(run, sound, output)
    print(f"{output}: {frames} frames, {1000 * seconds / max(frames, 1):.2f} ms a frame")


if __name__ == "__main__":
    guarded(main)
