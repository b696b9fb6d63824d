"""Train, score and show one experiment: `python -m experiments.run +exp=grid_joint [key=value ...]`."""

from __future__ import annotations

import contextlib
import copy
import logging
import netrc
import os
import time
import warnings
from pathlib import Path

import hydra
import pytorch_lightning as pl
import wandb
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from experiments import build, registry, tables
from experiments.articulation import articulation, by_viseme
from experiments.build_data import build_data, build_face, is_synthetic
from experiments.build_speech import learns_removal
from experiments.check_config import check_config
from experiments.checkpoints import check_resumes
from experiments.command_line import CONFIG_FOLDER, INTERRUPTED, check_overrides, fail, guarded
from experiments.run_folder import RUN_FOLDER_VARIABLE, experiment_folder, make_run_folder
from experiments.schema import Config, Task, register
from lightning_modules.base import TalkinModule
from lightning_modules.callbacks.previews import Previews

log = logging.getLogger(__name__)
console = tables.wide_console(stderr=True)


def run(config: Config) -> Path:
    """Train the stages of an experiment, score the last one on every held-out frame, and leave a run folder.

    Returns:
        The run folder.
    """
    started = time.monotonic()
    check_config(config)
    face = build_face(config)
    parent = experiment_folder(config)  # before hours of preparation: can the results be written?
    if config.data.root is None and config.data.store is None:
        log.info("no data.root given: training on the built-in SYNTHETIC corpus (computed voices and faces)")
    data = build_data(config, config.task, face)
    data.prepare_data()
    data.setup("fit")
    tasks = stages(config, list(data.speaker_shares.values()))
    trained = build.Trained()
    if config.trainer.resume:  # the checkpoint holds what earlier stages trained
        if Task.speaker_id in tasks[:-1]:
            trained.speaker_network = build.build_speaker_network(config, data)
        tasks = tasks[-1:]
    elif Task.speaker_id in tasks[:-1]:
        trained.speaker_network = registry.find_speaker_network(config, data)
        if trained.speaker_network is not None:
            tasks.remove(Task.speaker_id)
    folder = make_run_folder(parent, config)
    try:
        for task in tasks:
            _train(config, task, face, trained, folder)
    finally:
        wandb.teardown()  # its service outlives the run otherwise, and the next run of a sweep would wait for it
    if is_first_process():
        console.print(f"run folder: {folder}  ({(time.monotonic() - started) / 60:.1f} minutes)", highlight=False)
    return folder


def stages(config: Config, speaker_shares: list[float]) -> list[Task]:
    """What is trained, in order; the speaker network only where Eq. 2 has something to remove."""
    speech = config.loss.speech
    wanted = list(config.pretrain)
    if Task.audio_to_expression in wanted and speech.expression == speech.shape == 0:
        wanted.remove(Task.audio_to_expression)  # pixels alone train the audio networks then
    wants_judge = speech.norm > 0 and learns_removal(config)
    if Task.speaker_id in wanted and not (wants_judge and build.judges_speakers(speaker_shares)):
        wanted.remove(Task.speaker_id)
        if wants_judge:
            log.info(
                "L_norm is off: %d training speaker%s, the largest with %.0f%% of the windows "
                "(it needs %d, none above %.0f%%)",
                len(speaker_shares),
                "" if len(speaker_shares) == 1 else "s",
                100 * max(speaker_shares),
                build.MIN_SPEAKERS,
                100 * build.MAX_SPEAKER_SHARE,
            )
    return [*wanted, config.task]


def _train(config: Config, task: Task, face, trained: build.Trained, run_folder: Path) -> None:
    is_last = task is config.task
    folder = run_folder if is_last else run_folder / "pretrain" / task.value
    folder.mkdir(parents=True, exist_ok=True)
    data = build_data(config, task, face)
    data.prepare_data()
    data.setup("fit")
    module = build.build_module(config, task, data, face, trained)
    mode = wandb_mode(config)
    tags = ["synthetic" if is_synthetic(config, data) else "real", config.data.corpus.value, config.scale.name]
    name = f"{run_folder.parent.name}/{run_folder.name}"
    loggers = build.build_loggers(config, task, folder, name, tags, mode)
    trainer = build.build_trainer(config, task, module, data, folder, loggers)
    if is_first_process():
        _summarise(config, task, module, data, folder)
    for logger in loggers:
        logger.log_hyperparams(_plain(config) | {"active_losses": module.active_losses()})
    if config.trainer.resume:
        check_resumes(module, Path(config.trainer.resume))
    _fit(trainer, module, data, folder, config.trainer.resume, is_last)
    trainer.test(module, data, verbose=False)
    # Collected on every rank: the intervals reduce over them.
    results = tables.collect(module, data.clip_ids, _about(config, task, module, data, name))
    if trainer.is_global_zero:
        if is_last:
            results |= _heard(config, task, module, data)
        tables.write(results, folder)
        if is_last or task is Task.speaker_id:
            tables.show(results, console)
        _name_previews(trainer)
        _finish_wandb(mode, folder, is_last)
    if task is Task.speaker_id:
        trained.speaker_network = module.network
        if trainer.is_global_zero:
            registry.record(folder, config, data)
    if task is Task.audio_to_expression:
        trained.speech = module.speech


