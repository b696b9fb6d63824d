"""Decoding: times, sound in step with the picture, and one-line reasons for what cannot be read."""

import cv2
import numpy as np
import pytest

from datamodules.prepare.decode import (
    FRAME_RATE,
    SAMPLES_PER_FRAME,
    DecodeError,
    fit_length,
    read_audio,
    read_frames,
    resample_frames,
    video_start,
)
from datamodules.prepare.sound import to_float
from tests.datamodules.fake_corpus import draw, read_number, tone, write_clip_file


def numbered(count: int) -> list[np.ndarray]:
    return [draw(np.full((68, 2), 150.0), number) for number in range(count)]


def test_clip_at_25_frames_a_second_is_read_frame_by_frame(tmp_path):
    write_clip_file(tmp_path / "a.mpg", numbered(30), None)
    frames = list(read_frames(tmp_path / "a.mpg"))
    assert [read_number(frame) for frame in frames] == list(range(30))
    assert all(frame.flags.c_contiguous and frame.dtype == np.uint8 for frame in frames)


@pytest.mark.parametrize("rate", [24, 30, 50])
def test_other_rates_give_the_frame_nearest_in_time(tmp_path, rate):
    write_clip_file(tmp_path / "a.mpg", numbered(60), None, rate=rate)
    numbers = np.array([read_number(frame) for frame in read_frames(tmp_path / "a.mpg")])
    assert abs(len(numbers) - 60 * FRAME_RATE / rate) <= 1
    assert np.abs(numbers / rate - np.arange(len(numbers)) / FRAME_RATE).max() <= 0.5 / rate + 1e-6


def test_uneven_times_are_followed():
    frames = [np.full((2, 2, 3), value, np.uint8) for value in range(3)]
    resampled = resample_frames(zip([5.0, 5.20, 5.24], frames, strict=True))
    assert [int(frame[0, 0, 0]) for frame in resampled] == [0, 0, 0, 1, 1, 1, 2][:7]


def test_sound_is_in_step_with_the_picture(tmp_path):
    sound = np.zeros(2 * 44_100, np.float32)
    sound[44_100 : 44_100 + 4410] = tone(0.1)  # a beep that starts at frame 25
    write_clip_file(tmp_path / "a.mpg", numbered(50), sound)
    samples = to_float(fit_length(read_audio(tmp_path / "a.mpg", video_start(tmp_path / "a.mpg")), 50))
    assert len(samples) == 50 * SAMPLES_PER_FRAME
    onset = np.flatnonzero(np.abs(samples) > 0.1)[0] / 16_000
    assert abs(onset - 1.0) < 0.04  # the codec's own delay is two of its 26 ms frames at most
    assert 0.4 < np.abs(samples).max() < 0.6


def test_sound_that_starts_later_is_padded_and_earlier_is_cut(tmp_path):
    write_clip_file(tmp_path / "a.mpg", numbered(25), tone(1.0))
    whole = read_audio(tmp_path / "a.mpg", 0.5)
    assert len(read_audio(tmp_path / "a.mpg", 0.25)) - len(whole) == pytest.approx(4000, abs=1)
    later = read_audio(tmp_path / "a.mpg", 0.75)
    np.testing.assert_array_equal(later, whole[len(whole) - len(later) :])


def test_folder_of_images_is_read_in_natural_order(tmp_path):
    for number, frame in enumerate(numbered(12)):
        cv2.imwrite(str(tmp_path / f"frame{number}.png"), frame[..., ::-1])
    assert [read_number(frame) for frame in read_frames(tmp_path)] == list(range(12))


def test_frames_beyond_what_is_there_are_silent():
    np.testing.assert_array_equal(fit_length(np.ones(1000, np.float32), 2), np.r_[np.ones(1000), np.zeros(280)])


def test_text_file_named_mpg(tmp_path):
    (tmp_path / "a.mpg").write_text("this is no video\n" * 100)
    with pytest.raises(DecodeError, match="not readable as video"):
        list(read_frames(tmp_path / "a.mpg"))


def test_truncated_clip_keeps_what_can_be_decoded(tmp_path):
    write_clip_file(tmp_path / "a.mpg", numbered(60), None)
    whole = (tmp_path / "a.mpg").read_bytes()
    (tmp_path / "a.mpg").write_bytes(whole[: 3 * len(whole) // 4])
    notes: list[str] = []
    numbers = [read_number(frame) for frame in read_frames(tmp_path / "a.mpg", notes=notes)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 40
    assert notes == ["1 damaged frames left out"]
    (tmp_path / "a.mpg").write_bytes(whole[: len(whole) // 4])
    with pytest.raises(DecodeError, match="damaged or cut off at frame"):
        list(read_frames(tmp_path / "a.mpg"))


def test_clip_without_sound(tmp_path):
    write_clip_file(tmp_path / "a.mpg", numbered(10), None)
    with pytest.raises(DecodeError, match="no sound"):
        read_audio(tmp_path / "a.mpg", 0.0)
