"""What a synthetic person looks like: skin, lips, eyes, brows, hair, clothes, light and background, drawn at random.

Colours are display RGB in [0, 1]. Positions are those of the mean head (model frame: x right, y down, z away, outer-eye
distance 1), so that a look can be put on any shape and expression.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from datamodules.synthetic.hair import FEMININE, MASCULINE
from model_zoo.face.head_parts import EYE_SEGMENTS, Region
from model_zoo.face.procedural import ProceduralHead

SKIN_TONES = (
    np.array([(240, 205, 182), (228, 180, 150), (205, 152, 118), (172, 118, 84), (132, 88, 62), (104, 70, 52)]) / 255
)
_HAIR_COLOURS = (
    np.array(
        [(28, 22, 20), (52, 36, 26), (92, 62, 40), (150, 110, 66), (190, 158, 110), (140, 70, 40), (150, 148, 146)]
    )
    / 255
)
_IRIS_COLOURS = np.array([(70, 45, 28), (96, 66, 38), (92, 104, 72), (84, 116, 140), (110, 128, 134)]) / 255
_CLOTHES = (
    np.array([(60, 70, 92), (120, 40, 44), (48, 84, 70), (180, 176, 166), (52, 50, 54), (132, 108, 76), (96, 84, 128)])
    / 255
)
_BACKGROUNDS = (
    np.array([(40, 150, 205), (70, 120, 170), (150, 160, 165), (110, 140, 110), (175, 160, 140), (120, 116, 128)]) / 255
)
LIPS = np.array([(0.82, 0.62, 0.62), (0.84, 0.65, 0.64)])  # beside light and dark skin; darker, they look like a gap
LOWER_TEETH = 0.7  # light that reaches them, beside the upper ones: the lower lip stands before them
JAW_SHADOW = 0.5  # share of the light that does not reach the skin below the jaw
_EXPOSED = 0.45  # mean level of skin at which a camera is content


@dataclass(frozen=True)
class Look:
    """A person's appearance, apart from the shape of the head.

    Attributes:
        skin, lip, iris, hair, cloth: RGB.
        hairstyle: a key of the styles. brow: RGB. stubble: 0 to 1. blush: strength of the red of cheeks and nose.
        ambient, diffuse: light levels. light: unit vector towards the light. tint: RGB of the light.
        background: RGB. clutter: contrast of what stands in the background.
        seed: of the fine texture.
    """

    skin: np.ndarray
    lip: np.ndarray
    iris: np.ndarray
    hair: np.ndarray
    brow: np.ndarray
    cloth: np.ndarray
    hairstyle: str
    stubble: float
    blush: float
    ambient: float
    diffuse: float
    light: np.ndarray
    tint: np.ndarray
    background: np.ndarray
    clutter: float
    seed: int


def draw_look(rng: np.random.Generator, tone: float | None = None, woman: bool | None = None) -> Look:
    """A look at random; `tone` in [0, 1] fixes the skin from light to dark, `woman` the styles of hair and beard."""
    tone = float(rng.uniform()) if tone is None else tone
    position = tone * (len(SKIN_TONES) - 1)
    skin = np.array([np.interp(position, range(len(SKIN_TONES)), SKIN_TONES[:, c]) for c in range(3)])
    skin = skin * (1 + rng.normal(0, 0.02, 3))
    hair = _HAIR_COLOURS[rng.integers(0, 3) if tone > 0.45 else rng.integers(0, len(_HAIR_COLOURS))]
    light = np.array([rng.uniform(-0.4, 0.4), rng.uniform(-0.5, -0.2), -0.9])
    exposure = float(np.clip((_EXPOSED / skin.mean()) ** 0.4, 1.0, 1.3))  # a camera opens up for a dark face
    masculine = (rng.uniform() < 0.5) if woman is None else not woman
    return Look(
        skin=skin,
        lip=skin * (LIPS[0] + tone * (LIPS[1] - LIPS[0])) * (1 + rng.normal(0, 0.02, 3)),
        iris=_IRIS_COLOURS[rng.integers(0, 2) if tone > 0.5 else rng.integers(0, len(_IRIS_COLOURS))],
        hair=hair,
        brow=0.6 * np.minimum(0.45 * skin, 1) + 0.4 * np.minimum(hair, 0.6 * skin),
        cloth=_CLOTHES[rng.integers(len(_CLOTHES))] * rng.uniform(0.8, 1.2),
        hairstyle=str(rng.choice(MASCULINE if masculine else FEMININE)),
        stubble=float(rng.uniform(0.0, 0.5) ** 1.5) if masculine else 0.0,
        blush=float(rng.uniform(0.4, 1.0)),
        ambient=exposure * float(rng.uniform(0.42, 0.56)),
        diffuse=exposure * float(rng.uniform(0.46, 0.57)),
        light=light / np.linalg.norm(light),
        tint=1 + rng.normal(0, 0.02, 3),
        background=_BACKGROUNDS[rng.integers(len(_BACKGROUNDS))] * rng.uniform(0.8, 1.1),
        clutter=float(rng.choice([0.0, 0.0, 0.12])),
        seed=int(rng.integers(2**31)),
    )


def albedo(head: ProceduralHead, look: Look) -> Float[np.ndarray, "V 3"]:
    """Colour of every vertex of the head under white light of level 1."""
    mean, region = head.face.mean.numpy().astype(np.float64), head.region.numpy()
    palette = {
        Region.SKIN: look.skin, Region.LIP: look.lip, Region.EYE_WHITE: (0.84, 0.82, 0.81), Region.IRIS: look.iris,
        Region.PUPIL: (0.04, 0.03, 0.03), Region.TEETH: (0.90, 0.87, 0.80), Region.GUM: (0.58, 0.28, 0.27),
        Region.TONGUE: (0.66, 0.33, 0.32), Region.CAVITY: (0.30, 0.10, 0.09),
        Region.LID: look.skin * [0.85, 0.68, 0.64],
    }  # fmt: skip
    colours = np.array([palette[Region(k)] for k in range(len(Region))])[region]
    skin = region == Region.SKIN
    colours[skin] *= _mottle(mean[skin], look.seed)[:, None]

    def paint(weight: np.ndarray, colour: np.ndarray) -> None:
        weight = (weight * skin)[:, None]
        colours[:] = colours * (1 - weight) + weight * colour

    sides = mean * [1, 1, 1]
    sides[:, 0] = np.abs(sides[:, 0])
    spot = lambda x, y, z, r: np.exp(-((np.linalg.norm(sides - (x, y, z), axis=1) / r) ** 2))  # noqa: E731
    red = look.skin * [1.02, 0.80, 0.78]
    paint(0.45 * look.blush * spot(0.47, 0.36, -0.08, 0.20), red)
    paint(0.40 * look.blush * spot(0.0, 0.38, -0.50, 0.12), red)
    paint(0.30 * spot(0.35, 0.10, -0.09, 0.10), look.skin * [0.84, 0.78, 0.78])  # below the eyes
    paint(0.28 * spot(0.34, -0.11, -0.10, 0.09), look.skin * [0.82, 0.74, 0.72])  # the lids' fold
    paint(0.90 * spot(0.078, 0.497, -0.325, 0.032), look.skin * 0.22)  # nostrils
    beard = np.clip((mean[:, 1] - 0.50) / 0.2, 0, 1) * np.clip((1.5 - mean[:, 1]) / 0.15, 0, 1) * (mean[:, 2] < 0.5)
    paint(look.stubble * beard * (1 - 0.6 * spot(0.0, 0.98, -0.28, 0.06)), 0.55 * look.skin + 0.25 * look.hair)
    paint(0.92 * _brow_weight(head, mean), look.brow)
    border = head.lip_rings[0].numpy()  # the border is half skin: a soft edge
    colours[border] = 0.5 * look.lip + 0.5 * look.skin
    for side in ("left", "right"):  # the light's reflection on the cornea
        rings = head.parts[f"eye_{side}"].numpy().reshape(-1, EYE_SEGMENTS)
        colours[rings[2:4, -5:-3]] = 0.95
    margins, half = head.lid_rings[:, 0].numpy(), head.lid_rings.shape[2] // 2
    colours[margins[:, : half + 1]] = look.skin * 0.38  # lashes
    colours[margins[:, half + 1 :]] = look.skin * 0.74
    return np.clip(colours, 0, 1) * occlusion(head)[:, None]


def occlusion(head: ProceduralHead) -> Float[np.ndarray, "V"]:
    """How much light reaches each vertex, [0, 1]: less within the mouth, at the lips' line and under the chin."""
    mean, region = head.face.mean.numpy(), head.region.numpy()
    shade = np.ones(len(mean))
    for ring, level in enumerate((1, 1, 1, 1, 0.90, 0.72, 0.46, 0.44, 0.40, 0.35, 0.25, 0.15)):
        shade[head.lip_rings[ring].numpy()] = level
    inside = np.isin(region, (Region.TEETH, Region.GUM, Region.TONGUE))
    shade[inside] = 0.95 - 0.80 * np.clip((mean[inside, 2] + 0.20) / 0.40, 0, 1)
    shade[head.parts["teeth_lower"].numpy()] *= LOWER_TEETH
    shade[region == Region.CAVITY] = np.minimum(shade[region == Region.CAVITY], 0.4)
    return shade * (1 - JAW_SHADOW * _below_jaw(head))


