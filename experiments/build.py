"""The only place, with the other `build_*`, that turns a configuration into objects: here what trains."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import pytorch_lightning as pl
import torch
import wandb
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

from experiments.build_data import BATCH_KIND
from experiments.build_render import build_render_objective, build_renderer, generator_learning_rate, set_up_steps
from experiments.build_speech import (
    build_landmark_speech,
    build_speaker_network,
    build_speech,
    build_standardise,
    learns_removal,
)
from experiments.schema import Config, Task
from lightning_modules.audio_to_expression import AudioToExpressionModule, SpeechObjective
from lightning_modules.audio_to_landmark import AudioToLandmarkModule
from lightning_modules.base import Schedule, TalkinModule
from lightning_modules.callbacks.checkpoints import LastCheckpoint
from lightning_modules.callbacks.ema import GeneratorAverage
from lightning_modules.callbacks.loader_wait import LoaderWait
from lightning_modules.callbacks.previews import Previews
from lightning_modules.callbacks.progress import TrainingProgress
from lightning_modules.callbacks.random_state import RandomState
from lightning_modules.full_face import FullFaceModule
from lightning_modules.joint import JointModule
from lightning_modules.renderer import AdversarialModule, RendererModule
from lightning_modules.speaker_id import SpeakerIdModule
from model_zoo.audio.speech_to_expression import SpeechToExpression
from model_zoo.audio.vggvox import VGGVox
from model_zoo.face.morphable import MorphableFace

log = logging.getLogger(__name__)

MIN_SPEAKERS = 4  # below, or with one speaker holding most windows, Eq. 2 has nothing to remove
MAX_SPEAKER_SHARE = 0.5


@dataclass
class Trained:
    """What earlier stages of a run hand to later ones."""

    speaker_network: VGGVox | None = None
    speech: SpeechToExpression | None = None


def judges_speakers(shares: list[float]) -> bool:
    """Whether Eq. 2 has something to remove: enough speakers, none of whom holds most of the training windows."""
    return len(shares) >= MIN_SPEAKERS and max(shares) <= MAX_SPEAKER_SHARE


def build_module(config: Config, task: Task, data, face: MorphableFace, trained: Trained) -> TalkinModule:
    """The LightningModule of a task, on what earlier stages trained."""
    torch.manual_seed(config.seed)
    num_clips = len(data.clip_ids)
    module: TalkinModule
    match task:
        case Task.speaker_id:
            network = build_speaker_network(config, data)
            shares = [data.speaker_shares[speaker] for speaker in data.speakers]
            standardise = build_standardise(config, data)
            module = SpeakerIdModule(standardise, network, shares, num_clips, config.audio.speaker_learning_rate)
        case Task.audio_to_expression:
            speech = build_speech(config, data)
            objective = build_speech_objective(config, face, trained)
            module = AudioToExpressionModule(speech, objective, num_clips, config.audio.learning_rate)
        case Task.audio_to_landmark:
            module = AudioToLandmarkModule(
                build_landmark_speech(config, data, face),
                build_speech_objective(config, face, trained),
                data.expression_statistics.mean,
                num_clips,
                config.audio.landmark_space.value,
                config.audio.learning_rate,
            )
        case Task.renderer:
            kind = FullFaceModule if config.renderer.full_face else RendererModule
            module = kind(
                build_renderer(config),
                build_render_objective(config),
                num_clips,
                generator_learning_rate(config),
                config.renderer.discriminator_learning_rate,
            )
        case Task.joint:
            module = JointModule(
                trained.speech or build_speech(config, data),
                build_speech_objective(config, face, trained),
                build_renderer(config),
                build_render_objective(config),
                num_clips,
                config.audio.learning_rate,
                generator_learning_rate(config),
                config.renderer.discriminator_learning_rate,
                config.renderer.teacher_forcing,
            )
    trainer = config.trainer
    module.schedule, module.seed = Schedule(trainer.warmup, trainer.decay, trainer.cosine), config.seed
    if isinstance(module, AdversarialModule):
        set_up_steps(config, module)
    return module


def build_speech_objective(config: Config, face: MorphableFace, trained: Trained) -> SpeechObjective:
    """L_norm + L_trans; where ID removal learns nothing, nothing could follow L_norm and `identity`: they are off."""
    weights = config.loss.speech
    if not learns_removal(config):
        return SpeechObjective(face, None, replace(weights, identity=0.0))
    return SpeechObjective(face, trained.speaker_network, weights)


def num_batches(config: Config, task: Task, batches_per_epoch: int) -> int:
    """Training batches of a task: what was asked for, or the scale's steps, for video within its number of epochs."""
    if task is config.task and config.trainer.max_steps is not None:
        return config.trainer.max_steps
    steps = getattr(config.scale.steps, "audio_to_expression" if task is Task.audio_to_landmark else task.value)
    return steps if BATCH_KIND[task] == "speech" else min(steps, config.scale.video_epochs * batches_per_epoch)


def build_loggers(config: Config, task: Task, folder: Path, name: str, tags: list[str], mode: str) -> list[Logger]:
    """metrics.csv, and a W&B run for each task of the run, grouped by the run's name."""
    loggers: list[Logger] = [CSVLogger(folder, name="", version="")]
    if config.logger.wandb and mode != "disabled":
        # Lightning passes a setting that wandb deprecates: https://github.com/wandb/wandb/pull/10909
        wandb.setup(wandb.Settings(silent=True, mode=mode))
        loggers.append(
            WandbLogger(
                name=f"{name}-{task.value}" if task is not config.task else name,
                project=config.logger.project,
                entity=config.logger.entity,
                group=name,
                job_type=task.value,
                tags=[*config.logger.tags, *tags],
                save_dir=folder,
                offline=mode == "offline",
            )
        )
    return loggers


def build_trainer(
    config: Config, task: Task, module: TalkinModule, data, folder: Path, loggers: list[Logger]
) -> pl.Trainer:
    """A trainer that counts in batches whatever the number of optimisers."""
    batches = num_batches(config, task, data.batches_per_epoch(config.trainer.devices))
    optimizers = 2 if getattr(getattr(module, "render", None), "is_adversarial", False) else 1
    val_every = config.trainer.val_every or max(1, batches // 4)
    callbacks: list[pl.Callback] = [RandomState(), LoaderWait()]
    if config.trainer.progress:
        callbacks.append(TrainingProgress(task.value.replace("_", " ")))
    if task in (Task.renderer, Task.joint):
        if config.renderer.ema_decay > 0:
            callbacks.append(GeneratorAverage(config.renderer.ema_decay))
        callbacks.append(Previews(data, folder / "samples"))
    # Last, so that what it saves has seen the other callbacks' work on the same batch.
    callbacks.append(LastCheckpoint(folder / "checkpoints", config.trainer.checkpoint_every or val_every))
    return pl.Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        strategy=config.trainer.strategy,
        max_steps=batches * optimizers,
        val_check_interval=val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=config.trainer.log_every,
        logger=loggers,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        deterministic=config.trainer.deterministic,
        default_root_dir=folder,
    )
