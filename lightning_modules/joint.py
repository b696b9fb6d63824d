"""The whole chain trained end to end, L_total = L_norm + L_trans + L_render (§3.3.2 of Song et al. 2020).

All seven heatmaps of a sample are drawn from predicted expressions, so the pixel losses reach the audio networks
through the projection and the heatmaps. Training passes from true to predicted landmarks over the first part of the
run (scheduled sampling, a sample at a time): before the audio networks say anything, predicted heatmaps would only
teach the generator to ignore them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.batch import JointBatch, VideoBatch
from lightning_modules.audio_to_expression import (
    SPEECH_ROWS,
    SpeechObjective,
    log_speech_scores,
    update_trivial_speech_scores,
)
from lightning_modules.render_objective import RenderObjective
from lightning_modules.renderer import (
    COMPOSITED,
    OURS,
    RENDER_ROWS,
    VIDEO_COLUMNS,
    AdversarialModule,
    composite,
    discriminator_optimizers,
    update_trivial_scores,
    update_video_scores,
    video_scores,
)
from model_zoo.audio.speech_to_expression import SpeechOutput, SpeechToExpression
from model_zoo.render.mouth_renderer import MouthRenderer, Rendering

TRUE_LANDMARKS = "ours-true-landmarks"  # the same generator driven by the landmarks of the fit
JOINT_ROWS = {
    OURS: SPEECH_ROWS[OURS] + VIDEO_COLUMNS,
    TRUE_LANDMARKS: VIDEO_COLUMNS,
    COMPOSITED: VIDEO_COLUMNS,
} | {row: columns for row, columns in (RENDER_ROWS | SPEECH_ROWS).items() if row not in (OURS, COMPOSITED)}


class JointModule(AdversarialModule):
    """Speech in, frames out, one optimiser for the audio networks and the generator, one for the discriminator.

    Args:
        speech: the networks from MFCC to expression.
        objective: L_norm + L_trans and the face that projects expressions.
        renderer: the generator with its input and output.
        render: L_render and the discriminator.
        num_clips: clips of the evaluation set.
        speech_learning_rate, learning_rate, discriminator_learning_rate: of Adam.
        teacher_forcing: share of the run over which true landmarks give way to predicted ones; 0: predicted throughout.
    """

    def __init__(
        self,
        speech: SpeechToExpression,
        objective: SpeechObjective,
        renderer: MouthRenderer,
        render: RenderObjective,
        num_clips: int,
        speech_learning_rate: float = 1e-3,
        learning_rate: float = 2e-4,
        discriminator_learning_rate: float = 2e-4,
        teacher_forcing: float = 0.0,
    ) -> None:
        super().__init__(JOINT_ROWS, num_clips)
        self.speech = speech
        self.objective = objective
        self.renderer = renderer
        self.render = render
        self.speech_learning_rate = speech_learning_rate
        self.learning_rate = learning_rate
        self.discriminator_learning_rate = discriminator_learning_rate
        self.teacher_forcing = teacher_forcing

    def active_losses(self) -> list[str]:
        return self.objective.active() + self.render.active()

    def hear(self, batch: JointBatch) -> tuple[SpeechOutput, Tensor]:
        """Expressions heard in each of the seven windows, and the landmarks (B, 7, 68, 2) they project to."""
        output = self.speech(batch.speech.mfcc, batch.speech.expression.shape[1], batch.speech.utterance)
        return output, self.objective.landmarks(batch.speech, output.expression)

    def draw(self, batch: JointBatch, landmarks: Tensor) -> Rendering:
        """Render frame t of every sample from the given landmarks."""
        video = batch.video
        return self.renderer(video.windows, video.mouth_box, video.noise_number, landmarks)

    def show(self, batch: JointBatch) -> tuple[VideoBatch, Rendering]:
        """For previews: the video part and its rendering from what was heard."""
        return batch.video, self.draw(batch, self.hear(batch)[1])

    def forced(self, batch: VideoBatch) -> Tensor:
        """Which samples are still driven by true landmarks, (B,) bool; drawn from (seed, batch number, sample)."""
        share = 1 - self.progress / self.teacher_forcing if self.teacher_forcing > 0 else 0.0
        return self.sample_draws(batch, "forced") < share

    def training_step(self, batch: JointBatch, batch_index: int) -> None:
        logs_now = self.logs_now
        output, predicted = self.hear(batch)
        forced = self.forced(batch.video)
        driven = torch.where(forced[:, None, None, None], batch.video.landmarks, predicted)
        rendering = self.draw(batch, driven)
        heard = self.objective.terms(batch.speech, output, predicted)
        extra = self.objective.total(heard, self.progress) if heard else None
        terms = self.adversarial_step(self.shown(rendering, batch.video, driven), batch.video, extra)
        if logs_now:
            self.log_batch(terms | heard, batch.video, rendering)
            log_speech_scores(self, "train", batch.speech, output.expression.detach())

    def _evaluate(self, batch: JointBatch) -> None:
        output, predicted = self.hear(batch)
        rendering = self.draw(batch, predicted)
        ours = self.objective.scores(batch.speech, output.expression) | video_scores(batch.video, rendering.frame)
        self.scores.update(OURS, ours, batch.speech.clip)
        update_video_scores(self, batch.video, COMPOSITED, composite(batch.video, rendering, predicted[:, -1]))
        update_video_scores(self, batch.video, TRUE_LANDMARKS, self.draw(batch, batch.video.landmarks).frame)
        update_trivial_speech_scores(self, batch.speech)
        update_trivial_scores(self, batch.video)

    def validation_step(self, batch: JointBatch, batch_index: int) -> None:
        self._evaluate(batch)

    def test_step(self, batch: JointBatch, batch_index: int) -> None:
        self._evaluate(batch)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        main = torch.optim.Adam(
            [
                {"params": list(self.speech.parameters()), "lr": self.speech_learning_rate},
                {"params": list(self.renderer.parameters()), "lr": self.learning_rate},
            ],
            betas=(0.5, 0.999),
            fused=True,  # one pass over the weights
        )
        return [main, *discriminator_optimizers(self.render, self.discriminator_learning_rate)]
