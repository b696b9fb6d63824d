"""The sound and the words that belong to a clip of a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor

from datamodules.clip_store import Word
from datamodules.prepare.decode import FRAME_RATE, SAMPLES_PER_FRAME
from datamodules.prepare.sound import to_float
from datamodules.prepare.spans import Span
from model_zoo.functional.mfcc import HOP, SAMPLE_RATE, WINDOW, mfcc

_PIECE = 10 * SAMPLE_RATE  # samples worked on at once; a multiple of the hop
_MARGIN = (WINDOW // HOP + 1) * HOP  # samples on each side that the rows of a piece may look at


@dataclass(frozen=True)
class SourceSound:
    """What is heard in a source.

    Attributes:
        samples: at 16 kHz, from the source's first frame on by its own clock.
        words: of the source, times by the same clock.
        late: how much later than its picture the sound comes, s; made good.
    """

    samples: Int16[np.ndarray, "N"]
    words: Sequence[Word] = ()
    late: float = 0.0

    def of(self, span: Span) -> Int16[Tensor, "M"]:
        """Sound of a span as it is stored: 640 samples a frame, silent beyond the ends; a view where there are none."""
        first = span.start * SAMPLES_PER_FRAME + round(self.late * SAMPLE_RATE)
        count = span.frames * SAMPLES_PER_FRAME
        sound = self.samples[max(first, 0) : max(first + count, 0)]
        if len(sound) < count:
            before = min(max(-first, 0), count)
            sound = np.pad(sound, (before, count - before - len(sound)))
        return torch.from_numpy(sound)

    def words_of(self, span: Span) -> list[Word]:
        """The words that are heard in a span, with times from its first frame on, s."""
        start, duration = span.start / FRAME_RATE + self.late, span.frames / FRAME_RATE
        moved = (Word(word.start - start, word.end - start, word.text) for word in self.words)
        return [word for word in moved if word.end > 0 and word.start < duration]


def sound_mfcc(sound: Int16[Tensor, "N"], num_cepstra: int) -> Float[Tensor, "A C"]:
    """MFCC of stored sound, ten seconds at a time: the intermediate spectra take 25 times the room of the sound."""
    rows = []
    for start in range(0, len(sound), _PIECE):
        before = min(start, _MARGIN)
        piece = torch.from_numpy(to_float(sound[start - before : start + _PIECE + _MARGIN].numpy()))
        num_rows = -(-min(_PIECE, len(sound) - start) // HOP)
        rows.append(mfcc(piece, num_cepstra)[before // HOP : before // HOP + num_rows])
    return torch.cat(rows)
