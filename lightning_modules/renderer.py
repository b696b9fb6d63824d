"""Training of the Neural Video Rendering Network as a GAN, §3.3 of Song et al. 2020.

Optimisation is manual: the discriminator steps on the detached rendering, then the networks that made it step.
"""

from __future__ import annotations

import math
import random
from typing import ClassVar

import torch
from torch import Tensor, nn

from datamodules.batch import VideoBatch
from lightning_modules.base import Column, Row, TalkinModule, weighted_sum
from lightning_modules.render_objective import PAST_FRAMES, Past, RenderLossWeights, RenderObjective, Shown
from model_zoo.functional.masks import box_mask, hull_mask
from model_zoo.metrics.functional import psnr, ssim_map, ssim_of_map
from model_zoo.render.frame_windows import shifted
from model_zoo.render.mouth_renderer import MouthRenderer, Rendering

__all__ = ["RenderLossWeights", "RenderObjective", "RendererModule"]

OURS = "ours"
COMPOSITED = "ours-composited"  # the hull of mouth and jaw blended into the true frame instead of the whole box
MEAN_FRAME = "mean-frame"  # trivial predictor: the clip's mean crop
COPY_MOUTH = "copy-mouth"  # trivial predictor: another frame of the same clip
VIDEO_COLUMNS = ["PSNR", "SSIM", "PSNR_mouth", "SSIM_mouth"]
RENDER_ROWS = {row: VIDEO_COLUMNS for row in (OURS, COMPOSITED, MEAN_FRAME, COPY_MOUTH)}


