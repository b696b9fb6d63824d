"""Samples of 16 bits: as they are stored, and how much room they take while a file is read."""

import tracemalloc

import numpy as np

from datamodules.prepare.sound import read_audio, to_float, to_int16
from tests.datamodules.fake_corpus import tone
from tests.datamodules.prepare.recording import SOUND_RATE, Track, record


def test_full_scale_does_not_wrap():
    assert to_int16(np.array([-1.5, -1.0, 0.5, 1.0])).tolist() == [-32768, -32768, 16384, 32767]


def test_there_and_back_is_exact():
    samples = np.arange(-32768, 32768).astype(np.int16)
    assert to_float(samples).dtype == np.float32
    np.testing.assert_array_equal(to_int16(to_float(samples)), samples)


def test_a_long_sound_takes_two_bytes_a_sample(tmp_path):
    sound = tone(60.0, SOUND_RATE)
    path = record(tmp_path / "a.wav", (), Track(sound=sound, codec="pcm_s16le"))
    tracemalloc.start()
    samples = read_audio(path, 0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(samples) == 60 * 16_000
    assert peak < 1.5 * samples.nbytes