def _below_jaw(head: ProceduralHead) -> Float[np.ndarray, "V"]:
    """(V,) how much of the skin's light the jaw takes: all of it just below its line, less further down the neck.

    Without that shadow a detector takes the neck for the face: the chin's edge is hardly seen from the front.
    """
    chart = head.chart.numpy().astype(np.float64)
    u, v = np.abs(chart[head.face.landmark_index[:17].numpy()]).T
    order = np.argsort(u)
    line = np.maximum(np.interp(np.abs(chart[:, 0]), u[order], v[order]), v[[3, 13]].mean())  # to the ear lobes
    beyond = chart[:, 1] - line
    behind = np.clip((np.abs(chart[:, 0]) - 0.9) / 0.5, 0, 1)  # beside the neck the edge is soft
    weight = np.clip((beyond - 0.03) / (0.12 + 0.5 * behind), 0, 1) * (1 - 0.5 * np.clip((beyond - 0.3) / 0.5, 0, 1))
    return np.nan_to_num(weight) * (head.region.numpy() == Region.SKIN)


def torso(look: Look, segments: int = 48) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shoulders and chest below the neck: vertices (N, 3) in the model frame, triangles (F, 3), colours (N, 3)."""
    # Elliptic sections: y, half-width, half-depth, z of the middle.
    sections = np.array([
        (1.80, 0.60, 0.56, 0.98), (1.76, 0.68, 0.62, 0.97), (1.90, 0.74, 0.64, 0.97), (2.02, 1.00, 0.68, 0.98),
        (2.18, 1.38, 0.72, 1.00), (2.42, 1.66, 0.76, 1.00), (2.9, 1.80, 0.84, 1.00), (4.2, 1.85, 0.90, 1.00),
    ])  # fmt: skip
    angle = np.arange(segments) * 2 * np.pi / segments
    y, width, depth, z = (column[:, None] for column in sections.T)
    dip = 0.16 * np.clip(-np.cos(angle), 0, 1) ** 2 * np.clip((2.1 - y) / 0.3, 0, 1)  # the collar is lower in front
    points = np.stack([width * np.sin(angle), y + dip, z + depth * np.cos(angle)], axis=-1).reshape(-1, 3)
    index = np.arange(len(points)).reshape(len(sections), segments)
    a, b = index[:-1], np.roll(index[:-1], -1, axis=1)
    c, d = index[1:], np.roll(index[1:], -1, axis=1)
    triangles = np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, b, d), (a, d, c))])
    colours = np.tile(look.cloth, (len(points), 1)) * _mottle(points * 0.7, look.seed, 0.08)[:, None]
    colours[: 2 * segments] *= 0.82
    return points, triangles, np.clip(colours, 0, 1)


def background(look: Look, width: int, height: int) -> Float[np.ndarray, "H W 3"]:
    """Wall behind the speaker: a soft gradient, for some people with blurred things in it."""
    rng = np.random.default_rng(look.seed + 1)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    centre = rng.uniform(0.2, 0.8), rng.uniform(0.0, 0.5)
    glow = 1.08 - 0.45 * np.hypot(x - centre[0], y - centre[1])
    image = look.background * glow[..., None]
    if look.clutter:
        for _ in range(14):
            x0, y0 = rng.uniform(0, width), rng.uniform(0, height)
            w, h = rng.uniform(0.05, 0.25, 2) * width
            colour = look.background * (1 + look.clutter * rng.normal(0, 2.5)) + 0.5 * look.clutter * rng.normal(
                0, 1, 3
            )
            cv2.rectangle(image, (int(x0), int(y0)), (int(x0 + w), int(y0 + h)), colour.tolist(), -1)
        image = cv2.GaussianBlur(image, (0, 0), 0.018 * width)
    return np.clip(image, 0, 1).astype(np.float32)


def _brow_weight(head: ProceduralHead, mean: np.ndarray) -> np.ndarray:
    """(V,) how much of a vertex is brow: a band a little below the landmarks, thinning outwards."""
    marks = mean[head.face.landmark_index.numpy()]
    weight = np.zeros(len(mean))
    for rows in (range(17, 22), range(22, 27)):
        t = np.linspace(0, len(rows) - 1, 60)
        line = np.stack([np.interp(t, range(len(rows)), marks[rows, axis]) for axis in range(3)], axis=1)
        line[:, 1] += 0.022
        towards_nose = np.linspace(0, 1, 60) if rows[0] == 17 else np.linspace(1, 0, 60)
        thickness = 0.020 + 0.018 * towards_nose
        distance = np.linalg.norm(mean[:, None] - line[None], axis=2) / thickness
        weight = np.maximum(weight, np.exp(-(distance.min(axis=1) ** 2)))
    return weight


def _mottle(points: np.ndarray, seed: int, strength: float = 0.03) -> np.ndarray:
    """(N,) smooth factor about 1: a sum of waves over the surface."""
    rng = np.random.default_rng(seed + 2)
    waves = rng.normal(0, 9, (16, 3))
    return 1 + strength * np.sin(points @ waves.T + rng.uniform(0, 2 * np.pi, 16)).sum(axis=1) / np.sqrt(8)
