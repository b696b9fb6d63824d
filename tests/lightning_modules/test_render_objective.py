"""Terms of the renderer beyond the paper, how they are stepped, and that each can be seen in the log."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from lightning_modules.render_objective import RenderLossWeights
from model_zoo.functional.masks import box_mask
from tests.lightning_modules import tiny


class Logged(pl.loggers.Logger):
    """Keeps what is logged."""

    name, version = "kept", 0

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, list[float]] = {}

    def log_metrics(self, metrics, step=None) -> None:
        for name, value in metrics.items():
            self.values.setdefault(name, []).append(value)

    def log_hyperparams(self, *_) -> None:
        pass


def trained(module, folder, steps: int = 4, **options) -> Logged:
    logged = Logged()
    samples = [sample.video for sample in tiny.clip_samples(tiny.face(), seed=3, num_samples=4 * steps)]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=2 * steps,
        logger=logged,
        log_every_n_steps=2,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(module, tiny.loader(samples))
    assert module.batches_done == steps
    return logged


def batch(num_samples: int = 4):
    samples = [sample.video for sample in tiny.clip_samples(tiny.face(), seed=2, num_samples=num_samples)]
    return tiny.joined(samples)


def test_every_term_and_its_gradient_is_logged(tmp_path):
    module = tiny.renderer_module(tiny.every_render_term())
    module.gradients_every = 4
    values = trained(module, tmp_path).values
    terms = {"recon", "adv", "tv", "mouth", "match", "temporal"}
    assert set(module.active_losses()) == terms | {"gp"}
    assert {f"train/loss_{name}" for name in terms | {"gp", "adv_d", "temporal_d"}} <= values.keys()
    for name in terms:
        (norm,) = values[f"train/grad_{name}"]  # every 4th of 4 batches
        assert norm > 0


def test_clipping_bounds_the_step_and_the_largest_norm_is_logged(tmp_path):
    module = tiny.renderer_module(RenderLossWeights(recon=100.0))
    module.clip = 1e-3
    norms = trained(module, tmp_path).values["train/grad_norm"]
    assert len(norms) == 2  # every 2nd of 4 batches
    assert min(norms) > module.clip
    gradients = [p.grad.flatten() for p in module.renderer.parameters() if p.grad is not None]
    assert torch.cat(gradients).norm() < 1.01 * module.clip


def test_gradient_norms_are_those_of_each_term_alone():
    module, video = tiny.renderer_module(tiny.every_render_term()), batch()
    shown = module.shown(module.draw(video), video)
    terms = module.render.generator_terms(shown)
    parameters = list(module.renderer.parameters())
    norms = module.render.gradient_norms(terms, parameters)
    for name, value in terms.items():
        module.zero_grad()
        (module.render.weights[name] * value).backward(retain_graph=True)
        expected = torch.cat([parameter.grad.flatten() for parameter in parameters]).norm()
        torch.testing.assert_close(norms[name], expected)


def test_the_mouth_term_looks_at_the_mouth_region_alone():
    module, video = tiny.renderer_module(RenderLossWeights(mouth=1.0)), batch()
    rendering = module.draw(video)
    term = module.render.generator_terms(module.shown(rendering, video))["mouth"]
    inside = box_mask(video.mouth_region, tiny.SIZE).expand(-1, 3, -1, -1)
    expected = [
        (frame - real)[mask].abs().mean()
        for frame, real, mask in zip(rendering.frame, video.target, inside, strict=True)
    ]
    torch.testing.assert_close(term, torch.stack(expected).mean())


def test_true_frames_match_themselves():
    module, video = tiny.renderer_module(tiny.every_render_term()), batch()
    rendering = module.draw(video)
    perfect = type(rendering)(video.target, rendering.mask, rendering.heatmap)
    terms = module.render.generator_terms(module.shown(perfect, video))
    assert terms["match"] == terms["recon"] == terms["mouth"] == 0
    assert module.render.generator_terms(module.shown(rendering, video))["match"] > 0


def test_the_temporal_discriminator_sees_the_frames_before():
    module, video = tiny.renderer_module(RenderLossWeights(temporal=1.0)), batch()
    rendering = module.draw(video)
    shown = module.shown(rendering, video)
    frames = video.frames
    assert torch.equal(shown.past.real, torch.cat([frames[:, -3], frames[:, -2]], 1))
    assert not shown.past.generated.requires_grad
    earlier = video.windows.earlier(1)
    drawn = module.renderer(earlier, video.mouth_box, video.noise_number)
    torch.testing.assert_close(shown.past.generated[:, 3:], drawn.frame)
    torch.testing.assert_close(shown.past.heatmaps[:, 1:], drawn.heatmap)
    score = module.render.generator_terms(shown)["temporal"]
    (gradient,) = torch.autograd.grad(score, rendering.frame)
    assert gradient.abs().max() > 0
    outside = (gradient * (1 - rendering.mask)).abs().max()
    assert outside > 0  # the frame is judged as a whole, though only the box can change


def test_without_a_discriminator_nothing_of_it_is_active():
    render = tiny.render_objective(RenderLossWeights(adv=0, match=1.0))
    assert render.active() == ["recon", "tv"]  # nor VGG-19, whose weights are not given
    assert render.discriminators() == []
    only_temporal = tiny.render_objective(RenderLossWeights(adv=0, temporal=1.0))
    assert {"temporal", "gp"} <= set(only_temporal.active())
    assert only_temporal.discriminators() == [only_temporal.temporal]


def test_more_critic_steps_still_count_as_one_batch(tmp_path):
    one, three = tiny.renderer_module(), tiny.renderer_module()
    three.critic_steps = 3
    before = one.render.discriminator.layers[0].weight.detach().clone()
    trained(one, tmp_path)
    trained(three, tmp_path)
    moved = [(module.render.discriminator.layers[0].weight - before).abs().mean() for module in (one, three)]
    assert moved[1] > 1.5 * moved[0]


def test_clipping_bounds_the_step(tmp_path):
    """With plain descent a step is at most rate × clip."""
    clipped = tiny.renderer_module()
    clipped.clip = 1e-3
    clipped.configure_optimizers = lambda: [
        torch.optim.SGD(clipped.renderer.parameters(), lr=1.0),
        torch.optim.SGD(clipped.render.discriminator.parameters(), lr=1.0),
    ]
    start = [parameter.detach().clone() for parameter in clipped.renderer.parameters()]
    trained(clipped, tmp_path, steps=1)
    step = [now - then for now, then in zip(clipped.renderer.parameters(), start, strict=True)]
    length = torch.cat([difference.flatten() for difference in step]).norm()
    assert length.item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_terms_train_in_either_precision(dtype, tmp_path):
    module = tiny.renderer_module(tiny.every_render_term(), dtype=dtype)
    module.renderer.dtype = dtype
    values = trained(module, tmp_path, steps=30).values
    assert sum(values["train/loss_recon"][-5:]) < 0.8 * sum(values["train/loss_recon"][:5])
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in module.parameters())


def test_discriminators_that_come_late_are_counted_but_not_there(tmp_path):
    module = tiny.renderer_module(tiny.every_render_term())
    before = [parameter.detach().clone() for parameter in module.render.parameters()]
    module.adversary_from = 0.9
    values = trained(module, tmp_path, steps=8).values  # counts its batches
    assert not {"train/loss_adv", "train/loss_temporal", "train/loss_adv_d"} & values.keys()
    assert all(map(torch.equal, before, module.render.parameters()))
    module = tiny.renderer_module(tiny.every_render_term(), penalty_every=8)
    module.adversary_from = 3 / 8
    values = trained(module, tmp_path, steps=8).values
    assert [len(values[f"train/loss_{name}"]) for name in ("recon", "adv", "gp")] == [4, 3, 3]  # all from the 4th on
    assert not any(map(torch.equal, before, module.render.parameters()))
