import pytest
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from model_zoo.render.perceptual import Vgg19Features


@pytest.fixture(scope="module")
def layers() -> torch.nn.Sequential:
    """VGG-19 with random weights: they run the path, they are never used to train."""
    torch.manual_seed(0)
    return torchvision.models.vgg19().features


def test_equals_torchvisions_named_nodes(layers):
    image = torch.rand(2, 3, 48, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    nodes = {"3": "relu1_2", "8": "relu2_2", "13": "relu3_2", "22": "relu4_2", "31": "relu5_2"}
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    expected = create_feature_extractor(layers, nodes)(normalise((image + 1) / 2))
    for ours, theirs in zip(Vgg19Features(layers)(image), expected.values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_is_frozen_and_outside_of_checkpoints_but_passes_gradients(layers):
    features = Vgg19Features(layers)
    assert not list(features.parameters())
    assert not features.state_dict()
    image = torch.zeros(1, 3, 16, 16, requires_grad=True)
    sum(scale.sum() for scale in features.train()(image)).backward()
    assert image.grad.abs().max() > 0


def test_wrong_networks_and_images_are_refused(layers):
    with pytest.raises(ValueError, match="layers of VGG-19"):
        Vgg19Features(torchvision.models.vgg11().features)
    with pytest.raises(ValueError, match="at least 16 px"):
        Vgg19Features(layers)(torch.zeros(1, 3, 8, 8))
