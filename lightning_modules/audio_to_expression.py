"""Training of the Audio ID-Removing and Audio-to-Expression networks, §3.2 of Song et al. 2020.

Shape legend: B batch, T frames of a sample, E expression, L landmarks of the mouth.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from datamodules.batch import SpeechBatch
from lightning_modules.base import TalkinModule, weighted_sum
from model_zoo.audio.speech_to_expression import SpeechOutput, SpeechToExpression
from model_zoo.audio.vggvox import VGGVox
from model_zoo.face.morphable import MorphableFace
from model_zoo.functional.heatmaps import MOUTH
from model_zoo.functional.losses import (
    expression_loss,
    identity_loss,
    norm_loss,
    shape_loss,
    silence_loss,
    velocity_loss,
)
from model_zoo.metrics.functional import expression_error, landmark_error
from model_zoo.metrics.speech_metrics import inner_lip_gap

OURS = "ours"
MEAN_EXPRESSION = "mean-expression"  # trivial predictor: the training clips' mean expression, whatever is heard
MEAN_MOUTH = "mean-mouth"  # the same, as landmarks through each frame's own shape and pose
CLIP_MEAN_MOUTH = "clip-mean-mouth"  # oracle: the mean expression of the very clip, through the same
SPEECH_ROWS = {
    OURS: ["E_exp", "E_exp_mouth", "E_ldmk"],
    MEAN_EXPRESSION: ["E_exp", "E_exp_mouth"],
    MEAN_MOUTH: ["E_ldmk"],
    CLIP_MEAN_MOUTH: ["E_ldmk"],
}
MOUTH_SHARE = 0.99  # of the expression modes' energy on landmarks 48..67 that E_exp_mouth covers


@dataclass
class SpeechLossWeights:
    """Weights of Eqs. 2 and 3; 0 switches a term off."""

    norm: float = 0.1  # speakers not told apart, Eq. 2
    expression: float = 1.0  # Eq. 3, first norm
    shape: float = 0.1  # Eq. 3, second norm, px at 256
    velocity: float = 0.0  # change of expression from frame to frame; needs audio.frames > 1 or a joint experiment
    silence: float = 0.0  # lips apart where nobody speaks, px at 256; not in the paper
    identity: float = 0.0  # how far x' depends on the speaker; not in the paper
    norm_warmup: float = 0.0  # share of the run over which the weight of `norm` rises from 0


class SpeechObjective(nn.Module):
    """L_norm + L_trans of Eqs. 2 and 3 with their weights, and E_exp / E_ldmk of Eq. 5.

    Args:
        face: projects expressions to landmarks.
        speaker_network: frozen judge of Eq. 2, or None where it has nothing to judge.
        weights: of each term.

    Attributes:
        weights: of each term, once `norm` has its full weight.
        norm_warmup: share of the run over which it rises, linearly.
    """

    def __init__(self, face: MorphableFace, speaker_network: VGGVox | None, weights: SpeechLossWeights) -> None:
        super().__init__()
        self.face = face.requires_grad_(False)
        self.speaker_network = speaker_network.requires_grad_(False).eval() if speaker_network is not None else None
        self.weights = asdict(weights)
        self.norm_warmup = self.weights.pop("norm_warmup")
        if self.speaker_network is None:
            self.weights["norm"] = 0.0
        energy = face.mouth_expression_energy()
        order = energy.argsort(descending=True)
        covered = energy[order].cumsum(0) / energy.sum().clamp_min(1e-12)
        moves_mouth = torch.zeros(len(energy), dtype=torch.bool)
        moves_mouth[order[: int((covered < MOUTH_SHARE).sum()) + 1]] = True
        self.register_buffer("moves_mouth", moves_mouth, persistent=False)

    def train(self, mode: bool = True) -> SpeechObjective:
        super().train(mode)
        if self.speaker_network is not None:
            self.speaker_network.eval()
        return self

    def active(self) -> list[str]:
        """Names of the terms with a weight."""
        return [name for name, weight in self.weights.items() if weight > 0]

    def landmarks(self, batch: SpeechBatch, expression_BTE: Tensor) -> Float[Tensor, "B T 68 2"]:
        """Landmarks of an expression on each frame's own shape and pose, px at 256."""
        return self.face.project_landmarks(batch.shape[:, None], expression_BTE, batch.pose)

    def terms(self, batch: SpeechBatch, output: SpeechOutput, landmarks: Tensor) -> dict[str, Tensor]:
        """Unweighted value of every active term."""
        mouth, true_mouth = landmarks[:, :, MOUTH], batch.landmarks[:, :, MOUTH]
        terms = {}
        if self.weights["norm"] > 0:
            terms["norm"] = norm_loss(self.speaker_network(output.features))
        if self.weights["identity"] > 0:
            last = output.features.unflatten(0, (-1, batch.expression.shape[1]))[:, -1]  # the others overlap with it
            terms["identity"] = identity_loss(last, batch.speaker)
        if self.weights["expression"] > 0:
            terms["expression"] = expression_loss(output.expression.flatten(0, 1), batch.expression.flatten(0, 1))
        if self.weights["shape"] > 0:
            terms["shape"] = shape_loss(mouth.flatten(0, 1), true_mouth.flatten(0, 1))
        if self.weights["velocity"] > 0 and mouth.shape[1] > 1:
            terms["velocity"] = velocity_loss(output.expression, batch.expression)
        if self.weights["silence"] > 0:
            closed = batch.closed_gap[:, None].expand_as(batch.silent)
            gap = inner_lip_gap(landmarks.flatten(0, 1))
            terms["silence"] = silence_loss(gap, closed.flatten(), batch.silent.flatten())
        return terms

    def total(self, terms: dict[str, Tensor], progress: float) -> Tensor:
        """Weighted sum of the terms.

        Args:
            terms: unweighted, one at least.
            progress: share of the run that is done; at first ID removal learns what helps expressions alone.
        """
        risen = min(1.0, progress / self.norm_warmup) if self.norm_warmup > 0 else 1.0
        return weighted_sum(terms, self.weights | {"norm": risen * self.weights["norm"]})

    def scores(self, batch: SpeechBatch, expression_BTE: Tensor) -> dict[str, Tensor]:
        """Eq. 5 of the last frame of each sample: raw E_exp, over the modes that move the mouth, and E_ldmk."""
        expression, truth = expression_BTE[:, -1], batch.expression[:, -1]
        landmarks = self.face.project_landmarks(batch.shape, expression, batch.pose[:, -1])
        active = slice(0, self.face.num_active_expression)
        return {
            "E_exp": expression_error(expression[:, active], truth[:, active]),
            "E_exp_mouth": expression_error(expression[:, self.moves_mouth], truth[:, self.moves_mouth]),
            "E_ldmk": landmark_error(landmarks[:, MOUTH], batch.landmarks[:, -1, MOUTH]),
        }


