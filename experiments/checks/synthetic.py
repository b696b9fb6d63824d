"""Topic `synthetic`: synthetic people before a detector, a linear probe, a pitch estimate and a clock."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.signal import resample_poly
from torch import Tensor

from datamodules.synthetic.appearance import SKIN_TONES
from datamodules.synthetic.corpus import (
    GRID_FRAMES,
    GRID_HEIGHT,
    GRID_WIDTH,
    VIEWS,
    generate_collected_corpus,
    generate_grid_corpus,
    grid_home,
)
from datamodules.synthetic.head import HeadRenderer
from datamodules.synthetic.motion import FRAME_RATE
from datamodules.synthetic.performance import draw_speaker, perform, recorded, seeded
from datamodules.synthetic.raw_video import write_mpeg1
from datamodules.synthetic.speech import (
    NUM_VOICES,
    SAMPLE_RATE,
    draw_sentences,
    is_woman,
    placed,
    sentence,
    speak,
)
from experiments.checks.detector_judgement import INNER_51, MOUTH, Judgement, judge, pooled
from experiments.checks.figure import Figure, Materials, at_least, at_most, told
from experiments.checks.pitch import median_pitch
from model_zoo.face.detector import DlibDetector
from model_zoo.face.procedural import procedural_head
from model_zoo.functional.mfcc import mfcc

WHOLE = 10  # sentences a speaker of the corpus whose time is claimed
SAMPLE = 3  # of the one that is made without --full
JUDGED_EVERY = 3  # frames
PROBED, HELD_OUT = 10, 3  # sentences a speaker whose sound the probe gets, and of them those that it is tested on
PROBE_STEPS, PROBE_RATE, PROBE_DECAY = 1000, 0.03, 1e-4
TURNED_SPEAKERS, TURNED_SECONDS, TURNED_EVERY = 2, 4.0, 5
RENDERED_SPEAKERS = 3
WORKERS = 2


def measure(materials: Materials) -> Iterator[Figure]:
    """Issue the figures of the synthetic corpora."""
    yield from voices(materials.seed)
    yield render_rate(materials.seed)
    yield same_bytes(materials.seed)
    yield from people(materials)
    yield from turned_heads(materials.seed)


def voices(seed: int, num_speakers: int = NUM_VOICES) -> Iterator[Figure]:
    """Whether a linear probe and a pitch estimate tell the voices apart."""
    sounds = [
        [_say(seed, speaker, name) for name in draw_sentences(PROBED, seeded(seed, "sentences", speaker))]
        for speaker in range(num_speakers)
    ]
    accuracy = probe_accuracy([[_features(sound) for sound in clips] for clips in sounds])
    yield at_least(f"linear probe on MFCC, {num_speakers} speakers, held-out clips", accuracy, 0.90, "{:.1%}")
    pitch = np.array([np.median([median_pitch(sound, SAMPLE_RATE) for sound in clips[:3]]) for clips in sounds])
    woman = np.array([is_woman(speaker) for speaker in range(num_speakers)])
    low, high = float(np.nanmax(pitch[~woman])), float(np.nanmin(pitch[woman]))
    yield told(f"median f0 of {(~woman).sum()} men, {woman.sum()} women", "{:.0f} Hz, {:.0f} Hz".format(
        *(float(np.nanmedian(pitch[group])) for group in (~woman, woman))
    ))  # fmt: skip
    yield at_least("lowest woman's f0 / highest man's f0", high / low, 1.0, "{:.2f}")


def probe_accuracy(features: list[list[Float[Tensor, "F"]]]) -> float:
    """Share of held-out clips whose speaker a softmax regression on their features names; speakers x clips."""
    torch.manual_seed(0)
    x = torch.stack([clip for clips in features for clip in clips])
    y = torch.tensor([speaker for speaker, clips in enumerate(features) for _ in clips])
    held_out = torch.tensor([k >= len(clips) - HELD_OUT for clips in features for k in range(len(clips))])
    x = (x - x[~held_out].mean(0)) / x[~held_out].std(0)
    probe = torch.nn.Linear(x.shape[1], len(features))
    optimizer = torch.optim.Adam(probe.parameters(), PROBE_RATE, weight_decay=PROBE_DECAY)
    for _ in range(PROBE_STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(probe(x[~held_out]), y[~held_out]).backward()
        optimizer.step()
    return float((probe(x[held_out]).argmax(1) == y[held_out]).float().mean())


def render_rate(seed: int) -> Figure:
    """Frames a second of one core's own time, from coefficients to an encoded GRID clip."""
    head, rates = procedural_head(), []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(RENDERED_SPEAKERS):
            speaker, home = draw_speaker(seed, index, NUM_VOICES), grid_home(seeded(seed, "home", index))
            utterance = placed([(0.5, speak(sentence("bbaf2n"), speaker.voice))], GRID_FRAMES / FRAME_RATE)
            coefficients = perform(head, speaker, utterance, home, seeded(seed))
            renderer = HeadRenderer(head, speaker.look, speaker.shape, GRID_WIDTH, GRID_HEIGHT, home)
            for _ in range(2):  # what is compiled at first use is not what is measured
                start = time.process_time()
                frames = renderer.frames(*coefficients, seeded(seed))
                write_mpeg1(Path(folder) / "clip.mpg", frames, utterance.waveform, GRID_WIDTH, GRID_HEIGHT)
                rates.append(GRID_FRAMES / (time.process_time() - start))
    name = f"rendering {GRID_WIDTH}×{GRID_HEIGHT} with encoding, frames/s of a core"
    return at_least(name, max(rates), 60, "{:.0f}")


