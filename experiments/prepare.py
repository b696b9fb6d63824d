"""Prepare a corpus, or a face model, without training.

python -m experiments.prepare data=grid data.root=<folder>
python -m experiments.prepare face=<path> [landmarks=<file>] [expressions=<3DDFA file>] [out=<file.safetensors>]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from experiments import build
from experiments.command_line import CONFIG_FOLDER, UserError, check_overrides, guarded
from experiments.face_models import describe, imported_path
from experiments.run import quiet
from experiments.schema import Config, Task, register
from model_zoo.face.importers import import_face, save_face

_FACE_KEYS = ("face", "landmarks", "expressions", "out")


def prepare(config: Config) -> None:
    """Bring the corpus of a configuration into a clip store and say what came of it."""
    data = build.build_data(config, Task.joint, build.build_face(config))
    data.prepare_data()
    data.setup()
    print(data.describe())
    print(f"clip store: {data.store_root}")


def prepare_face(arguments: list[str]) -> Path:
    """Import a face model into one .safetensors and say what it keeps.

    Args:
        arguments: `face=<path>`, and `landmarks=`, `expressions=`, `out=` where they are wanted.

    Returns:
        The file; without `out=` it lies in the cache folder, where runs on `face.model=<path>` look for it.

    Raises:
        UserError: an argument is none of these, or `out` is no .safetensors.
        ValueError: the importer refuses the model.
    """
    given = dict(part.partition("=")[::2] for part in arguments)
    for key in given:
        if key not in _FACE_KEYS:
            raise UserError(
                f"{key}: a face model is imported with {', '.join(f'{name}=' for name in _FACE_KEYS)} alone; "
                f"prepare a corpus with it by face.model=<the imported file>"
            )
    path, landmarks, expressions, out = (
        Path(given[key]).expanduser() if given.get(key) else None for key in _FACE_KEYS
    )
    assert path is not None  # the caller has seen it
    if out is not None and out.suffix != ".safetensors":
        raise UserError(f"out={out}: give a file name that ends in .safetensors")
    imported = import_face(path, landmarks, expressions)
    target = out or imported_path(path, landmarks, expressions)
    save_face(imported.face, target)
    print(describe(imported))
    print(f"face model: {target}  (use it as face.model={target})")
    return target


def names_a_face_file(arguments: list[str]) -> bool:
    """Whether `face=` names a path rather than a choice of conf/face."""
    value = next((part.removeprefix("face=") for part in arguments if part.startswith("face=")), "")
    if not value or (CONFIG_FOLDER / "face" / f"{value}.yaml").exists():
        return False
    return os.sep in value or Path(value).suffix != "" or Path(value).exists()


@hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name="config")
def _hydra_main(config: DictConfig) -> None:
    quiet()
    guarded(lambda: prepare(OmegaConf.to_object(config)))


def main() -> None:
    """Check the command line in one line, then let Hydra run it."""
    arguments = sys.argv[1:]
    if names_a_face_file(arguments):
        guarded(lambda: prepare_face(arguments))
        return
    register()
    guarded(lambda: check_overrides(["+exp=grid_joint", *[part for part in arguments if "=" in part]]))
    sys.argv.insert(1, "+exp=grid_joint")  # a preparation trains nothing; the schema wants a task all the same
    _hydra_main()


if __name__ == "__main__":
    main()
