"""The report: every clip with its reason, one page that fetches nothing, escapes names and stays small."""

import base64
import math
from html.parser import HTMLParser

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from datamodules.clip_store import write_clip
from datamodules.crop_codec import encode_crop
from datamodules.prepare import report_page
from datamodules.prepare.report import Report, Skipped, write_table
from datamodules.prepare.report_page import write_page
from tests.datamodules.test_clip_store import data, photo, row

EVIL = "s1/<script>alert('x')</script>&\"é"
STRIP = encode_crop(np.hstack([cv2.resize(photo(t), (64, 64)) for t in range(8)]))


class Page(HTMLParser):
    """Cells of the table's body, links, and pictures of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.pictures: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        assert not {"href", "action"} & values.keys()
        if tag == "img":
            self.pictures.append(values["src"])
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")

    def handle_data(self, text):
        if self.rows and self.rows[-1] and self.tags[-1] in ("td", "img"):
            self.rows[-1][-1] += text.strip()


@pytest.fixture
def report() -> Report:
    first = row(
        "s1/b-001", source="s1/b", parts=2, valid_frames=8, dropped='[[9, 34, "no face"], [0, 0, "sound ends"]]'
    )
    second = row("s1/b-002", source="s1/b", part=2, parts=2, start=34 / 25, faces=2, offset=math.nan)
    skipped = [Skipped("s2/x", "no sound", 5, "x", frames=9), Skipped(EVIL, "no <face> found", 5, "x", 16, 3)]
    return Report([first, second], skipped)


def test_totals_count_what_was_kept_of_all_that_was_read(report):
    assert report.frames == 18
    assert report.frames_seen == 18 + 25 + 9 + 16
    assert report.kept == pytest.approx(17 / 68)
    totals = dict(report.totals())
    assert totals["clips"] == "2 from 1 source"
    assert totals["with several faces"] == "1 clip"
    assert "median +20 ms, known of 1 clip" in totals["sound after picture"]
    assert totals["consent"] == "synthetic: 2 clips"
    assert report.reasons() == [("no <face> found", 1, EVIL), ("no sound", 1, "s2/x")]


def test_table_has_a_line_for_each_clip_skipped_source_and_span_left_out(report, tmp_path):
    write_table(tmp_path, report.lines())
    lines = pq.read_table(tmp_path / "report.parquet").to_pylist()
    assert [(line["id"], line["status"], line["reason"], line["frames"]) for line in lines] == [
        (EVIL, "skipped", "no <face> found", 16),
        ("s1/b-001", "used", "sound ends", 9),
        ("s1/b", "left out", "no face", 25),
        ("s1/b-002", "used", "", 9),
        ("s2/x", "skipped", "no sound", 9),
    ]
    assert lines[0]["faces"] == 3
    assert lines[2]["start"] == pytest.approx(9 / 25)
    assert math.isnan(lines[0]["residual"])


def test_page_shows_every_line_with_pictures_and_escapes_names(report, tmp_path):
    for each in report.rows:
        write_clip(tmp_path, each, data(thumbnail=STRIP))
    lines = report.lines()
    text = write_page(tmp_path, report, lines).read_text(encoding="utf-8")
    page = Page(text)
    assert [cells[0] for cells in page.rows[1:]] == [line.id for line in lines]
    assert page.rows[1][4] == "no <face> found"
    assert page.tags.count("script") == 1  # ours
    assert all(cells[9:12] == ["0.0200", "20", "0.50"] for cells in page.rows[2:3])
    assert page.rows[4][10] == ""  # an offset that is not known
    assert [base64.b64decode(source.removeprefix("data:image/jpeg;base64,")) for source in page.pictures] == [STRIP] * 2
    assert "://" not in text
    assert "are shown" not in text
    assert write_page(tmp_path, report, lines).read_text(encoding="utf-8") == text


def test_large_corpora_keep_the_page_small_and_say_so(tmp_path, monkeypatch):
    rows = [row(f"s1/{n:05d}", residual=0.01 + 0.00001 * (n % 977)) for n in range(report_page.MOST_LINES + 500)]
    skipped = [Skipped("s2/x", "no sound", 5, "x")]
    monkeypatch.setattr(report_page, "Clip", lambda path: type("Clip", (), {"thumbnail": lambda self: bytes(11_000)})())
    big = Report(rows, skipped)
    text = write_page(tmp_path, big, big.lines()).read_text()
    page = Page(text)
    assert len(text) < 30e6
    assert len(page.rows) - 1 == report_page.MOST_LINES
    assert 1000 < len(page.pictures) <= report_page.MOST_PICTURES
    assert f"{report_page.MOST_LINES} of {len(rows) + 1} lines are shown, {len(page.pictures)} of them with" in text
    assert page.rows[-1][0] == "s2/x"  # what was not used is shown, and the worst fits are
    shown = {cells[0] for cells in page.rows[1:]}
    left_out = [each.residual for each in rows if each.id not in shown]
    assert len(left_out) == 501
    assert max(left_out) <= min(each.residual for each in rows if each.id in shown)


def test_nothing_at_all_is_a_report_too(tmp_path):
    report = Report()
    assert report.kept == 0
    write_table(tmp_path, report.lines())
    assert "0 from 0 sources" in write_page(tmp_path, report, report.lines()).read_text()
