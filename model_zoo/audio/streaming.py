"""Expressions of a sound of any length in constant memory, §3.2 of Song et al. 2020 as it is used.

Samples go in as they come, expressions come out as soon as the 0.2 s that a frame looks ahead have been heard. What is
kept is a second of cepstra, and the state of whatever listens on: λ of scope 'clip', the stateful network. The windows
of many frames go through the networks as one batch, in bfloat16 where that is asked for.

Shape legend: N samples, A audio frames, C cepstra, T video frames, E expression, K fMLLR components.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from model_zoo.audio.causal import CausalAudioToExpression
from model_zoo.audio.id_removal import AudioIdRemoval, RunningWeights
from model_zoo.audio.speech_to_expression import SpeechToExpression
from model_zoo.functional.mfcc import (
    FRAMES_AFTER,
    FRAMES_BEFORE,
    FRAMES_PER_VIDEO_FRAME,
    HOP,
    MfccStream,
    silence_mfcc,
    windows_of,
)

SAMPLES_PER_VIDEO_FRAME = HOP * FRAMES_PER_VIDEO_FRAME
WINDOW_ROWS = FRAMES_BEFORE + FRAMES_AFTER
Normal = tuple[Tensor, Tensor]
BATCH_FRAMES = 128  # windows that go through the networks at once; more is hardly faster


class SpeechStream:
    """Sound in, expressions out, block by block; what comes out does not depend on the blocks.

    Args:
        speech: trained networks, in evaluation mode.
        weights: λ (K,) of the speaker for ID removal of scope 'clip', as `utterance_weights` finds it; without it λ is
            that of what has been heard so far.
        precision: of the networks.
        batch_frames: video frames that go through the networks at once.
        normal: mean and deviation of the speaker's MFCC, for networks that were trained on such.
    """

    def __init__(
        self,
        speech: SpeechToExpression,
        weights: Float[Tensor, "K"] | None = None,
        precision: torch.dtype = torch.float32,
        batch_frames: int = BATCH_FRAMES,
        normal: Normal | None = None,
    ) -> None:
        self._speech, self._weights = speech, weights
        self._precision, self._batch = precision, batch_frames
        num_cepstra = len(speech.standardise.mean)
        self._mfcc, self._normal = MfccStream(num_cepstra), normal
        self._silence = self._standardised(silence_mfcc(num_cepstra))[None]
        self._rows = self._silence.repeat(FRAMES_BEFORE, 1)  # standardised, from 4 t - 80 of the next frame t on
        self._running = running_weights(speech) if weights is None else None
        self._heard = 0  # rows that λ knows
        self._state: tuple[Tensor, Tensor] | None = None
        self._samples = self._frames = 0

    @torch.inference_mode()
    def push(self, samples: Float[Tensor, "N"]) -> Float[Tensor, "T E"]:
        """Hear more; the expressions that can be told now, in order, maybe none."""
        self._samples += len(samples)
        self._rows = torch.cat([self._rows, self._standardised(self._mfcc.push(samples))])
        return self._ready()

    @torch.inference_mode()
    def finish(self) -> Float[Tensor, "T E"]:
        """The rest, with digital silence after the end; every video frame that has begun gets its expression."""
        self._rows = torch.cat([self._rows, self._standardised(self._mfcc.finish())])
        left = math.ceil(self._samples / SAMPLES_PER_VIDEO_FRAME) - self._frames
        wanted = WINDOW_ROWS + FRAMES_PER_VIDEO_FRAME * (left - 1)
        self._rows = torch.cat([self._rows[:wanted], self._silence.expand(max(0, wanted - len(self._rows)), -1)])
        return self._ready() if left > 0 else self._nothing()

    def _nothing(self) -> Float[Tensor, "T E"]:
        return self._silence.new_zeros(0, len(self._speech.translation.expression_mean))

    def _standardised(self, mfcc: Float[Tensor, "*A C"]) -> Float[Tensor, "*A C"]:
        return self._speech.standardise(normalised(mfcc, self._normal))

    def _ready(self) -> Float[Tensor, "T E"]:
        """Expressions of all frames whose windows are complete."""
        parts = [self._nothing()]
        while len(self._rows) >= WINDOW_ROWS:
            count = min(self._batch, 1 + (len(self._rows) - WINDOW_ROWS) // FRAMES_PER_VIDEO_FRAME)
            with torch.autocast("cpu", torch.bfloat16, enabled=self._precision is torch.bfloat16):
                parts.append(self._frames_of(self._rows[: WINDOW_ROWS + FRAMES_PER_VIDEO_FRAME * (count - 1)], count))
            self._rows = self._rows[FRAMES_PER_VIDEO_FRAME * count :]
            self._frames += count
        return torch.cat(parts)

    def _frames_of(self, rows: Float[Tensor, "A C"], count: int) -> Float[Tensor, "T E"]:
        """Expressions of the next `count` frames, whose windows `rows` hold."""
        weights = self._weights_of(rows, count)
        if self._speech.is_stateful:
            return self._listen(rows, weights)
        windows = windows_of(rows[None], count)[0]
        if self._speech.id_removal is not None:
            weights = self._speech.id_removal.weights(windows) if weights is None else weights
            windows = self._speech.id_removal.adapt(windows, weights)
        return self._speech.translation(windows)

    def _listen(self, rows: Float[Tensor, "A C"], weights: Float[Tensor, "T K"] | None) -> Float[Tensor, "T E"]:
        fresh = rows if self._frames == 0 else rows[WINDOW_ROWS - FRAMES_PER_VIDEO_FRAME :]
        if weights is not None and self._speech.id_removal is not None:
            # A row is heard with λ of the frame that waits for it; the first frame waits for all rows before it, too.
            steps = len(fresh) // FRAMES_PER_VIDEO_FRAME
            waits = torch.arange(len(fresh)) // FRAMES_PER_VIDEO_FRAME - (steps - len(weights))
            fresh = self._speech.id_removal.adapt(fresh[:, None], weights[waits.clamp_min(0)])[:, 0]
        expressions, self._state = self._translation.listen(fresh[None], self._state)
        return expressions[0, -((len(rows) - WINDOW_ROWS) // FRAMES_PER_VIDEO_FRAME + 1) :]

    @property
    def _translation(self) -> CausalAudioToExpression:
        assert isinstance(self._speech.translation, CausalAudioToExpression)
        return self._speech.translation

    def _weights_of(self, rows: Float[Tensor, "A C"], count: int) -> Float[Tensor, "T K"] | None:
        if self._weights is not None:
            return self._weights.expand(count, -1)
        if self._running is None:
            return None
        first = FRAMES_PER_VIDEO_FRAME * self._frames - FRAMES_BEFORE  # number of the first of the rows
        running = self._running(rows[self._heard - first :])
        ends = FRAMES_PER_VIDEO_FRAME * (self._frames + torch.arange(count)) + FRAMES_AFTER - 1
        running, self._heard = running[ends - self._heard], first + len(rows)
        return running


def running_weights(speech: SpeechToExpression) -> RunningWeights | None:
    """What follows λ of scope 'clip'; None for networks without it."""
    removal = speech.id_removal
    return RunningWeights(removal) if isinstance(removal, AudioIdRemoval) and removal.scope == "clip" else None


def normalised(mfcc: Float[Tensor, "*A C"], normal: Normal | None) -> Float[Tensor, "*A C"]:
    """MFCC by a speaker's own mean and deviation, or as they are."""
    return mfcc if normal is None else (mfcc - normal[0]) / normal[1]