class AdversarialModule(TalkinModule):
    """One GAN step for whatever networks made the rendering; base of the renderer and of the joint module."""

    automatic_optimization = False
    renderer: MouthRenderer
    render: RenderObjective
    critic_steps = 1  # of the discriminators, on each batch
    adversary_from = 0.0  # share of the run after which the discriminators are there
    clip = 0.0  # most norm of the gradient of each optimiser's networks; 0: any
    gradients_every = 0  # batches between two looks at the gradient of each term; 0: never
    _largest_norm: Tensor | float = 0.0  # before clipping, of the networks behind the rendering, since last logged

    def shown(self, rendering: Rendering, video: VideoBatch, landmarks: Tensor | None = None) -> Shown:
        """What the losses look at.

        Args:
            rendering: with its graph.
            video: the batch that was rendered.
            landmarks: that drove it; None: the frames' own.
        """
        real = video.target
        mouth = box_mask(video.mouth_region, real.shape[-1]).to(real) if self.render.weights["mouth"] > 0 else None
        needs_past = self.render.is_temporal and self.judged_batches >= 0
        return Shown(rendering, real, mouth, self._past(video, landmarks) if needs_past else None)

    @property
    def judged_batches(self) -> int:
        """Batches since the discriminators came; negative before."""
        if self._trainer is None:
            return 0
        first = math.ceil(self.adversary_from * max(0, self.trainer.max_steps) / self.optimizers_per_batch)
        return self.batches_done - first

    @torch.no_grad()
    def _past(self, video: VideoBatch, landmarks: Tensor | None) -> Past:
        """Frames before t as they are rendered now. Each has its own turn at t, when gradients flow into it."""
        drawn, real = [], []
        for frames in range(PAST_FRAMES, 0, -1):
            windows = video.windows.earlier(frames)
            driven = None if landmarks is None else shifted(landmarks, frames)
            drawn.append(self.renderer(windows, video.mouth_box, video.noise_number, driven))
            real.append(windows.last)
        generated, heatmaps = ([getattr(each, name) for each in drawn] for name in ("frame", "heatmap"))
        return Past(torch.cat(generated, 1), torch.cat(real, 1), torch.cat(heatmaps, 1))

    def sample_draws(self, video: VideoBatch, what: str) -> Tensor:
        """One number in [0, 1) a sample, from (seed, batch number, sample): the same however samples are spread."""
        names = zip(video.clip.tolist(), video.frame.tolist(), strict=True)
        draws = [random.Random(f"{self.seed} {self.batches_done} {what} {clip} {frame}") for clip, frame in names]
        return torch.tensor([draw.random() for draw in draws], device=video.clip.device)

    def adversarial_step(self, shown: Shown, video: VideoBatch, extra: Tensor | None = None) -> dict[str, Tensor]:
        """Step the discriminators, then the networks behind the rendering.

        Args:
            shown: the rendering with its graph, and the truth.
            video: the batch that was rendered.
            extra: further loss of the same networks, already weighted.

        Returns:
            Every term, detached.
        """
        optimizers = self.optimizers()
        main, *rest = optimizers if isinstance(optimizers, list) else [optimizers]
        terms: dict[str, Tensor] = {}
        is_judged = self.render.is_adversarial and self.judged_batches >= 0
        if rest and not is_judged:
            rest[0].zero_grad(set_to_none=True)
            rest[0].step()  # moves nothing without gradients, but is counted: two steps a batch from first to last
        if is_judged:
            with_penalty = self.render.weights["gp"] > 0 and self.judged_batches % self.render.penalty_every == 0
            for step in range(self.critic_steps, 0, -1):
                share = self.sample_draws(video, f"penalty {step}") if with_penalty else None
                judged = self.render.discriminator_terms(shown, with_penalty, share)
                # Only the last is counted: Lightning's `global_step` stays at one step an optimiser and batch.
                self._descend(rest[0], weighted_sum(judged, self.render.discriminator_weights()), counts=step == 1)
            terms |= judged
            self._freeze_discriminators(True)
        drawn = self.render.generator_terms(shown, is_judged)
        if self.gradients_every > 0 and self.logs_every(self.gradients_every):
            norms = self.render.gradient_norms(drawn, list(self.renderer.parameters()))
            self.log_terms("train", {f"grad_{name}": norm for name, norm in norms.items()}, len(video.clip))
        loss = weighted_sum(drawn, self.render.weights) if drawn else torch.zeros((), device=shown.real.device)
        norm = self._descend(main, loss if extra is None else loss + extra)
        if self.clip > 0:
            self._largest_norm = torch.maximum(torch.as_tensor(self._largest_norm, device=norm.device), norm.detach())
            if self.logs_now:
                self.log_terms("train", {"grad_norm": self._largest_norm}, len(video.clip))
                self._largest_norm = 0.0
        self._freeze_discriminators(False)
        return {name: value.detach() for name, value in (terms | drawn).items()}

    def _freeze_discriminators(self, frozen: bool) -> None:
        for discriminator in self.render.discriminators():
            discriminator.requires_grad_(not frozen)

    def _descend(self, optimizer, loss: Tensor, counts: bool = True) -> Tensor:
        """One step; the norm of the gradient before it was clipped, 0 where it isn't."""
        norm = torch.zeros(())
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        if self.clip > 0:  # by Trainer flags it would raise in manual optimisation
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, self.clip)
        (optimizer if counts else optimizer.optimizer).step()
        return norm

    def trivial(self, batch: VideoBatch) -> dict[Row, Tensor]:
        """Frame t of each trivial predictor."""
        return trivial_frames(batch)

    def log_batch(self, terms: dict[str, Tensor], video: VideoBatch, rendering: Rendering) -> None:
        """Log the terms of one training batch, its scores, and the trivial predictors' PSNR (SSIM takes long) on it."""
        self.log_terms("train", {f"loss_{name}": value for name, value in terms.items()}, len(video.clip))
        with torch.no_grad():
            scores = video_scores(video, rendering.frame.detach())
            for row, frame in self.trivial(video).items():
                scores |= {f"{name}_{row}": value for name, value in signal_to_noise(video, frame).items()}
            self.log_terms("train", scores, len(video.clip))


