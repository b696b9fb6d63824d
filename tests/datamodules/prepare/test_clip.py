"""A source to its clips: parts, sound and words of each, landmarks from files, the offset taken out."""

import json

import numpy as np
import pytest
import torch

from datamodules.clip_store import Clip, Word, clip_path
from datamodules.prepare.clip import PrepareSettings, prepare_clip
from datamodules.prepare.clip_sound import SourceSound, sound_mfcc
from datamodules.prepare.sources import scan_grid
from datamodules.prepare.spans import Span
from model_zoo.face.landmark_files import LandmarkFiles
from model_zoo.functional.mfcc import mfcc
from tests.datamodules.fake_corpus import NumberDetector, fake_face, true_landmarks, write_grid

FACE = fake_face()
TRUTH = true_landmarks(FACE, 0, 100)
AWAY = range(35, 62)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("grid")
    write_grid(root, TRUTH, {"s1/a": 100})
    (root / "alignments/s1/a.align").write_text("0 10000 first\n10000 40000 middle\n70000 90000 last\n")
    return scan_grid(root)[0]


def test_a_long_absence_gives_two_clips(source, tmp_path):
    rows = prepare_clip(source, tmp_path, FACE, NumberDetector(TRUTH, frozenset(AWAY))).rows
    assert [(row.id, row.source, row.part, row.parts) for row in rows] == [
        ("s1/a-001", "s1/a", 1, 2),
        ("s1/a-002", "s1/a", 2, 2),
    ]
    first, second = rows
    assert first.start == 0
    assert first.frames == 40  # the dots are still there, but the check of that frame sees nobody
    assert second.start * 25 == pytest.approx(AWAY.stop, abs=10)
    assert second.start + second.frames / 25 == pytest.approx(4.0)
    assert [first.transcript, second.transcript] == ["first middle", "last"]
    ((begin, end, reason),) = json.loads(first.dropped)
    assert (begin, end, reason) == (first.frames, round(second.start * 25), "no face")
    assert second.dropped == ""
    clip = Clip(clip_path(tmp_path, second.id))
    assert clip.num_frames == second.frames
    assert len(clip.sound) == 640 * second.frames
    assert clip.words[0].start == pytest.approx(70 / 25 - second.start)
    assert len(clip.thumbnail()) > 500


def test_landmarks_from_files_need_no_detector(source, tmp_path):
    np.save(tmp_path / "a.npy", TRUTH)
    (tmp_path / "s1").mkdir()
    np.save(tmp_path / "s1/a.npy", TRUTH[:99])
    skipped = prepare_clip(source, tmp_path / "store", FACE, LandmarkFiles(tmp_path)).skipped
    assert "the video needs 100 x 68 x 2" in skipped[0].reason
    np.save(tmp_path / "s1/a.npy", TRUTH)
    (row,) = prepare_clip(source, tmp_path / "store", FACE, LandmarkFiles(tmp_path)).rows
    assert (row.valid_frames, row.residual < 1e-3) == (100, True)


def test_late_sound_and_its_words_are_moved():
    samples = np.arange(40 * 640, dtype=np.float32) / 32768
    sound = SourceSound(samples, [Word(1.0, 1.2, "x")], late=0.1)
    assert sound.of(Span(5, 10)).tolist() == list(range(5 * 640 + 1600, 10 * 640 + 1600))
    assert sound.of(Span(35, 40))[-1600:].tolist() == [0] * 1600  # silent beyond the end
    assert sound.words_of(Span(5, 30))[0].start == pytest.approx(0.7)
    assert sound.words_of(Span(30, 40)) == []


def test_mfcc_of_long_sound_is_that_of_the_whole():
    sound = torch.from_numpy(np.random.default_rng(0).integers(-9000, 9000, 125 * 16_000, dtype=np.int16))
    whole = mfcc(sound.to(torch.float32) / 32768)
    assert torch.allclose(sound_mfcc(sound, 13), whole, atol=1e-4)


def test_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="one of largest, central, talking"):
        PrepareSettings(choice="loudest")
