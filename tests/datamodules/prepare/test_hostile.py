"""Hostile inputs through the whole preparation: prepared as they should be, or skipped with a reason."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.clip_store import Clip, clip_path, verify_clip
from datamodules.prepare.clip import prepare_clip
from model_zoo.face.detector import DlibDetector
from model_zoo.face.procedural import procedural_head
from tests.datamodules.prepare.hostile import Case, shot, source
from tests.datamodules.prepare.hostile_table import CASES, DOCUMENT, table
from tests.datamodules.prepare.recording import LENGTH, Track, record

FACE, DETECTOR = procedural_head().face, DlibDetector()
CLOSE = 4.0  # px at 256, median over landmarks and frames; codecs of low quality and other rates move dlib by 1 to 3
IN_STEP = 400  # samples; mp3 in avi is late by the 23 ms of its decoder, which avi cannot tell
# Of what is prepared, one of each sort goes with every run; the rest, and nothing else, with `make test-slow`.
QUICK = (
    "H.264 with AAC", "MPEG-1 with mp2", "VP9 with", "29.97", "variable", "2 s of picture", "clock starting anew",
    "turned by 90", "1.42", "interlaced", "192 kHz", "no number", "name with spaces", "cut off after 60%",
)  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Clip:
    folder = tmp_path_factory.mktemp("plain")
    video = record(folder / "a.mkv", shot(codec="ffv1", options={}), Track(codec="flac"))
    result = prepare_clip(source(video), folder / "store", FACE, DETECTOR)
    return Clip(clip_path(folder / "store", result.rows[0].id))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, id=c.kind, marks=[pytest.mark.slow] * (c.frames != () and not any(q in c.kind for q in QUICK)))
        for c in CASES
    ],
)
def test_outcome(case: Case, plain, tmp_path):
    store = tmp_path / "store"
    made = case.make(tmp_path)
    result = prepare_clip(made, store, FACE, DETECTOR)
    reasons = [skipped.reason for skipped in result.skipped]
    notes = " ".join(reasons + [row.dropped for row in result.rows])
    assert len(result.rows) == len(case.frames), notes
    assert len(result.skipped) == (not case.frames)
    assert case.says in notes
    assert all("\n" not in reason and "Error" not in reason for reason in reasons)
    for row, frames in zip(result.rows, case.frames, strict=True):
        assert abs(row.frames - frames) <= case.margin
        assert verify_clip(clip_path(store, row.id))
        clip = Clip(clip_path(store, row.id))
        assert clip.sound.shape == (row.frames * 640,)
        if case.like is not None:
            assert distance(clip, plain) < CLOSE
        if not case.quiet:
            assert abs(lag(clip.waveform().numpy(), plain.waveform().numpy())) <= IN_STEP
    assert unfinished(store) == []


def test_the_page_says_what_is_tested():
    assert DOCUMENT.read_text(encoding="utf-8") == table()
    assert len(CASES) >= 30
    assert len({case.kind for case in CASES}) == len(CASES)


def distance(clip: Clip, plain: Clip) -> float:
    """Median distance of the landmarks of two clips in the frames that both have, px at 256."""
    count = min(clip.num_frames, plain.num_frames, LENGTH)
    return float((clip.landmarks[:count] - plain.landmarks[:count]).norm(dim=-1).median())


def lag(first: np.ndarray, second: np.ndarray) -> int:
    """Samples by which the first sound is later."""
    size = len(first) + len(second)
    product = np.fft.irfft(np.fft.rfft(first, size) * np.conj(np.fft.rfft(second, size)), size)
    best = int(product.argmax())
    return best if best < size // 2 else best - size


def unfinished(store: Path) -> list[Path]:
    """Files that are neither clips nor the store's own."""
    return [path for path in store.rglob("*") if path.is_file() and path.suffix not in (".safetensors", ".json")]
