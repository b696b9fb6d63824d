"""Speech unlike what a run was trained on, with the lips that the synthetic speaker makes of it.

The accents, the emphasis and the singing of the paper's appendix E, of which no corpus with landmarks is at hand:
espeak-ng says GRID's sentences in each manner, and the articulation model behind the synthetic corpora moves a neutral
face to the very phonemes. Compared is the course of the opening, for its size and rest are a speaker's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from datamodules.prepare.crop import CROP_SIZE, EYE_CENTRE, EYE_DISTANCE
from datamodules.prepare.decode import FRAME_RATE
from datamodules.prepare.sound import to_float
from datamodules.synthetic.articulation import CONTROLS, Style, articulate
from datamodules.synthetic.performance import recorded, seeded
from datamodules.synthetic.speech import Utterance, Voice, draw_sentences, draw_voice, placed, sentence, speak
from datamodules.synthetic.spoken_store import heard_sound
from experiments.articulation import hear, score
from experiments.trained import TrainedSpeech
from model_zoo.face.procedural import ProceduralHead, procedural_head
from model_zoo.metrics.speech_metrics import inner_lip_gap

NUM_SENTENCES = 16  # of each manner, in as many voices
SECONDS, BEGIN = 3.0, 0.4  # of a recording, and of its speech
SUNG_RATE, SUNG_PAUSE = 90, 0.02  # words a minute, s
MELODY = (35, 45, 55, 60, 55, 45)  # espeak-ng's pitch of each word
_NEUTRAL = Style(np.ones(len(CONTROLS)), 1.0, 0.0, 0.02)
_POSE = torch.tensor([[0.0, 0, 0, *(CROP_SIZE * share for share in EYE_CENTRE), math.log(CROP_SIZE * EYE_DISTANCE)]])


def _in(language: str) -> Callable[[list[str], Voice], Utterance]:
    return lambda words, voice: speak(words, replace(voice, language=language))


def _emphatic(words: list[str], voice: Voice) -> Utterance:
    return speak(words, replace(voice, rate=130, pitch=min(99, voice.pitch + 15), range=99))


def _sung(words: list[str], voice: Voice) -> Utterance:
    """Every word long and on a note of its own."""
    parts, time = [], 0.0
    for word, pitch in zip(words, MELODY, strict=True):
        spoken = speak([word], replace(voice, rate=SUNG_RATE, pitch=pitch, range=0))
        parts.append((time, spoken))
        time += spoken.phonemes[-1].end + SUNG_PAUSE
    return placed(parts, time)


MANNERS: dict[str, Callable[[list[str], Voice], Utterance]] = {
    "English, as trained": speak,
    "Scottish English": _in("gmw/en-GB-scotland"),
    "American English": _in("gmw/en-US"),
    "French accent": _in("roa/fr"),
    "German accent": _in("gmw/de"),
    "Spanish accent": _in("roa/es"),
    "Italian accent": _in("roa/it"),
    "emphatic": _emphatic,
    "sung": _sung,
}


def utterances(manner: str, seed: int = 0) -> Iterator[Utterance]:
    """Sentences in the voices of the corpus, recorded as there; the same sentences and voices for all manners."""
    for number, name in enumerate(draw_sentences(10 * NUM_SENTENCES, seeded(seed, "foreign"))):
        voice = draw_voice(2 * number, seeded(seed, "foreign", number))
        try:
            spoken = MANNERS[manner](sentence(name), voice)
        except RuntimeError:  # a letter that is two words in that language
            continue
        length = max(SECONDS, BEGIN + spoken.duration + BEGIN)
        yield recorded(placed([(BEGIN, spoken)], length), seeded(seed, "foreign", "room", number))


def true_gap(head: ProceduralHead, utterance: Utterance) -> Float[Tensor, "T"]:
    """Inner-lip gap of the neutral speaker, px at 256."""
    times = np.arange(round(utterance.duration * FRAME_RATE)) / FRAME_RATE
    actions = articulate(utterance.phonemes, _NEUTRAL, times)
    expression = head.expression({name: torch.from_numpy(np.asarray(w)).float() for name, w in actions.items()})
    return inner_lip_gap(head.face.project_landmarks(torch.zeros(199), expression, _POSE.expand(len(times), -1)))


@torch.inference_mode()
def agreement(trained: TrainedSpeech, manner: str) -> dict[str, float]:
    """Correlation of the predicted opening with the articulation model's, sentence by sentence."""
    head, found = procedural_head(), {}
    for number, utterance in enumerate(islice(utterances(manner), NUM_SENTENCES)):
        truth = true_gap(head, utterance)
        sound = torch.from_numpy(to_float(heard_sound(utterance, len(truth)).numpy()))
        expression = hear(trained.speech, sound)[: len(truth)]
        shape = torch.zeros(199)
        gap = inner_lip_gap(trained.objective.face.project_landmarks(shape, expression, _POSE.expand(len(truth), -1)))
        found[f"{number}"] = float(torch.corrcoef(torch.stack([gap, truth]))[0, 1])
    return found


def foreign_report(trained: TrainedSpeech) -> dict[str, dict]:
    """Agreement for every manner, with its interval over sentences; none of networks on normalised speakers."""
    if trained.data.hearing.normal:
        return {}  # a voice that nobody heard before has no statistics
    return {manner: score(agreement(trained, manner)) for manner in MANNERS}
