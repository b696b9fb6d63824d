"""E_ldmk of a run when the speaker, the line or the codec changes: `python -m experiments.robustness <run folder>`.

Each held-out clip is heard again with its sound changed; the truth stays, but for changes of speed, which it follows.
A second table is of speech that no corpus has: accents, emphasis, singing (`foreign_speech.py`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from jaxtyping import Float
from rich import box
from rich.table import Table
from scipy.signal import butter, resample_poly, sosfiltfilt
from torch import Tensor

from datamodules.atomic import atomic_path
from datamodules.clip_store import Clip
from experiments.articulation import hear, score, shown_clips, with_noise
from experiments.command_line import guarded
from experiments.foreign_speech import foreign_report
from experiments.tables import cell, wide_console
from experiments.trained import TrainedSpeech, open_speech
from model_zoo.functional.heatmaps import MOUTH
from model_zoo.functional.mfcc import SAMPLE_RATE
from model_zoo.metrics.functional import landmark_error

REPORT = "robustness.json"
SEMITONES = (-4, -2, 2, 4)
SPEEDS = (0.8, 0.9, 1.1, 1.25)
TELEPHONE_HZ = (300.0, 3400.0)
CLIPPED_SHARE = 0.05  # of the samples that are cut off
_FRAME, _HOP = 1024, 256  # samples, of the phase vocoder
Sound = Float[np.ndarray, "N"]


class Change(NamedTuple):
    """What is done to the sound, and how much faster it is then."""

    name: str
    apply: Callable[[Sound], Sound]
    speed: float = 1.0


def stretched(sound: Sound, speed: float) -> Sound:
    """The sound `speed` times as fast at the same pitch, by a phase vocoder (Flanagan and Golden 1966)."""
    window = torch.hann_window(_FRAME)
    spectrum = torch.stft(torch.from_numpy(sound).float(), _FRAME, _HOP, window=window, return_complex=True)
    times = torch.arange(0, spectrum.shape[1] - 1, speed)
    first = times.long()
    share = (times - first)[None]
    size, phase = spectrum.abs(), spectrum.angle()
    magnitude = (1 - share) * size[:, first] + share * size[:, first + 1]
    expected = 2 * torch.pi * _HOP * torch.arange(spectrum.shape[0])[:, None] / _FRAME
    advance = phase[:, first + 1] - phase[:, first] - expected
    advance = expected + advance - 2 * torch.pi * torch.round(advance / (2 * torch.pi))
    angle = torch.cat([phase[:, :1], phase[:, :1] + advance[:, :-1].cumsum(1)], dim=1)
    length = round(len(sound) / speed)
    heard = torch.istft(torch.polar(magnitude, angle), _FRAME, _HOP, window=window).numpy()
    return np.pad(heard[:length], (0, max(0, length - len(heard))))


def shifted(sound: Sound, semitones: float) -> Sound:
    """The sound at another pitch and the same speed; formants move with it, as with a smaller or larger speaker."""
    factor = 2 ** (semitones / 12)
    slow = stretched(sound, 1 / factor)
    up, down = (round(1000 * value) for value in (1, factor))
    heard = resample_poly(slow, up, down)[: len(sound)]
    return np.pad(heard, (0, len(sound) - len(heard))).astype(np.float32)


def clipped(sound: Sound) -> Sound:
    """Recorded too loud: the loudest samples are cut off."""
    limit = max(float(np.quantile(np.abs(sound), 1 - CLIPPED_SHARE)), 1e-6)
    return (np.clip(sound, -limit, limit) * (np.abs(sound).max() / limit)).astype(np.float32)


def telephone(sound: Sound) -> Sound:
    """The band of a telephone, 300 to 3400 Hz."""
    return sosfiltfilt(butter(4, TELEPHONE_HZ, "bandpass", fs=SAMPLE_RATE, output="sos"), sound).astype(np.float32)


def mp3(sound: Sound, bits: int = 32_000) -> Sound:
    """Through an mp3 encoder and back; the codec's delay is taken out."""
    file = BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("mp3", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = bits
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound, np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        parts = [np.atleast_2d(frame.to_ndarray())[0] for frame in container.decode(audio=0)]
    heard = np.concatenate(parts).astype(np.float32)
    correlation = np.fft.irfft(np.fft.rfft(heard, 2 * len(heard)) * np.conj(np.fft.rfft(sound, 2 * len(heard))))
    delay = int(np.argmax(correlation[: 4 * 1152]))
    heard = heard[delay : delay + len(sound)]
    return np.pad(heard, (0, len(sound) - len(heard)))


CHANGES = (
    Change("as recorded", lambda sound: sound),
    *(Change(f"pitch {s:+d} semitones", lambda sound, s=s: shifted(sound, s)) for s in SEMITONES),
    *(Change(f"speed {v:g}", lambda sound, v=v: stretched(sound, v), v) for v in SPEEDS),
    Change("clipped (5% of samples)", clipped),
    Change("telephone band", telephone),
    Change("mp3, 32 kbit/s", mp3),
    *(
        Change(
            f"white noise, {snr:.0f} dB SNR", lambda sound, snr=snr: with_noise(torch.from_numpy(sound), snr, 0).numpy()
        )
        for snr in (20.0, 10.0)
    ),
)


@torch.inference_mode()
def errors(trained: TrainedSpeech, change: Change) -> dict[str, float]:
    """E_ldmk of each held-out clip, px at 256."""
    found = {}
    for clip, part in shown_clips(trained.data):
        found[clip.id] = _error(trained, clip, part, change)
    return found


def _error(trained: TrainedSpeech, clip: Clip, part: slice, change: Change) -> float:
    sound = np.ascontiguousarray(change.apply(clip.waveform().numpy()), dtype=np.float32)
    heard = hear(trained.speech, torch.from_numpy(sound), trained.data.hearing.normal.get(clip.row.speaker))
    expression = _at_speed(heard, clip.num_frames, change.speed)[part]
    landmarks = trained.objective.face.project_landmarks(clip.shape, expression, clip.pose[part])
    return float(
        landmark_error(landmarks[:, MOUTH.start : MOUTH.stop], clip.landmarks[part, MOUTH.start : MOUTH.stop]).mean()
    )


def _at_speed(expression: Float[Tensor, "M E"], num_frames: int, speed: float) -> Float[Tensor, "T E"]:
    """What was heard at each original frame's time, between the frames of the changed sound."""
    times = (torch.arange(num_frames) / speed).clamp(0, len(expression) - 1)
    first = times.long().clamp_max(max(len(expression) - 2, 0))
    share = (times - first)[:, None]
    return torch.lerp(expression[first], expression[(first + 1).clamp_max(len(expression) - 1)], share)


def report(trained: TrainedSpeech) -> dict[str, dict]:
    """E_ldmk under every change, with its interval over clips."""
    return {change.name: score(errors(trained, change)) for change in CHANGES}


def main() -> None:
    """Print the report of a run and leave it in its folder."""
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m experiments.robustness <run folder>")
        sys.exit(0 if sys.argv[1:2] in (["-h"], ["--help"]) else 2)
    folder = Path(sys.argv[1])
    trained = open_speech(folder)
    rows, manners = report(trained), foreign_report(trained)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("sound", no_wrap=True)
    table.add_column("E_ldmk ↓\npx at 256", justify="right")
    table.add_column("/ as recorded", justify="right")
    base = next(iter(rows.values()))["mean"]
    for name, row in rows.items():
        table.add_row(name, cell(row, 3), f"{row['mean'] / base:.3f}")
    wide_console().print(table)
    foreign = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    foreign.add_column("speech", no_wrap=True)
    foreign.add_column("opening ↑\nr with the synthetic speaker's", justify="right")
    for name, row in manners.items():
        foreign.add_row(name, cell(row, 3))
    wide_console().print(foreign if manners else "accents, emphasis, singing: unavailable, speakers are normalised")
    with atomic_path(folder / REPORT) as path:
        path.write_text(json.dumps({"changes": rows, "manners": manners}, indent=2) + "\n")


if __name__ == "__main__":
    guarded(main)
