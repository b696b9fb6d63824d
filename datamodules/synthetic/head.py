"""Video frames of a synthetic person: the built-in head, shaded and rasterised from the vertices that the truth projects.

What is drawn at pixel (x, y) is exactly `face.project` of the same shape, expression and pose: landmarks and pixels agree
by construction. Lips hide teeth and tongue through the z-buffer alone.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from datamodules.synthetic.appearance import Look, albedo, background, hair_shell, torso
from datamodules.synthetic.rasteriser import rasterise, resolve, shade, vertex_normals
from model_zoo.face.head_parts import Region
from model_zoo.face.procedural import ProceduralHead
from model_zoo.functional.camera import rotation_matrix

_SUPERSAMPLING = 2  # edges are drawn at twice the size and averaged
_NOISE = 1.3  # grey levels of sensor noise, standard deviation
_BODY_SWAY = 0.25  # share of the head's motion that the shoulders make
_INSIDE = np.array([0.10, 0.03, 0.03], np.float32)  # seen where a surface is looked at from behind
_GLOSS = {
    Region.LIP: 0.16,
    Region.EYE_WHITE: 0.25,
    Region.IRIS: 0.2,
    Region.TEETH: 0.22,
    Region.TONGUE: 0.15,
    Region.SKIN: 0.07,
}


class HeadRenderer:
    """Draws one person with one head shape.

    Args:
        head: the built-in head.
        look: what the person looks like.
        shape: shape coefficients.
        width, height: of the frames, px.
        home: mean pose of the head, (6,); the shoulders stay near it.
        seed: of the sensor noise.
    """

    def __init__(
        self,
        head: ProceduralHead,
        look: Look,
        shape: Float[Tensor, "199"],
        width: int,
        height: int,
        home: Float[Tensor, "6"],
        seed: int = 0,
    ) -> None:
        face = head.face
        self._neutral = face.vertices(shape, torch.zeros(29)).numpy()
        self._expressions = (face.expression_basis * face.expression_std).flatten(0, 1).contiguous()  # (3V, 29)
        self._look, self._home, self._size = look, home, (width, height)
        region = head.region.numpy()
        self._eyes = [head.parts[f"eye_{side}"].numpy() for side in ("left", "right")]
        self._hair_rows, hair_triangles, offsets, hair_colours = hair_shell(head, look)
        self._hair_offsets = offsets.astype(np.float32)[:, None]
        self._triangles = face.triangles.numpy()
        body, body_triangles, body_colours = torso(look)
        self._body = body.astype(np.float32)
        first_body = len(region) + len(self._hair_rows)
        self._faces = np.concatenate([self._triangles, hair_triangles + len(region), body_triangles + first_body])
        self._albedo = np.concatenate([albedo(head, look), hair_colours, body_colours]).astype(np.float32)
        gloss = np.array([_GLOSS.get(Region(k), 0.0) for k in range(len(Region))])[region]
        self._gloss = np.concatenate([gloss, np.full(len(self._hair_rows), 0.10), np.zeros(len(body))]).astype(
            np.float32
        )
        self._body_normals = vertex_normals(self._body, body_triangles)
        scale = _SUPERSAMPLING
        self._wall = background(look, width * scale, height * scale)
        self._canvas = np.empty_like(self._wall)
        self._depth = np.empty(self._wall.shape[:2], np.float32)
        self._rng = np.random.default_rng(seed)
        self._noise = self._rng.normal(0, _NOISE, (height + 64, width + 64)).astype(np.float32)

    def frame(
        self, expression: Float[Tensor, "29"], pose: Float[Tensor, "6"], gaze: tuple[float, float] = (0.0, 0.0)
    ) -> UInt8[np.ndarray, "H W 3"]:
        """One frame.

        Args:
            expression: coefficients.
            pose: rotation vector (rad), translation (px, pixel centres at integers), log scale (px per model unit).
            gaze: where the eyes look in the world, (yaw, pitch) in rad from the camera.
        """
        offset = (self._expressions @ expression).reshape(-1, 3).numpy()
        vertices = self._neutral + offset
        rotation = rotation_matrix(pose[:3]).numpy()
        self._turn_eyes(vertices, rotation, gaze)
        turned = vertices @ rotation.T
        normals = vertex_normals(turned, self._triangles)
        rows = self._hair_rows
        hair = turned[rows] + self._hair_offsets * normals[rows]
        body_pose = self._home + _BODY_SWAY * (pose - self._home)
        body_rotation = rotation_matrix(body_pose[:3]).numpy()
        scale = float(pose[5].exp())
        points = np.concatenate([turned, hair, self._body @ body_rotation.T])
        heads = len(turned) + len(hair)
        points *= scale
        points[:heads, :2] += pose[3:5].numpy()
        points[heads:, :2] += body_pose[3:5].numpy()
        points[:, :2] = (points[:, :2] + 0.5) * _SUPERSAMPLING - 0.5
        look = self._look
        colours = shade(
            np.concatenate([normals, normals[rows], self._body_normals @ body_rotation.T]), self._albedo, self._gloss,
            look.light.astype(np.float32), look.tint.astype(np.float32), look.ambient, look.diffuse,
        )  # fmt: skip
        self._canvas[:] = self._wall
        self._depth.fill(np.inf)
        rasterise(points, self._faces, colours, _INSIDE, self._canvas, self._depth)
        corner = self._rng.integers(0, 64, 2)
        return resolve(self._canvas, self._noise[corner[0] :, corner[1] :], _SUPERSAMPLING)

    def _turn_eyes(self, vertices: np.ndarray, rotation: np.ndarray, gaze: tuple[float, float]) -> None:
        """Turn the eyeballs in place, so that they look at `gaze` whatever the head does."""
        yaw, pitch = gaze
        direction = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), -np.cos(yaw) * np.cos(pitch)], np.float32)
        x, y, z = rotation.T @ direction  # in the head's frame
        yaw, pitch = np.clip(np.arctan2(x, -z), -0.5, 0.5), np.clip(np.arcsin(np.clip(y, -1, 1)), -0.35, 0.35)
        turn = rotation_matrix(torch.tensor([pitch, 0.0, 0.0])) @ rotation_matrix(torch.tensor([0.0, -yaw, 0.0]))
        for rows in self._eyes:
            ball = vertices[rows]
            centre = ball.mean(axis=0)
            vertices[rows] = (ball - centre) @ turn.numpy().astype(np.float32) + centre
