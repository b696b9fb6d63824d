"""Accents, emphasis and singing."""

from itertools import islice

import pytest
import torch

from datamodules.synthetic.articulation import VISEMES
from experiments.foreign_speech import MANNERS, NUM_SENTENCES, true_gap, utterances
from model_zoo.face.procedural import procedural_head


@pytest.mark.parametrize("manner", MANNERS)
def test_the_synthetic_speaker_can_say_it(manner):
    spoken = list(islice(utterances(manner), NUM_SENTENCES))
    assert len(spoken) == NUM_SENTENCES
    assert {phoneme.label for utterance in spoken for phoneme in utterance.phonemes} <= set(VISEMES)
    gap = true_gap(procedural_head(), spoken[0])
    assert gap.std() > 0.5
    assert torch.isfinite(gap).all()


def test_manners_differ_in_sound_and_phonemes():
    english, french, sung = (next(utterances(name)) for name in ("English, as trained", "French accent", "sung"))
    assert [p.label for p in english.phonemes] != [p.label for p in french.phonemes]
    assert len(sung.phonemes) == pytest.approx(len(english.phonemes), abs=4)
    assert sung.phonemes[-1].end > 1.5 * english.phonemes[-1].end
