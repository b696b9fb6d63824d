import torch
from torch import nn

from lightning_modules.audio_to_expression import SpeechLossWeights, SpeechObjective
from lightning_modules.audio_to_landmark import AudioToLandmarkModule, mouth_movement, reposed
from model_zoo.audio.audio_to_landmark import AudioToLandmark
from model_zoo.audio.speech_to_expression import SpeechToExpression
from model_zoo.audio.standardise import MfccStandardise
from model_zoo.face.procedural import procedural_face

from .tiny import clip_samples, face

MOUTH = slice(48, 68)


def poses() -> torch.Tensor:
    return torch.tensor([[0.0, 0, 0, 128, 128, 4.3], [0.1, 0.6, 0.05, 120, 130, 4.2], [-0.3, -0.4, 0.2, 128, 128, 4.4]])


def test_movement_in_the_face_is_what_a_frontal_camera_sees():
    model = procedural_face()
    generator = torch.Generator().manual_seed(0)
    shape, expression = torch.randn(199, generator=generator), torch.randn(3, 29, generator=generator)
    frontal = poses()[:1].expand(3, -1)
    moved = reposed(model, mouth_movement(model, shape.expand(3, -1), expression), shape.expand(3, -1), frontal)
    torch.testing.assert_close(moved, model.project_landmarks(shape, expression, frontal)[:, MOUTH], atol=1e-3, rtol=0)


def test_reposing_follows_the_head():
    model, shape = procedural_face(), torch.zeros(3, 199)
    still = reposed(model, torch.zeros(3, 20, 2), shape, poses())
    torch.testing.assert_close(still, model.project_landmarks(shape, torch.zeros(3, 29), poses())[:, MOUTH])
    wider = torch.zeros(3, 20, 2)
    wider[:, 14, 0] = 0.1  # along the face's own horizontal: foreshortened by a turn of the head
    change = (reposed(model, wider, shape, poses()) - still)[:, 14].norm(dim=-1) / poses()[:, 5].exp()
    assert change[0].item() > change[1].item() > 0


class Answer(nn.Module):
    """Stands for a perfect network."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, mfcc, num_frames, utterance):
        class Output:
            expression = self.value
            features = None

        return Output()


def module(space: str) -> AudioToLandmarkModule:
    speech = SpeechToExpression(MfccStandardise(), None, AudioToLandmark(hidden=8, num_layers=1))
    objective = SpeechObjective(face(), None, SpeechLossWeights())
    return AudioToLandmarkModule(speech, objective, torch.zeros(29), num_clips=2, space=space)


def test_a_perfect_answer_scores_zero_in_either_space():
    batch = clip_samples(face(), 0, 1)[0].speech
    for space in ("frame", "face"):
        rival = module(space)
        true = batch.landmarks[:, :, MOUTH]
        if space == "face":
            true = mouth_movement(face(), batch.shape[:, None].expand(-1, 7, -1), batch.expression)
        torch.testing.assert_close(rival.mouth(batch, true), batch.landmarks[:, :, MOUTH], atol=1e-3, rtol=0)
        rival.speech = Answer(true)
        rival._evaluate(batch)
        scores = {row: mean.compute().item() for row, _, mean in rival.scores.items()}
        assert scores["ours"] < 1e-3
        assert scores["mean-mouth"] > 0.1


def test_only_terms_that_a_2d_network_has_are_active():
    assert module("frame").active_losses() == ["shape"]
