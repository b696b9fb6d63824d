"""Sound, words, lip opening and expression of a clip as lanes that scroll below a fixed time cursor.

Shape legend: T frames, N samples, E expression.
"""

from __future__ import annotations

import cv2
import numpy as np

from experiments.fitted_clip import FittedClip
from experiments.overlay import Canvas, Colour, draw_line, letter
from model_zoo.face.morphable import MorphableFace

HEIGHT = 340  # px
FRAME_RATE = 25  # frames a second
_GUTTER = 190  # px, left of the lanes: names and values
_PER_FRAME = 10  # px that a frame takes along the time axis
_SHOWN = 5  # expression modes drawn in colour, the others in grey
_INNER_LIPS = (62, 66)  # iBUG, the middle of each

_BACKGROUND: Colour = (24, 26, 30)
_LANE: Colour = (33, 36, 41)
_UNSEEN: Colour = (58, 40, 40)  # behind frames without a face
_GRID: Colour = (52, 56, 62)
_GREY: Colour = (84, 90, 98)
_TEXT: Colour = (205, 210, 216)
_CURSOR: Colour = (245, 245, 245)
_SOUND: Colour = (120, 160, 190)
_LIPS: Colour = (255, 120, 130)
_MODES: tuple[Colour, ...] = ((255, 196, 60), (90, 220, 255), (150, 230, 120), (214, 150, 255), (255, 150, 90))

# Top and bottom of the lanes, px.
_SOUND_LANE, _LIP_LANE, _EXPRESSION_LANE = (8, 72), (80, 154), (162, 316)


