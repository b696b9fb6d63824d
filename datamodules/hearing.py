"""What a sample hears: MFCC rows of a clip as they are, normalised by speaker, or of its sound made louder and noisier.

Users' microphones are not those of the corpus: a network that only ever heard clean silence opens the mouth of whoever
sits beside a fan. Augmentation works on the waveform, from (seed, epoch, sample) alone. Shape legend as in
`datamodules.batch`, and U audio frames of an utterance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datamodules.clip_store import Clip
from datamodules.prepare.align import SILENCE
from model_zoo.functional.mfcc import (
    FRAMES_AFTER,
    FRAMES_BEFORE,
    FRAMES_PER_VIDEO_FRAME,
    HOP,
    audio_windows,
    mfcc,
    silence_mfcc,
)
from model_zoo.functional.vocal_tract import warp_matrix
from model_zoo.metrics.speech_metrics import inner_lip_gap, silent_frames, silent_sound

CLOSED = 0.05  # quantile of a clip's inner-lip gap that counts as closed: detected lips never quite touch
MOST_ROWS = 30_000  # MFCC rows, five minutes: enough for a clip's mean and deviation
MOST_FRAMES = 100_000  # an hour; quantiles of more are refused by torch, and no better
NUM_FORMANTS = 3  # frequencies, from 0 to 8 kHz evenly spaced in mel, that move apart
_MARGIN = 2  # rows on either side that the windows of the outermost rows reach into


@dataclass(frozen=True)
class SoundAugmentation:
    """Gain and noise of one sample.

    Attributes:
        gain_db: range of the gain, dB; a microphone nearer or further away.
        noise: share of the samples with noise.
        snr_db: range of the clip's level over the noise, dB.
        tilt: range of the noise's spectrum, dB an octave: 0 white, -3 pink, -6 brown.
    """

    gain_db: tuple[float, float] = (0.0, 0.0)
    noise: float = 0.0
    snr_db: tuple[float, float] = (10.0, 40.0)
    tilt: tuple[float, float] = (-6.0, 0.0)

    def __call__(self, sound_N: Float[Tensor, "N"], level: float, seed: int) -> Float[Tensor, "N"]:
        """The same stretch of sound, differently recorded; digital silence beyond a clip's ends is left alone.

        Args:
            sound_N: samples in [-1, 1].
            level: root mean square of the whole clip.
            seed: of everything that is drawn.
        """
        generator = torch.Generator().manual_seed(seed)
        gain, noisy, snr, tilt = torch.rand(4, generator=generator).tolist()
        amplitude = 10 ** (_between(self.gain_db, gain) / 20)
        heard = amplitude * sound_N
        if noisy < self.noise and level > 0:
            noise = coloured_noise(len(sound_N), _between(self.tilt, tilt), generator)
            heard = heard + amplitude * level * 10 ** (-_between(self.snr_db, snr) / 20) * noise
        return heard.clamp(-1, 1)


def coloured_noise(length: int, tilt: float, generator: torch.Generator) -> Float[Tensor, "N"]:
    """Gaussian noise of unit deviation whose spectrum falls by -tilt dB an octave above 50 Hz."""
    spectrum = torch.fft.rfft(torch.randn(length, generator=generator))
    octaves = torch.log2((torch.arange(len(spectrum)) * 16_000 / length).clamp_min(50) / 50)
    noise = torch.fft.irfft(spectrum * 10 ** (tilt * octaves / 20), length)
    return noise / noise.std().clamp_min(1e-9)


class ClipMarks(NamedTuple):
    """What is known of a whole clip.

    Attributes:
        silent: frames in which nobody speaks, by the transcript where it is known.
        closed_gap: inner-lip gap of its closed mouth, px at 256.
        mean: of its expression. level: root mean square of its sound.
    """

    silent: Bool[Tensor, "T"]
    closed_gap: Float[Tensor, ""]
    mean: Float[Tensor, "E"]
    level: float

    @classmethod
    def of(cls, clip: Clip) -> ClipMarks:
        """Work it out, from the frames that carry a fit."""
        fitted = clip.valid if bool(clip.valid.any()) else torch.ones_like(clip.valid)
        gap = inner_lip_gap(clip.landmarks[fitted])[:MOST_FRAMES]
        level = float(clip.waveform().square().mean().sqrt())
        return cls(silence_of(clip), torch.quantile(gap, CLOSED), clip.expression[fitted].mean(0), level)


@dataclass(frozen=True)
class VoiceAugmentation:
    """Other voices: formants moved as by another vocal tract; each cepstrum scaled about the clip's mean and moved.

    One affine map a sample, as in Eq. 1 of Song et al. 2020, but drawn: what ID removal has to undo.

    Attributes:
        scale: deviation of the factor about 1.
        offset: deviation of the shift, in deviations of the clip's cepstrum.
        tract: deviation of the log factor of all frequencies. formants: of another at each of three frequencies.
    """

    scale: float = 0.0
    offset: float = 0.0
    tract: float = 0.0
    formants: float = 0.0

    def __bool__(self) -> bool:
        return any((self.scale, self.offset, self.tract, self.formants))

    def __call__(self, rows_AC: Float[Tensor, "A C"], mfcc: Float[Tensor, "M C"], seed: int) -> Float[Tensor, "A C"]:
        """Rows of a clip in another voice.

        Args:
            rows_AC: raw MFCC.
            mfcc: of the whole clip.
            seed: of what is drawn.
        """
        generator = torch.Generator().manual_seed(seed)
        factor, shift = torch.randn(2, rows_AC.shape[1], generator=generator)
        tract, *formants = torch.randn(1 + NUM_FORMANTS, generator=generator)
        std, mean = torch.std_mean(mfcc[:MOST_ROWS], dim=0)
        if self.tract or self.formants:
            matrix = warp_matrix(self.tract * tract + self.formants * torch.stack(formants), len(mean))
            rows_AC, mean = rows_AC @ matrix.T, mean @ matrix.T
        return mean + (1 + self.scale * factor) * (rows_AC - mean) + self.offset * shift * std


@dataclass
class Hearing:
    """How the speech part of samples is made.

    Attributes:
        num_frames: frames of a training sample without pixels.
        utterance_rows: MFCC rows that a sample brings beside its windows for λ of scope 'clip', at most; 0: none.
        augmentation: of the sound of training samples. voice: of their voices.
        normal: mean and deviation of each speaker's MFCC, where every speaker is normalised by their own.
        seed: of the augmentation.
    """

    num_frames: int = 1
    utterance_rows: int = 0
    augmentation: SoundAugmentation | None = None
    voice: VoiceAugmentation | None = None
    normal: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        self._marks: dict[str, ClipMarks] = {}

    def rows(
        self, clip: Clip, frames: Sequence[int], num_frames: int, draws: Sequence[tuple[int, int]] | None
    ) -> Float[Tensor, "B A C"]:
        """The windows of some samples.

        Args:
            clip: where they are from.
            frames: t of each.
            num_frames: video frames of each, T.
            draws: (epoch, sample) of each in training; None leaves the sound as it is.
        """
        if draws is None or self.augmentation is None:
            windows = audio_windows(clip.mfcc, torch.tensor(frames), num_frames)
        else:
            made = zip(frames, draws, strict=True)
            windows = torch.stack([self._differently(self.augmentation, clip, *item, num_frames) for item in made])
        return self._normalised(self._in_voices(windows, clip, draws), clip)

    def utterance(
        self,
        clip: Clip,
        frames: Sequence[int],
        draws: Sequence[tuple[int, int]] | None = None,
        within: range | None = None,
    ) -> Float[Tensor, "B U C"]:
        """What else each sample may hear of the speaker: rows of the clip around it, U for all samples of all clips.

        Args:
            clip, frames, draws: as of `rows`.
            within: frames on the samples' side of the split, beyond which nothing is heard; None: the whole clip.
        """
        side = range(clip.num_frames) if within is None else within
        rows = clip.mfcc[FRAMES_PER_VIDEO_FRAME * side.start : FRAMES_PER_VIDEO_FRAME * side.stop]
        if self.utterance_rows == 0:
            return rows.new_zeros(len(frames), 0, rows.shape[1])
        wanted = self.utterance_rows
        parts = []
        for frame in frames:
            middle = FRAMES_PER_VIDEO_FRAME * (frame - side.start)
            start = max(0, min(middle - wanted // 2, len(rows) - wanted))
            part = rows[start : start + wanted]
            parts.append(part.repeat(-(-wanted // len(part)), 1)[:wanted])  # a short clip is heard again
        return self._normalised(self._in_voices(torch.stack(parts), clip, draws), clip)

    def marks(self, clip: Clip) -> ClipMarks:
        """What holds for a whole clip, worked out once."""
        if clip.id not in self._marks:
            self._marks[clip.id] = ClipMarks.of(clip)
        return self._marks[clip.id]

    def _in_voices(
        self, rows: Float[Tensor, "B A C"], clip: Clip, draws: Sequence[tuple[int, int]] | None
    ) -> Float[Tensor, "B A C"]:
        if draws is None or self.voice is None:
            return rows
        seeds = [_number(self.seed, *draw, 1) for draw in draws]  # a sample and its utterance: one voice
        return torch.stack([self.voice(*item) for item in zip(rows, [clip.mfcc] * len(rows), seeds, strict=True)])

    def _differently(
        self, augmentation: SoundAugmentation, clip: Clip, frame: int, draw: tuple[int, int], num_frames: int
    ) -> Float[Tensor, "A C"]:
        first = FRAMES_PER_VIDEO_FRAME * (frame - num_frames + 1) - FRAMES_BEFORE - _MARGIN
        last = FRAMES_PER_VIDEO_FRAME * frame + FRAMES_AFTER + _MARGIN
        start, stop = max(0, HOP * first), min(len(clip.sound), HOP * last)
        heard = torch.zeros(HOP * (last - first))
        if stop > start:
            sound = clip.sound[start:stop].to(torch.float32) / 32768
            seed = _number(self.seed, *draw)
            changed = augmentation(sound, self.marks(clip).level, seed)
            heard[start - HOP * first : stop - HOP * first] = changed
        rows = mfcc(heard, clip.mfcc.shape[1])
        number = torch.arange(first, last)
        rows[(number < 0) | (number >= len(clip.mfcc))] = silence_mfcc(clip.mfcc.shape[1])  # as `audio_window` pads
        return rows[_MARGIN:-_MARGIN]

    def _normalised(self, rows: Float[Tensor, "B A C"], clip: Clip) -> Float[Tensor, "B A C"]:
        if not self.normal:
            return rows
        mean, std = self.normal[clip.row.speaker]
        return (rows - mean) / std


def silence_of(clip: Clip) -> Bool[Tensor, "T"]:
    """Frames of a clip in which nobody speaks: by its words, or by its loudness where they are not known."""
    if not clip.words:
        return silent_sound(clip.waveform(), clip.num_frames)
    words = [(word.start, word.end) for word in clip.words if word.text not in SILENCE]
    kinds = silent_frames(words, clip.num_frames)
    return torch.stack(list(kinds.values())).any(0)


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + share * (bounds[1] - bounds[0])


def _number(*seed: int) -> int:
    digest = hashlib.blake2b("\0".join(map(str, ("sound", *seed))).encode(), digest_size=7).digest()
    return int.from_bytes(digest)