class RendererModule(AdversarialModule):
    """The renderer from true landmarks.

    Args:
        renderer: the generator with its input and output.
        render: losses and discriminator.
        num_clips: clips of the evaluation set.
        learning_rate, discriminator_learning_rate: of Adam, β = (0.5, 0.999); fused, in one pass over the weights.
    """

    rows: ClassVar[dict[Row, list[Column]]] = RENDER_ROWS

    def __init__(
        self,
        renderer: MouthRenderer,
        render: RenderObjective,
        num_clips: int,
        learning_rate: float = 2e-4,
        discriminator_learning_rate: float = 2e-4,
    ) -> None:
        super().__init__(self.rows, num_clips)
        self.renderer = renderer
        self.render = render
        self.learning_rate = learning_rate
        self.discriminator_learning_rate = discriminator_learning_rate

    def active_losses(self) -> list[str]:
        return self.render.active()

    def draw(self, batch: VideoBatch) -> Rendering:
        """Render frame t of every sample from its true landmarks."""
        return self.renderer(batch.windows, batch.mouth_box, batch.noise_number)

    def show(self, batch: VideoBatch) -> tuple[VideoBatch, Rendering]:
        """For previews: the batch and its rendering."""
        return batch, self.draw(batch)

    def training_step(self, batch: VideoBatch, batch_index: int) -> None:
        rendering = self.draw(batch)
        logs_now = self.logs_now
        terms = self.adversarial_step(self.shown(rendering, batch), batch)
        if logs_now:
            self.log_batch(terms, batch, rendering)

    def score(self, batch: VideoBatch) -> None:
        """Add an evaluation batch to every row."""
        rendering = self.draw(batch)
        update_video_scores(self, batch, OURS, rendering.frame)
        update_video_scores(self, batch, COMPOSITED, composite(batch, rendering, batch.landmarks[:, -1]))
        update_trivial_scores(self, batch)

    def validation_step(self, batch: VideoBatch, batch_index: int) -> None:
        self.score(batch)

    def test_step(self, batch: VideoBatch, batch_index: int) -> None:
        self.score(batch)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        parameters = self.renderer.parameters()
        optimizers = [torch.optim.Adam(parameters, lr=self.learning_rate, betas=(0.5, 0.999), fused=True)]
        return optimizers + discriminator_optimizers(self.render, self.discriminator_learning_rate)


def discriminator_optimizers(render: RenderObjective, learning_rate: float) -> list[torch.optim.Optimizer]:
    """The discriminators' optimiser, or nothing where there is no adversarial term."""
    if not render.is_adversarial:
        return []
    parameters = [parameter for judge in render.discriminators() for parameter in judge.parameters()]
    return [torch.optim.Adam(parameters, lr=learning_rate, betas=(0.5, 0.999), fused=True)]


def composite(batch: VideoBatch, rendering: Rendering, driven: Tensor) -> Tensor:
    """Frame t with the rendering blended in under the soft hull of the driven and the original landmarks."""
    real = batch.target
    mask = hull_mask(driven, batch.landmarks[:, -1], batch.mouth_box, real.shape[-1]).to(real)
    return torch.lerp(real, rendering.frame, mask)


def video_scores(batch: VideoBatch, frame: Tensor) -> dict[str, Tensor]:
    """PSNR and SSIM of frame t over the whole crop and over the mouth region, one value a sample."""
    real = batch.target
    region = box_mask(batch.mouth_region, real.shape[-1])
    similarity = ssim_map(frame, real)
    return signal_to_noise(batch, frame) | {
        "SSIM": ssim_of_map(similarity),
        "SSIM_mouth": ssim_of_map(similarity, region),
    }


def signal_to_noise(batch: VideoBatch, frame: Tensor) -> dict[str, Tensor]:
    """PSNR of frame t over the whole crop and over the mouth region, one value a sample."""
    real = batch.target
    region = box_mask(batch.mouth_region, real.shape[-1])
    return {"PSNR": psnr(frame, real), "PSNR_mouth": psnr(frame, real, region)}


def update_video_scores(module: TalkinModule, batch: VideoBatch, row: str, frame: Tensor) -> None:
    """Add an evaluation batch to one row."""
    module.scores.update(row, video_scores(batch, frame), batch.clip)


def trivial_frames(batch: VideoBatch) -> dict[str, Tensor]:
    """The trivial predictors' frame t. They fill the same box as the generator: all else is given to every row."""
    real = batch.target
    mask = box_mask(batch.mouth_box, real.shape[-1]).to(real)
    return {MEAN_FRAME: real.lerp(batch.mean_frame, mask), COPY_MOUTH: real.lerp(batch.other_frame, mask)}


def update_trivial_scores(module: TalkinModule, batch: VideoBatch) -> None:
    """Add an evaluation batch to the rows of the trivial predictors."""
    for row, frame in trivial_frames(batch).items():
        update_video_scores(module, batch, row, frame)
