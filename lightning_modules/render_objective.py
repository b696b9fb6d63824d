"""L_render of Eq. 4 of Song et al. 2020 with its discriminators, and what may be added to it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model_zoo.functional.losses import (
    adversarial_discriminator_loss,
    adversarial_generator_loss,
    gradient_penalty,
    perceptual_loss,
    reconstruction_loss,
    region_loss,
    total_variation_loss,
)
from model_zoo.render.discriminator import PatchDiscriminator
from model_zoo.render.mouth_renderer import Rendering
from model_zoo.render.perceptual import Vgg19Features

PAST_FRAMES = 2  # t-2 and t-1, which the temporal discriminator sees before t


@dataclass
class RenderLossWeights:
    """Weights of Eq. 4, and of terms beyond the paper; 0 switches a term off. All terms are mean-reduced."""

    recon: float = 100.0  # L1 in the mouth box
    adv: float = 1.0  # LSGAN
    vgg: float = 10.0  # VGG-19 features at several scales
    tv: float = 1.0  # total variation
    gp: float = 10.0  # gradient penalty of each discriminator
    mouth: float = 0.0  # L1 once more over the mouth region; not in the paper
    match: float = 0.0  # features of the discriminator, of generated and true frames; not in the paper
    temporal: float = 0.0  # LSGAN on frames t-2..t; not in the paper


class Past(NamedTuple):
    """Frames t-2 and t-1, stacked along channels."""

    generated: Float[Tensor, "B 6 H W"]
    real: Float[Tensor, "B 6 H W"]
    heatmaps: Float[Tensor, "B 2 H W"]


@dataclass(frozen=True)
class Shown:
    """What the losses look at.

    Attributes:
        rendering: frame t with its graph.
        real: the true frame t.
        mouth: 1 in the mouth region, 0 elsewhere; needed by the term `mouth`.
        past: what came before, without a graph; needed by the term `temporal`.
    """

    rendering: Rendering
    real: Float[Tensor, "B 3 H W"]
    mouth: Float[Tensor, "B 1 H W"] | None = None
    past: Past | None = None

    def condition(self) -> Float[Tensor, "B 4 H W"]:
        """What a discriminator sees beside the frame: its heatmap, and the true frame with zeros in the box.

        Zeros, for the generator's noise would tell nothing, and zeros tell where to look.
        """
        return torch.cat([self.rendering.heatmap, self.real * (1 - self.rendering.mask)], dim=1).detach()


class RenderObjective(nn.Module):
    """L_render of Eq. 4 with its discriminators.

    Args:
        discriminator: judges a frame beside its heatmap and its masked version.
        perceptual: frozen VGG-19 features, or None where their weights can't be had.
        weights: of each term.
        penalty: `r1` (zero-centred, at true frames) or `wgan` (between true and generated frames).
        penalty_every: batches between penalties, whose weight is multiplied accordingly.
        dtype: arithmetic of the discriminators; their penalty stays in float32.
        temporal: judges frames t-2..t beside their heatmaps and the masked frame t; needed by the term `temporal`.

    Raises:
        ValueError: the term `temporal` has a weight and no discriminator.
    """

    def __init__(
        self,
        discriminator: PatchDiscriminator,
        perceptual: Vgg19Features | None,
        weights: RenderLossWeights,
        penalty: str = "r1",
        penalty_every: int = 1,
        dtype: torch.dtype = torch.float32,
        temporal: PatchDiscriminator | None = None,
    ) -> None:
        super().__init__()
        self.weights = asdict(weights)
        if perceptual is None:
            self.weights["vgg"] = 0.0
        if self.weights["adv"] == 0:
            self.weights["match"] = 0.0  # features of a network that nothing trains
        if not self.is_adversarial:
            self.weights["gp"] = 0.0
        if self.is_temporal and temporal is None:
            raise ValueError("the term `temporal` needs its discriminator")
        self.discriminator = discriminator
        self.perceptual = perceptual
        self.temporal = temporal if self.is_temporal else None
        self.penalty = penalty
        self.penalty_every = penalty_every
        self.dtype = dtype

    def active(self) -> list[str]:
        """Names of the terms with a weight."""
        return [name for name, weight in self.weights.items() if weight > 0]

    @property
    def is_adversarial(self) -> bool:
        """Whether there is a discriminator to train."""
        return self.weights["adv"] > 0 or self.is_temporal

    @property
    def is_temporal(self) -> bool:
        """Whether past frames are looked at."""
        return self.weights["temporal"] > 0

    def discriminators(self) -> list[PatchDiscriminator]:
        """Those that are trained."""
        judges = [self.discriminator] if self.weights["adv"] > 0 else []
        return judges if self.temporal is None else [*judges, self.temporal]

    def _views(self, shown: Shown) -> dict[str, tuple[PatchDiscriminator, Tensor, Tensor, Tensor]]:
        """For each adversarial term: its discriminator, generated frames, true frames, and what stands beside them."""
        views, condition = {}, shown.condition()
        if self.weights["adv"] > 0:
            views["adv"] = (self.discriminator, shown.rendering.frame, shown.real, condition)
        if self.temporal is not None:
            assert shown.past is not None
            generated, real, heatmaps = shown.past
            frames = (torch.cat([generated, shown.rendering.frame], 1), torch.cat([real, shown.real], 1))
            views["temporal"] = (self.temporal, *frames, torch.cat([heatmaps, condition], 1))
        return views

    def _features(self, discriminator: PatchDiscriminator, frames: Tensor, condition: Tensor) -> list[Tensor]:
        with torch.autocast(frames.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return discriminator.features(torch.cat([frames, condition], dim=1))

    def discriminator_terms(
        self, shown: Shown, with_penalty: bool, share: Float[Tensor, "B"] | None = None
    ) -> dict[str, Tensor]:
        """LSGAN losses of the discriminators (`adv_d`, `temporal_d`) and the sum of their gradient penalties (`gp`).

        Args:
            shown: what they look at.
            with_penalty: whether this batch is one with a penalty.
            share: where the `wgan` penalty is taken between generated and true frames.
        """
        terms: dict[str, Tensor] = {}
        for name, (judge, fake, real, condition) in self._views(shown).items():
            fake = fake.detach()
            scores = self._features(judge, torch.cat([real, fake]), torch.cat([condition, condition]))[-1].float()
            terms[f"{name}_d"] = adversarial_discriminator_loss(*scores.chunk(2))
            if with_penalty:
                penalty = gradient_penalty(judge, real, fake, condition, self.penalty, share)
                terms["gp"] = terms["gp"] + penalty if "gp" in terms else penalty
        return terms

    def discriminator_weights(self) -> dict[str, float]:
        """Weights of `discriminator_terms`."""
        return {
            "adv_d": self.weights["adv"],
            "temporal_d": self.weights["temporal"],
            "gp": self.weights["gp"] * self.penalty_every,
        }

    def generator_terms(self, shown: Shown, is_judged: bool = True) -> dict[str, Tensor]:
        """Unweighted value of every active term that trains the generator.

        Args:
            shown: what the terms look at.
            is_judged: false leaves out what the discriminators say.
        """
        terms, weights = {}, self.weights
        rendering, real = shown.rendering, shown.real
        if weights["recon"] > 0:
            # Outside the box both are the same pixels: the mean over the crop is scaled up to the mean over the box.
            terms["recon"] = reconstruction_loss(rendering.frame, real) / rendering.mask.mean().clamp_min(1e-6)
        if weights["mouth"] > 0:
            assert shown.mouth is not None
            terms["mouth"] = region_loss(rendering.frame, real, shown.mouth)
        for name, (judge, fake, true, condition) in (self._views(shown) if is_judged else {}).items():
            *features, scores = self._features(judge, fake, condition)
            terms[name] = adversarial_generator_loss(scores)
            if name == "adv" and weights["match"] > 0:
                with torch.no_grad():
                    *true_features, _ = self._features(judge, true, condition)
                terms["match"] = perceptual_loss(features, true_features)
        if weights["vgg"] > 0:
            with torch.no_grad():
                true_features = self.perceptual(real)
            terms["vgg"] = perceptual_loss(self.perceptual(rendering.frame), true_features)
        if weights["tv"] > 0:
            terms["tv"] = total_variation_loss(rendering.frame)
        return terms

    def gradient_norms(self, terms: dict[str, Tensor], parameters: list[nn.Parameter]) -> dict[str, Tensor]:
        """Norm of each weighted term's gradient with respect to the generator's parameters; the graph is kept."""
        norms = {}
        for name, value in terms.items():
            gradients = torch.autograd.grad(
                self.weights[name] * value, parameters, retain_graph=True, allow_unused=True
            )
            found = [gradient.float().norm() for gradient in gradients if gradient is not None]
            norms[name] = torch.stack(found).norm()
        return norms
