"""How a mouth that follows speech moves: per kind of sound, in silence and noise, its jitter and lag.

Runs over whole held-out clips from their sound, as dubbing does, after the frame-by-frame scores of `Trainer.test`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datamodules.clip_store import Clip
from datamodules.corpus_module import CorpusDataModule
from datamodules.hearing import CLOSED, MOST_FRAMES, coloured_noise, silence_of
from datamodules.visemes import viseme_groups
from lightning_modules.audio_to_expression import MEAN_MOUTH, OURS, SpeechObjective
from model_zoo.audio.speech_to_expression import SpeechToExpression
from model_zoo.audio.streaming import Normal, expressions_of, utterance_weights
from model_zoo.functional.heatmaps import MOUTH
from model_zoo.metrics.functional import bootstrap_interval, landmark_error
from model_zoo.metrics.speech_metrics import WIDE_OPEN, inner_lip_gap, jitter_ratio, lag_ms, silence_excess

TRUTH = "truth"
NOISES_DB = (20.0, 10.0)  # SNR at which silence is measured again
Heard = Callable[[Float[Tensor, "N"]], Float[Tensor, "N"]]


class Mouth(NamedTuple):
    """The opening of a speaker's mouth, px at 256: inner-lip gap with closed lips, and wide open."""

    closed: float
    wide: float


def hear(speech: SpeechToExpression, sound: Float[Tensor, "N"], normal: Normal | None = None) -> Float[Tensor, "T E"]:
    """Expressions of a whole sound, λ of scope 'clip' from all of it."""
    weights = utterance_weights(speech, [sound], normal)
    return torch.cat(list(expressions_of(speech, [sound], weights, normal=normal)))


def with_noise(sound: Float[Tensor, "N"], snr_db: float, seed: int) -> Float[Tensor, "N"]:
    """The sound over white noise, `snr_db` below its root mean square."""
    noise = coloured_noise(len(sound), 0.0, torch.Generator().manual_seed(seed))
    return (sound + sound.square().mean().sqrt() * 10 ** (-snr_db / 20) * noise).clamp(-1, 1)


def score(per_clip: dict[str, float]) -> dict:
    """Mean over clips with its 95% bootstrap interval, as tables show it; clips without a value are left out."""
    known = {clip: value for clip, value in per_clip.items() if value == value}
    values = torch.tensor(list(known.values()))
    low, high = bootstrap_interval(values)
    mean = float(values.mean()) if len(values) else float("nan")
    return {"mean": mean, "low": float(low), "high": float(high), "per_clip": known}


def shown_clips(data: CorpusDataModule, clip_ids: list[str] | None = None) -> Iterator[tuple[Clip, slice]]:
    """Clips with the frames of them that are held out."""
    for clip_id in data.test_clips if clip_ids is None else clip_ids:
        frames = data.shown_frames(clip_id)
        yield data.store.open(clip_id), slice(frames.start, frames.stop)


def mouths(data: CorpusDataModule) -> dict[str, Mouth]:
    """Closed and widest gap of each speaker in the held-out clips, by their true landmarks."""
    gaps = defaultdict(list)
    for clip, part in shown_clips(data):
        gaps[clip.row.speaker].append(inner_lip_gap(clip.landmarks[part]))
    bounds = torch.tensor([CLOSED, WIDE_OPEN])
    return {name: Mouth(*torch.quantile(torch.cat(gap)[:MOST_FRAMES], bounds).tolist()) for name, gap in gaps.items()}


@torch.inference_mode()
def articulation(speech: SpeechToExpression, objective: SpeechObjective, data: CorpusDataModule) -> dict[str, dict]:
    """Rows of E_ldmk, jitter, lag and silence, in clean sound and in noise, beside the truth's.

    Args:
        speech: trained networks, in evaluation mode, on the CPU.
        objective: its face projects expressions.
        data: set up; its held-out clips are scored.

    Returns:
        By row and column: mean, interval and per_clip; `silence` is the gap in silence beyond the closed one as a
        share of the speaker's widest.
    """
    cells: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    opened = mouths(data)
    conditions: dict[str, Heard] = {OURS: lambda sound: sound}
    for number, snr in enumerate(NOISES_DB):
        conditions[f"{OURS}, {snr:.0f} dB SNR"] = lambda sound, snr=snr, seed=number: with_noise(sound, snr, seed)
    for clip, part in shown_clips(data):
        silent, truth = silence_of(clip)[part], clip.landmarks[part]
        gap = inner_lip_gap(truth)
        mouth = opened[clip.row.speaker]
        cells[TRUTH, "silence"][clip.id] = silence_excess(gap, silent, *mouth)
        for row, change in conditions.items():
            landmarks = predicted_landmarks(speech, objective, data, clip, part, change)
            for column, value in _columns(landmarks, truth, silent, mouth).items():
                cells[row, column][clip.id] = value
    rows: dict[str, dict] = {}
    for (row, column), per_clip in cells.items():
        rows.setdefault(row, {})[column] = score(per_clip)
    return rows


def predicted_landmarks(
    speech: SpeechToExpression,
    objective: SpeechObjective,
    data: CorpusDataModule,
    clip: Clip,
    part: slice,
    change: Heard = lambda sound: sound,
) -> Float[Tensor, "T 68 2"]:
    """Landmarks of a clip's held-out frames from its (changed) sound, through its own shape and pose."""
    expression = hear(speech, change(clip.waveform()), data.hearing.normal.get(clip.row.speaker))[part]
    return objective.face.project_landmarks(clip.shape, expression, clip.pose[part])


@torch.inference_mode()
def by_viseme(speech: SpeechToExpression, objective: SpeechObjective, data: CorpusDataModule) -> dict[str, dict]:
    """E_ldmk of ours and of the mean mouth by the kind of sound that is heard; none without transcripts."""
    cells: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    frames: dict[str, int] = defaultdict(int)
    mean = speech.translation.expression_mean
    for clip, part in shown_clips(data):
        if not clip.words:
            continue
        groups = viseme_groups(clip.words, clip.num_frames)[part]
        truth = clip.landmarks[part, MOUTH.start : MOUTH.stop]
        trivial = objective.face.project_landmarks(clip.shape, mean.expand(len(truth), -1), clip.pose[part])
        rows = {OURS: predicted_landmarks(speech, objective, data, clip, part), MEAN_MOUTH: trivial}
        for name in dict.fromkeys(groups):
            chosen = torch.tensor([group == name for group in groups])
            frames[name] += int(chosen.sum())
            for row, landmarks in rows.items():
                error = landmark_error(landmarks[chosen, MOUTH.start : MOUTH.stop], truth[chosen])
                cells[name][row][clip.id] = float(error.mean())
    return {
        name: {row: score(per_clip) for row, per_clip in rows.items()} | {"frames": frames[name]}
        for name, rows in sorted(cells.items())
    }


def _columns(
    landmarks: Float[Tensor, "T 68 2"], truth: Float[Tensor, "T 68 2"], silent: Bool[Tensor, "T"], mouth: Mouth
) -> dict[str, float]:
    predicted, true = landmarks[:, MOUTH.start : MOUTH.stop], truth[:, MOUTH.start : MOUTH.stop]
    gap = inner_lip_gap(landmarks)
    return {
        "E_ldmk": float(landmark_error(predicted, true).mean()),
        "jitter": jitter_ratio(predicted, true),
        "lag": lag_ms(gap, inner_lip_gap(truth)),
        "silence": silence_excess(gap, silent, *mouth),
    }
