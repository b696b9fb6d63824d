"""Recordings of a built-in person in any container, codec, rate, geometry and timing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import torch

from datamodules.synthetic.head import HeadRenderer
from datamodules.synthetic.performance import draw_speaker
from model_zoo.face.procedural import procedural_head

WIDTH, HEIGHT = 360, 288
LENGTH = 32  # frames at 25 a second
SOUND_RATE = 48_000
_BLOCK = 960  # samples


@lru_cache
def performance(person: int = 0, frames: int = LENGTH) -> list[np.ndarray]:
    """RGB frames at 25 a second: a head that turns a little and opens its mouth twice a second."""
    head = procedural_head()
    speaker = draw_speaker(3, person, 4)
    home = torch.tensor([0.0, 0.0, 0.0, 178.0, 128.0, np.log(76.0)])
    renderer = HeadRenderer(head, speaker.look, speaker.shape, WIDTH, HEIGHT, home, supersampling=1)
    time = torch.arange(frames) / 25
    expression = head.expression({"jaw_open": 0.3 + 0.25 * torch.sin(4 * torch.pi * time)})
    pose = home.repeat(frames, 1)
    pose[:, 1], pose[:, 3] = 0.12 * torch.sin(3 * time), 178 + 6 * torch.sin(2 * time)
    return list(renderer.frames(expression, pose, np.zeros((frames, 2)), np.random.default_rng(1)))


def speech(seconds: float = LENGTH / 25, rate: int = SOUND_RATE) -> np.ndarray:
    """Bursts of a buzz at uneven times: two of them lie over each other in one way only."""
    time = np.arange(round(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * 160 * k * time) / k for k in range(1, 12))
    loud = sum(np.exp(-(((time - centre) / 0.04) ** 2)) for centre in np.cumsum(0.11 + 0.09 * np.sin(np.arange(30))))
    return (0.15 * buzz * np.clip(loud, 0, 1)).astype(np.float32)


@dataclass(frozen=True)
class Track:
    """A sound track: codec, rate and layout as in FFmpeg, start in s; blocks of 20 ms that are lost."""

    sound: np.ndarray = field(default_factory=speech)
    codec: str = "aac"
    rate: int = SOUND_RATE
    layout: str = "mono"
    start: float = 0.0
    lost: range = range(0)
    default: bool = True


@dataclass(frozen=True)
class Picture:
    """A video track.

    Attributes:
        frames: shown every 1/rate s unless `times` says when. codec, pix_fmt, options: as in FFmpeg.
        start: s. rotation: degrees against the clock, and mirroring, by metadata. aspect: of a pixel.
    """

    frames: Sequence[np.ndarray]
    rate: Fraction = Fraction(25)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=lambda: {"preset": "ultrafast"})
    times: Sequence[float] | None = None
    start: float = 0.0
    rotation: tuple[int, bool, bool] | None = None
    aspect: Fraction | None = None
    default: bool = True


def record(
    path: Path,
    pictures: Sequence[Picture] | Picture = (),
    tracks: Sequence[Track] | Track = (Track(),),
    options: dict[str, str] | None = None,
    form: str | None = None,
    tags: dict[str, str] | None = None,
) -> Path:
    """Write a file; the container follows from the suffix unless `form` names one."""
    pictures = [pictures] if isinstance(pictures, Picture) else list(pictures)
    tracks = [tracks] if isinstance(tracks, Track) else list(tracks)
    with av.open(str(path), "w", format=form, options=options or {}) as container:
        container.metadata.update(tags or {})
        packets = []
        videos = [_video_stream(container, picture) for picture in pictures]
        sounds = [_sound_stream(container, track) for track in tracks]
        container.start_encoding()
        for stream, picture in zip(videos, pictures, strict=True):
            packets += _encode_pictures(stream, picture)
        for stream, track in zip(sounds, tracks, strict=True):
            packets += _encode_sound(stream, track)
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            container.mux(packet)
    return path


def sampled(frames: Sequence[np.ndarray], times: Sequence[float]) -> list[np.ndarray]:
    """What a camera with these times (s) would have seen of frames at 25 a second."""
    return [frames[min(round(25 * time), len(frames) - 1)] for time in times]


def _video_stream(container, picture: Picture):
    stream = container.add_stream(picture.codec, rate=picture.rate, options=picture.options)
    stream.height, stream.width = picture.frames[0].shape[:2]
    stream.pix_fmt = picture.pix_fmt
    stream.codec_context.time_base = 1 / picture.rate if picture.times is None else Fraction(1, 1000)
    stream.codec_context.gop_size = 12
    stream.codec_context.thread_count = 1
    if picture.aspect:
        stream.codec_context.sample_aspect_ratio = picture.aspect
    if picture.rotation:
        stream.set_display_rotation(*picture.rotation)
    stream.disposition = av.stream.Disposition.default if picture.default else av.stream.Disposition(0)
    return stream


def _encode_pictures(stream, picture: Picture) -> list:
    base = stream.codec_context.time_base
    packets = []
    times = picture.times or [index / float(picture.rate) for index in range(len(picture.frames))]
    for image, time in zip(picture.frames, times, strict=True):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = round((time + picture.start) / base), base
        packets += stream.encode(frame)
    return packets + list(stream.encode())


def _sound_stream(container, track: Track):
    stream = container.add_stream(track.codec, rate=track.rate, layout=track.layout)
    stream.disposition = av.stream.Disposition.default if track.default else av.stream.Disposition.comment
    return stream


def _encode_sound(stream, track: Track) -> list:
    packets = []
    ratio = Fraction(track.rate, SOUND_RATE)
    sound = track.sound
    if ratio != 1:
        count = round(len(sound) * float(ratio))
        sound = np.interp(np.arange(count) / float(ratio), np.arange(len(sound)), sound).astype(np.float32)
    channels = stream.codec_context.layout.nb_channels
    for start in range(0, len(sound), _BLOCK):
        block = np.repeat(sound[None, start : start + _BLOCK], channels, axis=0)
        if start // _BLOCK in track.lost:
            continue
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=track.layout)
        frame.sample_rate, frame.time_base = track.rate, Fraction(1, track.rate)
        frame.pts = start + round(track.start * track.rate)
        packets += stream.encode(frame)
    return packets + list(stream.encode())
