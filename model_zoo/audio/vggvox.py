"""Speaker identity network of Eq. 2 of Song et al. 2020: VGGVox (Nagrani et al. 2017) on MFCC.

The published network reads 512×300 spectrograms; a window here is 13×100 cepstra. Kept are VGG-M's five convolutions
with their widths and strides along time; along the cepstra kernels are three wide and nothing is strided or pooled, for
there is nothing to spare. Time is averaged as in VGGVox, with the deviation beside the mean. Group normalisation in the
place of batch normalisation: a judge that is frozen must not change when the module around it is set to training.

Shape legend: B batch, A audio frames, C cepstra, N speakers, D channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

WIDTHS = (96, 256, 384, 256, 256)  # VGG-M
TIME_KERNELS = (7, 5, 3, 3, 3)
TIME_STRIDES = (2, 2, 1, 1, 1)
POOLED = (True, True, False, False, True)  # maximum over three frames, every second kept
CEPSTRUM_KERNEL = 3
EMBEDDING = 1024
GROUP_CHANNELS = 16  # per group of the normalisation
VARIANCE_EPSILON = 1e-5  # keeps the deviation's gradient finite on constant features


class VGGVox(nn.Module):
    """Scores of the training speakers for a window of standardised MFCC.

    Args:
        num_speakers: N.
        num_cepstra: C.
        width: multiplies the published widths.
    """

    def __init__(self, num_speakers: int, num_cepstra: int = 13, width: float = 1.0) -> None:
        super().__init__()
        self.num_speakers = num_speakers
        layers: list[nn.Module] = []
        channels = 1
        for full_width, kernel, stride, pooled in zip(WIDTHS, TIME_KERNELS, TIME_STRIDES, POOLED, strict=True):
            groups = max(1, round(width * full_width / GROUP_CHANNELS))
            narrow = groups * max(1, round(width * full_width / groups))
            size = (CEPSTRUM_KERNEL, kernel)
            layers += [
                nn.Conv2d(channels, narrow, size, (1, stride), (CEPSTRUM_KERNEL // 2, kernel // 2), bias=False),
                nn.GroupNorm(groups, narrow),
                nn.ReLU(),
            ]
            if pooled:
                layers.append(nn.MaxPool2d((1, 3), (1, 2), (0, 1)))
            channels = narrow
        self.convolutions = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # a seventh faster on CPUs
        self.to_embedding = nn.Linear(2 * channels * num_cepstra, max(1, round(width * EMBEDDING)))
        self.to_speaker = nn.Linear(self.to_embedding.out_features, num_speakers)

    def embedding(self, x_BAC: Float[Tensor, "B A C"]) -> Float[Tensor, "B D"]:
        """What the network knows of the voice before it names a speaker."""
        features_BDA = self.convolutions(x_BAC.mT[:, None]).flatten(1, 2)
        mean = features_BDA.mean(-1)
        variance = (features_BDA - mean[..., None]).square().mean(-1)  # var_mean takes 20 times as long on short rows
        return self.to_embedding(torch.cat([mean, (variance + VARIANCE_EPSILON).sqrt()], dim=-1)).relu()

    def forward(self, x_BAC: Float[Tensor, "B A C"]) -> Float[Tensor, "B N"]:
        """Logits of p(c | x) of Eq. 2."""
        return self.to_speaker(self.embedding(x_BAC))
