"""Speech to expression at paper width (3×256 LSTM, λ-LSTM 1×128) for a long utterance, λ included, a frame.

The bound is 1.5 ms a video frame on two cores; the reference is the network of one row a step in eager float32.
"""

import pytest
import torch

from model_zoo.audio.audio_to_expression import AudioToExpression
from model_zoo.audio.causal import CausalAudioToExpression
from model_zoo.audio.id_removal import AudioIdRemoval
from model_zoo.audio.speech_to_expression import SpeechToExpression
from model_zoo.audio.standardise import MfccStandardise
from model_zoo.audio.streaming import expressions_of

from .ratio import compare

SECONDS = 20
NUM_FRAMES = 25 * SECONDS
ROUNDS = 5


@pytest.fixture(scope="module", autouse=True)
def two_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sound() -> torch.Tensor:
    return 0.1 * torch.randn(16_000 * SECONDS, generator=torch.Generator().manual_seed(0))


def networks(rows_per_step: int = 1, scope: str = "window", stateful: bool = False) -> SpeechToExpression:
    torch.manual_seed(0)
    translation = CausalAudioToExpression() if stateful else AudioToExpression(rows_per_step=rows_per_step)
    return SpeechToExpression(MfccStandardise(), AudioIdRemoval(scope=scope), translation).eval()


def run(speech: SpeechToExpression, sound: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    return torch.cat(list(expressions_of(speech, sound.split(16_000 * 10), precision=precision)))


CASES = {
    "rows-1-bfloat16": (networks, {"rows_per_step": 1}, torch.bfloat16),
    "rows-4-float32": (networks, {"rows_per_step": 4}, torch.float32),
    "rows-4-bfloat16": (networks, {"rows_per_step": 4}, torch.bfloat16),
    "rows-4-clip-bfloat16": (networks, {"rows_per_step": 4, "scope": "clip"}, torch.bfloat16),
    "stateful-float32": (networks, {"scope": "clip", "stateful": True}, torch.float32),
}


@pytest.mark.parametrize("case", CASES)
def test_long_utterance(benchmark, sound, case):
    make, options, precision = CASES[case]
    speech, reference = make(**options), networks()
    compare(
        benchmark,
        lambda: run(speech, sound, precision),
        lambda: run(reference, sound[: 16_000 * 4], torch.float32),
        rounds=ROUNDS,
    )
    seconds = benchmark.stats.stats.min
    benchmark.extra_info["speedup"] *= SECONDS / 4  # the reference hears a fifth
    benchmark.extra_info["ms_a_frame"] = 1e3 * seconds / NUM_FRAMES
    ms, speedup = benchmark.extra_info["ms_a_frame"], benchmark.extra_info["speedup"]
    print(f"{ms:.3f} ms a frame, {speedup:.1f} times the float32 reference")
