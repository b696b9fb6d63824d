import pytest
import torch

from model_zoo.audio.id_removal import AudioIdRemoval, MomentRemoval, RunningWeights

from ..golden import digest, fill, wave


@pytest.fixture(params=["window", "clip"])
def network(request) -> AudioIdRemoval:
    torch.manual_seed(0)
    return AudioIdRemoval(scope=request.param)


def test_starts_as_the_identity_with_living_gradients(network):
    x = wave(4, 100, 13)
    adapted, weights = network(x)
    assert torch.equal(adapted, x)
    assert torch.equal(weights, torch.zeros(4, 15))
    adapted.square().mean().backward()
    assert network.to_weights.weight.grad.abs().max() > 0
    assert network.to_weights.bias.grad.abs().min() > 0


def test_components_learn_from_the_second_step_on(network):
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        network(wave(4, 100, 13))[0].square().mean().backward()
        optimizer.step()
    assert network.components.grad.abs().max() > 0
    assert network.lstm.weight_ih_l0.grad.abs().max() > 0


def test_equals_eq_1_written_out(network):
    fill(network)
    x = wave(3, 100, 13)
    adapted, weights = network(x)
    identity = torch.cat([torch.eye(13), torch.zeros(13, 1)], dim=1)
    for sample in range(3):
        matrix = identity + sum(weights[sample, j] * network.components[j] for j in range(15))
        torch.testing.assert_close(network.transform(weights)[sample], matrix)
        for row in (0, 57, 99):
            expected = matrix @ torch.cat([x[sample, row], torch.ones(1)])
            torch.testing.assert_close(adapted[sample, row], expected, atol=1e-5, rtol=1e-5)


def test_can_undo_an_affine_change_of_voice():
    """fMLLR's purpose: with the right λ and component, an affine distortion of the cepstra is removed exactly."""
    network = AudioIdRemoval(num_components=1)
    x = wave(1, 50, 13)
    distortion = torch.eye(13) + 0.05 * wave(13, 13, phase=1.0)
    offset = wave(13, phase=2.0)
    inverse = torch.linalg.inv(distortion)
    with torch.no_grad():
        network.components[0] = torch.cat([inverse - torch.eye(13), (-inverse @ offset)[:, None]], dim=1)
    heard = x @ distortion.T + offset
    torch.testing.assert_close(network.adapt(heard, torch.ones(1, 1)), x, atol=1e-5, rtol=0)


def test_running_weights_end_at_those_of_the_whole():
    network = fill(AudioIdRemoval(scope="clip"))
    x = wave(60, 13)
    running = RunningWeights(network)
    found = torch.cat([running(x[:7]), running(x[7:7]), running(x[7:])])
    torch.testing.assert_close(found[-1], network.weights(x[None])[0])
    torch.testing.assert_close(found[19], network.weights(x[None, :20])[0])


def test_depth_and_start_are_settings():
    network = AudioIdRemoval(num_layers=2, component_std=0.1)
    assert network.lstm.num_layers == 2
    assert 0.09 < network.components.std().item() < 0.11
    assert torch.equal(network(wave(2, 100, 13))[0], wave(2, 100, 13))


def test_context_decides_in_scope_clip_and_is_refused_in_scope_window():
    network = fill(AudioIdRemoval(scope="clip"))
    window, utterance = wave(2, 100, 13), wave(2, 300, 13, phase=1.0)
    torch.testing.assert_close(network(window, utterance)[1], network.weights(utterance))
    with pytest.raises(ValueError, match="scope 'window'"):
        AudioIdRemoval(scope="window")(window, utterance)
    with pytest.raises(ValueError, match="'window' or 'clip'"):
        AudioIdRemoval(scope="speaker")


def test_golden_values(network):
    expected = {"window": [0.014209, 0.72813, -0.087482, 1.037735], "clip": [-0.002132, 0.714475, -0.00676, 1.018326]}[
        network.scope
    ]
    fill(network)
    torch.testing.assert_close(digest(network(wave(2, 100, 13))[0]), torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_moments_are_eq_1_with_an_analytic_map():
    torch.manual_seed(0)
    removal, x = MomentRemoval(), 3 * torch.randn(4, 100, 13) + 2
    adapted, weights = removal(x)
    ones = torch.cat([x, torch.ones(4, 100, 1)], dim=-1)
    assert torch.allclose(adapted, ones @ removal.transform(weights).mT, atol=1e-5)
    assert torch.allclose(adapted.mean(1), torch.zeros(4, 13), atol=1e-5)
    assert torch.allclose(adapted.std(1, correction=0), torch.ones(4, 13), atol=1e-5)


def test_moments_of_silence_stay_small():
    quiet = torch.full((1, 100, 13), -2.0) + 0.01 * torch.randn(1, 100, 13)
    assert MomentRemoval()(quiet)[0].abs().max() < 0.5
    with pytest.raises(ValueError, match="leave out the context"):
        MomentRemoval()(quiet, quiet)
