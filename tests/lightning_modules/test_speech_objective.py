"""How the terms of speech add up over a run."""

import pytest
import torch

from lightning_modules.audio_to_expression import SpeechLossWeights, SpeechObjective

from .tiny import face, trained_judge

TERMS = {"norm": torch.tensor(2.0), "shape": torch.tensor(3.0)}


def test_norm_rises_over_its_warmup():
    weights = SpeechLossWeights(norm=0.5, shape=0.1, norm_warmup=0.4)
    objective = SpeechObjective(face(), trained_judge(1), weights)
    totals = [objective.total(TERMS, progress).item() for progress in (0.0, 0.1, 0.4, 1.0)]
    assert totals == pytest.approx([0.3, 0.3 + 0.25, 1.3, 1.3])
    assert "norm_warmup" not in objective.active()
    assert objective.weights["norm"] == 0.5


def test_without_a_warmup_all_weights_hold_from_the_start():
    objective = SpeechObjective(face(), trained_judge(1), SpeechLossWeights(norm=0.5, shape=0.1))
    assert objective.total(TERMS, 0.0).item() == pytest.approx(1.3)
    assert objective.total({"shape": TERMS["shape"]}, 0.0).item() == pytest.approx(0.3)
