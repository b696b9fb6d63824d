"""Training of the speaker network of Eq. 2: VGGVox on MFCC, frozen wherever it judges the ID-removing network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.batch import SpeechBatch
from lightning_modules.base import TalkinModule
from model_zoo.audio.standardise import MfccStandardise
from model_zoo.audio.vggvox import VGGVox

OURS = "vggvox"


class SpeakerIdModule(TalkinModule):
    """Cross-entropy over the training speakers.

    Args:
        standardise: corpus statistics of the MFCC.
        network: the speaker network.
        shares: share of the training windows that each speaker has; rare ones count for more, as if drawn evenly.
        num_clips: clips of the evaluation set.
        learning_rate: of Adam.
    """

    def __init__(
        self,
        standardise: MfccStandardise,
        network: VGGVox,
        shares: list[float],
        num_clips: int,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__({OURS: ["accuracy"], "chance": ["accuracy"]}, num_clips)
        self.standardise = standardise
        self.network = network
        self.num_speakers = network.num_speakers
        self.register_buffer("class_weight", 1 / (len(shares) * torch.tensor(shares)), persistent=False)
        self.learning_rate = learning_rate

    def active_losses(self) -> list[str]:
        return ["cross_entropy"]

    def training_step(self, batch: SpeechBatch, batch_index: int) -> Tensor:
        logits = self.network(self.standardise(batch.mfcc))
        loss = F.cross_entropy(logits, batch.speaker, weight=self.class_weight)
        if self.logs_now:
            accuracy = (logits.argmax(-1) == batch.speaker).float()
            scores = {"loss_cross_entropy": loss, "accuracy": accuracy, "accuracy_chance": 1 / self.num_speakers}
            self.log_terms("train", scores, len(batch.speaker))
        return loss

    def _evaluate(self, batch: SpeechBatch) -> None:
        known = batch.speaker >= 0  # clips of speakers that no clip trains on have no right answer
        correct = (self.network(self.standardise(batch.mfcc[known])).argmax(-1) == batch.speaker[known]).float()
        self.scores.update(OURS, {"accuracy": correct}, batch.clip[known])
        chance = torch.full_like(correct, 1 / self.num_speakers)
        self.scores.update("chance", {"accuracy": chance}, batch.clip[known])

    def validation_step(self, batch: SpeechBatch, batch_index: int) -> None:
        self._evaluate(batch)

    def test_step(self, batch: SpeechBatch, batch_index: int) -> None:
        self._evaluate(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), lr=self.learning_rate)
