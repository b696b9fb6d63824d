"""Trains the joint module on the talking disc in as many processes as asked; each leaves its weights.

usage: python -m tests.lightning_modules.ddp_joint <folder> <devices>
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch

from tests.lightning_modules import tiny

STEPS = 5  # batches
JOINT_BATCH = 4  # samples over all processes


def main() -> None:
    folder, devices = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    module = tiny.joint_module(speech_learning_rate=1e-4, learning_rate=1e-4, teacher_forcing=0.8)
    samples = tiny.clip_samples(tiny.face(), seed=5, num_samples=STEPS * JOINT_BATCH)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp_find_unused_parameters_true" if devices > 1 else "auto",
        max_steps=2 * STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    own = samples[trainer.global_rank :: devices]
    trainer.fit(module, tiny.loader(own, batch_size=JOINT_BATCH // devices))
    torch.save(module.state_dict(), folder / f"weights-{devices}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    main()
