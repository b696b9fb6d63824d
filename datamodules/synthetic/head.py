"""Video frames of a synthetic person: the built-in head, shaded and rasterised.

What is drawn are the very vertices that the truth projects, with the same shape, expression and pose: landmarks and
pixels agree by construction. Lips hide teeth and tongue through the z-buffer alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation
from torch import Tensor

from datamodules.synthetic.appearance import Look, albedo, background, torso
from datamodules.synthetic.hair import HAIRSTYLES, grow_hair
from datamodules.synthetic.rasteriser import rasterise, resolve, shade, vertex_normals
from model_zoo.face.head_parts import EYE_RINGS, EYE_SEGMENTS, Region
from model_zoo.face.procedural import ProceduralHead

_NOISE = 1.3  # grey levels of sensor noise, standard deviation
_GRAIN = 64 * 64  # patterns of it: shifts of one field
_BODY_SWAY = 0.25  # share of the head's motion that the shoulders make
_LIP_LINE = (62, 66)  # iBUG: midpoints of the inner contour of the lips
_LIT_GAP, _DIM = 0.15, 0.8  # opening, outer-eye distances, at which teeth are fully lit, and their light without one
_GLOSS = {
    Region.LIP: 0.16,
    Region.EYE_WHITE: 0.10,
    Region.IRIS: 0.2,
    Region.TEETH: 0.22,
    Region.TONGUE: 0.15,
    Region.SKIN: 0.07,
}
# Shares of the eyeball's two outermost rings whose mean is its centre.
_RIM = np.array([-np.cos(EYE_RINGS[-1]), np.cos(EYE_RINGS[-2])])
_RIM = (_RIM / _RIM.sum() / EYE_SEGMENTS).astype(np.float32)


class HeadRenderer:
    """Draws one person with one head shape.

    Args:
        head: the built-in head.
        look: what the person looks like.
        shape: shape coefficients.
        width, height: of the frames, px.
        home: mean pose of the head, (6,); the shoulders stay near it.
        supersampling: samples a pixel in each direction, averaged, to smooth edges.
    """

    def __init__(
        self,
        head: ProceduralHead,
        look: Look,
        shape: Float[Tensor, "199"],
        width: int,
        height: int,
        home: Float[Tensor, "6"],
        supersampling: int = 2,
    ) -> None:
        face = head.face
        self._neutral = face.vertices(shape, torch.zeros(29)).numpy()
        self._expressions = (face.expression_basis * face.expression_std).flatten(0, 1).contiguous()  # (3V, 29)
        self._look, self._home, self._size = look, home, (width, height)
        region = head.region.numpy()
        self._inside = np.flatnonzero(np.isin(region, (Region.TEETH, Region.GUM, Region.TONGUE)))
        self._lip_line = face.landmark_index[list(_LIP_LINE)].numpy()
        self._eyes = [head.parts[f"eye_{side}"].numpy() for side in ("left", "right")]
        style = HAIRSTYLES[look.hairstyle]
        self._hair = hair = grow_hair(head, style, look.hair, look.seed)
        self._triangles = drawn = face.triangles.numpy()
        if style.hangs is not None:  # over the ears, which would pierce it
            ears = np.concatenate([head.parts[f"ear_{side}"].numpy() for side in ("left", "right")])
            drawn = drawn[~np.isin(drawn, ears).any(axis=1)]
        body, body_triangles, body_colours = torso(look)
        self._body = body.astype(np.float32)
        first_body = len(region) + len(hair.offsets)
        self._faces = np.concatenate([drawn, hair.triangles + len(region), body_triangles + first_body])
        self._albedo = np.concatenate([albedo(head, look), hair.colours, body_colours]).astype(np.float32)
        gloss = np.array([_GLOSS.get(Region(k), 0.0) for k in range(len(Region))])[region]
        self._gloss = np.concatenate([gloss, np.full(len(hair.offsets), 0.10), np.zeros(len(body))]).astype(np.float32)
        self._body_normals = vertex_normals(self._body, body_triangles)
        self._two_sided = len(drawn)  # one sees the inside of hair and collar, never that of the head
        self._wall = background(look, width, height)
        scale = self._scale = supersampling
        self._fine_wall = np.ascontiguousarray(self._wall.repeat(scale, axis=0).repeat(scale, axis=1))
        self._canvas = self._fine_wall.copy()
        self._depth = np.full(self._canvas.shape[:2], np.inf, np.float32)
        self._noise = np.random.default_rng(0).normal(0, _NOISE, (height + 64, width + 64)).astype(np.float32)

    def frames(
        self,
        expression: Float[Tensor, "T 29"],
        pose: Float[Tensor, "T 6"],
        gaze: Float[np.ndarray, "T 2"],
        rng: np.random.Generator,
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """A clip, frame by frame; `rng` draws the sensor noise. Arguments as `frame`."""
        for e, p, g in zip(expression, pose, gaze, strict=True):
            yield self.frame(e, p, (float(g[0]), float(g[1])), int(rng.integers(_GRAIN)))

    def frame(
        self,
        expression: Float[Tensor, "29"],
        pose: Float[Tensor, "6"],
        gaze: tuple[float, float] = (0.0, 0.0),
        grain: int = 0,
    ) -> UInt8[np.ndarray, "H W 3"]:
        """One frame.

        Args:
            expression: coefficients.
            pose: rotation vector (rad), translation (px, pixel centres at integers), log scale (px per model unit).
            gaze: where the eyes look in the world, (yaw, pitch) in rad from the camera.
            grain: which of the patterns of sensor noise lies over the frame.
        """
        offset = (self._expressions @ expression).reshape(-1, 3).numpy()
        vertices = self._neutral + offset
        rotation = _rotation(pose[:3])
        self._turn_eyes(vertices, rotation, gaze)
        turned = vertices @ rotation.T
        normals = vertex_normals(turned, self._triangles)
        hair, hair_normals = self._grown(turned, normals)
        body_pose = self._home + _BODY_SWAY * (pose - self._home)
        body_rotation = _rotation(body_pose[:3])
        scale = float(pose[5].exp())
        points = np.concatenate([turned, hair, self._body @ body_rotation.T])
        heads = len(turned) + len(hair)
        points *= scale
        points[:heads, :2] += pose[3:5].numpy()
        points[heads:, :2] += body_pose[3:5].numpy()
        colours = self._shade(np.concatenate([normals, hair_normals, self._body_normals @ body_rotation.T]))
        upper, lower = vertices[self._lip_line]
        gap = float(np.linalg.norm(lower - upper))
        colours[self._inside] *= _DIM + (1 - _DIM) * min(gap / _LIT_GAP, 1.0)  # lips ajar let little light in
        return self._draw(points, colours, grain)

    def _grown(self, vertices: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hair over the head as it is now: vertices and normals (N, 3)."""
        hair = self._hair
        weights = hair.weights[..., None]
        roots = (vertices[hair.anchors] * weights).sum(axis=1)
        direction = (normals[hair.anchors] * weights).sum(axis=1)
        strands = roots + hair.offsets[:, None] * direction
        return strands, vertex_normals(strands, hair.triangles)

    def _shade(self, normals: np.ndarray) -> np.ndarray:
        look = self._look
        light, tint = look.light.astype(np.float32), look.tint.astype(np.float32)
        return shade(normals, self._albedo, self._gloss, light, tint, look.ambient, look.diffuse)

    def _draw(self, points: np.ndarray, colours: np.ndarray, grain: int) -> np.ndarray:
        height, width = self._wall.shape[:2]
        (x0, x1), (y0, y1) = (
            (int(np.clip(np.floor(p.min()), 0, side)), int(np.clip(np.ceil(p.max()) + 1, 0, side)))
            for p, side in ((points[:, 0], width), (points[:, 1], height))
        )
        scale = self._scale
        points[:, :2] = (points[:, :2] + 0.5) * scale - 0.5
        # Only what the person covers is drawn finely and cleared again.
        window = np.s_[y0 * scale : y1 * scale, x0 * scale : x1 * scale]
        self._canvas[window] = self._fine_wall[window]
        self._depth[window] = np.inf
        rasterise(points, self._faces, self._two_sided, colours, self._canvas, self._depth)
        noise = self._noise[grain % 64 :, grain // 64 :]
        return resolve(self._canvas, self._wall, noise, scale, (x0, y0, x1, y1))

    def _turn_eyes(self, vertices: np.ndarray, rotation: np.ndarray, gaze: tuple[float, float]) -> None:
        """Turn the eyeballs in place, so that they look at `gaze` whatever the head does."""
        yaw, pitch = gaze
        direction = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), -np.cos(yaw) * np.cos(pitch)], np.float32)
        x, y, z = rotation.T @ direction  # in the head's frame
        yaw, pitch = np.clip(np.arctan2(x, -z), -0.5, 0.5), np.clip(np.arcsin(np.clip(y, -1, 1)), -0.35, 0.35)
        turn = _rotation([pitch, 0, 0]) @ _rotation([0, -yaw, 0])
        for rows in self._eyes:
            ball = vertices[rows]
            centre = np.einsum("rsc,r->c", ball[-len(_RIM) * EYE_SEGMENTS :].reshape(len(_RIM), EYE_SEGMENTS, 3), _RIM)
            vertices[rows] = (ball - centre) @ turn.T + centre


def _rotation(vector: ArrayLike) -> Float[np.ndarray, "3 3"]:
    """Rotation matrix of a rotation vector; faster for a single one than `model_zoo.functional.camera`."""
    return Rotation.from_rotvec(np.asarray(vector, np.float64)).as_matrix().astype(np.float32)
