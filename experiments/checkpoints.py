"""Checkpoints of other runs: whether they fit, and what is taken from them."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import torch
from torch import Tensor

from experiments.command_line import UserError
from lightning_modules.base import TalkinModule
from lightning_modules.renderer import AdversarialModule

log = logging.getLogger(__name__)

GENERATOR, JUDGES = "renderer.generator.", ("render.discriminator.", "render.temporal.")


def read_checkpoint(path: Path) -> dict:
    """A checkpoint of a run.

    Raises:
        UserError: the file is none.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(checkpoint, dict) and "state_dict" in checkpoint:
            return checkpoint
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError):
        pass
    raise UserError(f"{path} is no checkpoint: give <run>/checkpoints/last.ckpt")


def check_fits(path: Path, saved: dict[str, Tensor], own: dict[str, Tensor], names: tuple[str, ...] = ("",)) -> None:
    """Refuse weights of another scale or kind of network in one line.

    Args:
        path: where they come from.
        saved: them. own: those of the network that is to take them.
        names: beginnings of the names that must agree.

    Raises:
        UserError: with the remedy.
    """
    ours, theirs = ({k: v.shape for k, v in state.items() if k.startswith(names)} for state in (own, saved))
    wrong = next((name for name in ours if name in theirs and ours[name] != theirs[name]), None)
    if wrong is not None:
        shapes = " and ".join(str(tuple(shape)) for shape in (theirs[wrong], ours[wrong]))
        raise UserError(
            f"{path} was trained at another scale ({wrong}: {shapes} here): give the scale and renderer of the "
            f"config.yaml in its run folder"
        )
    if ours.keys() != theirs.keys():
        odd = min(ours.keys() ^ theirs.keys())
        raise UserError(
            f"{path} holds other networks ({odd} is only {'here' if odd in ours else 'there'}): give the task and the "
            f"renderer of the config.yaml in its run folder"
        )


def start_from(module: AdversarialModule, path: Path) -> None:
    """Take the generator of another run, its moving average if there is one, and its discriminators if they fit.

    Raises:
        UserError: the generator is of another scale or kind.
    """
    checkpoint = read_checkpoint(path)
    saved = dict(checkpoint["state_dict"])
    saved |= {f"{GENERATOR}{name}": value for name, value in (checkpoint.get("generator_average") or {}).items()}
    own = module.state_dict()
    check_fits(path, saved, own, (GENERATOR,))
    taken = {name: value for name, value in saved.items() if name.startswith(GENERATOR)}
    judges = {name for name in own if name.startswith(JUDGES)}
    if all(name in saved and saved[name].shape == own[name].shape for name in judges):
        taken |= {name: saved[name] for name in judges}
    elif judges:
        log.info("renderer.start: the discriminators start afresh")
    module.load_state_dict(taken, strict=False)


def check_resumes(module: TalkinModule, path: Path) -> None:
    """Refuse to resume what this configuration cannot go on with, before Lightning lists every parameter.

    Raises:
        UserError: with the remedy.
    """
    scores = "scores."
    states = (read_checkpoint(path)["state_dict"], module.state_dict())
    saved, own = ({name: value for name, value in state.items() if not name.startswith(scores)} for state in states)
    check_fits(path, saved, own)
