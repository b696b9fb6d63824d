"""What a preparation did: a short table for the screen, and in the store `report.parquet` and `report.html`.

The two files follow from what is in the store alone. Times and rates, which do not, are for the screen.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.table import Table

from datamodules.atomic import atomic_file
from datamodules.manifest import ClipRow, rows_to_table
from datamodules.prepare.spans import LeftOut

REPORT_TABLE = "report.parquet"
USED, SKIPPED, LEFT_OUT = "used", "skipped", "left out"
_FRAME_RATE = 25.0  # Hz
_REASONS = 8  # of the most frequent ones are shown


@dataclass(frozen=True)
class Skipped:
    """A source of which there is no clip.

    Attributes:
        id: of the source. reason: one line.
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
        lasting: whether the reason is the source's own; else it is tried again by the next run.
    """

    source: str
    rows: list[ClipRow] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    lasting: bool = True


@dataclass(frozen=True)
class ReportRow:
    """A line of the report: a clip, a source that was skipped, or a span of a used source that is in no clip.

    Attributes:
        status: "used", "skipped" or "left out". reason: why not used, or what is remarkable; one line.
        start: seconds into the source. frames: at 25 a second. valid_frames: those with a fit of their own.
        faces, residual, offset, offset_confidence, consent, consent_reference: as in `ClipRow`; NaN if unknown.
    """

    id: str
    source: str
    speaker: str
    view: str
    status: str
    reason: str
    start: float
    frames: int
    valid_frames: int
    faces: int
    residual: float
    offset: float
    offset_confidence: float
    consent: str
    consent_reference: str


@dataclass
class Report:
    """Result of `prepare_corpus`.

    Attributes:
        rows: of all clips that are in the store.
        skipped: sources of which there is none, with the reason.
        reused: how many of the rows were there before.
        frames_made: frames of the clips that were not.
        repaired: ids of damaged or lost clips that were made again. lost: of those that cannot, for their source is
            gone or has changed.
        pending: how many sources are not prepared, where this is known to be so.
        seconds: wall time. workers: processes.
    """

    rows: list[ClipRow] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    reused: int = 0
    frames_made: int = 0
    repaired: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    pending: int = 0
    seconds: float = 0.0
    workers: int = 1

    def add(self, result: SourceResult) -> None:
        """Take in what came of a source."""
        self.rows += result.rows
        self.skipped += result.skipped

    def sort(self) -> None:
        """Bring rows and skipped sources into the order of their ids, whatever order they were made in."""
        self.rows.sort(key=lambda row: row.id)
        self.skipped.sort(key=lambda skipped: skipped.id)

    @property
    def frames(self) -> int:
        """Frames in the store."""
        return sum(row.frames for row in self.rows)

    @property
    def frames_seen(self) -> int:
        """Frames of the sources, as far as they could be read: in the store, in no clip, or of skipped sources."""
        left_out = sum(span.stop - span.start for row in self.rows for span in left_out_spans(row))
        return self.frames + left_out + sum(skipped.frames for skipped in self.skipped)

    @property
    def kept(self) -> float:
        """Share of the sources' frames that are in the store with a fit of their own, 0 to 1."""
        return sum(row.valid_frames for row in self.rows) / max(1, self.frames_seen)

    def totals(self) -> list[tuple[str, str]]:
        """What the store holds, as pairs of a name and a value for people."""
        sources = len({row.source for row in self.rows})
        hours = self.frames / _FRAME_RATE / 3600
        totals = [
            ("clips", f"{len(self.rows)} from {_counted(sources, 'source')}"),
            ("sources skipped", f"{len(self.skipped)}"),
            ("frames", f"{self.frames} ({hours:.2f} h at 25 a second)"),
            ("frames kept", f"{100 * self.kept:.2f}% of the {self.frames_seen} that were read"),
            ("with several faces", _counted(sum(row.faces > 1 for row in self.rows), "clip")),
        ]
        if self.rows:
            residual = np.array([row.residual for row in self.rows])
            weighted = float(np.average(residual, weights=[row.frames for row in self.rows]))
            worst = float(np.quantile(residual, 0.95))
            totals.append(("fit residual", f"{weighted:.4f} of the eye distance; 95% of the clips below {worst:.4f}"))
            offsets = [row.offset for row in self.rows if math.isfinite(row.offset)]
            told = f"median {1000 * float(np.median(offsets)):+.0f} ms, " if offsets else ""
            totals.append(("sound after picture", f"{told}known of {_counted(len(offsets), 'clip')}"))
        consents = Counter((row.consent, row.consent_reference) for row in self.rows)
        for (consent, reference), count in sorted(consents.items()):
            totals.append(("consent", f"{consent}{f' ({reference})' if reference else ''}: {_counted(count, 'clip')}"))
        return totals

    def reasons(self) -> list[tuple[str, int, str]]:
        """Why sources were skipped: reason, how many, the first of them; most frequent first."""
        first: dict[str, str] = {}
        for skipped in self.skipped:
            first.setdefault(skipped.reason, skipped.id)
        counts = Counter(skipped.reason for skipped in self.skipped)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return [(reason, count, first[reason]) for reason, count in ordered]

    def table(self) -> Table:
        """Short table for people."""
        table = Table(title="Preparation", show_header=False)
        table.add_row(
            "made in this run", f"{_counted(len(self.rows) - self.reused, 'clip')}, {self.frames_made} frames"
        )
        for name, value in self.totals():
            table.add_row(name, value)
        for name, clips in (("repaired", self.repaired), ("lost", self.lost)):
            if clips:
                table.add_row(name, f"{len(clips)}: {', '.join(clips[:5])}{', ...' * (len(clips) > 5)}")
        if self.pending:
            table.add_row("not prepared yet", _counted(self.pending, "source"))
        rate = f", {self.frames_made / self.seconds / max(1, self.workers):.0f} frames/s a process"
        table.add_row("time", f"{self.seconds:.1f} s{rate if self.frames_made and self.seconds else ''}")
        for reason, count, example in self.reasons()[:_REASONS]:
            table.add_row("skipped", f"{count} × {reason} ({example}{', ...' if count > 1 else ''})")
        return table

    def lines(self) -> list[ReportRow]:
        """All lines of the report, in order of source and time."""
        lines = [line for row in self.rows for line in _lines_of_clip(row)]
        lines += [_line_of_skipped(skipped) for skipped in self.skipped]
        return sorted(lines, key=lambda line: (line.source, line.start, line.id, line.status))


