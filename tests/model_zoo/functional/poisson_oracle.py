"""Poisson blending by a sparse direct solve, straight from Pérez et al. 2003, Eq. 7."""

import numpy as np
import torch
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve


def direct_blend(target: torch.Tensor, source: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The blend of one sample: (3, H, W) float images and a mask (H, W); pixels and neighbours as in the paper."""
    t, s, inside = target.double().numpy(), source.double().numpy(), mask.numpy()
    index = np.full(inside.shape, -1)
    index[inside] = np.arange(inside.sum())
    right = np.zeros((inside.sum(), 3))
    entries = []
    for y, x in np.argwhere(inside):
        p = index[y, x]
        neighbours = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        neighbours = [(v, w) for v, w in neighbours if 0 <= v < inside.shape[0] and 0 <= w < inside.shape[1]]
        entries.append((p, p, len(neighbours)))
        for v, w in neighbours:
            right[p] += s[:, y, x] - s[:, v, w]  # the guidance field
            if inside[v, w]:
                entries.append((p, index[v, w], -1))
            else:
                right[p] += t[:, v, w]
    rows, columns, values = zip(*entries, strict=True)
    blended = t.copy()
    blended[:, inside] = spsolve(csc_matrix((np.array(values, float), (rows, columns))), right).T
    return torch.from_numpy(blended)


def lower_face(size: int = 256) -> torch.Tensor:
    """A mask (H, W) like that of mouth, jaw and nose base: 12,700 px in a box of 146 × 117 at 256 px."""
    y, x = torch.meshgrid(*[(torch.arange(size) + 0.5) * 256 / size - 0.5] * 2, indexing="ij")
    across, down = (x - 127.5).abs() / 73, (y - 110) / 117
    return (across**1.75 + down.clamp_min(0) ** 1.75 <= 1) & (down >= 0)


def portraits(batch: int = 1, size: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Two frames in [-1, 1] of the same colours but for lighting, grain and a moving part."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, 9, 9, generator=generator) * 1.2 - 0.6
    target = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    lighting = torch.nn.functional.interpolate(
        torch.randn(batch, 3, 4, 4, generator=generator) * 0.15, (size, size), mode="bicubic"
    )
    moved = torch.zeros_like(target)
    moved[..., size * 5 // 8 : size * 6 // 8, size * 3 // 8 : size * 5 // 8] = -0.3
    grain = 0.02 * torch.randn(2, *target.shape, generator=generator)
    return (target + grain[0]).clamp(-1, 1), (target + lighting + moved + grain[1]).clamp(-1, 1)
