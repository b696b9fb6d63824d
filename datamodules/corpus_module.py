"""What all corpora of real video share: prepare once, split, count, load.

The corpora themselves (`grid`, `collected`) say how their clips are found and how they are split by default.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float, Float32
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.batch import CROP_UNITS, JointBatch, SpeechBatch, VideoBatch, collate
from datamodules.clip_store import ClipStore
from datamodules.prepare.clip import PrepareSettings
from datamodules.prepare.pipeline import is_prepared, prepare_corpus
from datamodules.prepare.sources import SourceClip
from datamodules.sampler import ClipChunks, EpochSampler
from datamodules.splits import Split, split_clips
from datamodules.windows import ClipWindows, Kind, Names
from model_zoo.face.detector import DlibDetector, FaceDetector
from model_zoo.face.morphable import MorphableFace
from model_zoo.face.procedural import cache_folder

_PREFETCHED_BATCHES = 4  # a worker; hides the clips that take long without holding much memory


class Statistics(NamedTuple):
    """Mean and standard deviation over all frames of the training clips."""

    mean: Float[Tensor, "D"]
    std: Float[Tensor, "D"]


class CorpusDataModule(pl.LightningDataModule):
    """Loaders over a corpus of raw video that is prepared on first use.

    Training: shuffled frames, order and noise a function of (seed, epoch, rank); resumes at the batch where the
    trainer stands. Validation and test: the held-out clips in order, chunks of consecutive frames of one clip.

    Args:
        root: raw corpus.
        cache_root: prepared corpora go below it, one folder for each root, face and settings; None: the user's cache.
        face: the model that is fitted.
        kind: "speech", "video" or "joint" samples.
        crop_size: side of the crops in a batch, px.
        batch_size: samples a batch on each rank, in evaluation at most.
        num_workers: loader processes; 0 loads in this one.
        prepare_workers: processes that prepare; 0 prepares in this one, None takes one a core.
        split: name of a split or a function of the manifest; None: the corpus' own.
        val_clips: validation uses so many held-out clips, evenly spaced; None or test: all.
        val_every: validation uses every n-th frame of them.
        samples_per_epoch: over all ranks; default every training frame once.
        seed: of order, noise and `other_frame`.
        settings: of the preparation.
        detector: finds faces and landmarks while preparing; None: dlib.
        progress: shows a bar while preparing.

    Attributes:
        clip_ids: of the whole corpus, sorted; what `clip` of a batch indexes.
        speakers: that train, sorted; what `speaker` of a batch indexes, -1 for others.
        train_clips, test_clips: ids on each side of the split.
    """

    corpus: ClassVar[str]  # for people
    consent: ClassVar[str]  # recorded with every clip unless `settings` says otherwise
    default_split: ClassVar[str]

    def __init__(
        self,
        root: Path | str,
        cache_root: Path | str | None,
        face: MorphableFace,
        kind: Kind = "joint",
        crop_size: int = CROP_UNITS,
        batch_size: int = 16,
        num_workers: int = 0,
        prepare_workers: int | None = None,
        split: str | Split | None = None,
        val_clips: int | None = None,
        val_every: int = 1,
        samples_per_epoch: int | None = None,
        seed: int = 0,
        settings: PrepareSettings | None = None,
        detector: FaceDetector | None = None,
        progress: bool = True,
    ) -> None:
        super().__init__()
        self.root, self.face, self.kind = Path(root), face, kind
        self.crop_size, self.batch_size, self.num_workers = crop_size, batch_size, num_workers
        self.prepare_workers = available_cores() if prepare_workers is None else prepare_workers
        self.split = split or self.default_split
        self.val_clips, self.val_every = val_clips, val_every
        self.samples_per_epoch, self.seed = samples_per_epoch, seed
        self.settings = settings or PrepareSettings(consent=self.consent)
        self.detector, self.progress = detector or DlibDetector(), progress
        cache = cache_folder() / "clips" if cache_root is None else Path(cache_root).expanduser()
        self.store_root = cache / self._store_name()

    def _store_name(self) -> str:
        where = str(self.root.expanduser().resolve())
        fingerprint = self.settings.fingerprint(self.face, self.detector.name)
        return f"{self.root.name}-{hashlib.sha256((where + fingerprint).encode()).hexdigest()[:12]}"

    def scan(self) -> list[SourceClip]:
        """Find the raw clips.

        Raises:
            ValueError: `root` is missing or holds none.
        """
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Prepare what is not prepared yet. Lightning calls this on one process of each machine."""
        sources = self.scan()
        if is_prepared(sources, self.store_root, self.face, self.settings, self.detector):
            return
        report = prepare_corpus(
            sources, self.store_root, self.face, self.prepare_workers, self.progress, self.settings, self.detector
        )
        if self.progress:
            Console(stderr=True).print(report.table())

    def setup(self, stage: str | None = None) -> None:
        """Open the prepared corpus and split it."""
        self.store = ClipStore(self.store_root)
        self.train_clips, self.test_clips = split_clips(self.store.manifest, self.split)
        self.clip_ids = [row.id for row in self.store.manifest]
        self.speakers = sorted({self.store.row(clip).speaker for clip in self.train_clips})

    @property
    def num_speakers(self) -> int:
        """Speakers that train."""
        return len(self.speakers)

    @property
    def speaker_shares(self) -> dict[str, float]:
        """Share of the training frames that each training speaker has."""
        frames = Counter[str]()
        for row in map(self.store.row, self.train_clips):
            frames[row.speaker] += row.valid_frames
        return {speaker: count / frames.total() for speaker, count in sorted(frames.items())}

    @property
    def num_test_frames(self) -> int:
        """Frames that `test_dataloader` gives over all ranks."""
        return len(self._windows(self.test_clips, training=False))

    def batches_per_epoch(self, world_size: int = 1) -> int:
        """Training batches of every rank in one pass over the training frames."""
        return self._sampler(self._windows(self.train_clips, training=True), 0, world_size).num_batches

    @cached_property
    def mfcc_statistics(self) -> Statistics:
        """Of the raw MFCC, over all rows of the training clips."""
        return _statistics([self.store.open(clip).mfcc for clip in self.train_clips])

    @cached_property
    def expression_statistics(self) -> Statistics:
        """Of the expression, over all fitted frames of the training clips."""
        clips = map(self.store.open, self.train_clips)
        return _statistics([clip.expression[clip.valid] for clip in clips])

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.corpus} at {self.root}: {self.num_speakers} speaker{'s' * (self.num_speakers != 1)}, "
            f"{len(self.train_clips)} clips train, {len(self.test_clips)} are held out ({self.num_test_frames} frames)"
        )

    def train_dataloader(self) -> DataLoader:
        """Shuffled samples of the training clips; a resumed run goes on where it stopped."""
        data = self._windows(self.train_clips, training=True)
        sampler = self._sampler(data, *self._rank())
        return self._loader(data, sampler=sampler, batch_size=self.batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """Held-out clips in order, thinned out by `val_clips` and `val_every`."""
        count = len(self.test_clips)
        wanted = count if self.val_clips is None else min(self.val_clips, count)
        return self.evaluation_loader([self.test_clips[i * count // wanted] for i in range(wanted)], self.val_every)

    def test_dataloader(self) -> DataLoader:
        """Every frame of every held-out clip, in order."""
        return self.evaluation_loader(self.test_clips)

    def evaluation_loader(self, clip_ids: Sequence[str], every: int = 1) -> DataLoader:
        """Every n-th frame of any clips, in order, each clip on one rank."""
        data = self._windows(clip_ids, training=False)
        return self._loader(data, batch_sampler=ClipChunks(data.clip_samples(), self.batch_size, *self._rank(), every))

    def clip_batches(self, clip_id: str) -> Iterator[SpeechBatch | VideoBatch | JointBatch]:
        """Every frame of one clip in order, loaded in this process."""
        data = self._windows([clip_id], training=False)
        for keys in ClipChunks(data.clip_samples(), self.batch_size):
            yield collate(data.__getitems__(keys))

    def clip_sound(self, clip_id: str) -> Float32[np.ndarray, "N"]:
        """Waveform of a clip at 16 kHz, in [-1, 1]."""
        return self.store.open(clip_id).waveform().numpy()

    def _windows(self, clip_ids: Sequence[str], training: bool) -> ClipWindows:
        names = Names(self.clip_ids, self.speakers)
        return ClipWindows(self.store, clip_ids, names, self.kind, self.crop_size, self.seed, training)

    def _sampler(self, data: ClipWindows, rank: int, world_size: int) -> EpochSampler:
        batch, seed, length = self.batch_size, self.seed, self.samples_per_epoch
        return EpochSampler(len(data), batch, seed, rank, world_size, length, self._batches_done)

    def _batches_done(self) -> int:
        """Batches that the run has trained on; Lightning restores this count from a checkpoint before it loads data."""
        if self.trainer is None:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]

    def _loader(self, data: ClipWindows, **order) -> DataLoader:
        cv2.setNumThreads(0)  # ends OpenCV's thread pool: a loader process that is forked with one waits for it forever
        return DataLoader(
            data,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            prefetch_factor=_PREFETCHED_BATCHES if self.num_workers > 0 else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.seed),  # the loader must not draw from the global one
            **order,
        )

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _statistics(rows: Sequence[Float[Tensor, "N D"]]) -> Statistics:
    """Mean and standard deviation in float64, one clip at a time."""
    count = sum(len(part) for part in rows)
    mean = torch.stack([part.double().sum(0) for part in rows]).sum(0) / count
    variance = torch.stack([(part.double() - mean).square().sum(0) for part in rows]).sum(0) / count
    return Statistics(mean.float(), variance.sqrt().float())
