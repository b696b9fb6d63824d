"""Random states of every rank in the checkpoint, so that a resumed run equals an uninterrupted one."""

from __future__ import annotations

import random

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor


class RandomState(pl.Callback):
    """Saves and restores the torch, CUDA, numpy and Python generators as tensors, for `weights_only` loading."""

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict) -> None:
        own = _capture()
        states = [own]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, own)
        checkpoint["random_states"] = states

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict) -> None:
        states = checkpoint.get("random_states", [])
        # Restored when training starts: building loaders and the sanity checks in between draw numbers too.
        self._pending = states[trainer.global_rank] if trainer.global_rank < len(states) else None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        pending = getattr(self, "_pending", None)
        if pending is not None:
            _restore(pending)
            self._pending = None


def _capture() -> dict[str, Tensor | int]:
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - libraries draw from the legacy state
    _, python_state, gauss_next = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(keys.astype(np.int64)),
        "numpy_position": torch.tensor([position, has_gauss]),
        "numpy_gauss": torch.tensor(cached, dtype=torch.float64),
        "python": torch.tensor(python_state, dtype=torch.int64),
        "python_gauss": torch.tensor(float("nan") if gauss_next is None else gauss_next, dtype=torch.float64),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    position, has_gauss = state["numpy_position"].tolist()
    keys = state["numpy"].cpu().numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, state["numpy_gauss"].item()))  # noqa: NPY002
    gauss = state["python_gauss"].item()
    random.setstate((3, tuple(state["python"].tolist()), None if gauss != gauss else gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
