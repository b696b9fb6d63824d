"""Settings that cannot work end in one line before anything runs."""

import pytest
from omegaconf import OmegaConf

from experiments.check_config import check_config
from experiments.command_line import UserError, check_overrides, experiments
from experiments.schema import register

register()


def check(*overrides: str) -> None:
    check_config(OmegaConf.to_object(check_overrides(list(overrides))))


@pytest.mark.parametrize(
    ("experiment", "setting", "remedy"),
    [
        ("grid_a2e", "loss.speech.norm_warmup=1.5", "share of the run"),
        ("grid_a2e", "loss.speech.velocity=0.5", "set audio.frames=5"),
        ("grid_renderer_residual", "renderer.references=3", "1 .the closed mouth. or 2"),
        ("grid_renderer_warped", "renderer.references=9", "from 1 to 8"),
        ("grid_renderer_warped", "renderer.gallery=3", "at most renderer.gallery"),
        ("grid_full_face", "renderer.output=warped", "no landmarks of frame t"),
        ("grid_joint", "renderer.full_face=true", "task=renderer"),
        ("grid_joint", "augment.flip=0.5", "renderer alone"),
        ("grid_renderer", "renderer.adversary_from=1", "share of the run"),
        ("grid_renderer", "renderer.ema_decay=1", r"ema_decay in \[0, 1\)"),
        ("grid_renderer", "renderer.start=nowhere.ckpt", "does not exist"),
        ("grid_renderer", "trainer.decay=2", "shares of the run"),
        ("grid_renderer", "trainer.devices=0", "at least 1"),
    ],
)
def test_refused_with_a_remedy(experiment, setting, remedy):
    with pytest.raises(UserError, match=remedy):
        check(f"+exp={experiment}", setting)


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_may_run(name, tmp_path):
    start = tmp_path / "last.ckpt"
    start.touch()
    check(f"+exp={name}", *([f"renderer.start={start}"] if name == "collected_adapt" else []))
