"""The GRID audiovisual sentence corpus (Cooke et al. 2006): 34 speakers, 1,000 sentences of 3 s each."""

from __future__ import annotations

from pathlib import Path

from datamodules.corpus_module import CorpusDataModule
from datamodules.prepare.pipeline import PrepareSettings
from datamodules.prepare.sources import scan_grid
from datamodules.splits import Split
from datamodules.windows import Kind
from model_zoo.face.morphable import MorphableFace

GRID_CONSENT = "recorded for research; licence of Zenodo record 3625687"


class GridDataModule(CorpusDataModule):
    """GRID, in any of its usual packings; see `CorpusDataModule` for the arguments."""

    scan = staticmethod(scan_grid)

    def __init__(
        self,
        root: Path | str,
        cache_root: Path | str,
        face: MorphableFace,
        kind: Kind = "joint",
        crop_size: int = 256,
        batch_size: int = 16,
        num_workers: int = 0,
        split: str | Split = "hash",
        seed: int = 0,
        samples_per_epoch: int | None = None,
        val_clips: int | None = None,
        val_every: int = 1,
        prepare_workers: int = 1,
        settings: PrepareSettings | None = None,
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
            split=split,
            seed=seed,
            samples_per_epoch=samples_per_epoch,
            val_clips=val_clips,
            val_every=val_every,
            prepare_workers=prepare_workers,
            settings=settings or PrepareSettings(consent=GRID_CONSENT),
            progress=progress,
        )
