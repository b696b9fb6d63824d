"""Opens what a finished run trained: its configuration, its data and its speech networks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import OmegaConf

from datamodules.corpus_module import CorpusDataModule
from experiments.build_data import build_data, build_face
from experiments.build_speech import build_speech
from experiments.command_line import UserError
from experiments.schema import Config, Task
from lightning_modules.audio_to_expression import SpeechObjective
from model_zoo.audio.speech_to_expression import SpeechToExpression


class TrainedSpeech(NamedTuple):
    """A finished audio_to_expression or joint run, on the CPU, in evaluation mode."""

    config: Config
    data: CorpusDataModule
    speech: SpeechToExpression
    objective: SpeechObjective


def open_config(folder: Path) -> Config:
    """Configuration of a run folder.

    Raises:
        UserError: it is none.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} has no config.yaml: give the folder of a finished run, outputs/<experiment>/<stamp>")
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(path)))
    assert isinstance(config, Config)
    return config


def open_speech(folder: Path) -> TrainedSpeech:
    """Networks and data of a run whose task turns speech into expressions.

    Raises:
        UserError: the folder holds no such run, or it has not finished.
    """
    config = open_config(folder)
    if config.task not in (Task.audio_to_expression, Task.joint):
        raise UserError(f"{folder} trained {config.task.value}: give a run of audio_to_expression or joint")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    if not checkpoint.is_file():
        raise UserError(f"{folder} has no checkpoint: let the run finish first")
    face = build_face(config)
    data = build_data(config, Task.audio_to_expression, face)
    data.prepare_data()
    data.setup("test")
    speech = build_speech(config, data)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    speech.load_state_dict({k.removeprefix("speech."): v for k, v in state.items() if k.startswith("speech.")})
    objective = SpeechObjective(face, None, config.loss.speech)
    return TrainedSpeech(config, data, speech.eval(), objective.eval())
