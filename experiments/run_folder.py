"""What a run leaves behind: outputs/<experiment>/<stamp>/ with everything that a table needs."""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import tempfile
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omegaconf import OmegaConf

from experiments.command_line import UserError
from experiments.schema import Config

RUN_FOLDER_VARIABLE = "TALKIN_RUN_FOLDER"  # tells the processes of one run about the folder that the first one made
PACKAGES = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "torchmetrics",
    "numpy",
    "opencv-python-headless",
    "av",
    "dlib-bin",
)


def experiment_folder(config: Config) -> Path:
    """Folder of all runs of an experiment, made if missing; those on the built-in corpora have one of their own.

    Raises:
        UserError: it can't be written.
    """
    is_built_in = config.data.root is None and config.data.store is None
    name = f"{config.name}_synthetic" if is_built_in else config.name
    folder = Path(config.output).expanduser() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise UserError(
            f"cannot write under {folder.absolute()} ({error.strerror}): choose a writable folder with output=<folder>"
        ) from error


def make_run_folder(parent: Path, config: Config) -> Path:
    """Create a run's folder and write config.yaml and versions.json; further processes of the run get the same one."""
    if int(os.environ.get("LOCAL_RANK", 0)) > 0:
        return Path(os.environ[RUN_FOLDER_VARIABLE])
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        folder = parent / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir()
            break
        except FileExistsError:
            continue
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    (folder / "versions.json").write_text(json.dumps(versions(), indent=2) + "\n")
    os.environ[RUN_FOLDER_VARIABLE] = str(folder)
    return folder


def versions() -> dict[str, str]:
    """Versions of what the results depend on, and the commit of the code."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "commit": commit()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unavailable"
    return found


def commit() -> str:
    """Commit of the code, with `-dirty` where files differ from it; `unavailable` outside a checkout."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unavailable"
