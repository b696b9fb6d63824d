"""The pictures of a video file with their times: upright, in square pixels, of one size, whatever the file is like.

What is damaged is left out rather than shown: after it, frames come again from the next key frame on, because those in
between are predicted from it. Which frames are missing shows in the times.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from datamodules.prepare.media import Clock, ClockJump, DecodeError, choose_video, decoded, open_media, rate_of

MAX_SIDE = 1920  # px; larger frames are reduced while they are decoded: a crop has 256 px
SHORTEST_REMNANT = 1.0  # s of a damaged file that are worth having
_USUAL_PERIOD = 1 / 25  # s, where the file does not say
# Pixels are taken for square within 5%: some files carry the ratios of analogue television by mistake. Ratios beyond 4
# are nonsense.
_SQUARE, _NONSENSE = 1.05, 4.0

Frame = UInt8[np.ndarray, "H W 3"]


def timed_frames(
    source: Path, notes: list[str] | None = None, max_side: int = MAX_SIDE
) -> Iterator[tuple[float, Frame]]:
    """Presentation time (s) and RGB frame, C-contiguous, of all frames that are not damaged.

    Args:
        source: video file.
        notes: takes a line for each thing that is missing.
        max_side: longer frames are reduced to it, px.

    Raises:
        DecodeError: the file is not readable video, or damaged with less than a second left.
    """
    notes = [] if notes is None else notes
    with open_media(source, "video") as container:
        stream = choose_video(container)
        size = first = matrix = rotation = None
        time, count, known = 0.0, 0, len(notes)
        reformatter = VideoReformatter()
        for time, frame in _intact(container, stream, notes):
            first = time if first is None else first
            size = size or fitting_size(frame.width, frame.height, _aspect(stream), max_side)
            if frame.rotation != rotation:  # looked at seldom: it ties the frame into a cycle, which holds its memory
                matrix, rotation = _display_matrix(frame), frame.rotation
            # One thread: starting more for each frame takes longer than the conversion.
            picture = reformatter.reformat(frame, *size, format="rgb24", threads=1)
            # Not contiguous where the width is no multiple of 32, and dlib then reads garbage.
            yield time, upright(np.ascontiguousarray(picture.to_ndarray()), matrix)
            count += 1
        if first is None:
            raise DecodeError("not readable as video (no picture can be decoded)")
        missing = _declared(stream) - (time - first)
        if missing > SHORTEST_REMNANT:
            notes.append(f"cut off: {time - first:.1f} of {_declared(stream):.1f} s can be decoded")
        if len(notes) > known and time - first < SHORTEST_REMNANT:
            raise DecodeError(f"damaged or cut off at frame {count}")


def first_time(source: Path) -> float:
    """Presentation time of the first frame that is not damaged, s; decodes no more than up to it.

    Raises:
        DecodeError: the file is not readable video.
    """
    with open_media(source, "video") as container:
        for time, _ in _intact(container, choose_video(container), []):
            return time
    raise DecodeError("not readable as video (no picture can be decoded)")


def stored_size(source: Path) -> tuple[int, int]:
    """Width and height of the first frame that is not damaged, upright but neither stretched nor reduced, px.

    Raises:
        DecodeError: the file is not readable video.
    """
    with open_media(source, "video") as container:
        for _, frame in _intact(container, choose_video(container), []):
            matrix = _display_matrix(frame)
            lies = matrix is not None and _lies(matrix)
            return (frame.height, frame.width) if lies else (frame.width, frame.height)
    raise DecodeError("not readable as video (no picture can be decoded)")


def fitting_size(width: int, height: int, aspect: float, max_side: int) -> tuple[int, int]:
    """Width and height in square pixels with the longer side at most `max_side`, px.

    Args:
        width, height: as stored.
        aspect: width of a pixel over its height; the shorter side of the pixel is the one that is stretched.
        max_side: px.
    """
    wide, high = width * max(aspect, 1.0), height / min(aspect, 1.0)
    scale = min(1.0, max_side / max(wide, high))
    return max(1, round(wide * scale)), max(1, round(high * scale))


def upright(image: Frame, matrix: tuple[int, int, int, int] | None) -> Frame:
    """The image as it is to be shown.

    Args:
        image: as stored.
        matrix: (a, b, c, d) of ISO 14496-12's display matrix: (x, y) is shown at (ax + cy, bx + dy) up to a shift.
            Turned to the nearest quarter; None for nothing to do.
    """
    if matrix is None:
        return image
    a, b, c, d = matrix
    if _lies(matrix):
        image, a, d = cv2.transpose(image), c, b
    if a < 0 or d < 0:
        image = cv2.flip(image, -1 if a < 0 and d < 0 else int(a < 0))
    return image


def _lies(matrix: tuple[int, int, int, int]) -> bool:
    """Whether the picture is stored on its side."""
    a, b, c, d = matrix
    return abs(a) + abs(d) < abs(b) + abs(c)


def _intact(
    container: InputContainer, stream: av.VideoStream, notes: list[str]
) -> Iterator[tuple[float, av.VideoFrame]]:
    clock = Clock(1 / (rate_of(stream) or 1 / _USUAL_PERIOD))
    deinterlacer, intact, lost = None, True, 0
    try:
        for frame in decoded(container, stream):
            if frame is None or frame.is_corrupt:
                intact, lost = False, lost + 1
                continue
            if not intact and not frame.key_frame:
                lost += 1
                clock(frame.time)
                continue
            intact = True
            if frame.interlaced_frame and deinterlacer is None:
                deinterlacer = _deinterlacer(stream)
            for shown in [frame] if deinterlacer is None else _through(deinterlacer, frame):
                yield clock(shown.time), shown
        for shown in _through(deinterlacer, None) if deinterlacer is not None else []:
            yield clock(shown.time), shown
    except ClockJump as jump:
        notes.append(str(jump))
    if lost:
        notes.append(f"{lost} damaged frames left out")


def _deinterlacer(stream: av.VideoStream) -> av.filter.Graph:
    """Frame for frame; those that are not marked as interlaced pass unchanged."""
    graph = av.filter.Graph()
    graph.threads = 1
    graph.link_nodes(graph.add_buffer(template=stream), graph.add("yadif", "deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _through(graph: av.filter.Graph, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
    graph.push(frame)
    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return


def _aspect(stream: av.VideoStream) -> float:
    aspect = float(stream.sample_aspect_ratio or 1)
    away = max(aspect, 1 / aspect) if aspect > 0 else _NONSENSE
    return aspect if _SQUARE < away < _NONSENSE else 1.0


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    if not frame.rotation and not len(frame.side_data):
        return None
    for data in frame.side_data:
        if data.type == av.sidedata.sidedata.Type.DISPLAYMATRIX:
            a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
            return a, b, c, d
    return None


def _declared(stream: av.VideoStream) -> float:
    """Length that the file claims, s; 0 if it makes no claim."""
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
