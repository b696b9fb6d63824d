import torch

from experiments.probes import Windows, _of_another, cnn_accuracy, draw, logistic_accuracy


def voices(offset: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four speakers, six clips each, told apart by an offset of their cepstra."""
    generator = torch.Generator().manual_seed(seed)
    speaker = torch.arange(4).repeat_interleave(60)
    clip = torch.arange(24).repeat_interleave(10)
    x = torch.randn(240, 100, 13, generator=generator) + 0.05 * torch.randn(24, 1, 13, generator=generator)[clip]
    x = x + offset * torch.randn(4, 1, 13, generator=generator)[speaker]
    return x, speaker, clip % 6 == 5


def test_probes_find_speakers_that_differ():
    x, speaker, is_test = voices(0.5)
    assert logistic_accuracy(x, speaker, is_test) > 0.95
    assert cnn_accuracy(x, speaker, is_test) > 0.95


def test_probes_find_nothing_where_speakers_do_not_differ():
    """Split by clip, a probe cannot win by knowing the clip."""
    x, speaker, is_test = voices(0.0)
    assert logistic_accuracy(x, speaker, is_test) < 0.55
    assert cnn_accuracy(x, speaker, is_test, epochs=5) < 0.55


def test_shuffled_windows_are_of_another_speaker():
    speaker = torch.tensor([0, 0, 1, 2, 2, 2])
    assert (speaker[_of_another(speaker, 0)] != speaker).all()


def test_the_picture_is_drawn(tmp_path):
    x, speaker, is_test = voices(0.5)
    draw(Windows(x, 0.1 * x, x, None, torch.zeros(240, 29), speaker, is_test), tmp_path / "a" / "tsne.png")
    assert (tmp_path / "a" / "tsne.png").stat().st_size > 10_000
