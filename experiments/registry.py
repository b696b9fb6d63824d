"""Finds what an earlier run trained, so that many experiments share one speaker network.

A finished speaker_id stage leaves `trained.json` beside its checkpoint, with a fingerprint of everything that its
weights depend on; a later run under the same output folder with the same fingerprint takes them over.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path

import torch

from datamodules.atomic import atomic_path
from datamodules.corpus_module import CorpusDataModule
from experiments import build
from experiments.schema import Config, Task
from model_zoo.audio.vggvox import VGGVox

TRAINED = "trained.json"
log = logging.getLogger(__name__)


def fingerprint(config: Config, data: CorpusDataModule) -> str:
    """Changes with anything that changes the speaker network: its clips, features, size, seed and schedule."""
    audio, scale, trainer = config.audio, config.scale, config.trainer
    steps = scale.steps.speaker_id
    if config.task is Task.speaker_id and trainer.max_steps is not None:
        steps = trainer.max_steps
    clips = [
        (clip, frames.start, frames.stop, data.store.row(clip).settings) for clip, frames in data.train_frames.items()
    ]
    network = (
        audio.num_cepstra,
        audio.normalise_speakers,
        audio.speaker_learning_rate,
        scale.speaker_width,
        asdict(config.augment),
    )
    schedule = (steps, scale.speech_batch, trainer.devices, trainer.decay, config.seed)
    return hashlib.sha256(repr((clips, network, schedule)).encode()).hexdigest()[:16]


def record(folder: Path, config: Config, data: CorpusDataModule) -> None:
    """Say what the finished speaker_id stage in `folder` was trained on."""
    with atomic_path(folder / TRAINED) as path:
        path.write_text(json.dumps({"task": Task.speaker_id.value, "fingerprint": fingerprint(config, data)}) + "\n")


def find_speaker_network(config: Config, data: CorpusDataModule) -> VGGVox | None:
    """The newest speaker network of the same corpus and settings below the output folder, said in the log; or None."""
    wanted = fingerprint(config, data)
    found = Path(config.output).expanduser().glob(f"**/{TRAINED}")
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        checkpoint = path.parent / "checkpoints" / "last.ckpt"
        try:
            if json.loads(path.read_text())["fingerprint"] != wanted:
                continue
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
            network = build.build_speaker_network(config, data)
            prefix = "network."
            network.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            log.warning("%s cannot be used: %s", checkpoint, " ".join(str(error).split())[:120])
            continue
        log.info("speaker network: taken from %s", path.parent)
        return network
    log.info("speaker network: none of this corpus and these settings below %s yet, training one", config.output)
    return None
