"""Training of the Neural Video Rendering Network as a GAN, §3.3 of Song et al. 2020.

Optimisation is manual: the discriminator steps on the detached rendering, then the networks that made it step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from datamodules.batch import VideoBatch
from lightning_modules.base import TalkinModule, weighted_sum
from model_zoo.functional.losses import (
    adversarial_discriminator_loss,
    adversarial_generator_loss,
    gradient_penalty,
    perceptual_loss,
    reconstruction_loss,
    total_variation_loss,
)
from model_zoo.functional.masks import box_mask, hull_mask
from model_zoo.metrics.functional import psnr, ssim_map, ssim_of_map
from model_zoo.render.discriminator import PatchDiscriminator
from model_zoo.render.mouth_renderer import MouthRenderer, Rendering
from model_zoo.render.perceptual import Vgg19Features

OURS = "ours"
COMPOSITED = "ours-composited"  # the hull of mouth and jaw blended into the true frame instead of the whole box
MEAN_FRAME = "mean-frame"  # trivial predictor: the clip's mean crop
COPY_MOUTH = "copy-mouth"  # trivial predictor: another frame of the same clip
VIDEO_COLUMNS = ["PSNR", "SSIM", "PSNR_mouth", "SSIM_mouth"]
RENDER_ROWS = {row: VIDEO_COLUMNS for row in (OURS, COMPOSITED, MEAN_FRAME, COPY_MOUTH)}


@dataclass
class RenderLossWeights:
    """Weights of Eq. 4; 0 switches a term off. All terms are mean-reduced."""

    recon: float = 100.0  # L1 in the mouth box
    adv: float = 1.0  # LSGAN
    vgg: float = 10.0  # VGG-19 features at several scales
    tv: float = 1.0  # total variation
    gp: float = 10.0  # gradient penalty of the discriminator


class RenderObjective(nn.Module):
    """L_render of Eq. 4 with its discriminator.

    Args:
        discriminator: judges a frame beside its heatmap and its masked version.
        perceptual: frozen VGG-19 features, or None where their weights can't be had.
        weights: of each term.
        penalty: `r1` (zero-centred, at true frames) or `wgan` (between true and generated frames).
        penalty_every: batches between penalties, whose weight is multiplied accordingly.
        dtype: arithmetic of the discriminator; its penalty stays in float32.
    """

    def __init__(
        self,
        discriminator: PatchDiscriminator,
        perceptual: Vgg19Features | None,
        weights: RenderLossWeights,
        penalty: str = "r1",
        penalty_every: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.weights = asdict(weights)
        if perceptual is None:
            self.weights["vgg"] = 0.0
        if self.weights["adv"] == 0:
            self.weights["gp"] = 0.0
        self.discriminator = discriminator
        self.perceptual = perceptual
        self.penalty = penalty
        self.penalty_every = penalty_every
        self.dtype = dtype

    def active(self) -> list[str]:
        """Names of the terms with a weight."""
        return [name for name, weight in self.weights.items() if weight > 0]

    @property
    def is_adversarial(self) -> bool:
        """Whether there is a discriminator to train."""
        return self.weights["adv"] > 0

    def _judge(self, frame: Tensor, condition: Tensor) -> Tensor:
        with torch.autocast(frame.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.discriminator(torch.cat([frame, condition], dim=1))

    @staticmethod
    def _condition(rendering: Rendering, real: Tensor) -> Tensor:
        # The box is zero-filled here: the generator's noise would tell nothing, and zeros tell where to look.
        return torch.cat([rendering.heatmap, real * (1 - rendering.mask)], dim=1)

    def discriminator_terms(
        self, rendering: Rendering, real: Tensor, with_penalty: bool, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """LSGAN loss of the discriminator (`adv_d`) and its gradient penalty (`gp`), whose draws `generator` makes."""
        condition, fake = self._condition(rendering, real).detach(), rendering.frame.detach()
        scores = self._judge(torch.cat([real, fake]), torch.cat([condition, condition])).float()
        terms = {"adv_d": adversarial_discriminator_loss(*scores.chunk(2))}
        if with_penalty:
            terms["gp"] = gradient_penalty(self.discriminator, real, fake, condition, self.penalty, generator)
        return terms

    def discriminator_weights(self) -> dict[str, float]:
        """Weights of `discriminator_terms`."""
        return {"adv_d": self.weights["adv"], "gp": self.weights["gp"] * self.penalty_every}

    def generator_terms(self, rendering: Rendering, real: Tensor) -> dict[str, Tensor]:
        """Unweighted value of every active term that trains the generator."""
        terms = {}
        if self.weights["recon"] > 0:
            # Outside the box both are the same pixels: the mean over the crop is scaled up to the mean over the box.
            terms["recon"] = reconstruction_loss(rendering.frame, real) / rendering.mask.mean().clamp_min(1e-6)
        if self.weights["adv"] > 0:
            terms["adv"] = adversarial_generator_loss(
                self._judge(rendering.frame, self._condition(rendering, real)).float()
            )
        if self.weights["vgg"] > 0:
            with torch.no_grad():
                true_features = self.perceptual(real)
            terms["vgg"] = perceptual_loss(self.perceptual(rendering.frame), true_features)
        if self.weights["tv"] > 0:
            terms["tv"] = total_variation_loss(rendering.frame)
        return terms


class AdversarialModule(TalkinModule):
    """One GAN step for whatever networks made the rendering; base of the renderer and of the joint module."""

    automatic_optimization = False
    render: RenderObjective

    def adversarial_step(self, rendering: Rendering, real: Tensor, extra: Tensor | None = None) -> dict[str, Tensor]:
        """Step the discriminator, then the networks behind `rendering`.

        Args:
            rendering: with its graph.
            real: the true frames.
            extra: further loss of the same networks, already weighted.

        Returns:
            Every term, detached.
        """
        optimizers = self.optimizers()
        main, *rest = optimizers if isinstance(optimizers, list) else [optimizers]
        terms = {}
        if self.render.is_adversarial:
            with_penalty = self.render.weights["gp"] > 0 and self.batches_done % self.render.penalty_every == 0
            seed = hash((self.seed, self.batches_done, self.global_rank)) % 2**63  # of integers: the same everywhere
            draws = torch.Generator(real.device).manual_seed(seed)
            judged = self.render.discriminator_terms(rendering, real, with_penalty, draws)
            self._descend(rest[0], weighted_sum(judged, self.render.discriminator_weights()))
            terms |= judged
            self.render.discriminator.requires_grad_(False)
        drawn = self.render.generator_terms(rendering, real)
        loss = weighted_sum(drawn, self.render.weights) if drawn else torch.zeros((), device=real.device)
        self._descend(main, loss if extra is None else loss + extra)
        self.render.discriminator.requires_grad_(True)
        return {name: value.detach() for name, value in (terms | drawn).items()}

    def _descend(self, optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        optimizer.step()

    def log_batch(self, terms: dict[str, Tensor], video: VideoBatch, rendering: Rendering) -> None:
        """Log the terms of one training batch, its scores, and the trivial predictors' scores on it."""
        self.log_terms("train", {f"loss_{name}": value for name, value in terms.items()}, len(video.clip))
        with torch.no_grad():
            frames = {"": rendering.frame} | {f"_{row}": frame for row, frame in trivial_frames(video).items()}
            for suffix, frame in frames.items():
                scores = video_scores(video, frame.detach())
                self.log_terms("train", {f"{name}{suffix}": value for name, value in scores.items()}, len(video.clip))


