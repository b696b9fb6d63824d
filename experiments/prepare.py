"""Prepare a corpus, or a face model, without training.

python -m experiments.prepare data=grid data.root=<folder>
python -m experiments.prepare data=folder data.root=<folder> data.consent=<basis> [--shard i/n | --merge | --verify]
python -m experiments.prepare face=<path> [landmarks=<file>] [expressions=<3DDFA file>] [out=<file.safetensors>]
"""

from __future__ import annotations

import os
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from datamodules.prepare.consent import Consent
from datamodules.prepare.pipeline import Shard, merge_store, prepare_corpus
from datamodules.prepare.report_page import REPORT_PAGE
from datamodules.prepare.verify_store import verify_store
from datamodules.tensor_file import is_url
from experiments import build_data
from experiments.command_line import CONFIG_FOLDER, UserError, check_overrides, guarded
from experiments.face_models import describe, imported_path
from experiments.run import quiet
from experiments.schema import Config, Task, register
from model_zoo.face.importers import import_face, save_face

_TASK = "+exp=grid_joint"  # a preparation trains nothing; the schema wants a task all the same
_HYDRA_FLAGS = ("--cfg", "--resolve", "--package", "--info", "--hydra-help", "--version")
_TEXT_KEYS = ("data.root", "data.store", "data.cache", "data.consent_reference", "data.detector_path")
_FACE_KEYS = ("face", "landmarks", "expressions", "out")


_HELP = f"""Prepare a corpus, or a face model, without training.

  python -m experiments.prepare data=grid data.root=<folder>
  python -m experiments.prepare data=collected data.root=<folder> data.consent=<basis>
  python -m experiments.prepare data=folder data.root=<folder> data.consent=<basis>
  python -m experiments.prepare face=<path> [landmarks=<file>] [expressions=<3DDFA file>] [out=<file.safetensors>]

Consent basis: {", ".join(Consent)}; with data.consent_reference='<licence or document>'

With a corpus
  --shard i/n    only part i of n of the sources, on this machine; parts may run at the same time on one folder
  --merge        index whatever the store holds: manifest.parquet, report.parquet, report.html
  --verify       hash every clip and source, prepare again what is damaged or missing, index the store anew

Often wanted
  data.store=<folder>         the clip store (none: below data.cache, by root, face and settings)
  data.prepare_workers=<n>    processes (none: one a core)
  data.choice=largest|central|talking    whom to follow where several people are seen
  data.detector=dlib|mediapipe|precomputed data.detector_path=<path>
  data.correct_offset=true    move the sound onto the picture

docs/preparation.md has more; experiments/schema.py has every key."""


@dataclass(frozen=True)
class Action:
    """What to do with a corpus; prepare all of it by default."""

    shard: Shard | None = None
    merge: bool = False
    verify: bool = False


def prepare(config: Config, action: Action) -> None:
    """Bring the corpus of a configuration into a clip store and say what came of it.

    Raises:
        UserError: there is nothing to prepare, or clips were lost.
    """
    data = build_data.build_data(config, Task.joint, build_data.build_face(config))
    if is_url(data.store_root):
        raise UserError(f"data.store={data.store_root}: prepare in a folder, then copy it to where it is read from")
    out = Path(data.store_root)
    if data.root is None and not action.merge:
        raise UserError(f"data.store={out}: give what is to be prepared into it, data.root=<folder>")
    if not action.merge:
        data.detector.detect(np.zeros((288, 360, 3), np.uint8))  # what it lacks is said here, not of every source
    how = (data.face, data.prepare_workers, data.progress, data.settings, data.detector)
    if action.merge:
        sources = data.scan() if data.root is not None and data.root.is_dir() else []
        report = merge_store(out, sources, data.labelled)
    elif action.verify:
        report = verify_store(data.scan(), out, *how, split=data.labelled)
    else:
        report = prepare_corpus(data.scan(), out, *how, shard=action.shard, split=data.labelled)
    Console().print(report.table())
    print(f"clip store: {out}")
    if action.shard is not None and action.shard.count > 1:
        print(f"shard {action.shard.index}/{action.shard.count} is done; when all are: the same command with --merge")
    else:
        print(f"report: {out / REPORT_PAGE}")
        try:
            data.setup()
            print(data.describe())
        except ValueError as error:  # a store that cannot be split is prepared all the same
            print(f"split: {error}")
    if report.lost:
        remedy = "bring their sources back, then --verify" if action.verify else "repair them with --verify"
        raise UserError(f"damaged clips: {', '.join(report.lost[:5])}{', ...' * (len(report.lost) > 5)}: {remedy}")


def parse_action(arguments: list[str]) -> tuple[Action, list[str]]:
    """What the flags ask for, and the other arguments.

    Raises:
        UserError: a flag is unknown, or wrong, or they contradict one another.
    """
    rest: list[str] = []
    chosen: list[str] = []
    shard = None
    pending = deque(arguments)
    while pending:
        argument = pending.popleft()
        flag, _, value = argument.partition("=")
        if flag == "--shard":
            try:
                shard = Shard.parse(value or (pending.popleft() if pending else ""))
            except ValueError as error:
                raise UserError(str(error)) from error
            chosen.append(flag)
        elif argument in ("--merge", "--verify"):
            chosen.append(argument)
        elif argument.startswith("-") and flag not in _HYDRA_FLAGS:
            raise UserError(f"{argument}: the flags are --shard i/n, --merge and --verify; keys are given as key=value")
        else:
            rest.append(_quoted(argument))
    if len(set(chosen)) > 1:
        raise UserError(f"{' and '.join(chosen)}: give one of them")
    return Action(shard, "--merge" in chosen, "--verify" in chosen), rest


def _quoted(argument: str) -> str:
    """A path or a reference as Hydra takes it whatever is in it: its own grammar stops at commas and brackets."""
    key, _, value = argument.partition("=")
    if key not in _TEXT_KEYS or value in ("", "null") or value[0] in "'\"" or "${" in value:
        return argument
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


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


def main() -> None:
    """Check the command line in one line, then let Hydra run it."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(_HELP)
        return
    if names_a_face_file(arguments):
        guarded(lambda: prepare_face(arguments))
        return
    register()
    action = Action()

    def check() -> None:
        nonlocal action, arguments
        action, arguments = parse_action(arguments)
        check_overrides([_TASK, *[part for part in arguments if "=" in part]])

    guarded(check)
    sys.argv[1:] = [_TASK, *arguments]

    @hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name="config")
    def run(config: DictConfig) -> None:
        quiet()
        guarded(lambda: prepare(OmegaConf.to_object(config), action))

    run()


if __name__ == "__main__":
    main()
