"""A raw corpus to a clip store: the truth comes back, broken clips are skipped, and a second run does what is left."""

import errno

import numpy as np
import pytest
import torch

from datamodules.clip_store import Clip, ClipStore, clip_path
from datamodules.prepare import clip as clip_stage
from datamodules.prepare.clip import PrepareSettings, prepare_clip
from datamodules.prepare.clip_frames import ClipFrames
from datamodules.prepare.inventory import read_skipped
from datamodules.prepare.media import DecodeError
from datamodules.prepare.pipeline import is_prepared, prepare_corpus
from datamodules.prepare.sources import scan_grid
from model_zoo.face.detector import DlibDetector
from model_zoo.face.landmark_files import LandmarkFiles
from model_zoo.functional.camera import apply_similarity
from tests.datamodules.fake_corpus import (
    NumberDetector,
    draw,
    fake_face,
    tone,
    true_landmarks,
    write_clip_file,
    write_grid,
)

FACE = fake_face()
TRUTH = true_landmarks(FACE, 0, 40)
DETECTOR = NumberDetector(TRUTH)
BLIND = NumberDetector(TRUTH, frozenset(range(40)))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("grid")
    write_grid(root, TRUTH, {"s1/a": 40, "s1/b": 25, "s2/c": 30})
    return root


@pytest.fixture(scope="module")
def store(corpus, tmp_path_factory) -> ClipStore:
    out = tmp_path_factory.mktemp("store")
    prepare_corpus(scan_grid(corpus), out, FACE, workers=0, progress=False, detector=DETECTOR)
    return ClipStore(out)


def test_clips_hold_the_truth(store):
    clip = store.open("s1/a")
    assert clip.num_frames == 40
    assert clip.row.valid_frames == 40
    assert clip.row.transcript == "bin blue"
    assert len(clip.row.sha256) == 64
    assert clip.row.residual < 1e-3
    assert "dlib" in clip.row.versions
    in_crop = apply_similarity(clip.crop_transform, torch.from_numpy(TRUTH))
    assert (clip.landmarks_detected - in_crop).abs().max() < 1e-3
    assert (clip.landmarks - in_crop).norm(dim=-1).mean() < 0.1  # px
    projected = FACE.project_landmarks(clip.shape, clip.expression, clip.pose)
    assert torch.allclose(projected, clip.landmarks, atol=1e-3)


def test_pixels_are_where_the_landmarks_say(store):
    """White dots were drawn at the outer eye corners of the frames."""
    clip = store.open("s1/b")
    y, x = np.mgrid[-9:10, -9:10]
    for frame in (0, 12, 24):
        image = clip.crop(frame)[..., 1].astype(float) - 90
        for landmark in clip.landmarks[frame, [36, 45]].numpy():
            left, top = np.round(landmark).astype(int)
            patch = image[top - 9 : top + 10, left - 9 : left + 10].clip(20) - 20
            found = np.array([(x * patch).sum(), (y * patch).sum()]) / patch.sum() + (left, top)
            np.testing.assert_allclose(found, landmark, atol=0.35)


def test_sound_mfcc_and_words_fit_the_frames(store):
    clip = store.open("s2/c")
    assert clip.sound.shape == (30 * 640,)
    assert clip.mfcc.shape == (120, 13)
    assert 0.3 < clip.waveform().abs().max() < 0.7
    assert [word.text for word in clip.words] == ["sil", "bin", "blue"]
    assert clip.words[2].end == pytest.approx(30 / 25)


def test_boxes_enclose_the_mouth_of_every_frame(store):
    clip = store.open("s1/a")
    mouth = clip.landmarks[:, 48:68].flatten(0, 1)
    for box in (clip.mouth_box, clip.mouth_region):
        assert (mouth >= box[:2]).all()
        assert (mouth <= box[2:]).all()


