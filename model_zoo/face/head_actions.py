"""What the built-in head can do: facial actions as displacement fields, after the Facial Action Coding System.

Each action states how the lips, the lids, the inner parts and a few handles on the skin move; a triharmonic spline
carries that over the rest of the skin. Displacements are those of a full action, in outer-eye distances. Speech uses a
third to a half of most of them: ACTIVITY is the standard deviation that a talking face shows, and makes the unit of the
expression coefficients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import RBFInterpolator

from model_zoo.face.head_anatomy import CONTACT_RING, LANDMARKS, RING_STEPS, mirror
from model_zoo.face.head_geometry import HeadGeometry

JAW_HINGE = np.array([0.0, 0.28, 0.80])  # the condyles' axis, just before the ears
JAW_OPEN = np.radians(15.0)  # about 27 mm between the lips
MOUTH_LINE = 0.80  # y of the closed lips

# Handles on the skin, half x >= 0: x, y, z and how much of the jaw's motion they take.
_HANDLES = np.array([
    *[(*LANDMARKS[i], share) for i, share in
      ((8, 1), (9, 1), (10, 1), (11, 0.95), (12, 0.75), (13, 0.42), (14, 0.16), (15, 0.03), (16, 0))],
    (0.0, 1.08, -0.27, 1), (0.0, 1.20, -0.28, 1), (0.27, 1.10, -0.16, 1), (0.42, 1.10, -0.02, 0.97),
    (0.0, 1.43, 0.12, 0.8), (0.25, 1.44, 0.30, 0.5), (0.58, 1.10, 0.38, 0.5), (0.66, 0.95, 0.58, 0.2),
    (0.0, 1.68, 0.41, 0.1), (0.0, 2.2, 0.42, 0), (0.50, 1.60, 0.72, 0), (0.53, 2.2, 0.80, 0), (0.0, 1.9, 1.45, 0),
    *[(*LANDMARKS[i], 0) for i in (26, 25, 24, 23, 22, 27, 28, 29, 30, 35, 34, 33)],
    (0.178, 0.43, -0.285, 0), (0.215, 0.44, -0.195, 0),
    (0.0, -0.5, -0.20, 0), (0.4, -0.5, -0.09, 0), (0.0, -1.0, 0.08, 0), (0.7, -0.48, 0.3, 0), (0.82, -0.4, 0.65, 0),
    (0.83, -0.05, 0.75, 0), (0.82, 0.2, 0.75, 0), (0.80, 0.48, 0.75, 0), (0.0, -1.2, 0.75, 0), (0.8, -0.4, 1.35, 0),
    (0.0, 0.0, 1.9, 0), (0.31, -0.135, -0.105, 0), (0.43, -0.13, -0.085, 0), (0.56, -0.06, 0.02, 0),
    (0.31, 0.13, -0.095, 0), (0.45, 0.13, -0.06, 0), (0.62, 0.10, 0.07, 0), (0.72, 0.15, 0.20, 0),
])  # fmt: skip

# Standard deviation of each action while a face talks, as a share of the full one; DEFAULT_ACTIVITY for the others.
DEFAULT_ACTIVITY = 0.15
ACTIVITY = {
    "jaw_open": 0.30, "close": 0.25, "pucker": 0.40, "funnel": 0.30, "spread": 0.35, "press": 0.35, "roll_lower": 0.30,
    "roll_upper": 0.20, "upper_raise_left": 0.25, "upper_raise_right": 0.25, "lower_drop_left": 0.30,
    "lower_drop_right": 0.30, "lower_raise": 0.30, "corner_up_left": 0.25, "corner_up_right": 0.25, "tongue_up": 0.40,
    "tongue_out": 0.30, "tongue_back": 0.30, "blink_left": 0.30, "blink_right": 0.30,
}  # fmt: skip


@dataclass
class _Motion:
    """One action before it is carried over the skin: motions of what is told to move."""

    lips: np.ndarray  # (R, n, 3)
    handles: np.ndarray  # (H, 3)
    lids: np.ndarray  # (2, n, 3), of the margins
    parts: dict[str, np.ndarray] = field(default_factory=dict)


class _Rig:
    """Coordinates in which actions are easily said, and the spline that carries them over the skin."""

    def __init__(self, geometry: HeadGeometry) -> None:
        self.geometry = geometry
        mirrored = _HANDLES[:, 0] > 0
        self.handles = np.concatenate([_HANDLES[:, :3], mirror(_HANDLES[mirrored, :3])])
        self.jaw_share = np.concatenate([_HANDLES[:, 3], _HANDLES[mirrored, 3]])
        t = np.linspace(-1, 1, 2 * RING_STEPS + 1)
        self.t = np.concatenate([t, t[-2:0:-1]])  # (n,), -1 and 1 are the corners
        arc = 2 * RING_STEPS - 1
        self.upper = np.r_[0.5, np.ones(arc), 0.5, np.zeros(arc)]  # (n,), the corners belong to both lips
        self.inner = np.array([0, 0.2, 0.4, 0.6, 0.8, 0.93, 1, 1, 1, 1, 1, 1])[:, None]  # (R, 1), 0 border, 1 contact
        self.lips = geometry.vertices[geometry.lip_rings]  # (R, n, 3)
        self.margins = geometry.vertices[np.stack([r[0] for r in geometry.lid_rings])]  # (2, n, 3)

    def motion(self) -> _Motion:
        return _Motion(np.zeros_like(self.lips), np.zeros_like(self.handles), np.zeros_like(self.margins))

    def lip(self, x: ArrayLike = 0.0, y: ArrayLike = 0.0, z: ArrayLike = 0.0) -> _Motion:
        """Motion of the lips alone; x, y, z broadcast to (R, n). The throat follows less and less."""
        motion = self.motion()
        follow = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 0.8, 0.4, 0.1])[:, None]
        motion.lips += (
            np.stack([np.broadcast_to(c, self.lips.shape[:2]) for c in (x, y, z)], axis=-1) * follow[..., None]
        )
        return motion

    def near(self, place: tuple[float, float, float], radius: float) -> np.ndarray:
        """(H,) Gaussian weight of the handles about a place."""
        return np.exp(-(((self.handles - place) / radius) ** 2).sum(axis=1) / 2)

    def carry(self, motions: dict[str, _Motion]) -> dict[str, np.ndarray]:
        """Displacement field (V, 3) of every motion."""
        g = self.geometry
        placed = np.concatenate([g.lip_rings.ravel(), *(r.ravel() for r in g.lid_rings)])
        free = np.setdiff1d(np.flatnonzero(~np.isnan(g.chart[:, 0])), placed)
        anchors = np.concatenate([self.lips[0], *self.margins, self.handles])
        values = np.concatenate([np.concatenate([m.lips[0], *m.lids, m.handles]) for m in motions.values()], axis=1)
        carried = RBFInterpolator(anchors, values, kernel="cubic", degree=1)(g.vertices[free])
        fields = {}
        for j, (name, motion) in enumerate(motions.items()):
            out = np.zeros_like(g.vertices)
            out[free] = carried[:, 3 * j : 3 * j + 3]
            out[g.lip_rings] = motion.lips
            for rows, margin in zip(g.lid_rings, motion.lids, strict=True):
                out[rows] = margin * np.array([1.0, 1.0, 0.3])[:, None, None]
            for part, moved in motion.parts.items():
                out[g.parts[part]] = moved
            # The far skull and the neck's end stay put, whatever the spline does beyond its handles.
            still = np.clip((g.vertices[:, 2] - 0.9) / 0.3, 0, 1) + np.clip((g.vertices[:, 1] - 1.9) / 0.4, 0, 1)
            fields[name] = out * (1 - np.minimum(still, 1))[:, None]
        return fields


def _rotate(points: np.ndarray, angle: float) -> np.ndarray:
    """Displacement of (..., 3) points by a rotation of the jaw about its hinge (positive opens)."""
    y, z = points[..., 1] - JAW_HINGE[1], points[..., 2] - JAW_HINGE[2]
    # Opening turns the chin (y > 0, z < 0) down and back.
    c, s = np.cos(angle) - 1, np.sin(angle)
    return np.stack([0 * y, c * y - s * z, s * y + c * z], axis=-1)


def _jaw(rig: _Rig, motion_of_bone: Callable[[np.ndarray], np.ndarray]) -> _Motion:
    """Everything that hangs on the lower jaw; `motion_of_bone` maps points to their displacement."""
    motion = rig.motion()
    corner = np.abs(rig.t) ** 3
    share = np.where(rig.upper < 0.5, 1 - 0.52 * corner, 0.48 * corner**2)
    depth = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0.8, 0.5])[:, None]
    motion.lips += motion_of_bone(rig.lips) * (share * depth)[..., None]
    motion.handles += motion_of_bone(rig.handles) * rig.jaw_share[:, None]
    for part in ("teeth_lower", "tongue"):
        motion.parts[part] = motion_of_bone(rig.geometry.vertices[rig.geometry.parts[part]])
    return motion


def _mouth(rig: _Rig) -> dict[str, _Motion]:
    t, upper, inner = rig.t, rig.upper, rig.inner
    lower, middle, x = 1 - upper, 1 - t**2, rig.lips[0, :, 0]
    thickness = rig.lips[..., 1] - MOUTH_LINE
    motions = {}
    opened = _jaw(rig, lambda p: _rotate(p, JAW_OPEN))
    opened.lips[..., 0] -= 0.025 * np.sign(t) * np.abs(t) ** 3  # the corners come in
    motions["jaw_open"] = opened
    # Closing against an open jaw: the lower lip goes up two thirds of the way, the upper one comes down.
    contact = opened.lips[CONTACT_RING]
    down, up = (
        contact[: 2 * RING_STEPS + 1],
        np.r_[contact[:1], contact[: -(2 * RING_STEPS) : -1], contact[2 * RING_STEPS :][:1]],
    )
    meeting = 0.35 * up + 0.65 * down
    target = np.concatenate([meeting, meeting[-2:0:-1]])
    motions["close"] = rig.lip(*np.moveaxis((target - contact) * (0.65 + 0.35 * inner[..., None]), -1, 0))
    motions["jaw_side"] = _jaw(rig, lambda p: np.broadcast_to([0.06, 0.0, 0.0], p.shape))
    motions["jaw_forward"] = _jaw(rig, lambda p: np.broadcast_to([0.0, 0.0, -0.07], p.shape))
    motions["pucker"] = rig.lip(-0.24 * x, 0.16 * thickness + 0 * t, -0.10 * (1 - 0.35 * t**2))
    motions["funnel"] = rig.lip(-0.13 * x, middle * (0.065 * lower - 0.040 * upper), -0.085 * (1 - 0.4 * t**2))
    motions["spread"] = rig.lip(0.055 * np.sign(t) * np.abs(t) ** 1.3, -0.12 * thickness, 0.045 * (0.4 + 0.6 * t**2))
    motions["press"] = rig.lip(0, -0.38 * thickness, 0.030 * middle * (0.4 + 0.6 * inner))
    motions["roll_lower"] = rig.lip(
        0, lower * middle * (-0.045 + 0.02 * inner), lower * middle * (0.01 + 0.055 * inner)
    )
    motions["roll_upper"] = rig.lip(0, upper * middle * (0.040 - 0.02 * inner), upper * middle * (0.01 + 0.045 * inner))
    motions["pout"] = rig.lip(0, lower * middle * (0.02 - 0.03 * inner), -lower * middle * 0.055)
    motions["lower_raise"] = rig.lip(0, -0.055 * lower * middle, -0.02 * lower * middle)
    motions["lower_raise"].handles += rig.near((0, 1.14, -0.27), 0.14)[:, None] * [0, -0.045, -0.02]
    motions["upper_lower"] = rig.lip(0, 0.040 * upper * middle, 0)
    motions["mouth_side"] = rig.lip(0.07 * (1 - 0.2 * t**2), 0, 0)
    for name, sign in (("left", -1), ("right", 1)):
        side = 1 / (1 + np.exp(-sign * t * 4))  # soft half of the mouth
        corner = np.clip(sign * t, 0, None) ** 2
        motions[f"upper_raise_{name}"] = rig.lip(0, -0.060 * upper * middle**0.7 * side, -0.005 * upper * middle * side)
        motions[f"lower_drop_{name}"] = rig.lip(0, 0.065 * lower * middle**0.7 * side, -0.012 * lower * middle * side)
        motions[f"corner_up_{name}"] = rig.lip(sign * 0.065 * corner, -0.085 * corner, 0.035 * corner)
        motions[f"corner_down_{name}"] = rig.lip(sign * 0.01 * corner, 0.065 * corner, 0.01 * corner)
        motions[f"dimple_{name}"] = rig.lip(sign * 0.04 * corner, 0, 0.05 * corner)
        smile = motions[f"corner_up_{name}"].handles
        smile += rig.near((sign * 0.45, 0.13, -0.06), 0.12)[:, None] * [0, -0.015, -0.01]
    return motions


def _tongue(rig: _Rig) -> dict[str, _Motion]:
    p = rig.geometry.vertices[rig.geometry.parts["tongue"]]
    tip = np.clip((0.10 - p[:, 2]) / 0.26, 0, 1) ** 1.5  # 1 at the tip
    dorsum = np.exp(-(((p[:, 2] - 0.12) / 0.12) ** 2))
    fields = {
        "tongue_up": tip[:, None] * [0, -0.10, -0.02],
        "tongue_out": np.ones_like(tip)[:, None] * [0, -0.02, -0.07] + tip[:, None] * [0, -0.10, -0.06],
        "tongue_back": dorsum[:, None] * [0, -0.09, 0.05],
    }
    motions = {}
    for name, moved in fields.items():
        motions[name] = rig.motion()
        motions[name].parts["tongue"] = moved
    return motions


def _upper_face(rig: _Rig) -> dict[str, _Motion]:
    motions = {"nose_wrinkle": rig.motion(), "brow_inner_up": rig.motion(), "eyes_wide": rig.motion()}
    n = rig.margins.shape[1]
    top, bottom = np.arange(1, n // 2), np.arange(n - 1, n // 2, -1)  # facing lid samples
    for name, side, sign in (("left", 0, -1), ("right", 1, 1)):
        gap = np.zeros((n, 3))
        gap[top] = rig.margins[side, bottom] - rig.margins[side, top]
        gap[bottom] = -gap[top]
        bulge = np.zeros(n)  # lids travel around the eyeball, not through it
        bulge[top] = np.sin(np.pi * top / (n // 2)) * 0.022
        motions[f"blink_{name}"] = blink = rig.motion()
        blink.lids[side, top] = 0.86 * gap[top]
        blink.lids[side, bottom] = 0.12 * gap[bottom]
        blink.lids[side, :, 2] -= bulge
        motions["eyes_wide"].lids[side, top] = -0.35 * gap[top]
        motions[f"squint_{name}"] = squint = rig.motion()
        squint.lids[side, bottom] = 0.35 * gap[bottom]
        squint.handles += rig.near((sign * 0.42, 0.13, -0.08), 0.12)[:, None] * [0, -0.04, -0.015]
        motions["nose_wrinkle"].handles += rig.near((sign * 0.19, 0.44, -0.24), 0.07)[:, None] * [0, -0.05, 0]
        motions["brow_inner_up"].handles += rig.near((sign * 0.16, -0.26, -0.23), 0.13)[:, None] * [0, -0.09, 0]
        motions[f"brow_outer_up_{name}"] = raised = rig.motion()
        raised.handles += rig.near((sign * 0.52, -0.27, -0.06), 0.14)[:, None] * [0, -0.09, 0]
        motions[f"brow_down_{name}"] = lowered = rig.motion()
        lowered.handles += rig.near((sign * 0.22, -0.27, -0.22), 0.16)[:, None] * [-sign * 0.02, 0.07, -0.01]
    return motions


def facial_actions(geometry: HeadGeometry) -> dict[str, np.ndarray]:
    """Displacement field (V, 3) of every action at full strength, by name."""
    rig = _Rig(geometry)
    return rig.carry(_mouth(rig) | _tongue(rig) | _upper_face(rig))
