"""Prepare a corpus without training: `python -m experiments.prepare data=grid data.root=<folder>`."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig, OmegaConf

from experiments import build
from experiments.command_line import CONFIG_FOLDER, check_overrides, guarded
from experiments.run import quiet
from experiments.schema import Config, Task, register


def prepare(config: Config) -> None:
    """Bring the corpus of a configuration into a clip store and say what came of it."""
    data = build.build_data(config, Task.joint, build.build_face(config))
    data.prepare_data()
    data.setup()
    print(data.describe())
    print(f"clip store: {data.store_root}")


@hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name="config")
def _hydra_main(config: DictConfig) -> None:
    quiet()
    guarded(lambda: prepare(OmegaConf.to_object(config)))


def main() -> None:
    """Check the command line in one line, then let Hydra run it."""
    register()
    guarded(lambda: check_overrides(["+exp=grid_joint", *[part for part in sys.argv[1:] if "=" in part]]))
    sys.argv.insert(1, "+exp=grid_joint")  # a preparation trains nothing; the schema wants a task all the same
    _hydra_main()


if __name__ == "__main__":
    main()
