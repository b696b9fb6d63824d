"""Speech to expression, §3.2 of Song et al. 2020: standardised MFCC -> ID removal -> expression.

Shape legend: B batch, T video frames of a sample, A audio frames, C cepstra, E expression, K fMLLR components.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from model_zoo.audio.audio_to_expression import AudioToExpression
from model_zoo.audio.id_removal import AudioIdRemoval
from model_zoo.audio.standardise import MfccStandardise
from model_zoo.functional.mfcc import windows_of


@dataclass(frozen=True)
class SpeechOutput:
    """What was heard in N = B * T windows of 100 audio frames.

    Attributes:
        expression: predicted coefficients, in standard deviations of the face model.
        features: x' of Eq. 1 (the standardised MFCC itself without ID removal).
        weights: λ of Eq. 1; none without ID removal.
    """

    expression: Float[Tensor, "B T E"]
    features: Float[Tensor, "N 100 C"]
    weights: Float[Tensor, "N K"] | None


class SpeechToExpression(nn.Module):
    """The chain from raw MFCC to expression coefficients.

    Args:
        standardise: corpus statistics of the MFCC.
        id_removal: the Audio ID-Removing Network, or None for the baseline without it.
        translation: the Audio-to-Expression Translation Network.
    """

    def __init__(
        self, standardise: MfccStandardise, id_removal: AudioIdRemoval | None, translation: AudioToExpression
    ) -> None:
        super().__init__()
        self.standardise = standardise
        self.id_removal = id_removal
        self.translation = translation

    def forward(self, mfcc_BAC: Float[Tensor, "B A C"], num_frames: int = 1) -> SpeechOutput:
        """Expressions of the last `num_frames` video frames of each sample.

        Args:
            mfcc_BAC: raw MFCC, A = 100 + 4 (num_frames - 1).
            num_frames: video frames, T.
        """
        windows_NAC = windows_of(self.standardise(mfcc_BAC), num_frames).flatten(0, 1)
        weights_NK = None
        if self.id_removal is not None:
            windows_NAC, weights_NK = self.id_removal(windows_NAC)
        expression = self.translation(windows_NAC).unflatten(0, (-1, num_frames))
        return SpeechOutput(expression, windows_NAC, weights_NK)
