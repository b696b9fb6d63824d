"""The corpus that the paper recorded (§4): speakers × 7 views × takes, <root>/<speaker>/<view>/<take>.mp4.

The paper gives each speaker 15 minutes to train and 2 minutes to test on; here whole takes are held out.
"""

from __future__ import annotations

from datamodules.corpus_module import CorpusDataModule
from datamodules.prepare.sources import SourceClip, scan_collected


class CollectedDataModule(CorpusDataModule):
    """Takes of several views; see `CorpusDataModule` for the arguments.

    Without a split, takes whose name holds "test" are held out. State the consent of the speakers in `settings`.
    """

    corpus = "collected corpus"
    consent = "not stated"
    default_split = "take"

    def scan(self) -> list[SourceClip]:
        """Find the takes."""
        return scan_collected(self.raw_root())
