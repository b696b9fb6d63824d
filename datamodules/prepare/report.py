"""What a preparation did: printed as a short table, kept beside the manifest as text and as a table."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from datamodules.atomic import atomic_file
from datamodules.manifest import ClipRow, rows_to_table

REPORT_TEXT = "report.txt"
REPORT_TABLE = "skipped.parquet"


@dataclass(frozen=True)
class Skipped:
    """A clip that was not prepared.

    Attributes:
        id: clip id. reason: one line.
        source_bytes, settings: what was tried, so that it is not tried again in vain.
        frames: at 25 a second. faces: most faces that were seen at once. 0 where unknown.
    """

    id: str
    reason: str
    source_bytes: int
    settings: str
    frames: int = 0
    faces: int = 0


@dataclass(frozen=True)
class SourceResult:
    """What came of one source: clips, or the reason why there are none.

    Attributes:
        source: id of the source.
        rows: of the clips, parts 1 to n. skipped: one if there are no rows; spans of a used source that are in no clip
            are named by `dropped` of its first row.
    """

    source: str
    rows: list[ClipRow] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


@dataclass
class Report:
    """Result of `prepare_corpus`.

    Attributes:
        rows: of all clips that are in the store.
        skipped: clips that are not, with the reason.
        reused: how many of the rows were there before.
        seconds: wall time.
    """

    rows: list[ClipRow] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    reused: int = 0
    seconds: float = 0.0

    @property
    def frames(self) -> int:
        """Frames in the store."""
        return sum(row.frames for row in self.rows)

    @property
    def kept(self) -> float:
        """Share of them that carry a fit of their own, 0 to 1."""
        return sum(row.valid_frames for row in self.rows) / max(1, self.frames)

    def table(self) -> Table:
        """Short table for people."""
        table = Table(title="Preparation", show_header=False)
        table.add_row("clips prepared", f"{len(self.rows) - self.reused}")
        table.add_row("already there", f"{self.reused}")
        table.add_row("clips skipped", f"{len(self.skipped)}")
        table.add_row("frames with a face", f"{100 * self.kept:.2f}% of {self.frames}")
        if self.rows:
            residual = sum(row.residual * row.frames for row in self.rows) / self.frames
            table.add_row("fit residual", f"{residual:.4f} of the eye distance")
        table.add_row("time", f"{self.seconds:.1f} s")
        for reason, count in Counter(skipped.reason for skipped in self.skipped).most_common(8):
            example = next(skipped.id for skipped in self.skipped if skipped.reason == reason)
            table.add_row("skipped", f"{count} × {reason} ({example}{', ...' if count > 1 else ''})")
        return table

    def write(self, root: Path) -> None:
        """Write `report.txt` and `skipped.parquet` into the store."""
        text = io.StringIO()
        Console(file=text, width=110).print(self.table())
        text.writelines(f"{skipped.id}\t{skipped.reason}\n" for skipped in self.skipped)
        with atomic_file(root, root / REPORT_TEXT) as file:
            file.write(text.getvalue().encode())
        with atomic_file(root, root / REPORT_TABLE) as file:
            pq.write_table(rows_to_table(self.skipped, Skipped), file)


def read_skipped(root: Path) -> list[Skipped]:
    """Clips that an earlier preparation gave up on."""
    path = root / REPORT_TABLE
    return [Skipped(**row) for row in pq.read_table(path).to_pylist()] if path.is_file() else []
