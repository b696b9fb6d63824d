"""The built-in corpora as their makers know them: sound and exact face parameters, without pictures.

A clip store of the very performances that `corpus.py` renders, for experiments on speech alone: nothing is rendered,
compressed, detected or fitted, so the truth is exact, and thousands of clips take a minute. The clips have no crops.

Shape legend: T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int16
from scipy.signal import resample_poly
from torch import Tensor

from datamodules.clip_store import ClipData, Word, read_row, write_clip
from datamodules.manifest import MANIFEST, ClipRow, write_manifest
from datamodules.prepare.clip_sound import sound_mfcc
from datamodules.prepare.consent import Consent
from datamodules.prepare.crop import crop_from_fit
from datamodules.prepare.decode import fit_length
from datamodules.prepare.sound import to_int16
from datamodules.synthetic.corpus import (
    RESOLUTION,
    VIEWS,
    Progress,
    collected_home,
    collected_takes,
    grid_home,
    grid_utterance,
    make_all,
    start_worker,
)
from datamodules.synthetic.performance import draw_speaker, monologue, perform, seeded
from datamodules.synthetic.speech import SAMPLE_RATE, Utterance, draw_sentences
from model_zoo.face.procedural import ProceduralHead
from model_zoo.functional.masks import mouth_box, mouth_region
from model_zoo.functional.mfcc import SAMPLE_RATE as HEARD_RATE

Performance = tuple[str, int, str, str]  # clip id, speaker, sentence or take, view
_SETTINGS = "spoken-1"  # raised with every change of what is stored


class Spoken(NamedTuple):
    """One performance.

    Attributes:
        utterance: what is heard.
        shape: (199,). expression: (T, 29). pose: (T, 6) in frame px.
    """

    utterance: Utterance
    shape: Float[Tensor, "199"]
    expression: Float[Tensor, "T 29"]
    pose: Float[Tensor, "T 6"]


def spoken_grid(
    out: Path,
    num_speakers: int = 34,
    sentences_per_speaker: int = 10,
    seed: int = 0,
    num_cepstra: int = 13,
    workers: int = 2,
    progress: Progress | None = None,
) -> Path:
    """The performances of `generate_grid_corpus` as a clip store; what is there already is kept.

    Args:
        out: root of the store.
        num_speakers, sentences_per_speaker, seed: as there.
        num_cepstra: of the MFCC.
        workers: processes; 0 works in this one.
        progress: called after every clip.

    Raises:
        RuntimeError: a clip could not be made.
    """
    clips = [
        (f"s{index + 1}/{name}", index, name, "front")
        for index in range(num_speakers)
        for name in draw_sentences(sentences_per_speaker, seeded(seed, "sentences", index))
    ]
    return _make_store(out, _start_grid, (num_speakers, seed), clips, num_cepstra, workers, progress)


def spoken_collected(
    out: Path,
    num_speakers: int = 4,
    seconds: float = 12.0,
    views: Sequence[str] = tuple(VIEWS),
    seed: int = 0,
    num_cepstra: int = 13,
    workers: int = 2,
    progress: Progress | None = None,
) -> Path:
    """The performances of `generate_collected_corpus` as a clip store; see `spoken_grid`."""
    clips = [
        (f"p{index + 1}/{view}/{take}", index, take, view)
        for index in range(num_speakers)
        for take in collected_takes(seconds)
        for view in views
    ]
    return _make_store(out, _start_collected, (num_speakers, seed, seconds), clips, num_cepstra, workers, progress)


def _start_grid(num_speakers: int, seed: int) -> Callable[[ProceduralHead, int, str, str], Spoken]:
    def said(head: ProceduralHead, index: int, name: str, _: str) -> Spoken:
        speaker, home = draw_speaker(seed, index, num_speakers), grid_home(seeded(seed, "home", index))
        rng = seeded(seed, "clip", index, name)
        utterance = grid_utterance(speaker, name, rng)
        expression, pose, _gaze = perform(head, speaker, utterance, home, rng)
        return Spoken(utterance, speaker.shape, expression, pose)

    return said


def _start_collected(num_speakers: int, seed: int, seconds: float) -> Callable[[ProceduralHead, int, str, str], Spoken]:
    takes = collected_takes(seconds)

    @lru_cache(maxsize=2)
    def heard(index: int, take: str) -> Utterance:
        voice = draw_speaker(seed, index, num_speakers).voice
        return monologue(voice, takes[take], seeded(seed, "monologue", index, take))

    def said(head: ProceduralHead, index: int, take: str, view: str) -> Spoken:
        speaker, utterance = draw_speaker(seed, index, num_speakers), heard(index, take)
        _, home = collected_home(view, RESOLUTION)
        rng = seeded(seed, "performance", index, take)
        expression, pose, _gaze = perform(head, speaker, utterance, home, rng)
        return Spoken(utterance, speaker.shape, expression, pose)

    return said


def _make_store(
    out: Path,
    said: Callable,
    arguments: tuple,
    clips: list[Performance],
    num_cepstra: int,
    workers: int,
    progress: Progress | None,
) -> Path:
    rows = {clip[0]: read_row(out, clip[0]) for clip in clips}
    wanted = [clip for clip in clips if (row := rows[clip[0]]) is None or row.settings != _SETTINGS]
    if wanted:
        make_all(_start, (out, said, arguments, num_cepstra), wanted, workers, len(clips), progress)
    if wanted or not (out / MANIFEST).is_file():
        made = [row for clip in clips if (row := read_row(out, clip[0])) is not None]
        write_manifest(out, made)
    return out


def _start(out: Path, said: Callable, arguments: tuple, num_cepstra: int) -> Callable[[Performance], None]:
    """What a worker does once: then one call a clip."""
    head, perform_clip = start_worker(), said(*arguments)

    def make(clip: Performance) -> None:
        identity, index, name, view = clip
        _write(out, head, identity, view, perform_clip(head, index, name, view), num_cepstra)

    return make


def _write(out: Path, head: ProceduralHead, identity: str, view: str, spoken: Spoken, num_cepstra: int) -> None:
    frames = len(spoken.expression)
    valid = torch.ones(frames, dtype=torch.bool)
    crop = crop_from_fit(head.face, spoken.shape, spoken.expression, spoken.pose, valid)
    landmarks = head.face.project_landmarks(spoken.shape, spoken.expression, crop.pose)
    sound = heard_sound(spoken.utterance, frames)
    words = [Word(word.start, word.end, word.label) for word in spoken.utterance.words]
    row = ClipRow(
        id=identity, source=identity, part=1, parts=1, speaker=identity.split("/")[0], view=view, start=0.0,
        frames=frames, valid_frames=frames, transcript=" ".join(word.text for word in words), sha256="",
        source_bytes=0, residual=0.0, noise=0.0, faces=1, offset=0.0, offset_confidence=1.0,
        consent=Consent.synthetic.value, consent_reference="", settings=_SETTINGS, versions="", jpeg_quality=0,
    )  # fmt: skip
    data = ClipData(
        crops=(),
        mean_crop=b"",
        landmarks=landmarks,
        landmarks_detected=landmarks,
        expression=spoken.expression,
        pose=crop.pose,
        shape=spoken.shape,
        valid=valid,
        sound=sound,
        mfcc=sound_mfcc(sound, num_cepstra),
        crop_transform=crop.transform,
        mouth_box=mouth_box(landmarks),
        mouth_region=mouth_region(landmarks),
        words=words,
    )
    write_clip(out, row, data)


def heard_sound(utterance: Utterance, num_frames: int) -> Int16[Tensor, "N"]:
    """Sound as a store has it: 16 kHz, 16 bits, as long as the frames."""
    divisor = int(np.gcd(HEARD_RATE, SAMPLE_RATE))
    samples = resample_poly(utterance.waveform, HEARD_RATE // divisor, SAMPLE_RATE // divisor).astype(np.float32)
    return torch.from_numpy(to_int16(fit_length(samples, num_frames)))