def test_frames_without_a_face_are_marked_and_left_out_of_the_mean(corpus, tmp_path):
    late = NumberDetector(TRUTH, frozenset(range(12)))
    (row,) = prepare_clip(scan_grid(corpus)[0], tmp_path, FACE, late).rows
    assert (row.frames, row.valid_frames) == (40, 28)
    clip = Clip(clip_path(tmp_path, row.id))
    assert not clip.valid[:12].any()
    assert torch.isfinite(clip.landmarks).all()
    assert clip.landmarks_detected[:12].isnan().all()
    expected = np.mean([clip.crop(t).astype(float) for t in range(12, 40)], axis=0)
    assert np.abs(clip.mean_crop() - expected).mean() < 1.5


def test_second_run_does_nothing_and_repairs_what_is_damaged(corpus, tmp_path):
    sources, face = scan_grid(corpus), FACE
    assert not is_prepared(sources, tmp_path, face, detector=DETECTOR)
    first = prepare_corpus(sources, tmp_path, face, 0, False, detector=DETECTOR)
    assert (len(first.rows), first.reused, first.kept) == (3, 0, 1.0)
    assert is_prepared(sources, tmp_path, face, detector=DETECTOR)
    before = clip_path(tmp_path, "s1/a").stat().st_mtime_ns

    damaged, lost = clip_path(tmp_path, "s1/b"), clip_path(tmp_path, "s2/c")
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-10])
    lost.unlink()
    assert not is_prepared(sources, tmp_path, face, detector=DETECTOR)
    second = prepare_corpus(sources, tmp_path, face, 0, False, detector=DETECTOR)
    assert second.reused == 1
    assert clip_path(tmp_path, "s1/a").stat().st_mtime_ns == before
    assert damaged.read_bytes() == whole  # the same clip, to the bit

    other = PrepareSettings(jpeg_quality=80)
    assert not is_prepared(sources, tmp_path, face, other, DETECTOR)
    assert prepare_corpus(sources, tmp_path, face, 0, False, other, DETECTOR).reused == 0


