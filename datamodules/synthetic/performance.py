"""People who do not exist, and how they perform an utterance. Everything follows from seeds."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from datamodules.synthetic.appearance import Look, draw_look
from datamodules.synthetic.articulation import Style, articulate, draw_style
from datamodules.synthetic.motion import FRAME_RATE, draw_motion
from datamodules.synthetic.speech import Utterance, Voice, draw_sentences, draw_voice, is_woman, placed, sentence, speak
from model_zoo.face.procedural import ProceduralHead

_SHAPE_SPREAD = 0.7  # of the shape prior's standard deviations: extremes of all modes at once look odd
_LOUDNESS, _FLOOR = 0.07, 0.0006  # RMS of speech and of the room, full scale = 1


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
    """Person `index` of a corpus, a man or a woman as in GRID; skin tones are spread evenly over the speakers."""
    rng = seeded(seed, "speaker", index)
    order = seeded(seed, "tones").permutation(max(num_speakers, index + 1))
    tone = (order[index] + rng.uniform(0.2, 0.8)) / len(order)
    return Speaker(
        index,
        draw_voice(index, rng),
        draw_style(rng),
        draw_look(rng, float(tone), is_woman(index)),
        torch.from_numpy(rng.normal(0, _SHAPE_SPREAD, 199)).float(),
        {"corner_up_left": (smile := float(rng.uniform(-0.05, 0.20))), "corner_up_right": smile},
    )


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


def monologue(voice: Voice, seconds: float, rng: np.random.Generator) -> Utterance:
    """Sentence after sentence with pauses for breath, for as long as is asked."""
    parts: list[tuple[float, Utterance]] = []
    time = float(rng.uniform(0.3, 0.6))
    for name in draw_sentences(int(seconds) + 2, rng):
        utterance = speak(sentence(name), voice)
        if time + utterance.duration > seconds - 0.2 and parts:
            break
        parts.append((time, utterance))
        time += utterance.duration + float(rng.uniform(0.2, 0.7))
    return recorded(placed(parts, seconds), rng)


def recorded(utterance: Utterance, rng: np.random.Generator) -> Utterance:
    """Speech at a usual level, in a room that is not dead silent."""
    spoken = utterance.waveform[utterance.waveform != 0]
    level = np.sqrt(np.mean(spoken**2)) + 1e-9
    sound = utterance.waveform * (_LOUDNESS / level) + rng.normal(0, _FLOOR, len(utterance.waveform))
    return Utterance(np.clip(sound, -1, 1).astype(np.float32), utterance.words, utterance.phonemes)


def seeded(*parts: int | str) -> np.random.Generator:
    """Generator of its own for each purpose, speaker and clip."""
    return np.random.default_rng([zlib.crc32(p.encode()) if isinstance(p, str) else p for p in parts])
