import torch

from model_zoo.audio.audio_to_expression import AudioToExpression
from model_zoo.audio.id_removal import AudioIdRemoval
from model_zoo.audio.speech_to_expression import SpeechToExpression
from model_zoo.audio.standardise import MfccStandardise

from ..golden import fill, wave


def test_sequence_equals_frame_by_frame():
    networks = fill(SpeechToExpression(MfccStandardise(), None, AudioToExpression(hidden=32)))
    rows = wave(2, 124, 13)
    windows = networks.standardise(rows)
    expected = torch.stack([networks.translation(windows[:, 4 * i : 4 * i + 100]) for i in range(7)], dim=1)
    torch.testing.assert_close(networks(rows, 7).expression, expected)


def test_id_removal_sees_each_window_by_itself():
    networks = fill(SpeechToExpression(MfccStandardise(), AudioIdRemoval(hidden=8), AudioToExpression(hidden=32)))
    rows = wave(2, 124, 13)
    together = networks(rows, 7)
    assert together.weights.shape == (14, 15)
    alone = torch.stack([networks(rows[:, 4 * i : 4 * i + 100]).expression[:, 0] for i in range(7)], dim=1)
    torch.testing.assert_close(together.expression, alone)
