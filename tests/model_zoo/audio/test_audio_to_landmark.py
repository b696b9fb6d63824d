import torch

from model_zoo.audio.audio_to_expression import AudioToExpression
from model_zoo.audio.audio_to_landmark import AudioToLandmark

from ..golden import digest, fill, wave


def test_differs_from_the_expression_network_by_its_last_layer_alone():
    expression, landmark = AudioToExpression(hidden=32), AudioToLandmark(hidden=32)
    landmark.encoder.load_state_dict(expression.encoder.state_dict())
    difference = {name.split(".")[0] for name, _ in landmark.named_parameters()} ^ {
        name.split(".")[0] for name, _ in expression.named_parameters()
    }
    assert difference == {"to_expression", "to_landmarks"}


def test_predicts_mouth_landmarks_in_the_corpus_units():
    network = fill(AudioToLandmark(hidden=32))
    x = wave(3, 100, 13)
    standard = network(x)
    assert standard.shape == (3, 20, 2)
    mean, std = 128 + 30 * wave(20, 2), 1 + wave(20, 2, phase=1.0).abs()
    network.set_statistics(mean, std)
    torch.testing.assert_close(network(x), mean + std * standard)


def test_golden_values():
    output = fill(AudioToLandmark(hidden=32))(wave(2, 100, 13))
    torch.testing.assert_close(
        digest(output), torch.tensor([0.014503, 0.084345, 0.108546, 0.010437]), atol=1e-5, rtol=1e-4
    )
