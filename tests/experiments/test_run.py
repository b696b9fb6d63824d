"""Every experiment of `conf/exp`, found by discovery, from raw video to a run folder, at the smoke scale."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import av
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from datamodules.synthetic.corpus import generate_collected_corpus, generate_grid_corpus
from experiments import build, hear, probes, robustness
from experiments.command_line import UserError, check_overrides, experiments
from experiments.run import run, stages
from experiments.schema import Config, Task, register
from experiments.trained import open_speech

register()

MINUTES = {"collected_minutes", "collected_minutes_split", "collected_adapt"}  # of which the corpus below has few


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    generate_grid_corpus(folder / "grid", num_speakers=4, sentences_per_speaker=5, seed=0, workers=0)
    generate_collected_corpus(folder / "collected", num_speakers=1, views=("front",), seconds=3, seed=0, workers=0)
    return folder


def configure(name: str, corpora: Path, output: Path, *more: str) -> Config:
    config = check_overrides(
        [
            f"+exp={name}",
            "scale=smoke",
            f"data.root={corpora / name.split('_')[0]}",
            f"data.cache={corpora / 'cache'}",
            f"output={output}",
            "data.batch_workers=0",
            "data.prepare_workers=0",
            "data.val_clips=1",
            "data.val_stride=25",
            "trainer.progress=false",
            "trainer.log_every=1",
            "data.consent=synthetic",
            "data.consent_reference=made by the tests",
            *(["data.test_speakers=[s4]"] if "unseen" in name else []),
            *(["data.train_minutes=0.04", "data.speakers=[p1]", "trainer.max_steps=2"] if name in MINUTES else []),
            *(["renderer.adversary_from=0.5"] if name == "grid_renderer_best" else []),  # of 2 steps
            *more,
        ]
    )
    return OmegaConf.to_object(config)


@pytest.fixture(scope="module")
def finished(corpora, tmp_path_factory):
    """The run folder of an experiment; each runs once for all tests."""

    @cache
    def folder(name: str) -> Path:
        more = []
        if name == "collected_adapt":
            start = folder("collected_minutes") / "checkpoints" / "last.ckpt"
            more = [f"renderer.start={start}"]
        return run(configure(name, corpora, tmp_path_factory.mktemp(name), *more))

    return folder


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_runs(name, finished):
    folder = finished(name)
    assert folder.parent.name == name
    results = json.loads((folder / "results.json").read_text())
    assert results["clips"] > 0
    assert results["steps"] == 2
    for row in results["rows"].values():
        for column, score in row.items():
            assert score["mean"] == score["mean"], column
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]
    with (folder / "metrics.csv").open() as file:
        names = set(csv.DictReader(file).fieldnames or ())
    for loss in results["active_losses"]:
        assert f"train/loss_{loss}" in names
    if name.endswith(("renderer", "joint")):
        (video,) = (
            (folder / "samples").glob("test_*.mp4")
            if results["clips"] == 1
            else sorted(folder.glob("samples/test_*.mp4"))[:1]
        )
        with av.open(str(video)) as container:
            assert {stream.type for stream in container.streams} == {"video", "audio"}
        assert list(folder.glob("wandb/offline-run-*"))


def test_no_data_is_one_line(tmp_path):
    with pytest.raises((UserError, ValueError), match=r"missing|does not exist|no such|not found"):
        run(configure("grid_joint", tmp_path / "nowhere", tmp_path))


def test_an_output_that_cannot_be_written(corpora, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="output="):
        run(configure("grid_a2e", corpora, tmp_path / "file" / "below"))


def test_more_devices_than_there_are(corpora, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"has 1 GPU: use trainer\.devices=1"):
        run(configure("grid_a2e", corpora, tmp_path, "trainer.devices=2"))


def test_norm_needs_speakers(corpora, tmp_path):
    config = configure("grid_joint", corpora, tmp_path)
    assert stages(config, [0.25] * 4) == [Task.speaker_id, Task.audio_to_expression, Task.joint]
    assert stages(config, [0.5, 0.5]) == [Task.audio_to_expression, Task.joint]
    assert not build.judges_speakers([0.6, 0.2, 0.1, 0.1])


class InterruptAt(pl.Callback):
    """Presses Ctrl-C after a number of batches."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        if module.batches_done == self.batches:
            raise KeyboardInterrupt


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


FIVE_STEPS = ("trainer.max_steps=5", "logger=csv", "trainer.precision=float32")


@pytest.fixture(scope="module")
def uninterrupted(corpora, tmp_path_factory) -> dict[str, torch.Tensor]:
    return weights(run(configure("grid_joint", corpora, tmp_path_factory.mktemp("whole"), *FIVE_STEPS)))


