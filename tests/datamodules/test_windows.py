"""Samples: which frames, which sound, and randomness that is a function of its seed."""

import numpy as np
import pytest
import torch

from datamodules.batch import JointBatch, SpeechBatch, VideoBatch
from datamodules.clip_store import Clip, ClipStore, write_clip
from datamodules.crop_codec import encode_crop
from datamodules.manifest import write_manifest
from datamodules.sampler import Unit
from datamodules.windows import ClipWindows, Names, other_frame
from model_zoo.functional.mfcc import silence_mfcc
from tests.datamodules.test_clip_store import NUM_FRAMES, data, photo, row

NAMES = Names(("s1/a", "s1/b", "s2/c"), ("s1", "s2"))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ClipStore:
    root = tmp_path_factory.mktemp("store")
    gap = torch.ones(NUM_FRAMES, dtype=torch.bool)
    gap[1] = False
    rows = [row("s1/a"), row("s1/b", valid_frames=NUM_FRAMES - 1), row("s2/c")]
    contents = [data(), data(valid=gap), data(crops=[encode_crop(photo(50 + t)) for t in range(NUM_FRAMES)])]
    for each, content in zip(rows, contents, strict=True):
        write_clip(root, each, content)
    write_manifest(root, rows)
    return ClipStore(root)


def windows(store, kind="joint", training=False, clips=("s1/a", "s2/c"), size=64, seed=5) -> ClipWindows:
    frames = clips if isinstance(clips, dict) else {clip: range(NUM_FRAMES) for clip in clips}
    return ClipWindows(store, frames, NAMES, kind, size, seed, training)