def utterance_weights(
    speech: SpeechToExpression, blocks: Iterable[Float[Tensor, "N"]], normal: Normal | None = None
) -> Float[Tensor, "K"] | None:
    """λ of a whole utterance in constant memory, for ID removal of scope 'clip'; None for any other.

    Args:
        speech: trained networks.
        blocks: the sound, from its beginning to its end.
        normal: mean and deviation of the speaker's MFCC, where the networks want them.
    """
    stream, running, weights = MfccStream(len(speech.standardise.mean)), running_weights(speech), None
    if running is None:
        return None
    with torch.inference_mode():
        for block in blocks:
            rows = speech.standardise(normalised(stream.push(block), normal))
            weights = running(rows)[-1] if len(rows) else weights
        rows = speech.standardise(normalised(stream.finish(), normal))
        return running(rows)[-1] if len(rows) else weights


def expressions_of(
    speech: SpeechToExpression,
    blocks: Iterable[Float[Tensor, "N"]],
    weights: Float[Tensor, "K"] | None = None,
    precision: torch.dtype = torch.float32,
    normal: Normal | None = None,
) -> Iterator[Float[Tensor, "T E"]]:
    """Expressions of a sound that comes in blocks, part by part.

    Args:
        speech: trained networks, in evaluation mode.
        blocks: samples at 16 kHz in [-1, 1].
        weights: λ of the speaker, see `SpeechStream`.
        precision: of the networks.
        normal: mean and deviation of the speaker's MFCC, where the networks want them.
    """
    stream = SpeechStream(speech, weights, precision, normal=normal)
    for block in blocks:
        if len(part := stream.push(block)):
            yield part
    if len(part := stream.finish()):
        yield part
