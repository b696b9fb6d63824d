"""A source to its clips: parts, sound and words of each, landmarks from files, the offset taken out."""

import json
from fractions import Fraction
from itertools import islice

import cv2
import numpy as np
import pytest
import torch

from datamodules.clip_store import Clip, Word, clip_path
from datamodules.prepare.clip import PrepareSettings, prepare_clip
from datamodules.prepare.clip_sound import SourceSound, sound_mfcc
from datamodules.prepare.decode import read_frames
from datamodules.prepare.sources import SourceClip, scan_grid
from datamodules.prepare.spans import Span
from model_zoo.face.landmark_files import LandmarkFiles
from model_zoo.functional.mfcc import mfcc
from tests.datamodules.fake_corpus import HEIGHT, WIDTH, NumberDetector, draw, fake_face, true_landmarks, write_grid
from tests.datamodules.prepare.recording import Picture, Track, record

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


@pytest.mark.parametrize("case", ["4K", "narrow pixels", "on its side", "pictures"])
def test_landmarks_from_files_are_of_the_raw_frame(tmp_path, case):
    """The dots at the outer eye corners are where the stored landmarks say, whatever was done to the frame."""
    frames = [draw(TRUTH[t], t) for t in range(20)]
    raw = TRUTH[:20]
    scale = np.array({"4K": [6, 6], "pictures": [6, 6], "narrow pixels": [0.5, 1]}.get(case, [1, 1]))
    size = tuple((np.array([WIDTH, HEIGHT]) * scale).astype(int).tolist())
    frames, raw = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames], (raw + 0.5) * scale - 0.5
    video = tmp_path / ("a" if case == "pictures" else "a.mp4")
    if case == "pictures":
        video.mkdir()
        for number, frame in enumerate(frames):
            cv2.imwrite(str(video / f"{number}.jpg"), frame[..., ::-1])
    else:
        turned = [np.rot90(frame).copy() for frame in frames] if case == "on its side" else frames
        rotation = (-90, False, False) if case == "on its side" else None
        aspect = Fraction(2) if case == "narrow pixels" else None
        record(video, Picture(turned, rotation=rotation, aspect=aspect))
    np.save(tmp_path / "a.npy", raw)
    audio = None
    if case == "pictures":
        audio = record(tmp_path / "sound.wav", (), Track(codec="pcm_s16le"))
    source = SourceClip("s1/a", "s1", "front", video, audio)
    (row,) = prepare_clip(source, tmp_path / "store", FACE, LandmarkFiles()).rows
    large = case in ("4K", "pictures")
    expected_size = (1920, round(1920 * HEIGHT / WIDTH)) if large else (WIDTH, HEIGHT)
    assert (row.frame_width, row.frame_height) == expected_size
    clip = Clip(clip_path(tmp_path / "store", row.id))
    transform = clip.crop_transform[15].numpy()
    back = np.linalg.inv(np.vstack([transform, [0, 0, 1]]))[:2]
    seen = next(islice(read_frames(video), 15, None))
    for point in clip.landmarks_detected[15, [36, 45]].numpy():
        x, y = back @ [*point, 1]
        side = 24 if large else 5
        gray = seen[round(y) - side : round(y) + side + 1, round(x) - side : round(x) + side + 1].mean(2)
        light = np.argwhere(gray > 170).mean(0) - side
        assert np.abs(light + np.array([round(y) - y, round(x) - x])).max() < 0.1 * side


def test_late_sound_and_its_words_are_moved():
    samples = np.arange(40 * 640, dtype=np.int16)
    sound = SourceSound(samples, [Word(1.0, 1.2, "x")], late=0.1)
    assert sound.of(Span(5, 10)).tolist() == list(range(5 * 640 + 1600, 10 * 640 + 1600))
    assert sound.of(Span(35, 40))[-1600:].tolist() == [0] * 1600  # silent beyond the end
    for span, late in ((Span(35, 45), 0.1), (Span(0, 4), -0.05), (Span(50, 60), 0.0), (Span(0, 5), -1.0)):
        first = span.start * 640 + round(late * 16_000)
        expected = [n if 0 <= n < len(samples) else 0 for n in range(first, first + span.frames * 640)]
        assert SourceSound(samples, late=late).of(span).tolist() == expected
    assert sound.words_of(Span(5, 30))[0].start == pytest.approx(0.7)
    assert sound.words_of(Span(30, 40)) == []


def test_mfcc_of_long_sound_is_that_of_the_whole():
    sound = torch.from_numpy(np.random.default_rng(0).integers(-9000, 9000, 125 * 16_000, dtype=np.int16))
    whole = mfcc(sound.to(torch.float32) / 32768)
    assert torch.allclose(sound_mfcc(sound, 13), whole, atol=1e-4)


def test_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="one of largest, central, talking"):
        PrepareSettings(choice="loudest")
