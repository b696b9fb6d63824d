"""What the detector saw and what the fit made of it, drawn onto the frame: landmarks, mesh, pose.

All drawing is at the size of the panel, not of the frame, so that lines stay fine where the frame is coarse.

Shape legend: V vertices, F triangles, P pose (6).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from datamodules.synthetic.rasteriser import rasterise, shade, vertex_normals
from model_zoo.face.morphable import NUM_EXPRESSION, MorphableFace
from model_zoo.functional.camera import resize_landmarks, rotation_matrix

Colour = tuple[int, int, int]
Canvas = UInt8[np.ndarray, "H W 3"]

WHITE: Colour = (245, 245, 245)
DETECTED: Colour = (255, 196, 60)
FITTED: Colour = (90, 220, 255)
_RIM: Colour = (30, 30, 30)
AXES: tuple[tuple[str, Colour, tuple[float, float, float]], ...] = (  # model frame: y down, z away from the camera
    ("x", (240, 90, 90), (1, 0, 0)),
    ("y", (110, 220, 110), (0, -1, 0)),
    ("z", (100, 150, 255), (0, 0, -1)),
)
_AXIS_LENGTH = 0.55  # outer-eye distances
_NOSE_TIP = 30  # iBUG

# iBUG landmarks joined by lines: first, last, closed.
CONTOURS = (
    (0, 16, False), (17, 21, False), (22, 26, False), (27, 30, False), (31, 35, False), (36, 41, True), (42, 47, True),
    (48, 59, True), (60, 67, True),
)  # fmt: skip

_CLAY = np.array([0.78, 0.80, 0.84], np.float32)
_LIGHT = np.array([-0.35, -0.45, -0.82], np.float32)  # from above the viewer's left shoulder
_OPACITY = 0.75
_SUPERSAMPLING = 2
_LITTLE = 0.4  # of the frame, below which only the surroundings of the face are shown
_SURROUNDINGS = 0.75  # of the landmarks' extent, shown on every side of them
_SUBPIXEL = 4  # fractional bits of drawn coordinates
_CIRCLE = np.stack([np.cos(np.arange(16) * np.pi / 8), np.sin(np.arange(16) * np.pi / 8)], axis=1)


class View(NamedTuple):
    """How frames are shown: a window of theirs, enlarged to a panel.

    Attributes:
        window: x0, y0, x1, y1 in whole px of the frame, the ends excluded.
        scale: panel px a frame px.
    """

    window: tuple[int, int, int, int]
    scale: float

    @classmethod
    def within(
        cls, frame: tuple[int, int], box: tuple[int, int], landmarks: Float[Tensor, "T 68 2"] | None = None
    ) -> View:
        """The largest panel that fits into a box (width, height).

        Args:
            frame: width and height of the frames.
            landmarks: of the clip; where they fill little of the frame, only their surroundings are shown.
        """
        window = (0, 0, *frame)
        if landmarks is not None:
            low, high = landmarks.flatten(0, 1).amin(0), landmarks.flatten(0, 1).amax(0)
            reach = _SURROUNDINGS * (high - low).max()
            left, top = (low - reach).floor().int().clamp(min=0).tolist()
            right, bottom = (min(int(side), end) for side, end in zip((high + reach).ceil(), frame, strict=True))
            if 0 < (right - left) * (bottom - top) < _LITTLE * frame[0] * frame[1]:
                window = (left, top, right, bottom)
        return cls(window, min(box[0] / (window[2] - window[0]), box[1] / (window[3] - window[1])))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the panel, px; even, for H.264 wants it so."""
        left, top, right, bottom = self.window
        width, height = (2 * max(1, round(side * self.scale / 2)) for side in (right - left, bottom - top))
        return width, height

    def place(self, points: Float[Tensor, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Panel px of points in frame px, pixel centres at integers."""
        return resize_landmarks(points - points.new_tensor(self.window[:2]), self.scale).numpy()

    def enlarge(self, frame: Canvas) -> Canvas:
        """The window of a frame as a panel."""
        left, top, right, bottom = self.window
        interpolation = cv2.INTER_CUBIC if self.scale > 1 else cv2.INTER_AREA
        return cv2.resize(frame[top:bottom, left:right], self.size, interpolation=interpolation)


class MeshPainter:
    """Draws the fitted mesh of a clip as translucent clay.

    Args:
        face: the model, with triangles.
        shape: identity of the clip.
        view: of the panels.
    """

    def __init__(self, face: MorphableFace, shape: Float[Tensor, "199"], view: View) -> None:
        self._neutral = face.vertices(shape, torch.zeros(NUM_EXPRESSION)).numpy()
        self._expressions = (face.expression_basis * face.expression_std).flatten(0, 1)  # (3V, 29)
        self._triangles = face.triangles.numpy()
        self._view = view
        self._clay = np.tile(_CLAY, (len(self._neutral), 1))
        self._gloss = np.full(len(self._neutral), 0.12, np.float32)
        self._light = _LIGHT / np.linalg.norm(_LIGHT)
        width, height = view.size
        self._canvas = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING, 3), np.float32)
        self._depth = np.empty(self._canvas.shape[:2], np.float32)

    def vertices(self, expression: Float[Tensor, "29"]) -> Float[np.ndarray, "V 3"]:
        """Vertices of a frame before its pose, model frame."""
        return self._neutral + (self._expressions @ expression).reshape(-1, 3).numpy()

    def paint(self, panel: Canvas, expression: Float[Tensor, "29"], pose: Float[Tensor, "6"]) -> None:
        """Draw the mesh of one frame into its panel."""
        turned = self.vertices(expression) @ rotation_matrix(pose[:3]).numpy().T
        normals = vertex_normals(turned, self._triangles)
        tint = np.ones(3, np.float32)
        colours = shade(normals, self._clay, self._gloss, self._light, tint, 0.38, 0.66)
        points = turned * float(pose[5].exp())
        placed = self._view.place(torch.from_numpy(points[:, :2]) + pose[3:5])
        points[:, :2] = (placed + 0.5) * _SUPERSAMPLING - 0.5
        self._canvas[:] = 0
        self._depth[:] = np.inf
        rasterise(points, self._triangles, len(self._triangles), colours, self._canvas, self._depth)
        cover = np.isfinite(self._depth).astype(np.float32)
        cover = cv2.resize(cover, self._view.size, interpolation=cv2.INTER_AREA)[..., None] * _OPACITY
        clay = cv2.resize(self._canvas, self._view.size, interpolation=cv2.INTER_AREA)  # black where it does not cover
        panel[:] = np.clip(panel * (1 - cover) + clay * (255 * _OPACITY), 0, 255)


def draw_landmarks(panel: Canvas, detected: Float[np.ndarray, "68 2"], fitted: Float[np.ndarray, "68 2"]) -> None:
    """Fitted landmarks as contours, detected ones as dots, panel px."""
    for first, last, closed in CONTOURS:
        draw_line(panel, fitted[first : last + 1], FITTED, 1, closed)
    for centre in detected[np.isfinite(detected).all(axis=1)]:
        for radius, colour in ((2.6, _RIM), (1.8, DETECTED)):
            # cv2.circle makes diamonds of dots this small
            rim = np.round((centre + radius * _CIRCLE) * 2**_SUBPIXEL).astype(np.int32)
            cv2.fillPoly(panel, [rim], colour, cv2.LINE_AA, _SUBPIXEL)


def draw_axes(panel: Canvas, origin: Float[np.ndarray, "2"], pose: Float[Tensor, "6"], scale: float) -> None:
    """The head's axes from `origin` (panel px): x to the image's right, y up, z out of the face."""
    ends = torch.tensor([axis for _, _, axis in AXES], dtype=torch.float32) @ rotation_matrix(pose[:3]).T
    length = _AXIS_LENGTH * float(pose[5].exp()) * scale
    for row in torch.argsort(ends[:, 2], descending=True).tolist():  # what points away is drawn first
        name, colour, _ = AXES[row]
        tip = origin + ends[row, :2].numpy() * length
        draw_line(panel, np.stack([origin, tip]), _RIM, 5)
        draw_line(panel, np.stack([origin, tip]), colour, 3)
        letter(panel, name, tip + 7 * _unit(tip - origin), 14, colour, anchor="mm", halo=True)


def describe_pose(pose: Float[Tensor, "6"]) -> str:
    """Where the face points as the image shows it, in words and whole degrees."""
    rotation = rotation_matrix(pose[:3].double()).numpy()
    forward = -rotation[:, 2]
    angles = (
        (np.arctan2(forward[0], -forward[2]), "right", "left"),
        (np.arctan2(-forward[1], np.hypot(forward[0], forward[2])), "up", "down"),
        (np.arctan2(rotation[1, 0], rotation[0, 0]), "clockwise", "anticlockwise"),
    )
    parts = []
    for angle, positive, negative in angles:
        degrees = round(float(np.degrees(angle)))
        parts.append(f"{abs(degrees)}° {positive if degrees >= 0 else negative}")
    return ", ".join(parts)


def draw_line(
    canvas: Canvas, points: Float[np.ndarray, "N 2"], colour: Colour, thickness: int = 1, closed: bool = False
) -> None:
    """An antialiased line through points in px, pixel centres at integers."""
    fixed = np.round(points * 2**_SUBPIXEL).astype(np.int32)
    cv2.polylines(canvas, [fixed], closed, colour, thickness, cv2.LINE_AA, _SUBPIXEL)


def letter(
    canvas: Canvas,
    text: str,
    at: tuple[float, float] | np.ndarray,
    size: int,
    colour: Colour = WHITE,
    anchor: str = "ls",
    halo: bool = False,
) -> None:
    """Write text into a canvas; what reaches over its edge is cut off.

    Args:
        at: x, y in px of the anchor. anchor: Pillow's, such as "ls" (left, baseline) or "mm" (middle, middle).
        size: px. halo: a dark rim, for text on pictures.
    """
    mask, rim, (left, top) = _lettering(text, size, anchor)
    x, y = round(float(at[0])) + left, round(float(at[1])) + top
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + mask.shape[1], width), min(y + mask.shape[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    inside, part = np.s_[y0 - y : y1 - y, x0 - x : x1 - x], canvas[y0:y1, x0:x1]
    blended = part * (1 - 0.75 * rim[inside]) if halo else part
    part[:] = np.round(blended * (1 - mask[inside]) + np.array(colour, np.float32) * mask[inside])


@lru_cache(maxsize=4096)
def _lettering(text: str, size: int, anchor: str) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Coverage (h, w, 1) of a text, that of its rim, and where its corner lies from the anchor, px."""
    font, margin = _font(size), 3
    left, top, right, bottom = (round(side) for side in font.getbbox(text, anchor=anchor))
    image = Image.new("L", (max(1, right - left) + 2 * margin, max(1, bottom - top) + 2 * margin))
    ImageDraw.Draw(image).text((margin - left, margin - top), text, fill=255, font=font, anchor=anchor)
    mask = np.asarray(image, np.float32) / 255
    rim = np.clip(2.5 * cv2.GaussianBlur(mask, (0, 0), 1.3), 0, 1)
    return mask[..., None], rim[..., None], (left - margin, top - margin)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib; OpenCV's own letters know no accents."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-6)