@pytest.mark.parametrize("stop", [1, 3])
def test_resumed_equals_uninterrupted(stop, uninterrupted, corpora, tmp_path, monkeypatch, capsys):
    build_trainer = build.build_trainer

    def interrupted(config, task, *arguments):
        trainer = build_trainer(config, task, *arguments)
        if task is Task.joint:
            trainer.callbacks.append(InterruptAt(stop))
        return trainer

    with monkeypatch.context() as patched:
        patched.setattr(build, "build_trainer", interrupted)
        with pytest.raises(SystemExit) as caught:
            run(configure("grid_joint", corpora, tmp_path / "stopped", *FIVE_STEPS))
    assert caught.value.code == 130
    assert f"interrupted after {stop} steps; go on with trainer.resume=" in capsys.readouterr().err
    (checkpoint,) = (tmp_path / "stopped").glob("grid_joint/*/checkpoints/last.ckpt")

    go_on = f"trainer.resume={checkpoint}"
    resumed = weights(run(configure("grid_joint", corpora, tmp_path / "on", *FIVE_STEPS, go_on)))
    assert uninterrupted.keys() == resumed.keys()
    different = [name for name in uninterrupted if not torch.equal(uninterrupted[name], resumed[name])]
    assert different == []


def test_wandb_holds_curves_config_and_video(finished):
    folder = finished("grid_joint")
    (offline,) = folder.glob("wandb/offline-run-*")
    records = read_wandb(offline)
    history = {key for record in records if record["type"] == "history" for key in record["history"]["item"]}
    summary = json.loads(read_wandb_text(offline, "--summary"))
    results = json.loads((folder / "results.json").read_text())
    for loss in results["active_losses"]:
        assert f"train/loss_{loss}" in history
    for metric in ("E_exp", "E_ldmk", "PSNR", "SSIM", "PSNR_mouth", "SSIM_mouth"):
        for stage in ("train", "val", "test"):
            assert f"{stage}/{metric}" in history
    assert {
        "val/PSNR_mean-frame",
        "val/PSNR_copy-mouth",
        "val/E_ldmk_mean-mouth",
        "val/E_exp_mean-expression",
    } <= history
    assert {"scale", "loss", "active_losses"} <= summary["config"].keys()
    assert list(offline.glob("files/media/videos/**/*.mp4"))
    assert any("preview" in key for key in history)


def read_wandb_text(offline: Path, *options: str) -> str:
    """What W&B's own reader says of an offline run."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(offline)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def read_wandb(offline: Path) -> list[dict]:
    return [json.loads(line) for line in read_wandb_text(offline).splitlines()]


def test_speech_results_say_how_the_mouth_moves(finished):
    results = json.loads((finished("grid_unseen_a2e") / "results.json").read_text())
    assert {clip.split("/")[0] for clip in results["unseen"]} == {"s4"}
    assert set(results["articulation"]) == {"ours", "truth", "ours, 20 dB SNR", "ours, 10 dB SNR"}
    clean = results["articulation"]["ours"]["E_ldmk"]["mean"]
    assert clean == pytest.approx(results["rows"]["ours"]["E_ldmk"]["mean"], rel=0.02)  # by windows and by stream
    assert {"bilabial", "silence"} <= results["visemes"].keys()


def test_commands_on_a_finished_run(finished, corpora, tmp_path):
    folder = finished("grid_a2e")
    found = probes.probe(folder)
    assert 0 <= found["accuracy"]["x"]["logistic"] <= 1
    assert found["mechanism"]["change"] >= 0
    assert (folder / "samples" / "tsne.png").is_file()
    trained = open_speech(folder)
    recorded = robustness.errors(trained, robustness.CHANGES[0])
    expected = json.loads((folder / "results.json").read_text())["rows"]["ours"]["E_ldmk"]["per_clip"]
    assert recorded == pytest.approx(expected, rel=0.02)
    (video, *_) = sorted((corpora / "grid" / "s1").glob("*.mpg"))
    frames, _ = hear.hear_file(folder, video, tmp_path / "out.safetensors")
    assert frames in (75, 76)
    with pytest.raises(UserError, match="give a run of"):
        open_speech(finished("grid_speaker_id"))


def test_speaker_network_of_an_earlier_run_is_found(corpora, tmp_path, caplog):
    caplog.set_level("INFO")
    first = run(configure("grid_a2e", corpora, tmp_path, "logger=csv"))
    assert "training one" in caplog.text
    assert (first / "pretrain" / "speaker_id" / "trained.json").is_file()
    again = run(configure("grid_a2e", corpora, tmp_path, "logger=csv"))
    assert "taken from" in caplog.text
    assert not (again / "pretrain").exists()
    same = [torch.equal(value, weights(again)[name]) for name, value in weights(first).items()]
    assert all(same)
    other = run(configure("grid_a2e", corpora, tmp_path, "logger=csv", "seed=1"))
    assert (other / "pretrain" / "speaker_id").is_dir()
