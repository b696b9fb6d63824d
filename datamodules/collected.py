"""The corpus that the paper recorded (§4): speakers × 7 views × takes, <root>/<speaker>/<view>/<take>.mp4.

The paper gives each speaker 15 minutes to train and 2 minutes to test on; here whole takes are held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from datamodules.corpus_module import CorpusDataModule
from datamodules.prepare.pipeline import PrepareSettings
from datamodules.prepare.sources import scan_collected
from datamodules.splits import Split, take_split
from datamodules.windows import Kind
from model_zoo.face.morphable import MorphableFace


class CollectedDataModule(CorpusDataModule):
    """Takes of several views; see `CorpusDataModule` for the other arguments.

    Args:
        consent: on what basis the speakers' faces may be processed; recorded with every clip.
        test_takes: names of the takes that are held out; without any, those whose name holds "test".
        split: instead of `test_takes`, a split by name or a function of the manifest.
    """

    scan = staticmethod(scan_collected)

    def __init__(
        self,
        root: Path | str,
        cache_root: Path | str,
        face: MorphableFace,
        consent: str = "not stated",
        kind: Kind = "joint",
        crop_size: int = 256,
        batch_size: int = 16,
        num_workers: int = 0,
        test_takes: Sequence[str] = (),
        split: str | Split | None = None,
        seed: int = 0,
        samples_per_epoch: int | None = None,
        val_clips: int | None = None,
        val_every: int = 1,
        prepare_workers: int = 1,
        progress: bool = True,
    ) -> None:
        super().__init__(
            root=root,
            cache_root=cache_root,
            face=face,
            kind=kind,
            crop_size=crop_size,
            batch_size=batch_size,
            num_workers=num_workers,
            split=split or partial(take_split, takes=tuple(test_takes)),
            seed=seed,
            samples_per_epoch=samples_per_epoch,
            val_clips=val_clips,
            val_every=val_every,
            prepare_workers=prepare_workers,
            settings=PrepareSettings(consent=consent),
            progress=progress,
        )