def write_table(root: Path, lines: Iterable[ReportRow]) -> None:
    """Write `report.parquet`.

    Raises:
        StoreError: the store cannot be written.
    """
    with atomic_file(root, root / REPORT_TABLE) as file:
        pq.write_table(rows_to_table(list(lines), ReportRow), file)


def left_out_spans(row: ClipRow) -> list[LeftOut]:
    """Spans of the clip's source that are in no clip, and remarks, as empty spans; on part 1, else empty."""
    return [LeftOut(*span) for span in json.loads(row.dropped or "[]")]


def _lines_of_clip(row: ClipRow) -> Iterable[ReportRow]:
    about = {name: getattr(row, name) for name in ("source", "speaker", "view", "consent", "consent_reference")}
    yield ReportRow(
        id=row.id,
        status=USED,
        reason="; ".join(note for start, stop, note in left_out_spans(row) if start == stop),
        start=row.start,
        frames=row.frames,
        valid_frames=row.valid_frames,
        faces=row.faces,
        residual=row.residual,
        offset=row.offset,
        offset_confidence=row.offset_confidence,
        **about,
    )
    for start, stop, reason in left_out_spans(row):
        if stop > start:
            yield _unused(row.source, LEFT_OUT, reason, start / _FRAME_RATE, stop - start, 0, **about)


def _line_of_skipped(skipped: Skipped) -> ReportRow:
    nobody = dict.fromkeys(("speaker", "view", "consent", "consent_reference"), "")
    about = {"source": skipped.id, **nobody}
    return _unused(skipped.id, SKIPPED, skipped.reason, 0.0, skipped.frames, skipped.faces, **about)


def _unused(identity: str, status: str, reason: str, start: float, frames: int, faces: int, **about: str) -> ReportRow:
    return ReportRow(
        id=identity,
        source=about["source"],
        speaker=about["speaker"],
        view=about["view"],
        status=status,
        reason=reason,
        start=start,
        frames=frames,
        valid_frames=0,
        faces=faces,
        residual=math.nan,
        offset=math.nan,
        offset_confidence=math.nan,
        consent=about["consent"],
        consent_reference=about["consent_reference"],
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
