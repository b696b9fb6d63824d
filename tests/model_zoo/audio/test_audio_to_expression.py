import pytest
import torch

from model_zoo.audio.audio_to_expression import AudioToExpression

from ..golden import digest, fill, wave


def test_predicts_in_the_corpus_units():
    network = fill(AudioToExpression(hidden=32))
    x = wave(4, 100, 13)
    standard = network(x)
    mean, std = wave(29, phase=3.0), wave(29, phase=4.0).abs()
    std[20:] = 0  # inactive modes
    network.set_statistics(mean, std)
    torch.testing.assert_close(network(x), mean + std * standard)
    assert torch.equal(network(x)[:, 20:], mean[20:].expand(4, 9))
    with pytest.raises(ValueError, match="statistics must be"):
        network.set_statistics(mean, -std)


def test_every_audio_frame_of_the_window_counts():
    network = fill(AudioToExpression(hidden=32))
    rows = wave(1, 100, 13).requires_grad_()
    network(rows).sum().backward()
    assert rows.grad.abs().sum(-1)[0, [0, 50, 99]].min() > 0


def test_golden_values():
    output = fill(AudioToExpression(hidden=32))(wave(2, 100, 13))
    torch.testing.assert_close(
        digest(output), torch.tensor([0.014932, 0.082299, 0.108546, -0.041702]), atol=1e-5, rtol=1e-4
    )


def test_learns_16_windows_by_heart():
    torch.manual_seed(0)
    network = AudioToExpression(hidden=32, num_layers=3)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    x, expression = torch.randn(16, 40, 13), torch.randn(16, 29)
    losses = []
    for _ in range(100):
        loss = (network(x) - expression).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
