"""Features for the perceptual loss L_vgg of Eq. 4 of Song et al. 2020, "at different scales" (Johnson et al. 2016).

Chosen here: VGG-19 after the second convolution of each of its five blocks.

Shape legend: B batch, H/W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

FEATURE_CONVOLUTIONS = (1, 3, 5, 9, 13)  # counted from 0: relu1_2, relu2_2, relu3_2, relu4_2, relu5_2
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1], torchvision
IMAGENET_STD = (0.229, 0.224, 0.225)
MIN_SIZE = 16  # px; four poolings lie before the last features


class Vgg19Features(nn.Module):
    """Frozen VGG-19: an image to its features from fine to coarse.

    The weights are kept as buffers outside of the state dict: nothing can train them, no mode changes them, and
    checkpoints stay small and load where VGG-19 can't be had.

    Args:
        layers: the convolutional layers of VGG-19, as `model_zoo.weights.vgg19` returns them.

    Raises:
        ValueError: the layers are not those of VGG-19.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        num_convolutions = FEATURE_CONVOLUTIONS[-1] + 1
        self.pooled_before: set[int] = set()
        index = 0
        for layer in layers:
            if index == num_convolutions:
                break
            if isinstance(layer, nn.MaxPool2d):
                self.pooled_before.add(index)
            elif isinstance(layer, nn.Conv2d) and layer.bias is not None:
                self.register_buffer(f"weight_{index}", layer.weight.detach(), persistent=False)
                self.register_buffer(f"bias_{index}", layer.bias.detach(), persistent=False)
                index += 1
        if self.pooled_before != {2, 4, 8, 12} or index != num_convolutions:
            raise ValueError("perceptual features need the convolutional layers of VGG-19: pass weights.vgg19()")

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Features of images in [-1, 1], at 1, 1/2, 1/4, 1/8 and 1/16 of their size; gradients flow to the image.

        Raises:
            ValueError: not RGB, or smaller than 16 px.
        """
        if not torch.compiler.is_compiling() and (image.shape[1] != 3 or min(image.shape[-2:]) < MIN_SIZE):
            raise ValueError(f"perceptual features need RGB of at least {MIN_SIZE} px, got {tuple(image.shape)}")
        x = ((image + 1) / 2 - self.mean) / self.std
        features = []
        for index in range(FEATURE_CONVOLUTIONS[-1] + 1):
            if index in self.pooled_before:
                x = F.max_pool2d(x, 2)
            x = F.conv2d(x, getattr(self, f"weight_{index}"), getattr(self, f"bias_{index}"), padding=1).relu()
            if index in FEATURE_CONVOLUTIONS:
                features.append(x)
        return features
