"""What a run leaves behind: outputs/<experiment>/<stamp>/ with everything that a table needs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
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


def make_run_folder(config: Config, synthetic: bool) -> Path:
    """Create the run's folder and write config.yaml and versions.json.

    Raises:
        UserError: the folder can't be written.
    """
    if int(os.environ.get("LOCAL_RANK", 0)) > 0:
        return Path(os.environ[RUN_FOLDER_VARIABLE])
    name = f"{config.name}_synthetic" if synthetic else config.name
    parent = Path(config.output) / name
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = parent / stamp
        for number in range(1, 100):
            try:
                folder.mkdir()
                break
            except FileExistsError:
                folder = parent / f"{stamp}-{number}"
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
        (folder / "versions.json").write_text(json.dumps(versions(), indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"cannot write the run folder under {Path(config.output).absolute()} ({error.strerror}): "
            "choose a writable one with output=<folder>"
        ) from error
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
