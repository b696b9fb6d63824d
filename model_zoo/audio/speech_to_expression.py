"""Speech to expression, §3.2 of Song et al. 2020: standardised MFCC -> ID removal -> expression.

Shape legend: B batch, T video frames of a sample, A audio frames, C cepstra, E expression, K fMLLR components,
N = B * T windows, U audio frames of an utterance.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from model_zoo.audio.audio_to_expression import AudioToExpression
from model_zoo.audio.audio_to_landmark import AudioToLandmark
from model_zoo.audio.causal import CausalAudioToExpression
from model_zoo.audio.id_removal import AudioIdRemoval, MomentRemoval
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
        id_removal: the Audio ID-Removing Network, what takes its place, or None for the baseline without it.
        translation: the Audio-to-Expression Translation Network, over windows or stateful; or its 2D rival, whose
            landmarks (B, T, L, 2) then stand for expressions.

    Raises:
        ValueError: λ of each window is asked for where there are no windows.
    """

    def __init__(
        self,
        standardise: MfccStandardise,
        id_removal: AudioIdRemoval | MomentRemoval | None,
        translation: AudioToExpression | CausalAudioToExpression | AudioToLandmark,
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
        rows, removal, weights = self.standardise(mfcc_BAC), self.id_removal, None
        if removal is not None and removal.scope == "clip":
            heard = rows if utterance_BUC is None or utterance_BUC.shape[1] == 0 else self.standardise(utterance_BUC)
            weights_BK = removal.weights(heard)
            rows = removal.adapt(rows, weights_BK)  # with one λ a sample, before rows are cut into windows
            weights = weights_BK.repeat_interleave(num_frames, dim=0)
        windows_NAC = windows_of(rows, num_frames).flatten(0, 1)
        if isinstance(self.translation, CausalAudioToExpression):
            return SpeechOutput(self.translation(rows, num_frames), windows_NAC, weights)
        if removal is not None and weights is None:
            windows_NAC, weights = removal(windows_NAC)
        return SpeechOutput(self.translation(windows_NAC).unflatten(0, (-1, num_frames)), windows_NAC, weights)
