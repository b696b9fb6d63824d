import torch
import torch.nn.functional as F
from torch import nn

from model_zoo.audio.vggvox import VGGVox

from ..golden import digest, fill, wave


def test_has_the_convolutions_of_vgg_m_and_strides_along_time_alone():
    network = VGGVox(34)
    convolutions = [layer for layer in network.convolutions if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [96, 256, 384, 256, 256]
    features = network.convolutions(torch.zeros(1, 1, 13, 100))
    assert features.shape[2] == 13
    assert features.shape[3] < 100 / 16


def test_any_length_and_width_and_number_of_cepstra():
    for cepstra, width, length in [(12, 0.125, 100), (28, 0.5, 60)]:
        assert VGGVox(5, cepstra, width)(wave(2, length, cepstra)).shape == (2, 5)


def test_samples_do_not_depend_on_their_batch_or_on_the_mode():
    network = fill(VGGVox(5, width=0.125))
    x = wave(4, 100, 13)
    alone, together = network(x[:1]), network.train()(x)[:1]
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)


def test_gradients_are_finite_on_constant_input():
    network = VGGVox(5, width=0.125)
    x = torch.zeros(2, 100, 13, requires_grad=True)
    network(x).sum().backward()
    assert x.grad.isfinite().all()


def test_tells_voices_apart_by_their_spectral_tilt():
    torch.manual_seed(0)
    network = VGGVox(4, width=0.125)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    voices = torch.randn(4, 13)

    def windows():
        speaker = torch.arange(4).repeat(8)
        return torch.randn(32, 100, 13) + 0.5 * voices[speaker][:, None], speaker

    for _ in range(25):
        x, speaker = windows()
        optimizer.zero_grad()
        F.cross_entropy(network(x), speaker).backward()
        optimizer.step()
    x, speaker = windows()
    assert (network(x).argmax(-1) == speaker).float().mean() > 0.9


def test_golden_values():
    output = fill(VGGVox(5, width=0.125))(wave(2, 100, 13))
    torch.testing.assert_close(
        digest(output), torch.tensor([0.032093, 0.100654, 0.109491, -0.097954]), atol=1e-5, rtol=1e-4
    )
