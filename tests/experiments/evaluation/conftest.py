from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from experiments.build_render import build_renderer
from experiments.command_line import check_overrides
from experiments.schema import register
from lightning_modules.callbacks.checkpoints import LastCheckpoint

from .painted_store import write_store

CLIPS = [f"s1/clip{i}" for i in range(5)] + [f"s2/clip{i}" for i in range(5)]


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("painted") / "store"
    write_store(root, CLIPS)
    return root


@pytest.fixture(scope="session")
def run(store, tmp_path_factory) -> Path:
    return untrained(tmp_path_factory.mktemp("runs"), "grid_renderer", store)


@pytest.fixture(scope="session")
def warped_run(store, tmp_path_factory) -> Path:
    return untrained(tmp_path_factory.mktemp("runs"), "grid_renderer_warped", store)


def untrained(folder: Path, experiment: str, store: Path) -> Path:
    """A renderer run with the weights that it started from."""
    register()
    folder = folder / experiment / "20200101-000000"
    names = [f"+exp={experiment}", "scale=smoke", f"data.store={store}", "trainer.precision=float32"]
    config = OmegaConf.to_object(check_overrides([*names, "trainer.progress=false", "data.batch_workers=0"]))
    path = LastCheckpoint(folder / "checkpoints", 1).path
    path.parent.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    torch.manual_seed(0)
    state = build_renderer(config).generator.state_dict()
    torch.save({"state_dict": {f"renderer.generator.{name}": value for name, value in state.items()}}, path)
    return folder
