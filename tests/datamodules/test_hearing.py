"""What samples hear, on a clip in memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from datamodules.clip_store import Word
from datamodules.hearing import Hearing, SoundAugmentation, VoiceAugmentation, coloured_noise, silence_of
from model_zoo.functional.mfcc import audio_window, mfcc

NUM_FRAMES = 75


def clip(words=()) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(0)
    sound = torch.randn(640 * NUM_FRAMES, generator=generator) * 0.001
    sound[640 * 20 : 640 * 50] += 0.2 * torch.randn(640 * 30, generator=generator)
    stored = (sound * 32768).round().clamp(-32768, 32767).to(torch.int16)
    waveform = stored.to(torch.float32) / 32768
    landmarks = torch.zeros(NUM_FRAMES, 68, 2)
    landmarks[:, 36, 0], landmarks[:, 45, 0] = -40.0, 40.0
    landmarks[:, 65:68, 1] = torch.linspace(2, 12, NUM_FRAMES)[:, None]
    return SimpleNamespace(
        id="s1/a",
        row=SimpleNamespace(speaker="s1"),
        sound=stored,
        mfcc=mfcc(waveform),
        waveform=lambda: waveform,
        num_frames=NUM_FRAMES,
        landmarks=landmarks,
        valid=torch.arange(NUM_FRAMES) != 3,
        expression=torch.arange(NUM_FRAMES)[:, None].expand(-1, 29).float(),
        words=words,
    )


def test_sound_that_is_left_alone_gives_the_stored_rows():
    source, untouched = clip(), SoundAugmentation()
    frames = [0, 5, 40, NUM_FRAMES - 1]
    expected = torch.stack([audio_window(source.mfcc, frame, 7) for frame in frames])
    found = Hearing(augmentation=untouched).rows(source, frames, 7, [(0, i) for i in range(4)])
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-4)
    assert torch.equal(Hearing(augmentation=untouched).rows(source, frames, 7, None), expected)


def test_augmentation_follows_from_seed_epoch_and_sample():
    source = clip()
    hearing = Hearing(augmentation=SoundAugmentation((-10, 10), 1.0), seed=1)
    first = hearing.rows(source, [30, 30], 1, [(0, 7), (0, 8)])
    assert torch.equal(hearing.rows(source, [30], 1, [(0, 7)])[0], first[0])
    assert not torch.equal(first[0], first[1])
    for other in (
        Hearing(augmentation=hearing.augmentation, seed=2).rows(source, [30], 1, [(0, 7)]),
        hearing.rows(source, [30], 1, [(1, 7)]),
    ):
        assert not torch.equal(other[0], first[0])
    assert torch.equal(hearing.rows(source, [30], 1, None)[0], audio_window(source.mfcc, 30))  # evaluation


def test_gain_and_noise_are_what_they_say():
    sound = 0.1 * torch.sin(torch.arange(32_000) * 0.1)
    louder = SoundAugmentation((6.0, 6.0))(sound, 0.1, 0)
    torch.testing.assert_close(louder, sound * 10**0.3)
    noisy = SoundAugmentation((0.0, 0.0), 1.0, (20.0, 20.0))(sound, level=float(sound.std()), seed=3)
    snr = 20 * torch.log10(sound.std() / (noisy - sound).std())
    assert snr.item() == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize("tilt", [0.0, -3.0, -6.0])
def test_noise_has_its_colour(tilt):
    noise = coloured_noise(2**16, tilt, torch.Generator().manual_seed(0))
    power = torch.fft.rfft(noise).abs().square()
    hz = torch.arange(len(power)) * 16_000 / 2**16
    octave = [10 * torch.log10(power[(hz > low) & (hz < 2 * low)].mean()) for low in (500, 1_000, 2_000)]
    assert (octave[2] - octave[0]).item() / 2 == pytest.approx(tilt, abs=0.5)
    assert noise.std().item() == pytest.approx(1, abs=1e-3)


def test_utterance_rows_surround_the_frame_and_fill_short_clips():
    source = clip()
    assert Hearing().utterance(source, [1, 2]).shape == (2, 0, 13)
    around = Hearing(utterance_rows=100).utterance(source, [0, 40, NUM_FRAMES - 1])
    assert torch.equal(around[0], source.mfcc[:100])
    assert torch.equal(around[1], source.mfcc[110:210])
    assert torch.equal(around[2], source.mfcc[200:])
    assert torch.equal(Hearing(utterance_rows=450).utterance(source, [9])[0, 300:], source.mfcc[:150])


def test_utterance_rows_stay_within_the_frames_that_are_given():
    source = clip()
    beside = Hearing(utterance_rows=100).utterance(source, [20, 40, 49], within=range(20, 50))
    assert torch.equal(beside[0], source.mfcc[80:180])
    assert torch.equal(beside[1], source.mfcc[100:200])
    assert torch.equal(beside[2], source.mfcc[100:200])
    repeated = Hearing(utterance_rows=100).utterance(source, [22], within=range(20, 30))[0]
    assert torch.equal(repeated, torch.cat([source.mfcc[80:120]] * 3)[:100])


def test_speakers_are_normalised_by_their_own_statistics():
    source = clip()
    mean, std = source.mfcc.mean(0), source.mfcc.std(0)
    rows = Hearing(utterance_rows=300, normal={"s1": (mean, std)}).utterance(source, [40])[0]
    torch.testing.assert_close(rows.mean(0), torch.zeros(13), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.std(0), torch.ones(13), atol=1e-4, rtol=0)


def test_marks_of_a_clip():
    marks = Hearing().marks(clip())
    assert marks.silent[:16].all()
    assert not marks.silent[20:50].any()
    assert marks.silent[56:].all()
    assert marks.closed_gap.item() == pytest.approx(2.5, abs=0.3)  # fifth percentile
    assert marks.mean[0].item() == pytest.approx((sum(range(75)) - 3) / 74)


def test_words_decide_where_they_are_known():
    silent = silence_of(clip((Word(0.0, 1.0, "sil"), Word(1.0, 2.0, "bin"), Word(2.0, 3.0, "sil"))))
    assert (~silent).nonzero().ravel().tolist() == list(range(22, 56))


def test_another_voice_is_one_affine_map_a_sample():
    source = clip()
    hearing = Hearing(utterance_rows=100, voice=VoiceAugmentation(0.1, 0.3), seed=1)
    draws = [(0, 7), (0, 8)]
    plain = Hearing(utterance_rows=100)
    heard, before = hearing.rows(source, [30, 30], 1, draws), plain.rows(source, [30, 30], 1, None)
    assert torch.equal(hearing.rows(source, [30, 30], 1, None), before)  # evaluation
    assert not torch.allclose(heard[0], heard[1])
    ratio = (heard[0].diff(dim=0) / before[0].diff(dim=0))[20:80]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), atol=1e-2, rtol=1e-2)
    same_voice = hearing.utterance(source, [30, 30], draws)[0].diff(dim=0) / plain.utterance(source, [30])[0].diff(
        dim=0
    )
    torch.testing.assert_close(same_voice[20:80].median(0).values, ratio[0], atol=1e-2, rtol=1e-2)


def test_another_vocal_tract_is_one_linear_map_a_sample_that_keeps_the_level():
    source = clip()
    draws = [(0, 7), (0, 8)]
    before = Hearing().rows(source, [30, 31], 1, draws)
    heard = Hearing(voice=VoiceAugmentation(tract=0.2, formants=0.1)).rows(source, [30, 31], 1, draws)
    torch.testing.assert_close(heard[..., 0], before[..., 0])
    for rows, original in zip(heard, before, strict=True):
        fitted = torch.linalg.lstsq(original.double(), rows.double()).solution
        torch.testing.assert_close(original.double() @ fitted, rows.double(), atol=1e-3, rtol=1e-4)
        assert (rows - original).norm() > 0.05 * original.norm()
    assert not torch.allclose(heard[0, 4:], heard[1, :-4])  # the same sound but for a video frame
    assert torch.equal(Hearing(voice=VoiceAugmentation(tract=0.2)).rows(source, [30], 1, None), before[:1])