class CurveStrip:
    """Draws the lanes of a clip for any frame.

    Args:
        clip: what is shown.
        face: the model of its coefficients.
        width: px.
    """

    def __init__(self, clip: FittedClip, face: MorphableFace, width: int) -> None:
        self._clip, self._width = clip, width
        self._expression = clip.expression.numpy()
        lips = face.landmarks(clip.shape, clip.expression)[:, list(_INNER_LIPS)]
        self.lip_opening = (lips[:, 1] - lips[:, 0]).norm(dim=-1).numpy()  # (T,) outer-eye distances
        # What moves the mouth in this clip, the strongest first.
        moving = self._expression.std(axis=0) * face.mouth_expression_energy().numpy()
        active = np.flatnonzero(face.expression_std.numpy() > 0)
        self._modes = active[np.argsort(-moving[active], kind="stable")]
        self._range = max(2.0, float(np.abs(self._expression).max()) * 1.08)
        self._lip_top = max(0.1, float(self.lip_opening.max()) * 1.12)
        self._levels = None if clip.sound is None else _levels(clip.sound, clip.num_frames)

    def draw(self, frame: int) -> Canvas:
        """The strip with `frame` at the cursor, (HEIGHT, width, 3)."""
        canvas = np.full((HEIGHT, self._width, 3), _BACKGROUND, np.uint8)
        lanes = canvas[:, _GUTTER:]
        middle = lanes.shape[1] // 2
        shown = np.arange(self._clip.num_frames)
        shown = shown[np.abs(shown - frame) * _PER_FRAME <= middle + 2 * _PER_FRAME]
        x = middle + (shown - frame) * _PER_FRAME
        self._draw_ground(lanes, shown, x, middle, frame)
        self._draw_sound(lanes, shown, x)
        self._draw_words(lanes, middle, frame)
        draw_line(lanes, _curve(x, self.lip_opening[shown], _LIP_LANE, 0, self._lip_top), _LIPS, 2)
        for mode in self._modes[::-1]:
            rank = int(np.flatnonzero(self._modes == mode)[0])
            points = _curve(x, self._expression[shown, mode], _EXPRESSION_LANE, -self._range, self._range)
            colour, thickness = (_MODES[rank], 2) if rank < _SHOWN else (_GREY, 1)
            draw_line(lanes, points, colour, thickness)
        cv2.line(lanes, (middle, 4), (middle, _EXPRESSION_LANE[1] + 4), _CURSOR, 1)
        self._draw_gutter(canvas, frame)
        return canvas

    def _draw_ground(self, lanes: Canvas, shown: np.ndarray, x: np.ndarray, middle: int, frame: int) -> None:
        start, end = max(0, int(x[0])), int(x[-1]) + _PER_FRAME  # a frame lasts until the next
        unseen = shown[~self._clip.valid.numpy()[shown]]
        for top, bottom in (_SOUND_LANE, _LIP_LANE, _EXPRESSION_LANE):
            lanes[top:bottom, start:end] = _LANE
            for left in middle + (unseen - frame) * _PER_FRAME:
                lanes[top:bottom, max(0, left) : max(0, left + _PER_FRAME)] = _UNSEEN
            seconds = middle + (shown[shown % FRAME_RATE == 0] - frame) * _PER_FRAME
            lanes[top:bottom, seconds[(seconds >= 0) & (seconds < lanes.shape[1])]] = _GRID
        zero = (_EXPRESSION_LANE[0] + _EXPRESSION_LANE[1]) // 2
        lanes[zero, start:end] = _GRID
        for tick in shown[shown % FRAME_RATE == 0]:
            at = middle + (tick - frame) * _PER_FRAME
            letter(lanes, f"{tick // FRAME_RATE} s", (at, HEIGHT - 7), 12, _TEXT, "ms")

    def _draw_sound(self, lanes: Canvas, shown: np.ndarray, x: np.ndarray) -> None:
        if self._levels is None:
            return
        middle, reach = (_SOUND_LANE[1] + 8) // 2 + 10, 20
        levels = self._levels[shown].ravel()
        columns = (x[:, None] + np.arange(_PER_FRAME)).ravel()  # a frame's sound is heard until the next frame
        for at, level in zip(columns.tolist(), levels.tolist(), strict=True):
            if 0 <= at < lanes.shape[1]:
                lanes[int(middle - reach * level) : int(middle + reach * level) + 1, at] = _SOUND

    def _draw_words(self, lanes: Canvas, middle: int, frame: int) -> None:
        for word in self._clip.words:
            if word.text in ("sil", "sp"):
                continue
            start, end = (middle + (time * FRAME_RATE - frame) * _PER_FRAME for time in (word.start, word.end))
            if end < 0 or start > lanes.shape[1]:
                continue
            spoken = word.start * FRAME_RATE <= frame < word.end * FRAME_RATE
            letter(lanes, word.text, ((start + end) / 2, _SOUND_LANE[0] + 15), 13, _CURSOR if spoken else _TEXT, "ms")
            for edge in (start, end):
                if 0 <= edge < lanes.shape[1]:
                    lanes[_SOUND_LANE[0] : _SOUND_LANE[0] + 5, int(edge)] = _GREY

    def _draw_gutter(self, canvas: Canvas, frame: int) -> None:
        right = _GUTTER - 14
        letter(canvas, "sound", (14, 46), 13, _TEXT)
        if self._levels is None:
            letter(canvas, "none", (right, 46), 13, _GREY, "rs")
        letter(canvas, "lip opening", (14, 112), 13, _LIPS)
        letter(canvas, f"{self.lip_opening[frame]:.2f}", (right, 112), 13, _LIPS, "rs")
        letter(canvas, "outer-eye distances", (14, 130), 10, _GREY)
        letter(canvas, "expression", (14, 178), 13, _TEXT)
        letter(canvas, "std", (right, 178), 11, _GREY, "rs")
        for rank, mode in enumerate(self._modes[:_SHOWN]):
            y = 202 + 22 * rank
            letter(canvas, f"mode {mode + 1}", (14, y), 13, _MODES[rank])
            value = f"{self._expression[frame, mode]:+.1f}".replace("-", "−")
            letter(canvas, value, (right, y), 13, _MODES[rank], "rs")
        others = len(self._modes) - _SHOWN
        if others > 0:
            letter(canvas, f"{others} more", (14, 202 + 22 * _SHOWN), 11, _GREY)


def _curve(x: np.ndarray, values: np.ndarray, lane: tuple[int, int], low: float, high: float) -> np.ndarray:
    """Points (n, 2) of a curve in its lane; 2 px are kept free above and below."""
    top, bottom = lane[0] + 2, lane[1] - 3
    return np.stack([x.astype(np.float64), bottom - (values - low) / (high - low) * (bottom - top)], axis=1)


def _levels(sound: np.ndarray, num_frames: int) -> np.ndarray:
    """(T, px a frame) loudest sample of each pixel's stretch, relative to the clip's loudest."""
    peaks = np.abs(sound).reshape(num_frames, _PER_FRAME, -1).max(axis=2)
    return peaks / max(float(peaks.max()), 1e-4)
