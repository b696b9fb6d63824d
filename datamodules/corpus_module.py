"""What all corpora of real video share: prepare once, split, count, load.

The corpora themselves (`grid`, `collected`) say how their clips are found and how they are split by default.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float, Float32
from rich.console import Console
from torch import Tensor

from datamodules.batch import CROP_UNITS
from datamodules.clip_store import ClipStore
from datamodules.hearing import Hearing
from datamodules.loader import BatchLoader
from datamodules.manifest import MANIFEST, ClipRow
from datamodules.prepare.clip import PrepareSettings
from datamodules.prepare.consent import check_consent
from datamodules.prepare.pipeline import is_prepared, prepare_corpus
from datamodules.prepare.sources import SourceClip
from datamodules.sampler import ClipChunks, EpochSampler
from datamodules.seeing import Seeing
from datamodules.splits import Sides, Split, first_minutes, named_split, only_of, split_clips
from datamodules.stored_split import label_rows, settle_split, split_name
from datamodules.tensor_file import is_url
from datamodules.windows import Batch, ClipWindows, Kind, Names
from model_zoo.face.detector import DlibDetector, FaceDetector
from model_zoo.face.morphable import MorphableFace
from model_zoo.face.procedural import cache_folder
from model_zoo.functional.mfcc import FRAMES_PER_VIDEO_FRAME

log = logging.getLogger(__name__)

SAMPLES_PER_FRAME = 640  # 16 kHz, 25 frames a second
SEGMENT = 32  # consecutive windows that are decoded together, from 38 crops


class Statistics(NamedTuple):
    """Mean and standard deviation over all frames of the training clips."""

    mean: Float[Tensor, "D"]
    std: Float[Tensor, "D"]


class CorpusDataModule(pl.LightningDataModule):
    """Loaders over a corpus of raw video that is prepared on first use.

    Training: shuffled frames, order and noise a function of (seed, epoch, rank); resumes at the batch where the
    trainer stands. Validation and test: the held-out clips in order, chunks of consecutive frames of one clip.

    Args:
        root: raw corpus; None: `store_root` is opened as it is and never written.
        cache_root: prepared corpora go below it, one folder for each root, face and settings; None: the user's cache.
        store_root: the prepared corpus itself instead, or the URL of one for fsspec, which is only read.
        face: the model that is fitted.
        kind: "speech", "video" or "joint" samples.
        crop_size: side of the crops in a batch, px.
        batch_size: samples a batch on each rank, in evaluation at most.
        num_workers: loader threads; 0 loads when a batch is asked for.
        prepare_workers: processes that prepare; 0 prepares in this one, None takes one a core.
        split: name of a split or a function of the manifest; None: the corpus' own. Named splits are stored with the
            clips, and hold for later runs on the same store.
        test_speakers, test_takes, test_minutes: what the splits `speaker`, `take` and `duration` hold out.
        train_minutes: train on the first so many minutes of each speaker and view alone (Table 3); None: on all.
        val_clips: validation uses so many held-out clips, evenly spaced; None or test: all.
        val_every: validation uses every n-th frame of them.
        samples_per_epoch: over all ranks; default every training frame once.
        seed: of order, noise and `other_frame`.
        settings: of the preparation.
        detector: finds faces and landmarks while preparing; None: dlib.
        progress: shows a bar while preparing.
        hearing: how the speech part of samples is made; the stored MFCC as they are by default.
        normalise_speakers: MFCC by each speaker's own mean and deviation, a rival of ID removal.
        seeing: how the video part of samples is made; frames and landmarks as they are stored by default.
        only_speakers: train and test on these speakers alone; none: on all.

    Attributes:
        clip_ids: of the whole corpus, sorted; what `clip` of a batch indexes.
        speakers: that train, sorted; what `speaker` of a batch indexes, -1 for others.
        train_clips, test_clips: ids on each side of the split. train_frames, test_frames: of each of them.
    """

    corpus: ClassVar[str]  # for people
    consent: ClassVar[str]  # recorded with every clip unless `settings` says otherwise
    consent_reference: ClassVar[str] = ""
    default_split: ClassVar[str]

    def __init__(
        self,
        root: Path | str | None,
        cache_root: Path | str | None,
        face: MorphableFace,
        kind: Kind = "joint",
        crop_size: int = CROP_UNITS,
        batch_size: int = 16,
        num_workers: int = 0,
        prepare_workers: int | None = None,
        split: str | Split | None = None,
        test_speakers: Sequence[str] = (),
        test_takes: Sequence[str] = (),
        test_minutes: float | None = None,
        train_minutes: float | None = None,
        val_clips: int | None = None,
        val_every: int = 1,
        samples_per_epoch: int | None = None,
        seed: int = 0,
        settings: PrepareSettings | None = None,
        detector: FaceDetector | None = None,
        progress: bool = True,
        store_root: Path | str | None = None,
        hearing: Hearing | None = None,
        normalise_speakers: bool = False,
        seeing: Seeing | None = None,
        only_speakers: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if root is None and store_root is None:
            raise ValueError("neither a raw corpus nor a clip store is given")
        self.root = None if root is None else Path(root).expanduser()
        self.face, self.kind = face, kind
        self.crop_size, self.batch_size, self.num_workers = crop_size, batch_size, num_workers
        self.prepare_workers = available_cores() if prepare_workers is None else prepare_workers
        self.split = split or self.default_split
        self.test_choices: dict[str, Any] = {
            "speakers": tuple(test_speakers),
            "takes": tuple(test_takes),
            "minutes": test_minutes,
        }
        self.train_minutes = train_minutes
        self.val_clips, self.val_every = val_clips, val_every
        self.samples_per_epoch, self.seed = samples_per_epoch, seed
        self.settings = settings or PrepareSettings(self.consent, self.consent_reference)
        self.detector, self.progress = detector or DlibDetector(), progress
        self.hearing, self.normalise_speakers = hearing or Hearing(), normalise_speakers
        self.seeing, self.only_speakers = seeing or Seeing(), tuple(only_speakers)
        cache = cache_folder() / "clips" if cache_root is None else Path(cache_root).expanduser()
        self.store_root = cache / self._store_name(self.root) if store_root is None else store_root
        if not is_url(self.store_root):
            self.store_root = Path(self.store_root).expanduser()

    def _store_name(self, root: Path) -> str:
        where = str(root.resolve())
        fingerprint = self.settings.fingerprint(self.face, self.detector.name)
        return f"{root.name}-{hashlib.sha256((where + fingerprint).encode()).hexdigest()[:12]}"

    def raw_root(self) -> Path:
        """Folder of the raw corpus.

        Raises:
            ValueError: there is only a store.
        """
        if self.root is None:
            raise ValueError(f"{self.store_root}: give the raw corpus too, data.root=<folder>")
        return self.root

    def scan(self) -> list[SourceClip]:
        """Find the raw clips.

        Raises:
            ValueError: `root` is missing or holds none.
        """
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Prepare what is not prepared yet, unless there are only prepared clips to be had.

        Lightning calls this on one process of each machine.

        Raises:
            ValueError: `settings` name no basis of consent for a corpus of people.
        """
        if is_url(self.store_root) or self.root is None:
            return
        if not self.root.exists() and (Path(self.store_root) / MANIFEST).is_file():
            log.info("%s is missing: %s is used as it is", self.root, self.store_root)
            return
        sources, how = self.scan(), (self.face, self.prepare_workers, self.progress, self.settings, self.detector)
        if is_prepared(sources, self.store_root, self.face, self.settings, self.detector):
            return
        check_consent(self.settings.consent, self.settings.consent_reference, str(self.root))
        report = prepare_corpus(sources, self.store_root, *how, split=self.labelled)
        if self.progress:
            Console(stderr=True).print(report.table())

    def setup(self, stage: str | None = None) -> None:
        """Open the prepared corpus and split it."""
        self.store = ClipStore(self.store_root)
        self.train_frames, self.test_frames = self._sides(self.store.manifest)
        self.train_clips, self.test_clips = list(self.train_frames), list(self.test_frames)
        self.clip_ids = [row.id for row in self.store.manifest]
        self.speakers = sorted({self.store.row(clip).speaker for clip in self.train_clips})
        if self.normalise_speakers:
            self.hearing = replace(self.hearing, normal=self._speaker_statistics())

    def _speaker_statistics(self) -> dict[str, Statistics]:
        """Of every speaker's raw MFCC, over all that is heard of them."""
        clips: dict[str, list[str]] = defaultdict(list)
        for row in self.store.manifest:
            clips[row.speaker].append(row.id)
        return {speaker: _statistics(self.store.open(clip).mfcc for clip in ids) for speaker, ids in clips.items()}

    def labelled(self, rows: Sequence[ClipRow]) -> Sequence[ClipRow]:
        """Manifest rows with the side of the split that each is on, where the split can be made of them."""
        with suppress(ValueError):
            return label_rows(rows, Sides(*self._sides(rows)))
        return rows

    def _sides(self, rows: Sequence[ClipRow]) -> tuple[dict[str, range], dict[str, range]]:
        if isinstance(self.split, str):
            name, split = split_name(self.split, **self.test_choices), named_split(self.split, **self.test_choices)
            train, test = settle_split(self.store_root, name, rows, split)
        else:
            train, test = split_clips(rows, self.split)
        train, test = (only_of(rows, side, self.only_speakers) for side in (train, test))
        return train if self.train_minutes is None else first_minutes(rows, train, self.train_minutes), test

    @property
    def num_speakers(self) -> int:
        """Speakers that train."""
        return len(self.speakers)

    @property
    def speaker_shares(self) -> dict[str, float]:
        """Share of the training frames that each training speaker has."""
        frames: dict[str, float] = defaultdict(float)
        for clip, chosen in self.train_frames.items():
            row = self.store.row(clip)
            frames[row.speaker] += row.valid_frames * len(chosen) / row.frames
        total = sum(frames.values())
        return {speaker: count / total for speaker, count in sorted(frames.items())}

    @property
    def num_test_frames(self) -> int:
        """Frames that `test_dataloader` gives over all ranks."""
        return len(self._windows(self.test_frames, training=False))

    def batches_per_epoch(self, world_size: int = 1) -> int:
        """Training batches of every rank in one pass over the training frames."""
        return self._sampler(self._windows(self.train_frames, training=True), 0, world_size).num_batches

    @cached_property
    def mfcc_statistics(self) -> Statistics:
        """Of the MFCC as samples have them, over all rows of the training frames."""
        if self.normalise_speakers:
            return Statistics(*(torch.full((self.settings.num_cepstra,), value) for value in (0.0, 1.0)))
        rate = FRAMES_PER_VIDEO_FRAME
        return _statistics(
            self.store.open(clip).mfcc[rate * frames.start : rate * frames.stop]
            for clip, frames in self.train_frames.items()
        )

    @cached_property
    def expression_statistics(self) -> Statistics:
        """Of the expression, over all fitted training frames."""
        return _statistics(self._fitted_expression(*item) for item in self.train_frames.items())

    def _fitted_expression(self, clip_id: str, frames: range) -> Float[Tensor, "T E"]:
        clip, chosen = self.store.open(clip_id), slice(frames.start, frames.stop)
        return clip.expression[chosen][clip.valid[chosen]]

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.corpus} at {self.root or self.store_root}: "
            f"{self.num_speakers} speaker{'s' * (self.num_speakers != 1)}, "
            f"{len(self.train_clips)} clips train, {len(self.test_clips)} are held out ({self.num_test_frames} frames)"
        )

    def train_dataloader(self) -> BatchLoader:
        """Shuffled samples of the training frames; a resumed run goes on where it stopped."""
        data = self._windows(self.train_frames, training=True)
        return self._loader(data, self._sampler(data, *self._rank()))

    def val_dataloader(self) -> BatchLoader:
        """Held-out clips in order, thinned out by `val_clips` and `val_every`."""
        count = len(self.test_clips)
        wanted = count if self.val_clips is None else min(self.val_clips, count)
        return self.evaluation_loader([self.test_clips[i * count // wanted] for i in range(wanted)], self.val_every)

    def test_dataloader(self) -> BatchLoader:
        """Every held-out frame, in order."""
        return self.evaluation_loader(self.test_clips)

    def evaluation_loader(self, clip_ids: Sequence[str], every: int = 1) -> BatchLoader:
        """Every n-th held-out frame of some clips (every n-th of all, if none is held out), each clip on one rank."""
        data = self._windows({clip: self.shown_frames(clip) for clip in clip_ids}, training=False)
        return self._loader(data, ClipChunks(data.clip_samples(), self.batch_size, *self._rank(), every))

    def shown_frames(self, clip_id: str) -> range:
        """The held-out frames of a clip, or all where none is held out."""
        return self.test_frames.get(clip_id, range(self.store.row(clip_id).frames))

    def clip_batches(self, clip_id: str) -> Iterator[Batch]:
        """Every shown frame of one clip in order, loaded in this process."""
        data = self._windows({clip_id: self.shown_frames(clip_id)}, training=False)
        for unit in ClipChunks(data.clip_samples(), self.batch_size):
            yield data.__getitems__(unit)

    def clip_sound(self, clip_id: str) -> Float32[np.ndarray, "N"]:
        """Waveform of the shown frames of a clip at 16 kHz, in [-1, 1]."""
        frames, clip = self.shown_frames(clip_id), self.store.open(clip_id)
        rate = SAMPLES_PER_FRAME
        return clip.waveform()[rate * frames.start : rate * frames.stop].numpy()

    def _windows(self, frames: Mapping[str, range], training: bool) -> ClipWindows:
        names = Names(self.clip_ids, self.speakers)
        return ClipWindows(
            self.store, frames, names, self.kind, self.crop_size, self.seed, training, self.hearing, self.seeing
        )

    def _sampler(self, data: ClipWindows, rank: int, world_size: int) -> EpochSampler:
        segment = 1 if self.kind == "speech" else SEGMENT
        return EpochSampler(
            len(data), self.batch_size, self.seed, rank, world_size, self.samples_per_epoch, self._batches_done, segment
        )

    def _batches_done(self) -> int:
        """Batches that the run has trained on; Lightning restores this count from a checkpoint before it loads data."""
        if self.trainer is None:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]

    def _loader(self, data: ClipWindows, order: EpochSampler | ClipChunks) -> BatchLoader:
        return BatchLoader(data, order, self.batch_size, self.num_workers)

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _statistics(rows: Iterable[Float[Tensor, "N D"]]) -> Statistics:
    """Mean and standard deviation in float64, merged clip by clip (Chan et al. 1979); no clip is held."""
    count, mean, scatter = 0, torch.zeros(()), torch.zeros(())
    for part in rows:
        if len(part) == 0:
            continue
        part = part.double()
        total, away = count + len(part), part.mean(0) - mean
        scatter = scatter + (part - part.mean(0)).square().sum(0) + away.square() * (count * len(part) / total)
        mean, count = mean + away * (len(part) / total), total
    return Statistics(mean.float(), (scatter / count).sqrt().float())
