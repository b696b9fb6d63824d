"""How commands fail: one line that says what to do, and a non-zero exit; never a traceback on the screen."""

from __future__ import annotations

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONFIG_FOLDER = Path(__file__).parent / "conf"
INTERRUPTED = 130  # exit status after Ctrl-C, as a shell gives it


class UserError(ValueError):
    """Something the user can mend; the message is one line and names the remedy."""


def guarded(command: Callable[[], object], log_folder: Callable[[], Path | None] = lambda: None) -> None:
    """Run a command to its exit status.

    Args:
        command: raises UserError, ValueError or OSError for what the user can mend.
        log_folder: where the traceback of anything else goes, so that it can be reported.
    """
    try:
        command()
    except KeyboardInterrupt:
        fail("interrupted; nothing is lost: the same command goes on with what is prepared", INTERRUPTED)
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:
        one_line = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, (UserError, ValueError, OSError)) or type(error).__name__ == "MisconfigurationException":
            folder = log_folder()
            if folder is not None:
                (folder / "error.log").write_text(traceback.format_exc())
            fail(one_line)
        folder = log_folder() or Path.cwd()
        report = folder / "error.log"
        try:
            report.write_text(traceback.format_exc())
        except OSError:
            fail(f"{type(error).__name__}: {one_line}")
        fail(f"{type(error).__name__}: {one_line} (details in {report}; please report it)")


def fail(message: str, status: int = 1) -> None:
    """Print one line and exit."""
    print(f"error: {message}", file=sys.stderr)
    sys.stderr.flush()
    sys.exit(status)


def check_overrides(overrides: list[str]) -> DictConfig:
    """Compose the configuration once before Hydra does, to say in one line what is wrong with it.

    Raises:
        UserError: an unknown key, a wrong type, or an unknown choice of a group.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_FOLDER)):
            config = compose("config", overrides=overrides)
            missing = OmegaConf.missing_keys(config)
            if "task" in missing:
                raise UserError(
                    f"no experiment chosen: add one of {', '.join('+exp=' + name for name in experiments())}"
                )
            OmegaConf.to_container(config, resolve=True)
            return config
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, overrides)) from error
    finally:
        GlobalHydra.instance().clear()


def experiments() -> list[str]:
    """Names of `conf/exp/*.yaml`."""
    return sorted(path.stem for path in (CONFIG_FOLDER / "exp").glob("*.yaml"))


def _explain(error: Exception, overrides: list[str]) -> str:
    cause = error.__cause__ or error
    text = " ".join(str(cause).split()) if str(cause) else " ".join(str(error).split())
    full_key = re.search(r"full_key: (\S+)", f"{error} {text}")
    text = re.sub(r"\s*(full_key|object_type|reference_type)[:=].*", "", text)
    keys = {part: part.split("=")[0].lstrip("+~") for part in overrides}
    named = next((part for part, key in keys.items() if full_key and key == full_key.group(1)), None)
    named = named or next((part for part, key in keys.items() if key.split(".")[-1] in text), None)
    key = re.search(r"Key '([^']+)' (?:is )?not in|Could not override '([^']+)'", f"{error} {text}")
    if key is not None:
        wrong = next(group for group in key.groups() if group)
        near = difflib.get_close_matches(wrong.split(".")[-1], _keys(), n=1)
        hint = f"; did you mean '{near[0]}'?" if near and near[0] != wrong else ""
        return f"unknown configuration key in '{named or wrong}'{hint} (python -m experiments.run --help lists them)"
    choice = re.search(r"Could not find '([^']+)'(.*?)(?:Config search path|$)", f"{error}", re.DOTALL)
    if choice is not None:
        return " ".join(f"{choice.group(1)} does not exist.{choice.group(2)}".split())
    return f"{named}: {text}" if named else text


def _keys() -> list[str]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_FOLDER)):
        config = compose("config")
    keys: list[str] = []
    stack: list[DictConfig] = [config]
    while stack:
        node = stack.pop()
        for key in node:
            keys.append(str(key))
            if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node._get_node(key)):
                stack.append(node[key])
    return keys
