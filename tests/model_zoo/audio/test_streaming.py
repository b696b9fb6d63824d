import pytest
import torch

from model_zoo.audio.audio_to_expression import AudioToExpression
from model_zoo.audio.causal import CausalAudioToExpression
from model_zoo.audio.id_removal import AudioIdRemoval, RunningWeights
from model_zoo.audio.speech_to_expression import SpeechToExpression
from model_zoo.audio.standardise import MfccStandardise
from model_zoo.audio.streaming import SpeechStream, expressions_of, utterance_weights
from model_zoo.functional.mfcc import MfccStream, audio_window, mfcc

from ..golden import fill, wave

SAMPLES = 640 * 37 + 123  # neither whole frames nor whole rows


def networks(kind: str) -> SpeechToExpression:
    removal = (
        None
        if kind in ("plain", "causal")
        else AudioIdRemoval(hidden=8, scope="window" if kind == "window" else "clip")
    )
    translation = CausalAudioToExpression(hidden=16, num_layers=2) if "causal" in kind else AudioToExpression(hidden=16)
    speech = fill(SpeechToExpression(MfccStandardise(), removal, translation))
    speech.standardise.set_statistics(torch.full((13,), -2.0), torch.full((13,), 6.0))
    return speech


KINDS = ("plain", "window", "clip", "causal", "causal-clip")


@pytest.mark.parametrize("blocks", [1, 77, 640, 5_000])
def test_mfcc_rows_do_not_depend_on_blocks(blocks):
    sound = 0.3 * wave(SAMPLES if blocks > 1 else 999)
    stream = MfccStream()
    parts = [stream.push(block) for block in sound.split(blocks)]
    torch.testing.assert_close(torch.cat([*parts, stream.finish()]), mfcc(sound), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [160, 3_333])
def test_blocks_equal_all_at_once(kind, block):
    speech, sound = networks(kind), 0.3 * wave(SAMPLES)
    whole = torch.cat(list(expressions_of(speech, [sound])))
    assert whole.shape == (38, 29)  # every frame that has begun
    torch.testing.assert_close(torch.cat(list(expressions_of(speech, sound.split(block)))), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "window"])
def test_equals_the_windows_of_training(kind):
    speech, sound = networks(kind), 0.3 * wave(640 * 30)
    rows = mfcc(sound)
    expected = torch.cat([speech(audio_window(rows, frame)[None]).expression[:, 0] for frame in range(30)])
    heard = torch.cat(list(expressions_of(speech, sound.split(2_000))))
    torch.testing.assert_close(heard, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["clip", "causal-clip"])
def test_with_the_weights_of_the_utterance_it_equals_training(kind):
    speech, sound = networks(kind), 0.3 * wave(640 * 30)
    rows = mfcc(sound)
    weights = utterance_weights(speech, sound.split(1_000))
    torch.testing.assert_close(
        weights, speech.id_removal.weights(speech.standardise(rows)[None])[0], atol=1e-5, rtol=1e-4
    )
    heard = torch.cat(list(expressions_of(speech, sound.split(2_000), weights)))
    if kind == "clip":
        expected = torch.cat([speech(audio_window(rows, t)[None], 1, rows[None]).expression[:, 0] for t in range(30)])
    else:
        expected = speech(audio_window(rows, 29, 30)[None], 30, rows[None]).expression[0]
    torch.testing.assert_close(heard, expected, atol=1e-4, rtol=1e-4)


def test_weights_need_the_scope_that_has_them():
    assert utterance_weights(networks("window"), [wave(1_000)]) is None
    with pytest.raises(ValueError, match="scope 'clip'"):
        RunningWeights(AudioIdRemoval())
    with pytest.raises(ValueError, match="hears no windows"):
        SpeechToExpression(MfccStandardise(), AudioIdRemoval(), CausalAudioToExpression())


def test_hears_no_further_than_it_says():
    """A frame's expression comes out 0.2 s after it, and what is heard later does not change it."""
    speech, sound = networks("window"), 0.3 * wave(640 * 30)
    stream = SpeechStream(speech)
    early = stream.push(sound[: 640 * 15 + 200])  # the last row of frame t is centred at 4 t + 19 rows
    assert len(early) == 11
    other = torch.cat([sound[: 640 * 15 + 200], torch.zeros(9_000)])
    torch.testing.assert_close(torch.cat(list(expressions_of(speech, [other])))[:11], early, atol=1e-5, rtol=1e-4)


def test_what_is_held_does_not_grow():
    stream = SpeechStream(networks("window"))
    sizes = set()
    for block in (0.3 * wave(640 * 200)).split(640):
        stream.push(block)
        sizes.add(len(stream._rows) + len(stream._mfcc._held))
    assert max(sizes) < 1_200


def test_bfloat16_says_nearly_the_same():
    speech, sound = networks("window"), 0.3 * wave(640 * 20)
    exact = torch.cat(list(expressions_of(speech, [sound])))
    fast = torch.cat(list(expressions_of(speech, [sound], precision=torch.bfloat16)))
    assert (fast - exact).abs().mean() < 0.02 * exact.abs().mean() + 0.01


def test_silence_and_nothing():
    speech = networks("window")
    assert torch.cat(list(expressions_of(speech, [torch.zeros(640 * 5)]))).shape == (5, 29)
    assert list(expressions_of(speech, [])) == []
    assert torch.cat(list(expressions_of(speech, [torch.zeros(1)]))).shape == (1, 29)