def same_bytes(seed: int) -> Figure:
    """Whether a corpus that is made twice, by one process and by two, is the same."""
    digests = []
    for workers in (0, 2):
        with tempfile.TemporaryDirectory() as folder:
            generate_grid_corpus(folder, 2, 1, seed, workers)
            digest = hashlib.sha256()
            for path in sorted(Path(folder).rglob("*")):
                digest.update(path.relative_to(folder).as_posix().encode())
                digest.update(path.read_bytes() if path.is_file() else b"")
            digests.append(digest.hexdigest()[:12])
    same = digests[0] == digests[1]
    return Figure("same seed, one process or two", "same bytes", digests[0] if same else " ≠ ".join(digests), same)


def people(materials: Materials) -> Iterator[Figure]:
    """A corpus of all speakers: how long it takes, and what dlib sees in it."""
    sentences = WHOLE if materials.full else SAMPLE
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        generate_grid_corpus(folder, NUM_VOICES, sentences, materials.seed, WORKERS)
        seconds = (time.perf_counter() - start) * WHOLE / sentences
        measured = "" if materials.full else f" (from {NUM_VOICES} × {sentences}, without --full)"
        name = f"{NUM_VOICES} × {WHOLE} clips, {WORKERS} processes, s{measured}"
        yield at_most(name, seconds, 300, "{:.0f}")
        yield from judged(Path(folder), materials.seed)


def judged(root: Path, seed: int, num_speakers: int = NUM_VOICES, every: int = JUDGED_EVERY) -> Iterator[Figure]:
    """What dlib sees in the frontal people of a synthetic GRID."""
    detector, clips = DlibDetector(), defaultdict(list)
    for video in sorted(root.glob("s*/*.mpg")):
        truth = root / "truth" / video.parent.name / f"{video.stem}.safetensors"
        clips[int(video.parent.name[1:]) - 1].append(judge(video, truth, detector, every))
    speakers = {index: pooled(judgements) for index, judgements in clips.items()}
    everyone = pooled(list(speakers.values()))
    yield at_least(f"dlib: frames of {len(everyone.found)} with the face", everyone.found.mean(), 0.98, "{:.1%}")
    yield at_most("dlib: inner 51 landmarks, NME", everyone.nme(INNER_51), 0.045, "{:.4f}")
    yield at_most("dlib: mouth landmarks, NME", everyone.nme(MOUTH), 0.045, "{:.4f}")
    tones = defaultdict(list)
    for index in speakers:
        skin = draw_speaker(seed, index, num_speakers).look.skin
        tones[int(np.abs(SKIN_TONES - skin).sum(axis=1).argmin())].append(index)
    for tone, members in sorted(tones.items()):
        r = pooled([speakers[index] for index in members]).opening_correlation()
        yield at_least(f"dlib: opening r, skin tone {tone + 1} ({len(members)} speakers)", r, 0.93)
    lowest = min(speakers, key=lambda index: speakers[index].opening_correlation())
    yield at_least(f"dlib: opening r, lowest speaker (s{lowest + 1})", speakers[lowest].opening_correlation(), 0.93)


def turned_heads(seed: int, seconds: float = TURNED_SECONDS) -> Iterator[Figure]:
    """What dlib, whose detector was made for frontal faces, sees from the other cameras."""
    detector = DlibDetector()
    with tempfile.TemporaryDirectory() as folder:
        root = generate_collected_corpus(folder, TURNED_SPEAKERS, seconds=seconds, seed=seed, workers=WORKERS)
        for view in VIEWS:
            seen = []
            for video in sorted(root.glob(f"p*/{view}/train.mp4")):
                truth = root / "truth" / video.relative_to(root).with_suffix(".safetensors")
                seen.append(judge(video, truth, detector, TURNED_EVERY))
            yield told(f"dlib: view {view}", _summary(pooled(seen)))


def _summary(seen: Judgement) -> str:
    share = f"found {seen.found.mean():.0%}"
    return f"{share}, NME {seen.nme(INNER_51):.3f}, r {seen.opening_correlation():.2f}" if seen.found.any() else share


def _say(seed: int, speaker: int, name: str) -> Float[np.ndarray, "N"]:
    """A sentence as a clip of the corpus holds it."""
    voice = draw_speaker(seed, speaker, NUM_VOICES).voice
    rng = seeded(seed, "probe", speaker, name)
    return recorded(placed([(0.5, speak(sentence(name), voice))], GRID_FRAMES / FRAME_RATE), rng).waveform


def _features(sound: Float[np.ndarray, "N"]) -> Float[Tensor, "26"]:
    """Mean and deviation of a clip's cepstra."""
    cepstra = mfcc(torch.from_numpy(resample_poly(sound, 160, 441).astype(np.float32)))
    return torch.cat([cepstra.mean(0), cepstra.std(0)])
