"""The one place that knows where pretrained weights come from.

What can't be had raises; nothing here ever returns random weights in the place of trained ones.
"""

from __future__ import annotations

import pickle
import urllib.request
from pathlib import Path

import lpips
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torchmetrics.image.fid import NoTrainInceptionV3
from torchvision.models import AlexNet_Weights, VGG19_Weights
from torchvision.models import vgg19 as torchvision_vgg19

CONNECT_TIMEOUT = 3.0  # s; a machine without a network should not wait for the default of minutes


class WeightsUnavailable(RuntimeError):
    """Pretrained weights are neither in the cache nor can they be downloaded."""


def vgg19() -> nn.Sequential:
    """The convolutional layers of VGG-19 trained on ImageNet, from torchvision's cache or its server.

    Returns:
        torchvision's `features`, frozen.

    Raises:
        WeightsUnavailable: with one line that says why and where the file is looked for.
    """
    state = _state_dict(VGG19_Weights.IMAGENET1K_V1.url)
    with torch.device("meta"):  # no time is spent on random weights that are replaced at once
        features = torchvision_vgg19().features
    prefix = "features."
    trained = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    try:
        features.load_state_dict(trained, assign=True)
    except RuntimeError as error:
        raise WeightsUnavailable(
            "the cached VGG-19 file holds another network: delete it to download it again"
        ) from error
    return features.requires_grad_(False).eval()


def lpips_alexnet() -> nn.Module:
    """LPIPS 0.1 on AlexNet: the trunk from torchvision's cache or its server, the linear layers from the package.

    Returns:
        Two batches of images (B, 3, H, W) in [-1, 1] to distances (B, 1, 1, 1), frozen.

    Raises:
        WeightsUnavailable: with one line that says why and where the file is looked for.
    """
    state = _state_dict(AlexNet_Weights.IMAGENET1K_V1.url)
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)  # its trunk's weights are replaced at once
    slices = {name: name.split(".", 1)[1] for name in network.net.state_dict()}  # "slice2.3.weight" is "3.weight" there
    try:
        network.net.load_state_dict({name: state[f"features.{layer}"] for name, layer in slices.items()})
    except (KeyError, RuntimeError) as error:
        raise WeightsUnavailable(
            "the cached AlexNet file holds another network: delete it to download it again"
        ) from error
    return network.requires_grad_(False).eval()


def inception(layer: str) -> nn.Module:
    """The Inception network of FID and the Inception Score, in torch-fidelity's port of the original weights.

    Args:
        layer: '2048' (FID) or 'logits_unbiased' (Inception Score).

    Returns:
        Images (B, 3, H, W) of bytes to features (B, N), frozen.

    Raises:
        WeightsUnavailable: with one line that says why and where the file is looked for.
    """
    _state_dict(URL_INCEPTION_V3)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(URL_INCEPTION_V3).name
    try:
        return NoTrainInceptionV3("inception-v3-compat", [layer], str(path))
    except RuntimeError as error:
        raise WeightsUnavailable(
            "the cached Inception file holds another network: delete it to download it again"
        ) from error


def _state_dict(url: str) -> dict[str, torch.Tensor]:
    """The state dict behind a URL: from torch.hub's cache, else downloaded, with its hash checked."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.exists():
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CONNECT_TIMEOUT):
                pass  # torch.hub itself connects without a timeout
            path.parent.mkdir(parents=True, exist_ok=True)
            expected_hash = path.stem.rpartition("-")[2]
            torch.hub.download_url_to_file(url, str(path), hash_prefix=expected_hash, progress=False)
        except (OSError, RuntimeError) as error:  # RuntimeError: the hash of what came is wrong
            raise WeightsUnavailable(f"{url} can't be downloaded ({error}): put the file at {path}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsUnavailable(
            f"{path} can't be read ({type(error).__name__}): delete it to download it again"
        ) from error
