"""What of another run is taken, and how a checkpoint that does not fit is refused."""

from __future__ import annotations

import pytest
import torch

from experiments.checkpoints import check_resumes, start_from
from experiments.command_line import UserError
from lightning_modules.renderer import RendererModule
from model_zoo.render.generator import UNetGenerator
from model_zoo.render.mouth_renderer import MouthRenderer
from tests.lightning_modules import tiny


def wider() -> RendererModule:
    return RendererModule(MouthRenderer(UNetGenerator(28, tiny.SIZE, 16)), tiny.render_objective(), num_clips=2)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(1)
    module = tiny.renderer_module()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1)
    average = {name: value + 1 for name, value in module.renderer.generator.state_dict().items()}
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": module.state_dict(), "generator_average": average}, path)
    return path, module, average


def test_the_average_and_the_discriminator_are_taken(saved):
    path, other, average = saved
    module = tiny.renderer_module()
    start_from(module, path)
    for name, value in module.renderer.generator.state_dict().items():
        assert torch.equal(value, average[name])
    for own, theirs in zip(module.render.parameters(), other.render.parameters(), strict=True):
        assert torch.equal(own, theirs)


def test_a_discriminator_of_another_width_starts_afresh(saved, caplog):
    caplog.set_level("INFO")
    path, _, average = saved
    module = tiny.renderer_module()
    module.render.discriminator = torch.nn.Conv2d(7, 1, 3)
    start_from(module, path)
    assert torch.equal(module.renderer.generator.to_rgb.weight, average["to_rgb.weight"])
    assert "start afresh" in caplog.text


@pytest.mark.parametrize("use", [start_from, check_resumes])
def test_another_scale_is_one_line(saved, use):
    with pytest.raises(UserError, match=r"last\.ckpt was trained at another scale .*config\.yaml") as caught:
        use(wider(), saved[0])
    assert "\n" not in str(caught.value)


def test_other_layers_are_named(saved):
    module = tiny.renderer_module()
    module.renderer.generator = UNetGenerator(28, 2 * tiny.SIZE, 8)
    with pytest.raises(UserError, match=r"other networks \(renderer\.generator|another scale"):
        start_from(module, saved[0])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", None])
def test_what_is_no_checkpoint_is_said(tmp_path, content):
    path = tmp_path / "last.ckpt"
    if content is None:
        torch.save({"weights": 1}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="is no checkpoint: give"):
        start_from(tiny.renderer_module(), path)


def test_a_checkpoint_of_the_same_run_resumes(saved):
    check_resumes(tiny.renderer_module(), saved[0])
