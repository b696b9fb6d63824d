"""The part of `experiments.build` that turns a configuration into the renderer: generator, losses, what is seen."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn

from datamodules.batch import NUM_FRAMES
from datamodules.picture_augmentation import PictureAugmentation
from datamodules.seeing import LandmarkErrors, Seeing
from experiments.checkpoints import start_from
from experiments.command_line import UserError
from experiments.schema import Config, Convolution, Output, Precision, Task, Upsampling
from lightning_modules.render_objective import RenderObjective
from lightning_modules.renderer import AdversarialModule
from model_zoo.render.discriminator import PatchDiscriminator
from model_zoo.render.full_face_renderer import FullFaceRenderer
from model_zoo.render.generator import UNetGenerator
from model_zoo.render.layers import (
    BlendOutput,
    GatedConv2d,
    ReferenceOutput,
    SelfAttention,
    TanhOutput,
    UpsampleConvolution,
    transposed_convolution,
)
from model_zoo.render.mouth_renderer import MouthRenderer
from model_zoo.render.perceptual import Vgg19Features
from model_zoo.weights import WeightsUnavailable, vgg19

log = logging.getLogger(__name__)

PAPER_WIDTH = 64  # channels of the first convolution of the 75 M generator
CHANNELS = 4  # RGB and heatmap of each frame
FRAME_CHANNELS = 7  # of the discriminator's input: frame, heatmap, masked frame
MOST_WARPED = 8  # frames; more only cost
TEMPORAL_CHANNELS = 15  # of the temporal discriminator's: three frames, their heatmaps, masked frame
DTYPE = {Precision.float32: torch.float32, Precision.bfloat16: torch.bfloat16}
UPSAMPLING = {Upsampling.transposed: transposed_convolution, Upsampling.resize: UpsampleConvolution}
CONVOLUTION = {Convolution.plain: nn.Conv2d, Convolution.gated: GatedConv2d}


def build_seeing(config: Config) -> Seeing:
    """What samples see beside their window, and how they are changed in training."""
    augment = config.augment
    errors = LandmarkErrors(augment.landmark_heard, augment.landmark_bias)
    picture = PictureAugmentation(augment.flip, augment.colour, augment.rotate, augment.zoom, augment.shift)
    return Seeing(
        references=config.renderer.references if config.renderer.output is Output.residual else 0,
        gallery=config.renderer.gallery if config.renderer.output is Output.warped else 0,
        errors=errors if errors != LandmarkErrors() else None,
        picture=picture if picture != PictureAugmentation() else None,
        seed=config.seed,
    )


def num_references(config: Config) -> int:
    """Reference frames that the generator is shown; warped ones with their mean before them."""
    renderer = config.renderer
    return 0 if renderer.output is Output.image else renderer.references + (renderer.output is Output.warped)


def build_renderer(config: Config) -> MouthRenderer:
    """The generator with its input and output."""
    renderer = config.renderer
    own_channels = CHANNELS * (NUM_FRAMES - renderer.full_face)
    generator = UNetGenerator(
        in_channels=own_channels + 3 * num_references(config),
        size=config.scale.crop,
        width=renderer.width,
        norm=renderer.norm.value,
        convolution=CONVOLUTION[renderer.convolution],
        up_convolution=UPSAMPLING[renderer.upsampling],
        attention=SelfAttention if renderer.attention else None,
        output=build_output(config, own_channels),
    )
    if renderer.full_face:
        return FullFaceRenderer(generator, DTYPE[config.trainer.precision])
    warped = renderer.references if renderer.output is Output.warped else 0
    return MouthRenderer(generator, DTYPE[config.trainer.precision], warped)


def build_output(config: Config, own_channels: int) -> nn.Module:
    """What the generator's last layer makes; references are stacked behind its own channels."""
    renderer = config.renderer
    match renderer.output:
        case Output.image:
            return TanhOutput()
        case Output.residual:
            return ReferenceOutput(own_channels)
        case Output.warped:
            return BlendOutput(own_channels, renderer.references)


def generator_learning_rate(config: Config) -> float:
    """Adam's rate for the generator: what a network bears falls with its width (Yang and Hu 2021, μP)."""
    return config.renderer.learning_rate * PAPER_WIDTH / config.renderer.width


def build_render_objective(config: Config) -> RenderObjective:
    """L_render; the perceptual term is off, said once, where VGG-19's weights can't be had."""
    weights, renderer = config.loss.render, config.renderer
    perceptual = None
    if weights.vgg > 0:
        try:
            perceptual = Vgg19Features(vgg19())
        except WeightsUnavailable as error:
            log.warning("L_vgg is off: %s", error)
    size, width = config.scale.crop, renderer.discriminator_width
    return RenderObjective(
        PatchDiscriminator(FRAME_CHANNELS, size, width),
        perceptual,
        weights,
        renderer.penalty.value,
        renderer.penalty_every,
        DTYPE[config.trainer.precision],
        PatchDiscriminator(TEMPORAL_CHANNELS, size, width) if weights.temporal > 0 else None,
    )


def set_up_steps(config: Config, module: AdversarialModule) -> None:
    """How a GAN's steps are taken, and from what they start."""
    renderer = config.renderer
    module.critic_steps, module.clip = renderer.critic_steps, renderer.clip
    module.gradients_every, module.adversary_from = renderer.gradients_every, renderer.adversary_from
    if renderer.start is not None:
        start_from(module, Path(renderer.start))


def check_renderer(config: Config) -> None:
    """Refuse settings of the renderer that cannot work.

    Raises:
        UserError: with the remedy.
    """
    renderer, augment = config.renderer, config.augment
    if renderer.penalty_every < 1 or not 0 <= renderer.ema_decay < 1 or not 0 <= renderer.teacher_forcing <= 1:
        raise UserError("renderer.penalty_every must be at least 1, ema_decay in [0, 1), teacher_forcing in [0, 1]")
    if renderer.critic_steps < 1 or renderer.clip < 0 or renderer.gradients_every < 0:
        raise UserError("renderer.critic_steps must be at least 1, clip and gradients_every at least 0")
    if not 0 <= renderer.adversary_from < 1:
        raise UserError("renderer.adversary_from is a share of the run: give a number from 0 to 1")
    if renderer.output is Output.residual and renderer.references not in (1, 2):
        raise UserError("renderer.references must be 1 (the closed mouth) or 2 (the open one too)")
    if renderer.output is Output.warped and not 1 <= renderer.references <= min(MOST_WARPED, renderer.gallery):
        raise UserError(f"renderer.references must be from 1 to {MOST_WARPED}, and at most renderer.gallery")
    if renderer.output is Output.warped and renderer.full_face:
        raise UserError("renderer.full_face sees no landmarks of frame t to warp to: renderer.output=image or residual")
    if renderer.full_face and config.task is Task.joint:
        raise UserError("renderer.full_face sees no landmarks of frame t, so speech could not drive it: task=renderer")
    if not 0 <= augment.landmark_heard <= 1 or not 0 <= augment.flip <= 1:
        raise UserError("augment.landmark_heard and augment.flip are shares: give numbers from 0 to 1")
    moved = (augment.flip, augment.colour, augment.rotate, augment.zoom, augment.shift)
    if config.task is Task.joint and any(moved):
        raise UserError("augment.flip, colour, rotate, zoom and shift would part pictures from poses: renderer alone")
    if renderer.start is not None and not Path(renderer.start).is_file():
        raise UserError(f"renderer.start={renderer.start} does not exist: give <run>/checkpoints/last.ckpt")
