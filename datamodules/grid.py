"""The GRID audiovisual sentence corpus (Cooke et al. 2006): 34 speakers, 1,000 sentences of 3 s each."""

from __future__ import annotations

from datamodules.corpus_module import CorpusDataModule
from datamodules.prepare.consent import Consent
from datamodules.prepare.sources import SourceClip, scan_grid


class GridDataModule(CorpusDataModule):
    """GRID in any of its usual packings; see `CorpusDataModule` for the arguments."""

    corpus = "GRID"
    consent = Consent.research_corpus.value
    consent_reference = "GRID audiovisual sentence corpus, licence of Zenodo record 3625687"
    default_split = "hash"

    def scan(self) -> list[SourceClip]:
        """Find the clips, in any of the usual packings."""
        return scan_grid(self.raw_root())
