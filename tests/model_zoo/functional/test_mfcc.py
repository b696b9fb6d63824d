import numpy as np
import pytest
import python_speech_features
import torch

from model_zoo.functional.mfcc import HOP, WINDOW, audio_window, audio_windows, mfcc, silence_mfcc, windows_of


@pytest.fixture
def waveform() -> torch.Tensor:
    """A chirp over noise with gaps, 1.01 s, 16 kHz."""
    generator = torch.Generator().manual_seed(0)
    seconds = torch.arange(16_160, dtype=torch.float64) / 16_000
    voice = torch.sin(2 * torch.pi * (120 + 900 * seconds) * seconds) * (torch.sin(9 * seconds) > 0)
    return 0.4 * voice + 0.02 * torch.randn(len(seconds), generator=generator, dtype=torch.float64)


def reference(samples: np.ndarray, num_cepstra: int = 13) -> np.ndarray:
    bands = max(26, num_cepstra)
    return python_speech_features.mfcc(samples, 16_000, numcep=num_cepstra, nfilt=bands, winfunc=np.hamming)


@pytest.mark.parametrize("num_cepstra", [12, 13, 28])
@pytest.mark.parametrize("num_samples", [16_160, 16_000, 15_801, 100])
def test_every_frame_equals_python_speech_features_on_the_padded_waveform(waveform, num_cepstra, num_samples):
    samples = waveform[:num_samples]
    ours = mfcc(samples, num_cepstra)
    padded = np.pad(samples.numpy(), WINDOW // 2)
    assert ours.shape == (-(-num_samples // HOP), num_cepstra)
    np.testing.assert_allclose(ours, reference(padded, num_cepstra)[: len(ours)], atol=1e-9)


def test_inner_frames_equal_python_speech_features_without_padding(waveform):
    # Its frame j of the waveform from sample 120 on covers [160j + 120, 160j + 520): ours of row j + 2.
    theirs = reference(waveform[120:].numpy())[1:-1]
    np.testing.assert_allclose(mfcc(waveform)[3 : 3 + len(theirs)], theirs, atol=1e-9)


def test_float32_and_batches_agree_with_float64(waveform):
    batch = torch.stack([waveform, waveform.flip(0)]).float()[None]
    torch.testing.assert_close(mfcc(batch)[0, 0].double(), mfcc(waveform), atol=2e-3, rtol=0)
    torch.testing.assert_close(mfcc(batch)[0, 1], mfcc(batch[0, 1]))


def test_row_k_is_centred_at_10k_ms():
    click = torch.zeros(16_000)
    click[50 * HOP] = 0.5
    energy = mfcc(click)[:, 0]
    assert energy.argmax() == 50
    assert torch.allclose(energy[49], energy[51], atol=0.1)  # pre-emphasis makes it not quite symmetric


def test_silence_is_finite_and_equals_the_mfcc_of_zeros():
    silence = silence_mfcc(13)
    assert silence.isfinite().all()
    torch.testing.assert_close(mfcc(torch.zeros(3, 1_000)), silence.expand(3, 7, 13), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("frame", "num_frames"), [(0, 1), (0, 7), (3, 7), (30, 7), (30, 1), (74, 1), (74, 7), (200, 1)]
)
def test_audio_window_pads_with_silence(frame, num_frames):
    rows = torch.randn(300, 13, generator=torch.Generator().manual_seed(0))
    window = audio_window(rows, frame, num_frames)
    start = 4 * (frame - num_frames + 1) - 80
    assert window.shape == (100 + 4 * (num_frames - 1), 13)
    for i, row in enumerate(window):
        inside = 0 <= start + i < len(rows)
        torch.testing.assert_close(row, rows[start + i] if inside else silence_mfcc(13))


def test_windows_of_are_the_windows_of_each_frame():
    rows = torch.randn(300, 13, generator=torch.Generator().manual_seed(0))
    windows = windows_of(audio_window(rows, 40, 7)[None], 7)
    torch.testing.assert_close(windows[0], torch.stack([audio_window(rows, t) for t in range(34, 41)]))
    with pytest.raises(ValueError, match="124 MFCC rows, got 100"):
        windows_of(torch.zeros(1, 100, 13), 7)


@pytest.mark.parametrize("bad", [torch.zeros(0), torch.zeros(10, dtype=torch.int16)])
def test_bad_waveforms_are_refused(bad):
    with pytest.raises(ValueError, match="waveform"):
        mfcc(bad)


@pytest.mark.parametrize("num_frames", [1, 7])
def test_audio_windows_are_each_frames_audio_window(num_frames):
    rows = torch.randn(60, 13, generator=torch.Generator().manual_seed(0))
    frames = torch.tensor([14, 0, 3, 7, 200])
    expected = torch.stack([audio_window(rows, frame, num_frames) for frame in frames.tolist()])
    assert torch.equal(audio_windows(rows, frames, num_frames), expected)