class AudioToExpressionModule(TalkinModule):
    """ID removal (switchable) and translation, trained together on L_norm + L_trans.

    Args:
        speech: the networks from MFCC to expression.
        objective: losses and scores.
        num_clips: clips of the evaluation set.
        learning_rate: of Adam.
    """

    def __init__(
        self, speech: SpeechToExpression, objective: SpeechObjective, num_clips: int, learning_rate: float = 1e-3
    ) -> None:
        super().__init__(SPEECH_ROWS, num_clips)
        self.speech = speech
        self.objective = objective
        self.learning_rate = learning_rate

    def active_losses(self) -> list[str]:
        return self.objective.active()

    def training_step(self, batch: SpeechBatch, batch_index: int) -> Tensor:
        output = self.speech(batch.mfcc, batch.expression.shape[1], batch.utterance)
        terms = self.objective.terms(batch, output, self.objective.landmarks(batch, output.expression))
        if self.logs_now:
            self.log_terms("train", {f"loss_{name}": value for name, value in terms.items()}, len(batch.clip))
            log_speech_scores(self, "train", batch, output.expression.detach())
        return self.objective.total(terms, self.progress)

    def _evaluate(self, batch: SpeechBatch) -> None:
        output = self.speech(batch.mfcc, batch.expression.shape[1], batch.utterance)
        self.scores.update(OURS, self.objective.scores(batch, output.expression), batch.clip)
        update_trivial_speech_scores(self, batch)

    def validation_step(self, batch: SpeechBatch, batch_index: int) -> None:
        self._evaluate(batch)

    def test_step(self, batch: SpeechBatch, batch_index: int) -> None:
        self._evaluate(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.speech.parameters(), lr=self.learning_rate)


def mean_expression(module: AudioToExpressionModule, batch: SpeechBatch) -> Tensor:
    """The training clips' mean expression for every frame of the batch, (B, T, E)."""
    return module.speech.translation.expression_mean.expand_as(batch.expression)


def log_speech_scores(module, prefix: str, batch: SpeechBatch, expression_BTE: Tensor) -> None:
    """Log a training batch's E_exp and E_ldmk, and the mean predictor's on the same windows."""
    ours = module.objective.scores(batch, expression_BTE)
    trivial = module.objective.scores(batch, mean_expression(module, batch))
    beside = {
        f"{column}_{MEAN_MOUTH if column == 'E_ldmk' else MEAN_EXPRESSION}": trivial[column] for column in trivial
    }
    module.log_terms(prefix, ours | beside, len(batch.clip))


def update_trivial_speech_scores(module, batch: SpeechBatch) -> None:
    """Add an evaluation batch to the rows of the trivial predictors."""
    trivial = module.objective.scores(batch, mean_expression(module, batch))
    module.scores.update(MEAN_EXPRESSION, trivial, batch.clip)
    module.scores.update(MEAN_MOUTH, trivial, batch.clip)
    oracle = module.objective.scores(batch, batch.clip_mean[:, None].expand_as(batch.expression))
    module.scores.update(CLIP_MEAN_MOUTH, oracle, batch.clip)
