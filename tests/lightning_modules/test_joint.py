"""The joint module is end to end: pixels alone teach the audio networks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from datamodules.batch import JointBatch
from lightning_modules.audio_to_expression import SpeechLossWeights
from lightning_modules.joint import JointModule
from lightning_modules.render_objective import RenderLossWeights
from tests.lightning_modules import tiny

PIXELS_ONLY = {
    "speech_weights": SpeechLossWeights(norm=0, expression=0, shape=0, velocity=0),
    "render_weights": RenderLossWeights(recon=100, adv=0, vgg=0, tv=0, gp=0),
}


def quiet_trainer(folder, **options) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        **options,
    )


@torch.no_grad()
def pixel_loss(module, batches: list[JointBatch]) -> float:
    module.eval()
    losses = []
    for batch in batches:
        rendering = module.draw(batch, module.hear(batch)[1])
        losses.append((rendering.frame - batch.video.target).abs().mean())
    module.train()
    return float(torch.stack(losses).mean())


def test_pixel_loss_alone_trains_the_audio_networks(tmp_path):
    module = tiny.joint_module(**PIXELS_ONLY, speech_learning_rate=5e-3, learning_rate=2e-3)
    face = tiny.face()
    held_out = list(tiny.loader(tiny.clip_samples(face, seed=99, num_samples=16)))
    before = {name: value.clone() for name, value in module.speech.named_parameters()}
    loss_before = pixel_loss(module, held_out)

    trainer = quiet_trainer(tmp_path, max_steps=50)
    trainer.fit(module, tiny.loader(tiny.clip_samples(face, seed=1, num_samples=200)))

    assert module.active_losses() == ["recon"]
    assert module.batches_done == 50
    unchanged = [name for name, value in module.speech.named_parameters() if torch.equal(value, before[name])]
    assert unchanged == []
    assert pixel_loss(module, held_out) < 0.7 * loss_before


def test_what_is_heard_changes_what_is_drawn(tmp_path):
    """After training, speech that opens the mouth draws a darker mouth than speech that closes it."""
    module = tiny.joint_module(speech_learning_rate=5e-3, learning_rate=2e-3)
    samples = tiny.clip_samples(tiny.face(), seed=1, num_samples=320)
    quiet_trainer(tmp_path, max_steps=160).fit(module, tiny.loader(samples))
    (batch,) = tiny.loader(tiny.clip_samples(tiny.face(), seed=2, num_samples=64), batch_size=64)
    with torch.no_grad():
        drawn = module.draw(batch, module.hear(batch)[1]).frame.mean((1, 2, 3))
    opening = batch.speech.expression[:, -1, 0]
    assert torch.corrcoef(torch.stack([opening, drawn]))[0, 1] < -0.5


@pytest.mark.parametrize("make", [tiny.joint_module, tiny.renderer_module], ids=["joint", "renderer"])
def test_two_optimisers_count_as_one_batch(make, tmp_path):
    module = make()
    samples = tiny.clip_samples(tiny.face(), seed=3, num_samples=12)
    if make is tiny.renderer_module:
        samples = [sample.video for sample in samples]
    trainer = quiet_trainer(tmp_path, max_steps=6)
    trainer.fit(module, tiny.loader(samples))
    assert trainer.global_step == 6
    assert module.batches_done == 3


def test_every_active_term_matters(tmp_path):
    """Each weighted term is more than a thousandth of the total, or it is off."""
    module = tiny.joint_module(judge=tiny.trained_judge())
    quiet_trainer(tmp_path, max_steps=40).fit(module, tiny.loader(tiny.clip_samples(tiny.face(), 8, num_samples=80)))
    (batch,) = tiny.loader(tiny.clip_samples(tiny.face(), seed=4, num_samples=8), batch_size=8)
    output, predicted = module.hear(batch)
    rendering = module.draw(batch, predicted)
    shown = module.shown(rendering, batch.video, predicted)
    heard = module.objective.terms(batch.speech, output, predicted)
    drawn = module.render.generator_terms(shown)
    judged = module.render.discriminator_terms(shown, with_penalty=True)
    generator = {name: module.objective.weights[name] * value.item() for name, value in heard.items()}
    generator |= {name: module.render.weights[name] * value.item() for name, value in drawn.items()}
    discriminator = {name: module.render.discriminator_weights()[name] * value.item() for name, value in judged.items()}
    assert set(heard) | set(drawn) | {"gp"} == set(module.active_losses())
    for terms in (generator, discriminator):
        total = sum(terms.values())
        too_small = {name: value / total for name, value in terms.items() if not value > 1e-3 * total}
        assert too_small == {}


def test_teacher_forcing_gives_way(monkeypatch):
    module = tiny.joint_module(teacher_forcing=0.5)
    batch = SimpleNamespace(clip=torch.zeros(4000, dtype=torch.long), frame=torch.arange(4000))
    monkeypatch.setattr(JointModule, "batches_done", 7)
    shares = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        monkeypatch.setattr(JointModule, "progress", progress)
        shares.append(float(module.forced(batch).float().mean()))
    assert shares[0] == 1.0
    assert shares[1] == pytest.approx(0.5, abs=0.05)
    assert shares[2:] == [0.0, 0.0]
