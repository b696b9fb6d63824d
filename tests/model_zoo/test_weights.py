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
