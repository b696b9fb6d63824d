"""What an evaluation works on: the run, the clips that nothing was trained on, and the speech networks beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from datamodules.clip_store import Clip, ClipStore
from datamodules.corpus_module import CorpusDataModule
from experiments.articulation import predicted_landmarks
from experiments.build_data import build_data
from experiments.command_line import UserError
from experiments.schema import Config, Task
from experiments.trained import TrainedRenderer, TrainedSpeech, open_config, open_renderer, open_speech
from model_zoo.face.morphable import MorphableFace

SAME_FACE = 0.5  # px; by how much stored landmarks may differ from those that the run's face projects


@dataclass(frozen=True)
class Opened:
    """A run with what it is evaluated on.

    Attributes:
        trained: the renderer, and the data that it was trained on.
        speech: networks that predict landmarks, or None.
        data: where the evaluated clips are.
        clips: ids of the evaluated clips.
    """

    trained: TrainedRenderer
    speech: TrainedSpeech | None
    data: CorpusDataModule
    clips: list[str]

    def predicted(self, clip: Clip, stop: int) -> Float[Tensor, "N 68 2"]:
        """Landmarks of frames 0 to stop - 1 that the speech networks hear in the clip's own sound."""
        assert self.speech is not None
        _, data, speech, objective = self.speech
        with torch.inference_mode():
            return predicted_landmarks(speech, objective, data, clip, slice(0, stop))


def open_run(run: Path, speech: Path | None, store: Path | None, count: int | None, seed: int) -> Opened:
    """Open a run folder.

    Args:
        run: of a renderer or joint run; a joint run brings its own speech networks.
        speech: of the run whose speech networks predict landmarks instead.
        store: prepared clips to evaluate on; None: the run's own held-out ones.
        count: clips, drawn by the seed; None: all.

    Raises:
        UserError: something is missing or doesn't fit, or every clip was trained on.
    """
    trained = open_renderer(run)
    if speech is None and trained.config.task is Task.joint:
        speech = run
    heard = None if speech is None else open_speech(speech)
    data = trained.data if store is None else open_store(trained.config, trained.face, store)
    seen = _trained_on(trained.data) | (set() if heard is None else _trained_on(heard.data))
    clips = [clip for clip in data.test_clips if data.store.row(clip).sha256 not in seen]
    if not clips:
        raise UserError("every clip there was trained on: give prepared clips that were not, --store=<folder>")
    _check_face(trained.face, data.store.open(clips[0]))
    if heard is not None:
        _check_face(heard.objective.face, data.store.open(clips[0]))
    if count is not None and count < len(clips):
        order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))
        clips = [clips[i] for i in sorted(order[:count].tolist())]
    return Opened(trained, heard, data, clips)


def open_store(config: Config, face: MorphableFace, store: Path) -> CorpusDataModule:
    """Prepared clips, all of them held out; nothing is written into the store.

    Raises:
        UserError: there are none.
    """
    if not store.is_dir():
        raise UserError(f"--store: {store} is no folder of prepared clips (python -m experiments.prepare makes one)")
    config = replace(config, data=replace(config.data, root=None, store=str(store)))
    data = build_data(config, Task.renderer, face)
    data.store = ClipStore(store)
    data.clip_ids = [row.id for row in data.store.manifest]
    data.test_frames = {row.id: range(row.frames) for row in data.store.manifest}
    data.test_clips, data.train_clips, data.train_frames, data.speakers = data.clip_ids, [], {}, []
    return data


def check_task(run: Path) -> Config:
    """Configuration of a run that can be evaluated, before anything slow.

    Raises:
        UserError: it draws no frames.
    """
    config = open_config(run)
    if config.task not in (Task.renderer, Task.joint):
        raise UserError(f"{run} trained {config.task.value}: give a run of renderer or joint")
    return config


def _trained_on(data: CorpusDataModule) -> set[str]:
    """Hashes of the sources of all clips that train as a whole; of a divided one, some frames are held out."""
    return {data.store.row(clip).sha256 for clip in data.train_clips if clip not in data.test_frames}


def _check_face(face: MorphableFace, clip: Clip) -> None:
    projected = face.project_landmarks(clip.shape, clip.expression, clip.pose)
    if not (projected - clip.landmarks).abs().max() < SAME_FACE:
        raise UserError(f"{clip.id} was prepared with another face model than the run's: prepare it with that one")
