"""Any folder of videos: web footage, phone clips, one's own recordings."""

from __future__ import annotations

from datamodules.corpus_module import CorpusDataModule
from datamodules.prepare.sources import SourceClip, scan_folder


class FolderDataModule(CorpusDataModule):
    """Every video below a folder; see `CorpusDataModule` for the arguments.

    The first folder below the root names the speaker; a video in the root itself is a speaker of its own. State the
    consent of the people who are seen in `settings`.
    """

    corpus = "folder of videos"
    consent = "not stated"
    default_split = "duration"  # a person may be seen in a single clip, so hold out the end of it

    def scan(self) -> list[SourceClip]:
        """Find the videos."""
        return scan_folder(self.raw_root())
