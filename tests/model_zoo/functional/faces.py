"""A plausible moving face of 68 landmarks, made by formula: px at 256, outer-eye distance 0.30 of the crop."""

import torch


def talking_face(num_frames: int = 5, opening: float = 12.0) -> torch.Tensor:
    """Landmarks (T, 68, 2) of a face whose mouth and chin open by up to `opening` px over the clip."""
    angle = torch.linspace(0, torch.pi, 17)
    jaw = torch.stack([128 - 62 * torch.cos(angle), 105 + 105 * torch.sin(angle)], -1)
    brows = torch.stack([torch.linspace(80, 176, 10), torch.full((10,), 80.0)], -1)
    bridge = torch.stack([torch.full((4,), 128.0), torch.linspace(97, 135, 4)], -1)
    nose_base = torch.stack([torch.linspace(114, 142, 5), torch.full((5,), 142.0)], -1)
    eyes = torch.stack([torch.linspace(89.6, 166.4, 12), torch.full((12,), 97.0)], -1)
    eyes[[9, 11]] = eyes[[11, 9]]  # 45 is the right eye's outer corner
    outer, inner = torch.arange(12) * torch.pi / 6, torch.arange(8) * torch.pi / 4
    lips = [
        torch.stack([128 - 24 * torch.cos(outer), 170 - 10 * torch.sin(outer)], -1),
        torch.stack([128 - 18 * torch.cos(inner), 170 - 3 * torch.sin(inner)], -1),
    ]
    face = torch.cat([jaw, brows, bridge, nose_base, eyes, *lips])
    lower = (face[:, 1] > 171).float()[:, None] * torch.tensor([0.0, 1.0])
    phase = torch.linspace(0, 1, num_frames)[:, None, None]
    return face + opening * phase * lower
