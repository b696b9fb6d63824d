"""What every test may rely on: no W&B service, no leftovers in the environment, few threads."""

from __future__ import annotations

import os

import pytest
import torch

torch.set_num_threads(1)
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"


@pytest.fixture(autouse=True)
def _environment_is_left_as_found():
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        if name != "PYTEST_CURRENT_TEST":
            del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name != "PYTEST_CURRENT_TEST"})
