"""Opens what a finished run trained: its configuration, its data, its speech networks and its renderer."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from datamodules.corpus_module import CorpusDataModule
from experiments.build_data import build_data, build_face
from experiments.build_render import build_renderer
from experiments.build_speech import build_speech
from experiments.checkpoints import GENERATOR, check_fits, read_checkpoint
from experiments.command_line import UserError
from experiments.schema import Config, Task
from lightning_modules.audio_to_expression import SpeechObjective
from model_zoo.audio.speech_to_expression import SpeechToExpression
from model_zoo.face.morphable import MorphableFace
from model_zoo.render.mouth_renderer import MouthRenderer


class TrainedSpeech(NamedTuple):
    """A finished audio_to_expression or joint run, on the CPU, in evaluation mode."""

    config: Config
    data: CorpusDataModule
    speech: SpeechToExpression
    objective: SpeechObjective


class TrainedRenderer(NamedTuple):
    """A finished renderer or joint run, on the CPU, in evaluation mode, with the averaged weights where it has them."""

    config: Config
    data: CorpusDataModule
    face: MorphableFace
    renderer: MouthRenderer


def open_config(folder: Path) -> Config:
    """Configuration of a run folder.

    Raises:
        UserError: it is none, or was made by another version.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} has no config.yaml: give the folder of a finished run, outputs/<experiment>/<stamp>")
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(path)))
    except (OmegaConfBaseException, YAMLError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} is not of this version ({reason}): use the commit in its versions.json") from error
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
    checkpoint = open_checkpoint(folder)
    face = build_face(config)
    data = build_data(config, Task.audio_to_expression, face)
    data.prepare_data()
    data.setup("test")
    speech = build_speech(config, data)
    state = checkpoint["state_dict"]
    speech.load_state_dict({k.removeprefix("speech."): v for k, v in state.items() if k.startswith("speech.")})
    objective = SpeechObjective(face, None, config.loss.speech)
    return TrainedSpeech(config, data, speech.eval(), objective.eval())


def open_renderer(folder: Path) -> TrainedRenderer:
    """Renderer and data of a run whose task draws frames.

    Raises:
        UserError: the folder holds no such run, it has not finished, or its checkpoint is of another scale.
    """
    config, renderer = open_networks(folder)
    face = build_face(config)
    data = build_data(config, Task.renderer, face)
    data.prepare_data()
    data.setup("test")
    return TrainedRenderer(config, data, face, renderer)


def open_networks(folder: Path) -> tuple[Config, MouthRenderer]:
    """The renderer alone, without its data; arguments and errors as in `open_renderer`."""
    config = open_config(folder)
    if config.task not in (Task.renderer, Task.joint):
        raise UserError(f"{folder} trained {config.task.value}: give a run of renderer or joint")
    checkpoint = open_checkpoint(folder)
    renderer = build_renderer(config)
    saved = {k.removeprefix(GENERATOR): v for k, v in checkpoint["state_dict"].items() if k.startswith(GENERATOR)}
    saved |= checkpoint.get("generator_average") or {}
    check_fits(_last(folder), saved, renderer.generator.state_dict())
    renderer.generator.load_state_dict(saved)
    return config, renderer.eval().requires_grad_(False)


def open_checkpoint(folder: Path) -> dict:
    """The newest checkpoint of a run folder, on the CPU.

    Raises:
        UserError: there is none, or it can't be read.
    """
    if not _last(folder).is_file():
        raise UserError(f"{folder} has no checkpoint: let the run finish first")
    return read_checkpoint(_last(folder))


def _last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"