def test_interrupted_run_goes_on_where_it_stopped(corpus, tmp_path, monkeypatch):
    write, written = clip_stage.write_clip, []

    def interrupted(root, row, data):
        if written:
            raise KeyboardInterrupt
        written.append(row.id)
        return write(root, row, data)

    monkeypatch.setattr(clip_stage, "write_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_corpus(scan_grid(corpus), tmp_path, FACE, 0, False, detector=DETECTOR)
    assert len(ClipStore(tmp_path)) == 1  # what is done can be read all the same
    assert not is_prepared(scan_grid(corpus), tmp_path, FACE, detector=DETECTOR)
    monkeypatch.undo()
    report = prepare_corpus(scan_grid(corpus), tmp_path, FACE, 0, False, detector=DETECTOR)
    assert report.reused == 1
    assert len(ClipStore(tmp_path)) == 3


def test_a_worker_process_makes_what_this_one_makes(corpus, store, tmp_path):
    prepare_corpus(scan_grid(corpus), tmp_path, FACE, workers=1, progress=False, detector=DETECTOR)
    for row in store.manifest:
        assert clip_path(tmp_path, row.id).read_bytes() == clip_path(store.root, row.id).read_bytes()


def test_broken_clips_are_skipped_with_a_reason_and_not_tried_again(corpus, tmp_path):
    root = tmp_path / "raw"
    write_grid(root, TRUTH, {"s1/good": 20, "s1/short": 6, "s1/cut": 40})
    frames = [draw(TRUTH[t], t) for t in range(20)]
    write_clip_file(root / "s1/silent.mpg", frames, None)
    write_clip_file(root / "s1/faceless.mpg", [np.full_like(frames[0], 90)] * 20, tone(0.8))
    whole = (root / "s1/cut.mpg").read_bytes()
    (root / "s1/cut.mpg").write_bytes(whole[: len(whole) // 2])
    (root / "s1/text.mpg").write_text("no video")
    (root / "s1/words.mpg").write_bytes((root / "s1/good.mpg").read_bytes())
    (root / "alignments/s1/words.align").write_text("zero one two")

    class Sees(NumberDetector):
        def detect(self, frame):
            return super().detect(frame) if frame[:140, :16].max() > 200 else []

    out = tmp_path / "store"
    report = prepare_corpus(scan_grid(root), out, FACE, 0, False, detector=Sees(TRUTH))
    reasons = {skipped.id: skipped.reason for skipped in report.skipped}
    expected = {
        "s1/faceless": "no face found in 20 of 20 frames",
        "s1/short": "too short: 6 frames",
        "s1/silent": "no sound",
        "s1/text": "not readable as video",
        "s1/words": "words.align, line 1",
    }
    assert reasons.keys() == expected.keys()
    for identity, reason in expected.items():
        assert reason in reasons[identity]
        assert "\n" not in reasons[identity]
    assert [row.id for row in ClipStore(out).manifest] == ["s1/cut", "s1/good"]
    assert [read_skipped(out, skipped.id) for skipped in report.skipped] == report.skipped
    assert is_prepared(scan_grid(root), out, FACE, detector=Sees(TRUTH))

    (root / "s1/short.mpg").write_bytes((root / "s1/good.mpg").read_bytes())  # replaced by the user
    again = prepare_corpus(scan_grid(root), out, FACE, 0, False, detector=Sees(TRUTH))
    assert len(again.rows) == 3
    assert len(again.skipped) == 4


def test_what_may_pass_is_told_and_tried_again(corpus, tmp_path, monkeypatch):
    sources, read = scan_grid(corpus), clip_stage.read_audio
    troubles = {"a": OSError(errno.EIO, "Input/output error"), "b": MemoryError()}

    def troubled(path, *arguments):
        if path.stem in troubles:
            raise troubles[path.stem]
        return read(path, *arguments)

    monkeypatch.setattr(clip_stage, "read_audio", troubled)
    first = prepare_corpus(sources, tmp_path, FACE, 0, False, detector=DETECTOR)
    assert [skipped.id for skipped in first.skipped] == ["s1/a", "s1/b"]
    assert "Input/output error" in first.skipped[0].reason
    assert not list(tmp_path.rglob("*.skipped.json"))
    assert not is_prepared(sources, tmp_path, FACE, detector=DETECTOR)
    monkeypatch.undo()
    assert len(prepare_corpus(sources, tmp_path, FACE, 0, False, detector=DETECTOR).rows) == 3


def test_a_file_that_cannot_be_opened_is_tried_again(corpus, tmp_path, monkeypatch):
    def denied(*_, **__):
        raise DecodeError("not readable as video (Permission denied)")

    def no_right(source):
        raise PermissionError(errno.EACCES, "Permission denied")

    source = scan_grid(corpus)[0]
    monkeypatch.setattr(clip_stage, "read_audio", denied)
    assert prepare_clip(source, tmp_path, FACE, DETECTOR).lasting  # the file itself can be read: it is broken
    monkeypatch.setattr(clip_stage, "source_sha256", no_right)
    assert not prepare_clip(source, tmp_path, FACE, DETECTOR).lasting


def test_landmark_files_count_among_the_source(corpus, tmp_path):
    found, out, sources = tmp_path / "found", tmp_path / "store", scan_grid(corpus)
    (found / "s1").mkdir(parents=True)
    np.save(found / "s1/a.npy", TRUTH)
    np.save(found / "s1/b.npy", TRUTH[:25])
    how = {"progress": False, "detector": LandmarkFiles(found)}
    report = prepare_corpus(sources, out, FACE, 0, **how)
    assert [skipped.id for skipped in report.skipped] == ["s2/c"]
    (found / "s2").mkdir()
    np.save(found / "s2/c.npy", TRUTH[:30])  # comes later
    assert [row.id for row in prepare_corpus(sources, out, FACE, 0, **how).rows] == ["s1/a", "s1/b", "s2/c"]
    assert is_prepared(sources, out, FACE, detector=LandmarkFiles(found))
    assert not is_prepared(sources, out, FACE, detector=LandmarkFiles(tmp_path))
    np.save(found / "s1/b.npy", TRUTH[:25].astype(np.float64))  # of another size
    assert not is_prepared(sources, out, FACE, detector=LandmarkFiles(found))


def test_complete_clips_of_other_sources_stay_indexed(corpus, tmp_path):
    sources = scan_grid(corpus)
    everything = [source.id for source in sources]
    prepare_corpus(sources[:2], tmp_path, FACE, 0, False, detector=DETECTOR)
    prepare_corpus(sources[2:], tmp_path, FACE, 0, False, detector=DETECTOR)
    assert [row.id for row in ClipStore(tmp_path).manifest] == everything
    assert is_prepared(sources[:1], tmp_path, FACE, detector=DETECTOR)
    changed = PrepareSettings(jpeg_quality=80)
    prepare_corpus(sources[:1], tmp_path, FACE, 0, False, changed, DETECTOR)
    assert [row.id for row in ClipStore(tmp_path).manifest] == everything[:1]  # clips of one making alone
    prepare_corpus(sources[:1], tmp_path, FACE, 0, False, detector=DETECTOR)
    clip_path(tmp_path, everything[2]).unlink()
    assert not is_prepared(sources[:1], tmp_path, FACE, detector=DETECTOR)  # the manifest names what is not there


def test_nothing_usable_is_an_error_of_one_line(corpus, tmp_path):
    with pytest.raises(ValueError, match="none of 3 sources could be prepared; s1/a: no face found"):
        prepare_corpus(scan_grid(corpus), tmp_path, FACE, 0, False, detector=BLIND)


def test_store_that_cannot_be_written_is_no_fault_of_the_clip(corpus, tmp_path):
    (tmp_path / "s1").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="s1"):
        prepare_corpus(scan_grid(corpus), tmp_path, FACE, 0, False, detector=DETECTOR)


def test_folder_of_frames_with_a_wav_is_the_same_clip(corpus, store, tmp_path):
    import cv2
    import soundfile

    from datamodules.prepare.decode import read_frames

    folder = tmp_path / "s1/b"
    folder.mkdir(parents=True)
    for number, frame in enumerate(read_frames(corpus / "s1/b.mpg")):
        cv2.imwrite(str(folder / f"{number:03d}.png"), frame[..., ::-1])
    soundfile.write(tmp_path / "s1/b.wav", store.open("s1/b").waveform().numpy(), 16_000, subtype="PCM_16")
    assert not prepare_clip(scan_grid(tmp_path)[0], tmp_path / "store", FACE, DETECTOR).skipped
    prepare_corpus(scan_grid(tmp_path), tmp_path / "store", FACE, 0, False, detector=DETECTOR)
    clip = ClipStore(tmp_path / "store").open("s1/b")
    assert torch.equal(clip.sound, store.open("s1/b").sound)
    np.testing.assert_array_equal(clip.crop(7), store.open("s1/b").crop(7))


def test_long_clips_are_decoded_twice_instead_of_held(corpus):
    frames = ClipFrames(corpus / "s1/b.mpg", 25, memory=1000)
    assert [frame.sum() for frame in frames] == [frame.sum() for frame in frames]
    assert frames._held is None
    held = ClipFrames(corpus / "s1/b.mpg", 25)
    assert [frame.sum() for frame in held] == [frame.sum() for frame in held]
    assert len(held._held) == 25


def test_settings_and_face_change_the_fingerprint():
    other = fake_face()
    other.landmark_mean += 0.1
    prints = {
        PrepareSettings().fingerprint(FACE, "dlib"),
        PrepareSettings(num_cepstra=28).fingerprint(FACE, "dlib"),
        PrepareSettings(smoothing=9.0).fingerprint(FACE, "dlib"),
        PrepareSettings().fingerprint(other, "dlib"),
        PrepareSettings().fingerprint(FACE, "another"),
    }
    assert len(prints) == 5
    assert PrepareSettings().fingerprint(fake_face(), DlibDetector.name) in prints
    assert PrepareSettings("self", "the author").fingerprint(FACE, "dlib") in prints  # changes no pixel
