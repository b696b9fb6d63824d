"""The only place, with `build_speech`, that turns a configuration into networks, data, callbacks and a trainer."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
import wandb
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from rich.console import Console
from rich.progress import Progress, TaskID

from datamodules.collected import CollectedDataModule
from datamodules.corpus_module import CorpusDataModule, available_cores
from datamodules.folder import FolderDataModule
from datamodules.grid import GridDataModule
from datamodules.prepare.clip import PrepareSettings
from datamodules.prepare.consent import Consent, check_consent
from datamodules.synthetic.corpus import generate_collected_corpus, generate_grid_corpus
from experiments.build_speech import (
    build_hearing,
    build_landmark_speech,
    build_speaker_network,
    build_speech,
    build_standardise,
    check_audio,
)
from experiments.command_line import UserError
from experiments.face_models import open_face
from experiments.schema import Config, Corpus, Detector, Precision, Task
from lightning_modules.audio_to_expression import AudioToExpressionModule, SpeechObjective
from lightning_modules.audio_to_landmark import AudioToLandmarkModule
from lightning_modules.base import TalkinModule
from lightning_modules.callbacks.checkpoints import LastCheckpoint
from lightning_modules.callbacks.ema import GeneratorAverage
from lightning_modules.callbacks.previews import Previews
from lightning_modules.callbacks.progress import TrainingProgress
from lightning_modules.callbacks.random_state import RandomState
from lightning_modules.joint import JointModule
from lightning_modules.renderer import RendererModule, RenderObjective
from lightning_modules.speaker_id import SpeakerIdModule
from model_zoo.audio.speech_to_expression import SpeechToExpression
from model_zoo.audio.vggvox import VGGVox
from model_zoo.face.detector import DlibDetector, FaceDetector
from model_zoo.face.landmark_files import LandmarkFiles
from model_zoo.face.mediapipe_detector import MediapipeDetector
from model_zoo.face.morphable import MorphableFace
from model_zoo.face.procedural import cache_folder, procedural_face
from model_zoo.render.discriminator import PatchDiscriminator
from model_zoo.render.generator import UNetGenerator
from model_zoo.render.mouth_renderer import MouthRenderer
from model_zoo.render.perceptual import Vgg19Features
from model_zoo.weights import WeightsUnavailable, vgg19

log = logging.getLogger(__name__)

PAPER_WIDTH = 64  # channels of the first convolution of the 75 M generator
MIN_SPEAKERS = 4  # below, or with one speaker holding most windows, Eq. 2 has nothing to remove
MAX_SPEAKER_SHARE = 0.5
BATCH_KIND = {
    Task.speaker_id: "speech",
    Task.audio_to_expression: "speech",
    Task.audio_to_landmark: "speech",
    Task.renderer: "video",
    Task.joint: "joint",
}
DATA: dict[Corpus, type[CorpusDataModule]] = {
    Corpus.grid: GridDataModule,
    Corpus.collected: CollectedDataModule,
    Corpus.folder: FolderDataModule,
}
DTYPE = {Precision.float32: torch.float32, Precision.bfloat16: torch.bfloat16}


@dataclass
class Trained:
    """What earlier stages of a run hand to later ones."""

    speaker_network: VGGVox | None = None
    speech: SpeechToExpression | None = None


def build_face(config: Config) -> MorphableFace:
    """The face model that `face.model` names."""
    names = (config.face.model, config.face.landmarks, config.face.expressions)
    if names[0] == "procedural":
        return procedural_face()
    path, landmarks, expressions = (Path(name).expanduser() if name is not None else None for name in names)
    return open_face(path, landmarks, expressions)


def build_data(config: Config, task: Task, face: MorphableFace) -> CorpusDataModule:
    """The datamodule of a task, on `data.root` or on the synthetic corpus of the same layout.

    Raises:
        UserError: `data` names no corpus, or no basis of consent for footage of people.
    """
    data = config.data
    settings = prepare_settings(config)
    detector = build_detector(config)
    kind = BATCH_KIND[task]
    module = DATA[data.corpus]
    return module(
        root=Path(data.root).expanduser() if data.root is not None else synthetic_corpus(config),
        cache_root=data.cache,
        store_root=data.store,
        face=face,
        kind=kind,
        crop_size=config.scale.crop,
        batch_size=speech_batch(config, task) if kind == "speech" else config.scale.video_batch,
        num_workers=data.batch_workers,
        split=data.split.value if data.split is not None else None,
        test_speakers=data.test_speakers,
        test_takes=data.test_takes,
        test_minutes=data.test_minutes,
        train_minutes=data.train_minutes,
        seed=config.seed,
        val_clips=data.val_clips,
        val_every=data.val_stride,
        prepare_workers=data.prepare_workers,
        settings=settings,
        detector=detector,
        progress=config.trainer.progress,
        hearing=build_hearing(config, task),
        normalise_speakers=config.audio.normalise_speakers,
    )


def speech_batch(config: Config, task: Task) -> int:
    """Samples a batch: the scale's number of windows, whatever the frames of a sample."""
    frames = 1 if task is Task.speaker_id else config.audio.frames
    return max(1, config.scale.speech_batch // frames)


def prepare_settings(config: Config) -> PrepareSettings:
    """How the corpus is prepared.

    Raises:
        UserError: footage of people without a basis of consent.
    """
    data = config.data
    consent, reference = Consent.synthetic.value, ""
    if data.root is not None:
        try:
            consent, reference = check_consent(data.consent, data.consent_reference, data.root)
        except ValueError as error:
            raise UserError(str(error)) from error
    return PrepareSettings(
        consent,
        reference,
        num_cepstra=config.audio.num_cepstra,
        choice=data.choice.value,
        correct_offset=data.correct_offset,
    )


def build_detector(config: Config) -> FaceDetector:
    """What finds faces and landmarks.

    Raises:
        UserError: the detector needs a path, or takes none.
    """
    kind = config.data.detector
    path = None if config.data.detector_path is None else Path(config.data.detector_path).expanduser()
    if path is not None and not path.exists():
        raise UserError(f"data.detector_path={path} does not exist")
    match kind:
        case Detector.dlib:
            if path is not None:
                raise UserError("data.detector_path belongs to data.detector=mediapipe or precomputed: leave it out")
            return DlibDetector()
        case Detector.mediapipe:
            if path is None or not path.is_file():
                raise UserError("data.detector=mediapipe needs data.detector_path=<its face_landmarker.task file>")
            return MediapipeDetector(path)
        case Detector.precomputed:
            return LandmarkFiles(path)


def synthetic_corpus(config: Config) -> Path:
    """The built-in corpus in the raw layout of `data.corpus`, written into the cache folder on first use."""
    if config.data.corpus is Corpus.folder:
        raise UserError("data=folder needs data.root=<folder of videos>")
    synthetic, workers = config.data.synthetic, config.data.prepare_workers
    workers = available_cores() if workers is None else workers
    cache = cache_folder() if config.data.cache is None else Path(config.data.cache).expanduser()
    name = f"{config.data.corpus.value}-{synthetic.speakers}x{synthetic.sentences}-seed{synthetic.seed}"
    root = cache / "synthetic" / name
    with Progress(console=Console(stderr=True), disable=not config.trainer.progress, transient=True) as bar:
        task = bar.add_task("making synthetic clips")
        show = partial(_show_progress, bar, task)
        if config.data.corpus is Corpus.grid:
            return generate_grid_corpus(root, synthetic.speakers, synthetic.sentences, synthetic.seed, workers, show)
        return generate_collected_corpus(root, synthetic.speakers, seed=synthetic.seed, workers=workers, progress=show)


def _show_progress(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def judges_speakers(shares: list[float]) -> bool:
    """Whether Eq. 2 has something to remove: enough speakers, none of whom holds most of the training windows."""
    return len(shares) >= MIN_SPEAKERS and max(shares) <= MAX_SPEAKER_SHARE


def build_module(config: Config, task: Task, data, face: MorphableFace, trained: Trained) -> TalkinModule:
    """The LightningModule of a task, on what earlier stages trained."""
    torch.manual_seed(config.seed)
    num_clips = len(data.clip_ids)
    module: TalkinModule
    match task:
        case Task.speaker_id:
            network = build_speaker_network(config, data)
            shares = [data.speaker_shares[speaker] for speaker in data.speakers]
            standardise = build_standardise(config, data)
            module = SpeakerIdModule(standardise, network, shares, num_clips, config.audio.speaker_learning_rate)
        case Task.audio_to_expression:
            speech = build_speech(config, data)
            objective = build_speech_objective(config, face, trained)
            module = AudioToExpressionModule(speech, objective, num_clips, config.audio.learning_rate)
        case Task.audio_to_landmark:
            module = AudioToLandmarkModule(
                build_landmark_speech(config, data, face),
                build_speech_objective(config, face, trained),
                data.expression_statistics.mean,
                num_clips,
                config.audio.landmark_space.value,
                config.audio.learning_rate,
            )
        case Task.renderer:
            module = RendererModule(
                build_renderer(config),
                build_render_objective(config),
                num_clips,
                generator_learning_rate(config),
                config.renderer.discriminator_learning_rate,
            )
        case Task.joint:
            module = JointModule(
                trained.speech or build_speech(config, data),
                build_speech_objective(config, face, trained),
                build_renderer(config),
                build_render_objective(config),
                num_clips,
                config.audio.learning_rate,
                generator_learning_rate(config),
                config.renderer.discriminator_learning_rate,
                config.renderer.teacher_forcing,
            )
    module.decay, module.seed = config.trainer.decay, config.seed
    return module


def build_speech_objective(config: Config, face: MorphableFace, trained: Trained) -> SpeechObjective:
    """L_norm + L_trans; without ID removal nothing could follow L_norm, so it is off."""
    judge = trained.speaker_network if config.audio.id_removal else None
    return SpeechObjective(face, judge, config.loss.speech)


def build_renderer(config: Config) -> MouthRenderer:
    """The generator with its input and output."""
    generator = UNetGenerator(28, config.scale.crop, config.renderer.width, config.renderer.norm.value)
    return MouthRenderer(generator, DTYPE[config.trainer.precision])


def generator_learning_rate(config: Config) -> float:
    """Adam's rate for the generator: what a network bears falls with its width (Yang and Hu 2021, μP)."""
    return config.renderer.learning_rate * PAPER_WIDTH / config.renderer.width


def build_render_objective(config: Config) -> RenderObjective:
    """L_render; the perceptual term is off, said once, where VGG-19's weights can't be had."""
    perceptual = None
    if config.loss.render.vgg > 0:
        try:
            perceptual = Vgg19Features(vgg19())
        except WeightsUnavailable as error:
            log.warning("L_vgg is off: %s", error)
    return RenderObjective(
        PatchDiscriminator(7, config.scale.crop, config.renderer.discriminator_width),
        perceptual,
        config.loss.render,
        config.renderer.penalty.value,
        config.renderer.penalty_every,
        DTYPE[config.trainer.precision],
    )


def num_batches(config: Config, task: Task, batches_per_epoch: int) -> int:
    """Training batches of a task: what was asked for, or the scale's steps, for video within its number of epochs."""
    if task is config.task and config.trainer.max_steps is not None:
        return config.trainer.max_steps
    steps = getattr(config.scale.steps, "audio_to_expression" if task is Task.audio_to_landmark else task.value)
    return steps if BATCH_KIND[task] == "speech" else min(steps, config.scale.video_epochs * batches_per_epoch)


def build_loggers(config: Config, task: Task, folder: Path, name: str, tags: list[str], mode: str) -> list[Logger]:
    """metrics.csv, and a W&B run for each task of the run, grouped by the run's name."""
    loggers: list[Logger] = [CSVLogger(folder, name="", version="")]
    if config.logger.wandb and mode != "disabled":
        # Lightning passes a setting that wandb deprecates: https://github.com/wandb/wandb/pull/10909
        wandb.setup(wandb.Settings(silent=True, mode=mode))
        loggers.append(
            WandbLogger(
                name=f"{name}-{task.value}" if task is not config.task else name,
                project=config.logger.project,
                entity=config.logger.entity,
                group=name,
                job_type=task.value,
                tags=[*config.logger.tags, *tags],
                save_dir=folder,
                offline=mode == "offline",
            )
        )
    return loggers


def build_trainer(
    config: Config, task: Task, module: TalkinModule, data, folder: Path, loggers: list[Logger]
) -> pl.Trainer:
    """A trainer that counts in batches whatever the number of optimisers."""
    batches = num_batches(config, task, data.batches_per_epoch(config.trainer.devices))
    optimizers = 2 if getattr(getattr(module, "render", None), "is_adversarial", False) else 1
    val_every = config.trainer.val_every or max(1, batches // 4)
    callbacks: list[pl.Callback] = [RandomState()]
    if config.trainer.progress:
        callbacks.append(TrainingProgress(task.value.replace("_", " ")))
    if task in (Task.renderer, Task.joint):
        if config.renderer.ema_decay > 0:
            callbacks.append(GeneratorAverage(config.renderer.ema_decay))
        callbacks.append(Previews(data, folder / "samples"))
    # Last, so that what it saves has seen the other callbacks' work on the same batch.
    callbacks.append(LastCheckpoint(folder / "checkpoints", config.trainer.checkpoint_every or val_every))
    return pl.Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        strategy=config.trainer.strategy,
        max_steps=batches * optimizers,
        val_check_interval=val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=config.trainer.log_every,
        logger=loggers,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        deterministic=config.trainer.deterministic,
        default_root_dir=folder,
    )


def check(config: Config) -> None:
    """Refuse what can't work before anything is prepared or trained.

    Raises:
        UserError: with the remedy.
    """
    speech, renderer = config.loss.speech, config.renderer
    if config.task is Task.audio_to_expression and speech.expression == speech.shape == 0:
        raise UserError("no loss is left to train: give loss.speech.expression or loss.speech.shape a weight")
    if config.task is Task.audio_to_expression and speech.velocity > 0 and config.audio.frames < 2:
        raise UserError("loss.speech.velocity needs several frames a sample: set audio.frames=5, or train jointly")
    check_audio(config)
    if renderer.penalty_every < 1 or not 0 <= renderer.ema_decay < 1 or not 0 <= renderer.teacher_forcing <= 1:
        raise UserError("renderer.penalty_every must be at least 1, ema_decay in [0, 1), teacher_forcing in [0, 1]")
    if config.trainer.resume is not None and not Path(config.trainer.resume).is_file():
        raise UserError(f"trainer.resume={config.trainer.resume} does not exist: give <run>/checkpoints/last.ckpt")
    _check_devices(config)


def _check_devices(config: Config) -> None:
    wanted, accelerator = config.trainer.devices, config.trainer.accelerator
    if wanted < 1:
        raise UserError(f"trainer.devices={wanted}: give the number of devices, at least 1")
    have = torch.cuda.device_count()
    wants_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and have > 0)
    if wants_gpu and wanted > have:
        raise UserError(
            f"trainer.devices={wanted} but this machine has {have} GPU{'s' if have != 1 else ''}: "
            f"use trainer.devices={have or 1}" + (" trainer.accelerator=cpu" if have == 0 else "")
        )
