"""Samples: which frames, which sound, and randomness that is a function of its seed."""

import numpy as np
import pytest
import torch

from datamodules.batch import JointBatch, SpeechBatch, VideoBatch, collate
from datamodules.clip_store import Clip, ClipStore, write_clip
from datamodules.crop_codec import encode_crop
from datamodules.manifest import write_manifest
from datamodules.sampler import SampleKey
from datamodules.windows import ClipWindows, Names, other_frame, to_image
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
    return ClipWindows(store, clips, NAMES, kind, size, seed, training)


def test_joint_sample_is_the_seven_frames_and_their_sound(store):
    sample = windows(store)[NUM_FRAMES + 7]  # frame 7 of the second clip
    clip = store.open("s2/c")
    assert isinstance(sample, JointBatch)
    assert (sample.speech.clip, sample.speech.speaker, sample.speech.frame) == (2, 1, 7)
    assert torch.equal(sample.video.frames, to_image(clip.crops(range(1, 8), 64)))
    assert torch.equal(sample.video.landmarks, clip.landmarks[1:8])
    assert torch.equal(sample.speech.expression, clip.expression[1:8])
    assert torch.equal(sample.speech.pose, clip.pose[1:8])
    assert sample.speech.mfcc.shape == (124, 13)
    # rows [4(7-6)-80, 4·7+20) of 36: 76 before the start, then everything, then 12 of silence
    silence = silence_mfcc(13)
    assert torch.equal(sample.speech.mfcc[76 : 76 + 36], clip.mfcc)
    assert torch.equal(sample.speech.mfcc[0], silence)
    assert torch.equal(sample.speech.mfcc[-12], silence)


def test_start_repeats_the_first_frame(store):
    sample = windows(store)[2]
    first = store.open("s1/a")
    assert torch.equal(sample.video.landmarks, first.landmarks[[0, 0, 0, 0, 0, 1, 2]])
    assert torch.equal(sample.video.frames[0], sample.video.frames[4])


def test_speech_sample_is_one_frame_without_pixels(store):
    sample = windows(store, "speech")[4]
    assert isinstance(sample, SpeechBatch)
    assert sample.mfcc.shape == (100, 13)
    assert torch.equal(sample.expression, store.open("s1/a").expression[4:5])


def test_windows_with_a_frame_that_was_not_fitted_are_no_samples(store):
    assert len(windows(store, "speech", clips=("s1/b",))) == NUM_FRAMES - 1
    data = windows(store, clips=("s1/b",))
    assert [int(data[index].video.frame) for index in range(len(data))] == [0, 8]
    assert windows(store, clips=("s1/b", "s1/a")).clip_samples() == [(0, 2), (2, 2 + NUM_FRAMES)]


def test_training_noise_is_a_function_of_seed_epoch_and_sample(store):
    train = windows(store, "video", training=True)
    first = train[SampleKey(0, 3)]
    assert torch.equal(first.noise, windows(store, "video", training=True)[SampleKey(0, 3)].noise)
    others = [train[SampleKey(1, 3)], train[SampleKey(0, 4)], windows(store, "video", True, seed=6)[SampleKey(0, 3)]]
    assert not any(torch.equal(first.noise, other.noise) for other in others)
    assert first.noise.abs().max() <= 1
    assert abs(float(first.noise.std()) - 3**-0.5) < 0.02


def test_evaluation_noise_is_one_field_a_clip_whatever_else_is_loaded(store):
    data = windows(store, "video")
    assert torch.equal(data[0].noise, data[5].noise)
    assert not torch.equal(data[0].noise, data[NUM_FRAMES].noise)
    assert torch.equal(data[NUM_FRAMES].noise, windows(store, "video", clips=("s2/c",))[0].noise)


def test_a_batch_is_its_samples_and_decodes_each_crop_once(store, monkeypatch):
    data = windows(store, "video", training=True)
    keys = [SampleKey(2, index) for index in (6, 7, 8)]
    alone = collate([data[key] for key in keys])
    decoded = []
    crop = Clip.crop
    monkeypatch.setattr(Clip, "crop", lambda self, frame, size: decoded.append(frame) or crop(self, frame, size))
    together = collate(data.__getitems__(keys))
    assert len(decoded) == len(set(decoded)) <= NUM_FRAMES
    for name, value in vars(alone).items():
        assert torch.equal(value, getattr(together, name)), name
    assert isinstance(together, VideoBatch)
    assert together.frames.shape == (3, 7, 3, 64, 64)


def test_other_frame_is_another_valid_one_and_all_come_up():
    valid = torch.tensor([True, False, True, True, True])
    drawn = [other_frame(valid, 2, seed) for seed in range(200)]
    assert set(drawn) == {0, 3, 4}
    assert min(drawn.count(frame) for frame in (0, 3, 4)) > 40
    assert other_frame(torch.tensor([False, True]), 1, 0) == 1


def test_images_span_minus_one_to_one():
    crop = np.zeros((2, 4, 4, 3), np.uint8)
    crop[1, 0, 0] = (255, 128, 0)
    image = to_image(crop)
    assert image.shape == (2, 3, 4, 4)
    assert image[1, :, 0, 0].tolist() == pytest.approx([1, 128 / 127.5 - 1, -1], abs=1e-6)


def test_unknown_kind_is_refused(store):
    with pytest.raises(ValueError, match="unknown kind of sample 'audio': expected one of speech, video, joint"):
        windows(store, "audio")
