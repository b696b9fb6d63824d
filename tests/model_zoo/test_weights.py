import time
import urllib.error
import urllib.request

import pytest
import torch
import torchvision

from model_zoo import weights

FILE = "vgg19-dcbb9e9d.pth"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty torch.hub cache, and no network."""

    def refuse(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_offline_raises_at_once_with_the_place_to_put_the_file(cache):
    start = time.monotonic()
    with pytest.raises(weights.WeightsUnavailable, match=f"no network.*{FILE}") as caught:
        weights.vgg19()
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < weights.CONNECT_TIMEOUT


def test_the_cached_file_is_used_without_a_network(cache):
    features = torchvision.models.vgg19().features
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, cache / FILE)
    loaded = weights.vgg19()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded(image), features(image))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("content", [b"", b"not a file of weights"])
def test_a_broken_file_is_said_to_be_broken(cache, content):
    (cache / FILE).write_bytes(content)
    with pytest.raises(weights.WeightsUnavailable, match=r"can't be read.*delete it"):
        weights.vgg19()


def test_another_network_is_refused(cache):
    torch.save({"features.0.weight": torch.zeros(3)}, cache / FILE)
    with pytest.raises(weights.WeightsUnavailable, match="another network"):
        weights.vgg19()


OTHER_FILES = {
    "lpips": (weights.lpips_alexnet, "alexnet-owt-7be5be79.pth"),
    "inception": (lambda: weights.inception("2048"), "weights-inception-2015-12-05-6726825d.pth"),
}


@pytest.mark.parametrize(("load", "file"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_networks_of_the_metrics_are_unavailable_offline_and_refuse_other_files(cache, load, file):
    with pytest.raises(weights.WeightsUnavailable, match=f"no network.*{file}"):
        load()
    torch.save({"features.0.weight": torch.zeros(3)}, cache / file)
    with pytest.raises(weights.WeightsUnavailable, match="another network"):
        load()


def test_lpips_is_the_packages_own_on_the_cached_trunk(cache):
    torch.manual_seed(0)
    trunk = torchvision.models.alexnet().features
    torch.save(
        {f"features.{name}": value for name, value in trunk.state_dict().items()}, cache / OTHER_FILES["lpips"][1]
    )
    network = weights.lpips_alexnet()
    a, b = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = network.scaling_layer(a)
    torch.testing.assert_close(network.net(x).relu5, trunk[:12](x))
    assert network(a, a).item() == 0
    assert network(a, b).item() > 0  # the package's linear layers are not negative
    assert not any(parameter.requires_grad for parameter in network.parameters())
