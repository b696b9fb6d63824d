import pytest
import torch

from experiments.command_line import UserError
from experiments.export import MOST_DIFFERENCE, export
from experiments.trained import open_networks


def test_the_program_says_what_the_generator_says(run, tmp_path):
    file = tmp_path / "a" / "generator.pt2"
    assert export(run, file, batch=2) < MOST_DIFFERENCE
    _, renderer = open_networks(run)
    stack = torch.randn(2, 28, 32, 32, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    program = torch.export.load(file).module()
    torch.testing.assert_close(program(stack), renderer.generator(stack), atol=MOST_DIFFERENCE, rtol=0)
    assert [path.name for path in file.parent.iterdir()] == ["generator.pt2"]


@pytest.mark.parametrize(("name", "batch", "message"), [("a.onnx", 1, ".pt2"), ("a.pt2", 0, "--batch")])
def test_what_cannot_be_written_is_refused_in_one_line(run, tmp_path, name, batch, message):
    with pytest.raises(UserError, match=message) as caught:
        export(run, tmp_path / name, batch)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
