"""What all corpora of real video share: prepare once, split, count, load.

The corpora themselves (`grid`, `collected`) say how their clips are found and how they are split by default.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.batch import JointBatch, SpeechBatch, VideoBatch, collate
from datamodules.clip_store import ClipStore
from datamodules.prepare.pipeline import PrepareSettings, is_prepared, prepare_corpus
from datamodules.prepare.sources import Scan
from datamodules.sampler import ClipChunks, EpochSampler
from datamodules.splits import Split, split_clips
from datamodules.windows import ClipIndex, ClipWindows, Kind
from model_zoo.face.detector import DlibDetector
from model_zoo.face.morphable import MorphableFace

_PREFETCHED_BATCHES = 4  # a worker; hides the clips that take long without holding much memory


class Statistics(NamedTuple):
    """Mean and standard deviation over all frames of the training clips."""

    mean: Float[Tensor, "D"]
    std: Float[Tensor, "D"]


class CorpusDataModule(pl.LightningDataModule):
    """Loaders over a corpus of raw video that is prepared on first use.

    Training: shuffled frames, order and noise a function of (seed, epoch, rank). Validation and test: the held-out
    clips in order, chunks of consecutive frames of one clip.

    Args:
        root: raw corpus.
        cache_root: prepared corpora go below it, one folder for each root, face and settings.
        face: the model that is fitted.
        kind: "speech", "video" or "joint" samples.
        crop_size: side of the crops in a batch, px.
        batch_size: samples a batch on each rank, in evaluation at most.
        num_workers: loader processes; 0 loads in this one.
        split: name of a split or a function of the manifest.
        seed: of order, noise and `other_frame`.
        samples_per_epoch: over all ranks; default every training frame once.
        val_clips: validation uses so many held-out clips, evenly spaced; test always uses all.
        val_every: validation uses every n-th frame of them.
        prepare_workers: processes that prepare; 0 prepares in this one.
        settings: of the preparation.
        progress: shows a bar while preparing.

    Attributes:
        clip_ids, speakers: what the clip and speaker indices of a batch mean; of the whole corpus, sorted.
        train_clips, test_clips: ids of each side of the split.
    """

    scan: ClassVar[Scan]

    def __init__(
        self,
        root: Path | str,
        cache_root: Path | str,
        face: MorphableFace,
        kind: Kind,
        crop_size: int,
        batch_size: int,
        num_workers: int,
        split: str | Split,
        seed: int,
        samples_per_epoch: int | None,
        val_clips: int | None,
        val_every: int,
        prepare_workers: int,
        settings: PrepareSettings,
        progress: bool,
    ) -> None:
        super().__init__()
        self.root, self.face, self.kind = Path(root), face, kind
        self.crop_size, self.batch_size, self.num_workers = crop_size, batch_size, num_workers
        self.split, self.seed, self.samples_per_epoch = split, seed, samples_per_epoch
        self.val_clips, self.val_every = val_clips, val_every
        self.prepare_workers, self.settings, self.progress = prepare_workers, settings, progress
        self.store_root = Path(cache_root) / self._store_name()
        self._progress: tuple[int, int] = (0, 0)
        self._sampler: EpochSampler | None = None

    def _store_name(self) -> str:
        where = str(self.root.expanduser().resolve())
        fingerprint = self.settings.fingerprint(self.face, DlibDetector())
        return f"{self.root.name}-{hashlib.sha256((where + fingerprint).encode()).hexdigest()[:12]}"

    def prepare_data(self) -> None:
        """Prepare what is not prepared yet. Lightning calls this on one process of each machine."""
        sources = type(self).scan(self.root)
        if is_prepared(sources, self.store_root, self.face, self.settings):
            return
        report = prepare_corpus(sources, self.store_root, self.face, self.prepare_workers, self.progress, self.settings)
        if self.progress:
            from rich import print

            print(report.table())

    def setup(self, stage: str | None = None) -> None:
        """Open the prepared corpus and split it."""
        self.store = ClipStore(self.store_root)
        self.train_clips, self.test_clips = split_clips(self.store.manifest, self.split)
        self.clip_ids = [row.id for row in self.store.manifest]
        self.speakers = sorted({row.speaker for row in self.store.manifest})

    @property
    def num_speakers(self) -> int:
        """Speakers of the whole corpus."""
        return len(self.speakers)

    @cached_property
    def mfcc_statistics(self) -> Statistics:
        """Of the raw MFCC, over all rows of the training clips."""
        return _statistics([self.store.open(clip).mfcc for clip in self.train_clips])

    @cached_property
    def expression_statistics(self) -> Statistics:
        """Of the expression, over all fitted frames of the training clips."""
        clips = map(self.store.open, self.train_clips)
        return _statistics([clip.expression[clip.valid] for clip in clips])

    def set_progress(self, epoch: int, batches_done: int) -> None:
        """Let training go on after the first `batches_done` batches of `epoch`: exactly what an unbroken run sees."""
        self._progress = (epoch, batches_done)
        if self._sampler is not None:
            self._sampler.set_progress(epoch, batches_done)

    def train_dataloader(self) -> DataLoader:
        """Shuffled samples of the training clips; a resumed run goes on where it stopped."""
        data = self._windows(self.train_clips, training=True)
        rank, world_size = self._rank()
        self._sampler = EpochSampler(len(data), self.batch_size, self.seed, rank, world_size, self.samples_per_epoch)
        if self.trainer is not None and self.trainer.lightning_module is not None:
            self._progress = divmod(self.trainer.lightning_module.batches_done, self._sampler.num_batches)
        self._sampler.set_progress(*self._progress)
        return self._loader(data, sampler=self._sampler, batch_size=self.batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """Held-out clips in order, thinned out by `val_clips` and `val_every`."""
        count = len(self.test_clips)
        wanted = count if self.val_clips is None else min(self.val_clips, count)
        chosen = [self.test_clips[index * count // wanted] for index in range(wanted)]
        return self._evaluation_loader(chosen, self.val_every)

    def test_dataloader(self) -> DataLoader:
        """Every frame of every held-out clip, in order."""
        return self._evaluation_loader(self.test_clips, every=1)

    def evaluation_loader(self, clip_ids: Sequence[str], every: int = 1) -> DataLoader:
        """Every n-th frame of any clips, in order, as `test_dataloader` gives them."""
        return self._evaluation_loader(clip_ids, every)

    def batches_per_epoch(self, world_size: int = 1) -> int:
        """Training batches of every rank in one pass over the training frames."""
        data = self._windows(self.train_clips, training=True)
        return EpochSampler(len(data), self.batch_size, self.seed, 0, world_size, self.samples_per_epoch).num_batches

    @property
    def num_test_frames(self) -> int:
        """Frames that `test_dataloader` gives over all ranks."""
        return len(self._windows(self.test_clips, training=False))

    @property
    def speaker_shares(self) -> dict[str, float]:
        """Share of the training frames that each training speaker has."""
        frames: dict[str, int] = {}
        for clip in self.train_clips:
            row = self.store.row(clip)
            frames[row.speaker] = frames.get(row.speaker, 0) + row.frames
        return {speaker: count / sum(frames.values()) for speaker, count in frames.items()}

    def clip_batches(self, clip_id: str) -> Iterator[SpeechBatch | VideoBatch | JointBatch]:
        """Every frame of one clip in order, loaded in this process."""
        data = self._windows([clip_id], training=False)
        for keys in ClipChunks(data.clip_samples(), self.batch_size):
            yield collate(data.__getitems__(keys))

    def clip_sound(self, clip_id: str) -> Float32[np.ndarray, "N"]:
        """Waveform of a clip at 16 kHz, in [-1, 1]."""
        return self.store.open(clip_id).sound.numpy().astype(np.float32) / 32768

    def describe(self) -> str:
        """One line for people: how much there is, of whom, and what is held out."""
        return (
            f"{len(self.train_clips)} training clips ({len(self._windows(self.train_clips, True))} frames), "
            f"{len(self.test_clips)} held-out clips ({self.num_test_frames} frames), "
            f"{len(self.speakers)} speakers, from {self.root}"
        )

    def _evaluation_loader(self, clip_ids: Sequence[str], every: int) -> DataLoader:
        data = self._windows(clip_ids, training=False)
        chunks = ClipChunks(data.clip_samples(), self.batch_size, *self._rank(), every=every)
        return self._loader(data, batch_sampler=chunks)

    def _windows(self, clip_ids: Sequence[str], training: bool) -> ClipWindows:
        names = ClipIndex(tuple(self.clip_ids), tuple(self.speakers))
        return ClipWindows(self.store, clip_ids, names, self.kind, self.crop_size, self.seed, training)

    def _loader(self, data: ClipWindows, **order) -> DataLoader:
        return DataLoader(
            data,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            prefetch_factor=_PREFETCHED_BATCHES if self.num_workers > 0 else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_one_thread,
            generator=torch.Generator().manual_seed(self.seed),  # the loader must not draw from the global one
            **order,
        )

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)


def _statistics(rows: Sequence[Float[Tensor, "N D"]]) -> Statistics:
    """Mean and standard deviation in float64, one clip at a time."""
    count = sum(len(part) for part in rows)
    mean = sum(part.double().sum(0) for part in rows) / count
    variance = sum((part.double() - mean).square().sum(0) for part in rows) / count
    return Statistics(mean.float(), variance.sqrt().float())
