"""Trains the joint module on the talking disc in as many processes as asked; each leaves its weights and average.

Every term of the renderer is on, both discriminators are penalised at every step, gradients are clipped.

usage: python -m tests.lightning_modules.ddp_joint <folder> <devices> <r1|wgan>
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch

from lightning_modules.base import Schedule
from lightning_modules.callbacks.ema import GeneratorAverage
from tests.lightning_modules import tiny

STEPS = 20  # batches
JOINT_BATCH = 4  # samples over all processes


def main() -> None:
    folder, devices, penalty = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    module = tiny.joint_module(
        render_weights=tiny.every_render_term(),
        penalty=penalty,
        speech_learning_rate=1e-4,
        learning_rate=1e-4,
        teacher_forcing=0.8,
    )
    module.clip, module.critic_steps, module.gradients_every = 10.0, 2, 5
    module.schedule = Schedule(warmup=0.2, decay=0.5, cosine=True)
    average = GeneratorAverage(0.9)
    samples = tiny.clip_samples(tiny.face(), seed=5, num_samples=STEPS * JOINT_BATCH)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp_find_unused_parameters_true" if devices > 1 else "auto",
        max_steps=2 * STEPS,
        logger=False,
        callbacks=[average],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    own = samples[trainer.global_rank :: devices]
    trainer.fit(module, tiny.loader(own, batch_size=JOINT_BATCH // devices))
    state = module.state_dict() | {f"average.{name}": value for name, value in (average.average or {}).items()}
    torch.save(state, folder / f"weights-{devices}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    main()