class RendererModule(AdversarialModule):
    """The renderer from true landmarks.

    Args:
        renderer: the generator with its input and output.
        render: losses and discriminator.
        num_clips: clips of the evaluation set.
        learning_rate, discriminator_learning_rate: of Adam, β = (0.5, 0.999).
    """

    def __init__(
        self,
        renderer: MouthRenderer,
        render: RenderObjective,
        num_clips: int,
        learning_rate: float = 2e-4,
        discriminator_learning_rate: float = 2e-4,
    ) -> None:
        super().__init__(RENDER_ROWS, num_clips)
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
        terms = self.adversarial_step(rendering, batch.target)
        if logs_now:
            self.log_batch(terms, batch, rendering)

    def _evaluate(self, batch: VideoBatch) -> None:
        rendering = self.draw(batch)
        update_video_scores(self, batch, OURS, rendering.frame)
        update_video_scores(self, batch, COMPOSITED, composite(batch, rendering, batch.landmarks[:, -1]))
        update_trivial_scores(self, batch)

    def validation_step(self, batch: VideoBatch, batch_index: int) -> None:
        self._evaluate(batch)

    def test_step(self, batch: VideoBatch, batch_index: int) -> None:
        self._evaluate(batch)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        optimizers = [torch.optim.Adam(self.renderer.parameters(), lr=self.learning_rate, betas=(0.5, 0.999))]
        return optimizers + discriminator_optimizers(self.render, self.discriminator_learning_rate)


def discriminator_optimizers(render: RenderObjective, learning_rate: float) -> list[torch.optim.Optimizer]:
    """The discriminator's optimiser, or nothing where there is no adversarial term."""
    if not render.is_adversarial:
        return []
    return [torch.optim.Adam(render.discriminator.parameters(), lr=learning_rate, betas=(0.5, 0.999))]


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
    return {
        "PSNR": psnr(frame, real),
        "SSIM": ssim_of_map(similarity),
        "PSNR_mouth": psnr(frame, real, region),
        "SSIM_mouth": ssim_of_map(similarity, region),
    }


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
