"""A generator trained for seconds: the ranges inside of a random one say nothing about a trained one."""

import torch
import torch.nn.functional as F

from model_zoo.render.generator import UNetGenerator
from model_zoo.render.layers import BlendOutput, ReferenceOutput, TanhOutput


def smooth_stacks(batch: int, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Seven frames that differ by brightness, box of noise, and heatmaps that tell what is hidden; with the truth."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 5, 5, generator=generator) * 1.6 - 0.8
    frame = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False).clamp(-1, 1)
    brightness = 0.1 * torch.randn(batch, 7, 1, 1, 1, generator=generator)
    frames = (frame[:, None] + brightness).clamp(-1, 1)
    true = frames[:, -1].clone()
    heatmaps = frames.mean(2).add(1).div(2)
    box = slice(size // 2, size * 7 // 8)
    hole = frames[..., box, box]
    frames[..., box, box] = torch.rand(batch, 1, 3, *hole.shape[-2:], generator=generator) * 2 - 1
    return torch.cat([frames.flatten(1, 2), heatmaps], 1), true


def with_references(stacks: torch.Tensor, count: int) -> torch.Tensor:
    """The same stacks with their first frames once more behind them."""
    return torch.cat([stacks, stacks[:, : 3 * count]], 1)


def trained_generator(size: int, width: int, steps: int, references: int = 0) -> UNetGenerator:
    """Trained by L1 for some steps of four samples, frozen; adds to one reference frame, or to the mean of several."""
    torch.manual_seed(0)
    output = [TanhOutput(), ReferenceOutput(28)][references] if references < 2 else BlendOutput(28, references - 1)
    network = UNetGenerator(28 + 3 * references, size, width, output=output)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, steps)
    for step in range(steps):
        stacks, true = smooth_stacks(4, size, seed=1000 + step)
        loss = (network(with_references(stacks, references)) - true).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)