def images(crops: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(crops).movedim(-1, -3) / 127.5 - 1


def test_joint_sample_is_the_seven_frames_and_their_sound(store):
    sample = windows(store)[NUM_FRAMES + 7]  # frame 7 of the second clip
    clip = store.open("s2/c")
    assert isinstance(sample, JointBatch)
    assert (sample.speech.clip, sample.speech.speaker, sample.speech.frame) == (2, 1, 7)
    assert torch.equal(sample.video.frames[0], images(clip.crops(range(1, 8), 64)))
    assert torch.equal(sample.video.landmarks[0], clip.landmarks[1:8])
    assert torch.equal(sample.speech.expression[0], clip.expression[1:8])
    assert torch.equal(sample.speech.pose[0], clip.pose[1:8])
    assert sample.speech.mfcc.shape == (1, 124, 13)
    # rows [4(7-6)-80, 4·7+20) of 36: 76 before the start, then everything, then 12 of silence
    silence = silence_mfcc(13)
    assert torch.equal(sample.speech.mfcc[0, 76 : 76 + 36], clip.mfcc)
    assert torch.equal(sample.speech.mfcc[0, 0], silence)
    assert torch.equal(sample.speech.mfcc[0, -12], silence)


def test_start_repeats_the_first_frame(store):
    sample = windows(store)[2]
    first = store.open("s1/a")
    assert torch.equal(sample.video.landmarks[0], first.landmarks[[0, 0, 0, 0, 0, 1, 2]])
    assert torch.equal(sample.video.frames[0, 0], sample.video.frames[0, 4])


def test_speech_sample_is_one_frame_without_pixels(store):
    sample = windows(store, "speech")[4]
    assert isinstance(sample, SpeechBatch)
    assert sample.mfcc.shape == (1, 100, 13)
    assert torch.equal(sample.expression[0], store.open("s1/a").expression[4:5])


def test_windows_with_a_frame_that_was_not_fitted_are_no_samples(store):
    assert len(windows(store, "speech", clips=("s1/b",))) == NUM_FRAMES - 1
    data = windows(store, clips=("s1/b",))
    assert [int(data[index].video.frame) for index in range(len(data))] == [0, 8]
    assert windows(store, clips=("s1/b", "s1/a")).clip_samples() == [(0, 2), (2, 2 + NUM_FRAMES)]


def drawn(data: ClipWindows, epoch: int, *samples: int) -> VideoBatch:
    return data.__getitems__(Unit(epoch, np.array(samples)))


def test_training_noise_is_a_function_of_seed_epoch_and_sample(store):
    train = windows(store, "video", training=True)
    first = drawn(train, 0, 3).noise
    assert torch.equal(first[0], drawn(windows(store, "video", training=True), 0, 8, 3).noise[1])
    others = [drawn(train, 1, 3), drawn(train, 0, 4), drawn(windows(store, "video", True, seed=6), 0, 3)]
    assert not any(torch.equal(first, other.noise) for other in others)
    assert first.abs().max() <= 1
    assert abs(float(first.std()) - 3**-0.5) < 0.02


def test_evaluation_noise_is_one_field_a_clip_whatever_else_is_loaded(store):
    data = windows(store, "video")
    assert torch.equal(data[0].noise, data[5].noise)
    assert not torch.equal(data[0].noise, data[NUM_FRAMES].noise)
    assert torch.equal(data[NUM_FRAMES].noise, windows(store, "video", clips=("s2/c",))[0].noise)


def test_predictors_are_the_clips_mean_and_another_of_its_frames(store):
    batch = drawn(windows(store, "video", training=True), 0, *range(2 * NUM_FRAMES))
    for sample, (name, frame) in enumerate((name, t) for name in ("s1/a", "s2/c") for t in range(NUM_FRAMES)):
        clip = store.open(name)
        assert torch.equal(batch.mean_frame[sample], images(clip.mean_crop(64)))
        others = images(clip.crops([t for t in range(NUM_FRAMES) if t != frame], 64))
        assert (batch.other_frame[sample] == others).flatten(1).all(1).any()


def test_a_unit_is_its_samples_and_decodes_each_crop_once(store, monkeypatch):
    data = windows(store, training=True)
    samples = (8, 15, 6, 7, 10, 16)
    alone = [drawn(data, 2, sample) for sample in samples]
    decoded = []
    crop = Clip.crop
    monkeypatch.setattr(Clip, "crop", lambda self, t, size: decoded.append((self.id, t)) or crop(self, t, size))
    together = drawn(data, 2, *samples)
    assert len(decoded) == len(set(decoded)) <= 2 * NUM_FRAMES
    assert together.video.frames.shape == (6, 7, 3, 64, 64)
    for number, single in enumerate(alone):
        cut = together.cut(number, number + 1)
        assert len(cut) == 1
        for name in ("frames", "landmarks", "target", "noise", "mean_frame", "other_frame", "mouth_box", "frame"):
            assert torch.equal(getattr(cut.video, name), getattr(single.video, name)), name
        for name, value in vars(single.speech).items():
            assert torch.equal(getattr(cut.speech, name), value), name


def test_a_part_of_a_clip_keeps_to_itself_but_for_the_frames_before(store):
    part = windows(store, "video", clips={"s1/a": range(5, NUM_FRAMES)})
    whole = windows(store, "video")
    assert [int(part[sample].frame) for sample in range(len(part))] == [5, 6, 7, 8]
    for sample in range(len(part)):
        assert torch.equal(part[sample].frames, whole[5 + sample].frames)
        allowed = images(store.open("s1/a").crops(range(5, NUM_FRAMES), 64))
        assert (part[sample].other_frame == allowed).flatten(1).all(1).any()


def test_other_frame_is_another_allowed_one_and_all_come_up():
    allowed = np.array([0, 2, 3, 4])
    for frame, others in ((2, {0, 3, 4}), (1, {0, 2, 3, 4}), (9, {0, 2, 3, 4})):
        draws = [other_frame(allowed, frame, seed) for seed in range(200)]
        assert set(draws) == others
        assert min(draws.count(other) for other in others) > 30
    assert other_frame(np.array([1]), 1, 0) == 1


def test_frames_of_a_stretch_share_their_other_frame():
    allowed = np.arange(500)
    draws = {other_frame(allowed, frame, "seed", stretch=32) for frame in range(64)}
    assert 2 <= len(draws) <= 4


def test_unknown_kind_is_refused(store):
    with pytest.raises(ValueError, match="unknown kind of sample 'audio': expected one of speech, video, joint"):
        windows(store, "audio")
