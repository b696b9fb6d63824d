"""The term that closes the mouth where nobody speaks."""

import dataclasses

import pytest
import torch

from lightning_modules.audio_to_expression import SpeechLossWeights, SpeechObjective
from model_zoo.functional.losses import silence_loss
from model_zoo.metrics.speech_metrics import inner_lip_gap

from .tiny import clip_samples, face, speech_networks


def test_only_open_lips_in_silence_cost():
    gap, closed = torch.tensor([3.0, 1.0, 3.0]), torch.tensor([2.0, 2.0, 2.0])
    assert silence_loss(gap, closed, torch.tensor([True, True, False])).item() == pytest.approx(1 / 3)
    gap.requires_grad_()
    silence_loss(gap, closed, torch.tensor([True, True, False])).backward()
    assert gap.grad.tolist() == pytest.approx([1 / 3, 0, 0])


def test_training_on_it_closes_the_mouth_in_silence_alone():
    torch.manual_seed(0)
    weights = SpeechLossWeights(norm=0.0, expression=0.0, shape=0.0, silence=1.0)
    objective, speech = SpeechObjective(face(), None, weights), speech_networks()
    assert objective.active() == ["silence"]
    batch = clip_samples(face(), 0, 1)[0].speech
    batch = dataclasses.replace(batch, silent=torch.ones(1, 7, dtype=torch.bool), closed_gap=torch.tensor([-50.0]))
    optimizer = torch.optim.Adam(speech.parameters(), 1e-2)
    gaps = []
    for _ in range(20):
        output = speech(batch.mfcc, 7)
        landmarks = objective.landmarks(batch, output.expression)
        gaps.append(inner_lip_gap(landmarks[0]).mean().item())
        optimizer.zero_grad()
        objective.terms(batch, output, landmarks)["silence"].backward()
        optimizer.step()
    assert gaps[-1] < gaps[0] - 0.5
    loud = dataclasses.replace(batch, silent=torch.zeros(1, 7, dtype=torch.bool))
    assert objective.terms(loud, output, landmarks)["silence"].item() == 0
