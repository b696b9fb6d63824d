"""A mistake on the command line is answered by one line that names the remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.command_line import UserError, check_overrides, experiments, guarded
from experiments.schema import Task, register

ROOT = Path(__file__).parents[2]
register()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["+exp=grid_joint", "trainer.max_step=3"], "did you mean 'max_steps'"),
        (["+exp=grid_joint", "data.nonsense=1"], "unknown configuration key in 'data.nonsense=1'"),
        (["+exp=grid_joint", "trainer.devices=two"], "trainer.devices=two"),
        (["+exp=grid_joint", "data.split=random"], "data.split=random"),
        (["+exp=no_such"], "exp/no_such"),
        (["+exp=grid_joint", "scale=huge"], "scale/huge"),
        ([], "+exp=grid_joint"),
    ],
)
def test_mistakes_are_one_line(overrides, expected):
    with pytest.raises(UserError) as caught:
        check_overrides(overrides)
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_composes(name):
    config = check_overrides([f"+exp={name}"])
    assert config.name == name
    assert config.task in list(Task)
    assert config.scale.name in ("demo", "speech", "two_hours")  # on two cores


def test_experiments_state_only_differences():
    for path in (ROOT / "experiments" / "conf" / "exp").glob("*.yaml"):
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert len(lines) <= 12, path.name


def test_errors_exit_with_one_line(capsys):
    def broken() -> None:
        raise UserError("choose another")

    with pytest.raises(SystemExit) as caught:
        guarded(broken)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: choose another\n"


def test_an_unexpected_error_leaves_its_traceback_in_a_file(tmp_path, capsys):
    def broken() -> None:
        raise RuntimeError("of ours")

    with pytest.raises(SystemExit):
        guarded(broken, lambda: tmp_path)
    assert "Traceback" in (tmp_path / "error.log").read_text()
    assert capsys.readouterr().err.count("\n") == 1


def test_help_and_config_of_a_whole_command():
    environment = os.environ | {"COLUMNS": "120"}
    command = [sys.executable, "-m", "experiments.run"]
    help_text = subprocess.run(
        [*command, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    for name in ("grid_joint", "collected_a2e", "trainer.devices", "scale"):
        assert name in help_text.stdout
    job = subprocess.run(
        [*command, "+exp=grid_joint", "--cfg", "job"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "task: joint" in job.stdout
