"""The part of `experiments.build` that turns a configuration into the face model and the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from datamodules.synthetic.corpus import VIEWS, generate_collected_corpus, generate_grid_corpus
from datamodules.synthetic.spoken_store import spoken_collected, spoken_grid
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
    root, store = None if data.root is None else Path(data.root), data.store
    if root is None and store is None:
        if data.synthetic.pictures:
            root = synthetic_corpus(config)
        elif kind == "speech":
            store = str(spoken_corpus(config))
        else:
            raise UserError(f"{task.value} needs pictures: set data.synthetic.pictures=true")
    return module(
        root=root,
        cache_root=data.cache,
        store_root=store,
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
    synthetic, root, workers = config.data.synthetic, _synthetic_root(config, ""), _workers(config)
    with _making_clips(config) as show:
        if config.data.corpus is Corpus.grid:
            return generate_grid_corpus(root, synthetic.speakers, synthetic.sentences, synthetic.seed, workers, show)
        views = synthetic.views or tuple(VIEWS)
        return generate_collected_corpus(
            root, synthetic.speakers, views, synthetic.seconds, seed=synthetic.seed, workers=workers, progress=show
        )


def spoken_corpus(config: Config) -> Path:
    """The same performances as a clip store without pictures, made in the cache folder on first use."""
    num_cepstra = config.audio.num_cepstra
    synthetic, root = config.data.synthetic, _synthetic_root(config, f"spoken{num_cepstra}-")
    how = synthetic.seed, num_cepstra, _workers(config)
    with _making_clips(config) as show:
        if config.data.corpus is Corpus.grid:
            return spoken_grid(root, synthetic.speakers, synthetic.sentences, *how, show)
        return spoken_collected(root, synthetic.speakers, synthetic.seconds, tuple(VIEWS), *how, show)


def _synthetic_root(config: Config, prefix: str) -> Path:
    """Folder of a synthetic corpus below the cache."""
    data, synthetic = config.data, config.data.synthetic
    if data.corpus is Corpus.folder:
        raise UserError("data=folder needs data.root=<folder of videos>")
    cache = cache_folder() if data.cache is None else Path(data.cache).expanduser()
    each = (
        f"{synthetic.sentences}"
        if data.corpus is Corpus.grid
        else "-".join([f"{synthetic.seconds:g}s", *synthetic.views])
    )
    return cache / "synthetic" / f"{prefix}{data.corpus.value}-{synthetic.speakers}x{each}-seed{synthetic.seed}"


def _workers(config: Config) -> int:
    wanted = config.data.prepare_workers
    return available_cores() if wanted is None else wanted


@contextmanager
def _making_clips(config: Config) -> Iterator[Callable[[int, int], None]]:
    """A bar; what it yields is told the clips done and the clips in all."""
    with Progress(console=Console(stderr=True), disable=not config.trainer.progress, transient=True) as bar:
        yield partial(_show_progress, bar, bar.add_task("making synthetic clips"))


def _show_progress(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)
