"""Two processes train the joint module to the same weights, and to those of one process on the joint batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def train(folder: Path, devices: int, penalty: str) -> list[dict[str, torch.Tensor]]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MASTER_", "LOCAL_", "NODE_"))
    }
    environment.pop("WORLD_SIZE", None)
    subprocess.run(
        [sys.executable, "-m", "tests.lightning_modules.ddp_joint", str(folder), str(devices), penalty],
        cwd=ROOT,
        env=environment,
        check=True,
        timeout=600,
        capture_output=True,
    )
    return [torch.load(folder / f"weights-{devices}-{rank}.pt", weights_only=True) for rank in range(devices)]


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


@pytest.mark.parametrize("penalty", ["r1", pytest.param("wgan", marks=pytest.mark.slow)])
def test_two_processes_equal_one(penalty, tmp_path):
    rank_0, rank_1 = train(tmp_path, 2, penalty)
    assert largest_difference(rank_0, rank_1) == 0
    (alone,) = train(tmp_path, 1, penalty)
    assert largest_difference(rank_0, alone) < 1e-5
    averaged = [name for name in alone if name.startswith("average.")]
    assert averaged
    assert any(not torch.equal(alone[name], alone[f"renderer.generator.{name[8:]}"]) for name in averaged)
