"""What faster arithmetic costs in quality: the trained generator in float32, bfloat16 and 8-bit integers, in turn."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from datamodules.batch import VideoBatch
from datamodules.corpus_module import CorpusDataModule
from experiments.command_line import UserError
from model_zoo.render.fast_generator import fast_generator, multiplies_bytes
from model_zoo.render.int8_generator import supports
from model_zoo.render.mouth_renderer import MouthRenderer

FLOAT32, BFLOAT16, INTEGERS = "float32", "bfloat16", "8-bit integers"
CALIBRATION_CLIPS = 8  # of the training clips, a frame of each half


class _Fast(nn.Module):
    """`fast_generator` in the place of the generator that it was made of."""

    def __init__(self, generator: nn.Module, calibration: Tensor | None) -> None:
        super().__init__()
        self.generator = generator
        self.call = fast_generator(generator, calibration)  # type: ignore[arg-type]

    def forward(self, stack: Tensor) -> Tensor:
        return self.call(stack)


def renderers(renderer: MouthRenderer, data: CorpusDataModule) -> Iterator[tuple[str, MouthRenderer]]:
    """The renderer in each arithmetic that this machine and the generator allow, float32 first.

    Args:
        renderer: trained, in evaluation mode; it is left as it is.
        data: its training clips calibrate the integers.

    Raises:
        UserError: there are no training clips to calibrate with.
    """
    exact = copy.deepcopy(renderer).float()
    exact.dtype = torch.float32
    yield FLOAT32, exact
    ways: list[tuple[str, Tensor | None]] = [(BFLOAT16, None)]
    device = next(renderer.parameters()).device
    if device.type == "cpu" and multiplies_bytes() and supports(exact.generator):
        ways.append((INTEGERS, calibration_stacks(exact, data)))
    for name, calibration in ways:
        fast = copy.deepcopy(exact)
        fast.generator = _Fast(exact.generator, calibration)  # type: ignore[assignment]
        yield name, fast


def calibration_stacks(exact: MouthRenderer, data: CorpusDataModule) -> Tensor:
    """Input of the generator for a few training frames, (B, C, H, W)."""
    clips = data.train_clips[:: max(1, len(data.train_clips) // CALIBRATION_CLIPS)][:CALIBRATION_CLIPS]
    if not clips:
        raise UserError("there are no training clips at hand that integers could be calibrated with")
    stacks = []
    for clip in clips:
        batches = list(data.clip_batches(clip))
        for batch in (batches[0], batches[len(batches) // 2]):
            assert isinstance(batch, VideoBatch)
            last = batch.cut(len(batch) - 1, len(batch))
            stacks.append(exact.stack(last.windows, last.mouth_box, last.noise_number))
    return torch.cat(stacks)
