"""The part of `experiments.build` that turns a configuration into the face model and the data."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from datamodules.collected import CollectedDataModule
from datamodules.corpus_module import CorpusDataModule, available_cores
from datamodules.folder import FolderDataModule
from datamodules.grid import GridDataModule
from datamodules.prepare.clip import PrepareSettings
from datamodules.prepare.consent import Consent, check_consent
from datamodules.synthetic.corpus import generate_collected_corpus, generate_grid_corpus
from experiments.build_render import build_seeing
from experiments.build_speech import build_hearing
from experiments.command_line import UserError
from experiments.face_models import open_face
from experiments.schema import Config, Corpus, Detector, Task
from model_zoo.face.detector import DlibDetector, FaceDetector
from model_zoo.face.landmark_files import LandmarkFiles
from model_zoo.face.mediapipe_detector import MediapipeDetector
from model_zoo.face.morphable import MorphableFace
from model_zoo.face.procedural import cache_folder, procedural_face

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


def build_face(config: Config) -> MorphableFace:
    """The face model that `face.model` names."""
    names = (config.face.model, config.face.landmarks, config.face.expressions)
    if names[0] == "procedural":
        return procedural_face()
    path, landmarks, expressions = (Path(name).expanduser() if name is not None else None for name in names)
    return open_face(path, landmarks, expressions)


def build_data(config: Config, task: Task, face: MorphableFace) -> CorpusDataModule:
    """The datamodule of a task, on `data.root`, else on `data.store` as it is, else on the synthetic corpus.

    Raises:
        UserError: `data` names no corpus, or no basis of consent for footage of people.
    """
    data = config.data
    settings = prepare_settings(config)
    detector = build_detector(config)
    kind = BATCH_KIND[task]
    module = DATA[data.corpus]
    root = None if data.root is None else Path(data.root)
    if root is None and data.store is None:
        root = synthetic_corpus(config)
    return module(
        root=root,
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
        seeing=build_seeing(config),
        only_speakers=data.speakers,
    )


def is_synthetic(config: Config, data: CorpusDataModule) -> bool:
    """Whether the opened data are the built-in corpus: made here, or found in a store of such clips alone."""
    rows = data.store.manifest
    return config.data.root is None and all(row.consent == Consent.synthetic for row in rows)


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
