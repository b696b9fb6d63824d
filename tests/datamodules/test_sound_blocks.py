"""Any sound that people have: works, or one clear line."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

from datamodules.prepare.media import DecodeError
from datamodules.sound_blocks import BLOCK, sound_blocks

from .fake_corpus import draw, fake_face, tone, true_landmarks, write_clip_file


def read(path, **options) -> torch.Tensor:
    return torch.cat(list(sound_blocks(path, **options)))


def write(path, samples, rate=16_000, subtype="PCM_16"):
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.mark.parametrize("block", [999, 16_000, BLOCK])
def test_blocks_are_the_file(tmp_path, block):
    path = write(tmp_path / "a.wav", tone(2.5, 16_000), subtype="FLOAT")
    blocks = list(sound_blocks(path, block))
    assert {len(part) for part in blocks[:-1]} <= {block}
    torch.testing.assert_close(torch.cat(blocks), torch.from_numpy(tone(2.5, 16_000)))


@pytest.mark.parametrize(
    ("rate", "subtype", "channels"),
    [(8_000, "PCM_16", 1), (192_000, "PCM_24", 1), (22_050, "PCM_U8", 2), (48_000, "PCM_16", 6)],
)
def test_any_rate_depth_and_layout(tmp_path, rate, subtype, channels):
    samples = np.repeat(tone(1.0, rate)[:, None], channels, axis=1)
    heard = read(write(tmp_path / "a.wav", samples, rate, subtype))
    assert abs(len(heard) - 16_000) < 100
    spectrum = torch.fft.rfft(heard).abs()
    assert abs(int(spectrum.argmax()) - 440) <= 5
    assert 0.2 < float(heard.abs().max()) <= 1


def test_samples_that_are_no_number_are_silent(tmp_path):
    samples = tone(1.0, 16_000)
    samples[100:200], samples[300] = np.nan, np.inf
    notes: list[str] = []
    heard = read(write(tmp_path / "a.wav", samples, subtype="FLOAT"), notes=notes)
    assert heard.isfinite().all()
    assert heard[120:180].abs().max() == 0
    assert notes == ["a.wav: 0 damaged packets left out, 101 samples that are no number made silent"]


def test_silence_is_sound(tmp_path):
    assert read(write(tmp_path / "a.wav", np.zeros(5_000))).tolist() == [0.0] * 5_000


def test_a_video_is_heard(tmp_path):
    truth = true_landmarks(fake_face(), 0, 10)
    write_clip_file(tmp_path / "a.mpg", [draw(truth[t], t) for t in range(10)], tone(0.4))
    heard = read(tmp_path / "a.mpg")
    assert abs(len(heard) - 6_400) < 3_000
    assert heard.std() > 0.1


def test_bad_files_are_one_line(tmp_path):
    truth = true_landmarks(fake_face(), 0, 5)
    write_clip_file(tmp_path / "mute.mpg", [draw(truth[t], t) for t in range(5)], None)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no sound at all")
    write(tmp_path / "none.wav", np.zeros(0))
    expected = {
        "mute.mpg": "no sound",
        "empty.wav": "not readable",
        "text.wav": "not readable",
        "none.wav": "no sound",
        "gone.wav": "does not exist",
    }
    for name, reason in expected.items():
        with pytest.raises(DecodeError, match=reason) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(seconds: int) -> int:
        path = write(tmp_path / f"{seconds}.wav", np.tile(tone(1.0, 16_000), seconds))
        tracemalloc.start()
        for _ in sound_blocks(path, 16_000):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(60) < 1.5 * peak(6) + 100_000
