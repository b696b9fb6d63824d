"""The 2D rivals of Table 1 of Song et al. 2020: mouth landmarks straight from speech, without a 3D face.

`frame` is the paper's: coordinates in the crop, so that speech has to tell where the head looks. `face` is the fair
one: speech says how far each landmark moves within the face's own plane, and shape and pose of the frame, which every
row of the table is given, put it back: what is missing is the third dimension and the modes of the expression.

Shape legend: B batch, T frames of a sample, L = 20 landmarks of the mouth.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from datamodules.batch import SpeechBatch
from lightning_modules.audio_to_expression import CLIP_MEAN_MOUTH, MEAN_MOUTH, OURS, SpeechObjective
from lightning_modules.base import TalkinModule
from model_zoo.audio.speech_to_expression import SpeechToExpression
from model_zoo.face.morphable import MorphableFace
from model_zoo.functional.camera import project
from model_zoo.functional.heatmaps import MOUTH
from model_zoo.functional.losses import norm_loss, shape_loss
from model_zoo.metrics.functional import landmark_error

Space = Literal["frame", "face"]
ROWS = {OURS: ["E_ldmk"], MEAN_MOUTH: ["E_ldmk"], CLIP_MEAN_MOUTH: ["E_ldmk"]}


class AudioToLandmarkModule(TalkinModule):
    """ID removal (switchable) and the Audio-to-Landmark network, trained on L_norm and the second norm of Eq. 3.

    Args:
        speech: the networks; the translation is an `AudioToLandmark`.
        objective: losses, weights, and the face that re-poses.
        expression_mean: of the training clips, for the row `mean-mouth`.
        num_clips: clips of the evaluation set.
        space: what the network predicts, `frame` or `face`.
        learning_rate: of Adam.
    """

    expression_mean: Tensor

    def __init__(
        self,
        speech: SpeechToExpression,
        objective: SpeechObjective,
        expression_mean: Float[Tensor, "E"],
        num_clips: int,
        space: Space = "frame",
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(ROWS, num_clips)
        self.speech, self.objective = speech, objective
        self.space, self.learning_rate = space, learning_rate
        self.register_buffer("expression_mean", expression_mean, persistent=False)

    def active_losses(self) -> list[str]:
        return [name for name in self.objective.active() if name in ("norm", "shape")]

    def mouth(self, batch: SpeechBatch, predicted: Float[Tensor, "B T L 2"]) -> Float[Tensor, "B T L 2"]:
        """Landmarks 48..67 of each frame, px at 256."""
        if self.space == "frame":
            return predicted
        return reposed(self.objective.face, predicted, batch.shape[:, None], batch.pose)

    def training_step(self, batch: SpeechBatch, batch_index: int) -> Tensor:
        output = self.speech(batch.mfcc, batch.expression.shape[1], batch.utterance)
        mouth = self.mouth(batch, output.expression)
        terms = {"shape": shape_loss(mouth.flatten(0, 1), batch.landmarks[:, :, MOUTH].flatten(0, 1))}
        if self.objective.speaker_network is not None and self.objective.weights["norm"] > 0:
            terms["norm"] = norm_loss(self.objective.speaker_network(output.features))
        if self.logs_now:
            logged: dict[str, Tensor | float] = {f"loss_{name}": value for name, value in terms.items()}
            logged["E_ldmk"] = landmark_error(mouth[:, -1].detach(), batch.landmarks[:, -1, MOUTH])
            self.log_terms("train", logged, len(batch.clip))
        return self.objective.total(terms, self.progress)

    def _evaluate(self, batch: SpeechBatch) -> None:
        output = self.speech(batch.mfcc, batch.expression.shape[1], batch.utterance)
        mouth, true = self.mouth(batch, output.expression)[:, -1], batch.landmarks[:, -1, MOUTH]
        self.scores.update(OURS, {"E_ldmk": landmark_error(mouth, true)}, batch.clip)
        for row, expression in (
            (MEAN_MOUTH, self.expression_mean.expand_as(batch.clip_mean)),
            (CLIP_MEAN_MOUTH, batch.clip_mean),
        ):
            trivial = self.objective.face.project_landmarks(batch.shape, expression, batch.pose[:, -1])[:, MOUTH]
            self.scores.update(row, {"E_ldmk": landmark_error(trivial, true)}, batch.clip)

    def validation_step(self, batch: SpeechBatch, batch_index: int) -> None:
        self._evaluate(batch)

    def test_step(self, batch: SpeechBatch, batch_index: int) -> None:
        self._evaluate(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.speech.parameters(), lr=self.learning_rate)


def mouth_movement(
    face: MorphableFace, shape: Float[Tensor, "*B S"], expression: Float[Tensor, "*B E"]
) -> Float[Tensor, "*B L 2"]:
    """How far an expression moves landmarks 48..67 within the plane of the face, outer-eye distances."""
    moved = face.landmarks(shape, expression) - face.landmarks(shape, torch.zeros_like(expression))
    return moved[..., MOUTH.start : MOUTH.stop, :2]


def reposed(
    face: MorphableFace, movement: Float[Tensor, "*B L 2"], shape: Float[Tensor, "*B S"], pose: Float[Tensor, "*B 6"]
) -> Float[Tensor, "*B L 2"]:
    """Landmarks 48..67 of the neutral mouth that has moved within the plane of the face, seen at a pose, px at 256."""
    neutral = face.landmarks(shape, shape.new_zeros(*shape.shape[:-1], face.expression_std.shape[-1]))[
        ..., MOUTH.start : MOUTH.stop, :
    ]
    return project(neutral + F.pad(movement, (0, 1)), pose)