def _fit(trainer: pl.Trainer, module: TalkinModule, data, folder: Path, resume: str | None, is_last: bool) -> None:
    with contextlib.suppress(SystemExit):  # how Lightning ends a run after Ctrl-C
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    if trainer.interrupted:
        checkpoint = folder / "checkpoints" / "last.ckpt"
        remedy = "run the same command again"
        if is_last and checkpoint.is_file():
            remedy = f"go on with trainer.resume={checkpoint}"
        fail(f"interrupted after {module.batches_done} steps; {remedy}", INTERRUPTED)


def _heard(config: Config, task: Task, module: TalkinModule, data) -> dict:
    """Who was heard before, and what whole clips say about networks that turn speech into a face."""
    unseen = [clip for clip in data.test_clips if data.store.row(clip).speaker not in data.speakers]
    found: dict = {"unseen": unseen}
    if task in (Task.audio_to_expression, Task.joint):
        speech, objective = copy.deepcopy(module.speech).cpu().eval(), copy.deepcopy(module.objective).cpu().eval()
        found["articulation"] = articulation(speech, objective, data)
        found["visemes"] = by_viseme(speech, objective, data)
    return found


def _about(config: Config, task: Task, module: TalkinModule, data, name: str) -> dict:
    """What a table needs beside the scores."""
    vgg_is_off = getattr(module, "render", None) is not None and "vgg" not in module.active_losses()
    return {
        "name": name,
        "task": task.value,
        "corpus": config.data.corpus.value,
        "synthetic": is_synthetic(config, data),
        "clips": len(data.test_clips),
        "frames": data.num_test_frames,
        "crop": config.scale.crop,
        "seed": config.seed,
        "steps": module.batches_done,
        "learning_rate": config.audio.learning_rate,
        "scale": config.scale.name,
        "unavailable": ["L_vgg"] if vgg_is_off and config.loss.render.vgg > 0 else [],
    }


def _name_previews(trainer: pl.Trainer) -> None:
    for callback in trainer.callbacks:
        if isinstance(callback, Previews):
            for path in callback.written:
                if path.name.startswith("test"):
                    console.print(f"preview: {path}", highlight=False, soft_wrap=True)


def _summarise(config: Config, task: Task, module: TalkinModule, data, folder: Path) -> None:
    table = Table(title=f"{task.value} ({folder})", show_header=False, box=None)
    table.add_row("data", data.describe())
    for name, child in module.named_children():
        parameters = sum(parameter.numel() for parameter in child.parameters())
        if parameters:
            table.add_row(name, f"{parameters:,} parameters")
    table.add_row("losses", ", ".join(module.active_losses()))
    batches = build.num_batches(config, task, data.batches_per_epoch(config.trainer.devices))
    table.add_row(
        "training", f"{batches} steps of {data.batch_size} samples, scale {config.scale.name}, {config.scale.crop} px"
    )
    console.print(table)


def wandb_mode(config: Config) -> str:
    """`online` where a key is set, else `offline`, unless the configuration says so."""
    if not config.logger.wandb:
        return "disabled"
    if config.logger.mode is not None:
        return config.logger.mode
    return "online" if os.environ.get("WANDB_API_KEY") or _key_in_netrc() else "offline"


def _key_in_netrc() -> bool:
    """Whether `wandb login` left a key in ~/.netrc."""
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _finish_wandb(mode: str, folder: Path, is_last: bool) -> None:
    if mode == "disabled":
        return
    wandb.finish()
    if mode == "offline" and is_last:
        console.print(
            f"W&B was offline; to upload: wandb sync {folder}/wandb/offline-run-*", highlight=False, soft_wrap=True
        )


def _plain(config: Config) -> dict:
    return OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)


def is_first_process() -> bool:
    """Whether this is the process that people see."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def quiet() -> None:
    """One line a fact: no banners, no warnings that nobody can act on."""
    logging.basicConfig(
        level=logging.INFO if is_first_process() else logging.ERROR,
        format="%(message)s",
        force=True,
    )
    for name in ("pytorch_lightning", "lightning_fabric", "torch", "PIL", "matplotlib", "numba", "wandb"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Few workers are meant on few cores, and a loader without shuffling is meant for evaluation.
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")


@hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name="config")
def _hydra_main(config: DictConfig) -> None:
    quiet()
    guarded(lambda: run(OmegaConf.to_object(config)), _run_folder)


def _run_folder() -> Path | None:
    folder = os.environ.get(RUN_FOLDER_VARIABLE)
    return Path(folder) if folder else None


def main() -> None:
    """Check the command line in one line, then let Hydra run it."""
    register()
    arguments = get_args_parser().parse_args()
    plain = not (arguments.help or arguments.hydra_help or arguments.multirun or arguments.info)
    if plain:
        guarded(lambda: check_overrides([part for part in arguments.overrides if not part.startswith("hydra.")]))
    _hydra_main()


if __name__ == "__main__":
    main()
