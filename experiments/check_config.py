"""Refuses a configuration that cannot work, in one line with the remedy."""

from __future__ import annotations

from pathlib import Path

import torch

from experiments.build_render import check_renderer
from experiments.build_speech import check_audio
from experiments.command_line import UserError
from experiments.schema import Config, Task


def check_config(config: Config) -> None:
    """Refuse what can't work before anything is prepared or trained.

    Raises:
        UserError: with the remedy.
    """
    speech = config.loss.speech
    if config.task is Task.audio_to_expression and speech.expression == speech.shape == 0:
        raise UserError("no loss is left to train: give loss.speech.expression or loss.speech.shape a weight")
    if not 0 <= speech.norm_warmup <= 1:
        raise UserError("loss.speech.norm_warmup is a share of the run: give a number from 0 to 1")
    if config.task is Task.audio_to_expression and speech.velocity > 0 and config.audio.frames < 2:
        raise UserError("loss.speech.velocity needs several frames a sample: set audio.frames=5, or train jointly")
    check_audio(config)
    check_renderer(config)
    if not 0 <= config.trainer.warmup < 1 or not 0 <= config.trainer.decay <= 1:
        raise UserError("trainer.warmup and trainer.decay are shares of the run: give numbers from 0 to 1")
    if config.trainer.resume is not None and not Path(config.trainer.resume).is_file():
        raise UserError(f"trainer.resume={config.trainer.resume} does not exist: give <run>/checkpoints/last.ckpt")
    _check_devices(config)


def _check_devices(config: Config) -> None:
    wanted, accelerator = config.trainer.devices, config.trainer.accelerator
    if wanted < 1:
        raise UserError(f"trainer.devices={wanted}: give the number of devices, at least 1")
    have = torch.cuda.device_count()
    wants_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and have > 0)
    if wants_gpu and wanted > have:
        raise UserError(
            f"trainer.devices={wanted} but this machine has {have} GPU{'s' if have != 1 else ''}: "
            f"use trainer.devices={have or 1}" + (" trainer.accelerator=cpu" if have == 0 else "")
        )
