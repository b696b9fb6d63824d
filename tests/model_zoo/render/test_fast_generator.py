import pytest
import torch
from torch import nn

from model_zoo.metrics.functional import psnr
from model_zoo.render import fast_generator as module
from model_zoo.render.fast_generator import export_generator, fast_generator
from model_zoo.render.int8_generator import Int8Generator, _phases
from model_zoo.render.layers import GatedConv2d

from ..golden import wave
from .trained import smooth_stacks, trained_generator, with_references

SIZE = 32
# Older CPUs sum pairs of products in 16 bits, which saturate.
multiplies_bytes = pytest.mark.skipif(not module.multiplies_bytes(), reason="this CPU does not multiply bytes")


@pytest.fixture(scope="module")
def generator():
    return trained_generator(SIZE, width=8, steps=60)


@multiplies_bytes
def test_integers_lose_little_of_a_trained_generator(generator):
    stacks, true = smooth_stacks(8, SIZE, seed=1)
    exact = generator(stacks).detach()
    fast = Int8Generator(generator, smooth_stacks(8, SIZE, seed=2)[0])(stacks)
    assert fast.dtype == torch.float32
    assert psnr(fast, exact).mean() > 38
    assert abs(psnr(fast, true).mean() - psnr(exact, true).mean()) < 0.3
    assert (exact - true).square().mean() < 0.3 * true.var()  # it was trained indeed


@multiplies_bytes
@pytest.mark.parametrize("references", [1, 4])
def test_integers_add_to_reference_frames(references):
    generator = trained_generator(SIZE, width=8, steps=40, references=references)
    stacks, calibration = (with_references(smooth_stacks(8, SIZE, seed=seed)[0], references) for seed in (1, 2))
    fast = fast_generator(generator, calibration)
    assert isinstance(fast, Int8Generator)
    assert psnr(fast(stacks), generator(stacks)).mean() > 38


@multiplies_bytes
def test_integers_do_not_depend_on_layout_batch_or_threads(generator):
    stacks, _ = smooth_stacks(4, SIZE, seed=1)
    fast = Int8Generator(generator, stacks)
    expected = fast(stacks)
    torch.testing.assert_close(fast(stacks.contiguous(memory_format=torch.channels_last)), expected, atol=0.02, rtol=0)
    torch.testing.assert_close(fast(stacks[1:2]), expected[1:2], atol=0.02, rtol=0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.testing.assert_close(fast(stacks), expected, atol=0.02, rtol=0)
    finally:
        torch.set_num_threads(before)


def test_phases_make_the_transposed_convolution():
    layer = nn.ConvTranspose2d(5, 3, 4, stride=2, padding=1)
    x = wave(2, 5, 6, 7)
    weight, bias = _phases(layer)
    phases = nn.functional.conv2d(x, weight, bias, padding=1).unflatten(1, (2, 2, 3))
    output = torch.zeros(2, 3, 12, 14)
    for a in range(2):
        for b in range(2):
            output[:, :, a::2, b::2] = phases[:, a, b, :, a : a + 6, b : b + 7]
    torch.testing.assert_close(output, layer(x), atol=1e-5, rtol=1e-4)


def test_chooses_integers_where_it_can(generator, monkeypatch):
    stacks, _ = smooth_stacks(2, SIZE, seed=1)
    monkeypatch.setattr(module, "multiplies_bytes", lambda: True)
    assert isinstance(fast_generator(generator, stacks), Int8Generator)
    assert not isinstance(fast_generator(generator), Int8Generator)
    gated = module.UNetGenerator(28, SIZE, 4, convolution=GatedConv2d)
    assert not isinstance(fast_generator(gated, stacks), Int8Generator)
    with pytest.raises(ValueError, match="default generator"):
        Int8Generator(gated, stacks)
    monkeypatch.setattr(module, "multiplies_bytes", lambda: False)
    assert not isinstance(fast_generator(generator, stacks), Int8Generator)


def test_bfloat16_agrees_and_leaves_the_generator_alone(generator):
    stacks, _ = smooth_stacks(2, SIZE, seed=1)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    fast = fast_generator(generator)(stacks)
    assert fast.dtype == torch.float32
    assert psnr(fast, generator(stacks).detach()).mean() > 42
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())


def test_integers_refuse_another_crop(generator):
    stacks, _ = smooth_stacks(2, SIZE, seed=1)
    with pytest.raises(ValueError, match=r"expects \(B, 28, 32, 32\)"):
        Int8Generator(generator, stacks)(torch.zeros(2, 28, 64, 64))


def test_the_exported_program_has_the_same_output(generator, tmp_path):
    path = tmp_path / "generator.pt2"
    export_generator(generator, path, batch=2)
    stacks, _ = smooth_stacks(2, SIZE, seed=1)
    loaded = torch.export.load(path).module()
    torch.testing.assert_close(loaded(stacks), generator(stacks).detach(), atol=1e-3, rtol=0)
