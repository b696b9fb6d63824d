"""x' that does not depend on the speaker."""

import torch

from experiments.probes import logistic_accuracy
from model_zoo.audio.id_removal import AudioIdRemoval
from model_zoo.functional.losses import identity_loss

SPEAKERS, CEPSTRA = 4, 3


def windows(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Speakers who differ by where their cepstra lie and how far they move."""
    generator = torch.Generator().manual_seed(seed)
    speaker = torch.arange(count) % SPEAKERS
    place = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, 0]])
    noise = torch.randn(count, 40, CEPSTRA, generator=generator)
    return noise * (1 + 0.2 * speaker[:, None, None]) + 2 * place[speaker][:, None], speaker


def test_it_tells_dependence_from_chance_whatever_the_scale():
    x, speaker = windows(64, 0)
    strangers = speaker[torch.randperm(64, generator=torch.Generator().manual_seed(1))]
    assert identity_loss(x, speaker) > 0.5
    assert abs(identity_loss(x, strangers)) < 0.05
    assert torch.isclose(identity_loss(x, speaker), identity_loss(x.flip(1), speaker), atol=1e-5)


def test_unknown_speakers_do_not_count_and_too_few_cost_nothing():
    x, speaker = windows(32, 0)
    hidden = speaker.clone()
    hidden[20:] = -1
    assert torch.isclose(identity_loss(x, hidden), identity_loss(x[:20], speaker[:20]))
    for nobody in (torch.full((32,), -1), torch.zeros(32, dtype=torch.long), torch.arange(32)):
        assert identity_loss(x, nobody) == 0


def test_a_fresh_probe_finds_little_of_the_speaker_after_training_on_it():
    torch.manual_seed(0)
    removal = AudioIdRemoval(CEPSTRA, 15, 16)
    optimizer = torch.optim.Adam(removal.parameters(), 1e-2)
    for step in range(200):
        x, speaker = windows(64, step + 1)
        optimizer.zero_grad()
        identity_loss(removal(x)[0], speaker).backward()
        optimizer.step()
    x, speaker = windows(256, 0)
    is_test = torch.arange(256) % 8 < 4
    with torch.no_grad():
        before, after = (logistic_accuracy(features, speaker, is_test) for features in (x, removal(x)[0]))
    assert before == 1.0
    assert after < 0.6
