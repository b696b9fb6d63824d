"""Speech to expression, §3.2 of Song et al. 2020: standardised MFCC -> ID removal -> expression.

Shape legend: B batch, T video frames of a sample, A audio frames, C cepstra, E expression, K fMLLR components,
N = B * T windows, U audio frames of an utterance.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from model_zoo.audio.audio_to_expression import AudioToExpression
from model_zoo.audio.causal import CausalAudioToExpression
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
        translation: the Audio-to-Expression Translation Network, over windows or stateful.

    Raises:
        ValueError: λ of each window is asked for where there are no windows.
    """

    def __init__(
        self,
        standardise: MfccStandardise,
        id_removal: AudioIdRemoval | None,
        translation: AudioToExpression | CausalAudioToExpression,
    ) -> None:
        super().__init__()
        if isinstance(translation, CausalAudioToExpression) and id_removal is not None and id_removal.scope != "clip":
            raise ValueError("a stateful network hears no windows: use ID removal of scope 'clip', or none")
        self.standardise = standardise
        self.id_removal = id_removal
        self.translation = translation

    @property
    def is_stateful(self) -> bool:
        """Whether frames are heard in one pass rather than window by window."""
        return isinstance(self.translation, CausalAudioToExpression)

    @property
    def uses_utterance(self) -> bool:
        """Whether λ comes from the whole utterance."""
        return self.id_removal is not None and self.id_removal.scope == "clip"

    def forward(
        self, mfcc_BAC: Float[Tensor, "B A C"], num_frames: int = 1, utterance_BUC: Float[Tensor, "B U C"] | None = None
    ) -> SpeechOutput:
        """Expressions of the last `num_frames` video frames of each sample.

        Args:
            mfcc_BAC: raw MFCC, A = 100 + 4 (num_frames - 1).
            num_frames: video frames, T.
            utterance_BUC: raw MFCC of all that is heard of the speaker, for ID removal of scope 'clip'; without it, or
                where it is empty, λ comes from the sample's own rows.
        """
        rows = self.standardise(mfcc_BAC)
        if self.uses_utterance:
            heard = rows if utterance_BUC is None or utterance_BUC.shape[1] == 0 else self.standardise(utterance_BUC)
            return self._adapted(rows, num_frames, self.id_removal.weights(heard))
        if self.is_stateful:
            return SpeechOutput(self.translation(rows, num_frames), windows_of(rows, num_frames).flatten(0, 1), None)
        windows_NAC = windows_of(rows, num_frames).flatten(0, 1)
        weights_NK = None
        if self.id_removal is not None:
            windows_NAC, weights_NK = self.id_removal(windows_NAC)
        return SpeechOutput(self.translation(windows_NAC).unflatten(0, (-1, num_frames)), windows_NAC, weights_NK)

    def _adapted(self, rows_BAC: Tensor, num_frames: int, weights_BK: Tensor) -> SpeechOutput:
        """With one λ a sample, rows are adapted once, before they are cut into windows."""
        adapted = self.id_removal.adapt(rows_BAC, weights_BK)
        windows_NAC = windows_of(adapted, num_frames).flatten(0, 1)
        if self.is_stateful:
            expression = self.translation(adapted, num_frames)
        else:
            expression = self.translation(windows_NAC).unflatten(0, (-1, num_frames))
        return SpeechOutput(expression, windows_NAC, weights_BK.repeat_interleave(num_frames, dim=0))
