"""The report as one page for any browser: nothing is fetched, pictures are inside, clicking a heading sorts."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from datamodules.atomic import atomic_file
from datamodules.clip_store import Clip, clip_path
from datamodules.prepare.report import SKIPPED, USED, Report, ReportRow

REPORT_PAGE = "report.html"
MOST_LINES = 12_000  # about 4 MB
MOST_PICTURES = 2_000  # clips with a thumbnail strip
PICTURE_BYTES = 22 * 2**20  # of all strips, as they stand on the page

_STYLE = """
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif }
body { margin: 1.5rem }
h1 { font-size: 1.4rem; margin: 0 0 1rem }
dl { display: grid; grid-template-columns: max-content auto; gap: .2rem 1rem; margin: 0 0 1rem }
dt { color: GrayText } dd { margin: 0 }
table { border-collapse: collapse }
th { position: sticky; top: 0; background: Canvas; text-align: left; cursor: pointer; white-space: nowrap }
th, td { padding: .25rem .6rem; border-bottom: 1px solid color-mix(in srgb, CanvasText 20%, transparent) }
td.number { text-align: right; font-variant-numeric: tabular-nums }
td.id { overflow-wrap: anywhere; min-width: 9rem }
tr.skipped, tr.left { color: color-mix(in srgb, CanvasText 70%, red) }
img { display: block; height: 64px }
"""
_SCRIPT = """
document.querySelectorAll("th").forEach((head, column) => head.onclick = () => {
  const body = document.querySelector("tbody"), down = head.dataset.down = head.dataset.down === "1" ? "" : "1";
  const value = row => row.cells[column].textContent.trim();
  const order = (a, b) => a === "" || b === "" ? (a === "") - (b === "")
    : (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (down ? 1 : -1);
  body.append(...[...body.rows].sort((a, b) => order(value(a), value(b))));
});
"""
_HEADINGS = (
    "clip", "speaker", "view", "use", "remark", "start, s", "frames", "with a fit", "faces", "residual",
    "sound late, ms", "sure", "consent", "pictures",
)  # fmt: skip


def write_page(root: Path, report: Report, lines: Sequence[ReportRow]) -> Path:
    """Write `report.html` into the store.

    Raises:
        StoreError: the store cannot be written.
    """
    path = root / REPORT_PAGE
    with atomic_file(root, path) as file:
        for part in _page(root, report, lines):
            file.write(part.encode())
    return path


def _page(root: Path, report: Report, lines: Sequence[ReportRow]) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Preparation</title>\n'
    yield f"<style>{_STYLE}</style>\n<h1>Preparation</h1>\n<dl>\n"
    for name, value in report.totals():
        yield f"<dt>{escape(name)}<dd>{escape(value)}\n"
    for reason, count, first in report.reasons():
        yield f"<dt>skipped<dd>{count} × {escape(reason)} ({escape(first)}{', ...' if count > 1 else ''})\n"
    yield "</dl>\n"
    shown, pictured = _chosen(lines)
    pictures, left_out = _pictures(root, pictured)
    if len(shown) < len(lines) or left_out or len(pictured) < sum(line.status == USED for line in shown):
        yield (
            f"<p>{len(shown)} of {len(lines)} lines are shown, {len(pictures)} of them with pictures: what was not "
            f"used, then the clips that fit worst. All lines are in report.parquet.\n"
        )
    yield "<table>\n<thead><tr>" + "".join(f"<th>{heading}" for heading in _HEADINGS) + "</thead>\n<tbody>\n"
    for line in shown:
        yield _row(line, pictures.get(line.id, "") if line.status == USED else "")
    yield f"</tbody>\n</table>\n<script>{_SCRIPT}</script>\n</html>\n"


def _chosen(lines: Sequence[ReportRow]) -> tuple[list[ReportRow], list[ReportRow]]:
    """Lines to show, and clips to show pictures of, in the order of the lines; the most telling ones if too many."""
    by_interest = sorted(range(len(lines)), key=lambda i: (lines[i].status == USED, -_or_zero(lines[i].residual), i))
    shown = sorted(by_interest[:MOST_LINES])
    clips = [i for i in by_interest[:MOST_LINES] if lines[i].status == USED][:MOST_PICTURES]
    return [lines[i] for i in shown], [lines[i] for i in clips]


def _pictures(root: Path, clips: Sequence[ReportRow]) -> tuple[dict[str, str], int]:
    """Thumbnail strips as base64, by clip, and how many found no room."""
    pictures: dict[str, str] = {}
    room = PICTURE_BYTES
    for line in clips:
        strip = base64.b64encode(Clip(clip_path(root, line.id)).thumbnail()).decode()
        room -= len(strip)
        if room < 0:
            return pictures, len(clips) - len(pictures)
        pictures[line.id] = strip
    return pictures, 0


def _row(line: ReportRow, picture: str) -> str:
    kind = {USED: "used", SKIPPED: "skipped"}.get(line.status, "left")
    used = line.status == USED
    cells = [
        f'<td class="id">{escape(line.id)}',
        *(f"<td>{escape(text)}" for text in (line.speaker, line.view, line.status, line.reason)),
        _number(line.start, 2),
        _number(line.frames, 0),
        _number(line.valid_frames if used else math.nan, 0),
        _number(line.faces if line.faces else math.nan, 0),
        _number(line.residual, 4),
        _number(1000 * line.offset, 0),
        _number(line.offset_confidence if math.isfinite(line.offset) else math.nan, 2),
        f"<td>{escape(' '.join((line.consent, line.consent_reference)).strip())}",
        f'<td><img alt="" src="data:image/jpeg;base64,{picture}">' if picture else "<td>",
    ]
    return f'<tr class="{kind}">' + "".join(cells) + "\n"


def _number(value: float, digits: int) -> str:
    return f'<td class="number">{value:.{digits}f}' if math.isfinite(value) else '<td class="number">'


def _or_zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0
