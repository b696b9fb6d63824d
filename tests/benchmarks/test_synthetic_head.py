"""A frame of a synthetic person against OpenCV painting the same triangles from back to front."""

import cv2
import numpy as np
import torch

from datamodules.synthetic.appearance import draw_look
from datamodules.synthetic.head import HeadRenderer
from datamodules.synthetic.raw_video import write_mpeg1
from model_zoo.face.procedural import procedural_head

from .ratio import compare

HOME = torch.tensor([0.03, 0.1, 0.0, 180.0, 132.0, np.log(66)], dtype=torch.float32)
FRAMES = 10


def test_frame_with_encoding(benchmark, tmp_path):
    head = procedural_head()
    renderer = HeadRenderer(head, draw_look(np.random.default_rng(0)), torch.zeros(199), 360, 288, HOME)
    expression, pose = torch.zeros(FRAMES, 29), HOME.repeat(FRAMES, 1)
    triangles = head.face.triangles.numpy()

    def painter() -> None:
        vertices = head.face.vertices(torch.zeros(199), torch.zeros(29)).numpy()
        points = vertices[:, :2] * 132 + (360, 264)  # at twice the size, as the z-buffer draws
        for _ in range(FRAMES):
            canvas = np.zeros((576, 720, 3), np.uint8)
            for triangle in triangles[np.argsort(-vertices[triangles, 2].mean(axis=1))]:
                cv2.fillConvexPoly(canvas, points[triangle].astype(np.int32), (200, 150, 120))

    def ours() -> None:
        frames = renderer.frames(expression, pose, np.zeros((FRAMES, 2)), np.random.default_rng(0))
        write_mpeg1(tmp_path / "clip.mpg", frames, np.zeros(FRAMES * 1764, np.float32), 360, 288)

    assert compare(benchmark, ours, painter) > 2
