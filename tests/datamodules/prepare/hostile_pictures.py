"""Hostile pictures: codecs, times and geometry."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from datamodules.prepare.sources import SourceClip
from tests.datamodules.prepare.hostile import (
    CODECS,
    SHAPE,
    TIME,
    at_rate,
    at_times,
    case,
    prepared,
    shot,
    source,
    spoilt,
    wav,
)
from tests.datamodules.prepare.recording import LENGTH, Picture, Track, performance, record, sampled, speech

_QUICK_VP = {"deadline": "realtime", "cpu-used": "8"}

prepared(CODECS, "H.264 with AAC in mp4", "a.mp4", shot)
prepared(
    CODECS,
    "HEVC, 10 bits a channel, in mp4",
    "a.mp4",
    lambda: shot(
        codec="libx265", pix_fmt="yuv420p10le", options={"preset": "ultrafast", "x265-params": "log-level=none"}
    ),
)
prepared(
    CODECS,
    "MPEG-1 with mp2 in a program stream, as GRID",
    "a.mpg",
    lambda: shot(codec="mpeg1video", options={"b": "2000000"}),
    Track(codec="mp2"),
    how={"form": "mpeg"},
)
prepared(
    CODECS,
    "MPEG-2 with AC-3 in 5.1 in a transport stream",
    "a.ts",
    lambda: shot(codec="mpeg2video", options={"b": "2000000"}),
    Track(codec="ac3", layout="5.1"),
)
prepared(
    CODECS,
    "MPEG-4 part 2 with mp3 in avi",
    "a.avi",
    lambda: shot(codec="mpeg4", options={"b": "2000000"}),
    Track(codec="libmp3lame"),
    margin=1,  # avi writes an empty picture first
)
prepared(
    CODECS,
    "VP8 with Opus in webm",
    "a.webm",
    lambda: shot(codec="libvpx", options={**_QUICK_VP, "b": "1500000"}),
    Track(codec="libopus"),
)
prepared(
    CODECS,
    "VP9 with Opus in webm",
    "a.webm",
    lambda: shot(codec="libvpx-vp9", options={**_QUICK_VP, "b": "1500000"}),
    Track(codec="libopus"),
)
prepared(
    CODECS,
    "AV1 with FLAC in Matroska",
    "a.mkv",
    lambda: shot(codec="libsvtav1", options={"preset": "12", "crf": "25"}),
    Track(codec="flac"),
)
prepared(
    CODECS,
    "Motion JPEG, full range, in mov",
    "a.mov",
    lambda: shot(codec="mjpeg", pix_fmt="yuvj422p", options={"qmin": "2", "qmax": "3"}),
    Track(codec="pcm_s16le"),
)
prepared(
    CODECS,
    "ProRes 4444, 10 bits, in mov",
    "a.mov",
    lambda: shot(codec="prores_ks", pix_fmt="yuv444p10le", options={"profile": "4444"}),
)
prepared(
    CODECS,
    "FFV1, gray, in Matroska",
    "a.mkv",
    lambda: shot(codec="ffv1", pix_fmt="gray", options={}),
    Track(codec="flac"),
)
prepared(
    CODECS,
    "PNG pictures with an alpha channel in mov",
    "a.mov",
    lambda: shot(codec="png", pix_fmt="rgba", options={}),
    Track(codec="pcm_s24le"),
)


@case(CODECS, "animated GIF, sound in a file beside it", "prepared", LENGTH)
def _gif(folder: Path) -> SourceClip:
    video = record(folder / "a.gif", shot(codec="gif", pix_fmt="rgb8", options={}), ())
    return source(video, wav(folder / "a.wav", speech()))


# ---- time ------------------------------------------------------------------------------------------------------------

for _rate in (Fraction(24_000, 1001), Fraction(30_000, 1001), Fraction(60), Fraction(12)):
    prepared(
        TIME,
        f"{float(_rate):.4g} frames a second",
        "a.mp4",
        lambda rate=_rate: at_rate(rate),
        margin=1,
        outcome="prepared at 25: each frame the nearest in time",
    )
_STEPS = np.random.default_rng(4).choice([0.012, 0.030, 0.045, 0.070], 60)
_UNEVEN = [0.0, *(time for time in np.cumsum(_STEPS).tolist() if time < 1.27)]
prepared(
    TIME,
    "variable frame rate, 14 to 83 frames a second",
    "a.mkv",
    lambda: at_times(_UNEVEN),
    margin=2,
    frames=(32,),
    outcome="prepared at 25: each frame the nearest in time, the sound in step",
)
prepared(
    TIME,
    "picture begins 0.4 s after the sound",
    "a.mkv",
    lambda: shot(start=0.4),
    Track(start=0.4 - 0.2, sound=speech()),
    quiet=True,
    outcome="prepared: the sound is cut to the picture's first frame",
)
prepared(
    TIME,
    "sound begins 0.3 s after the picture",
    "a.mkv",
    shot,
    Track(start=0.3),
    quiet=True,
    outcome="prepared: silence until it begins",
)
prepared(TIME, "clock begins at 1000 s", "a.mkv", lambda: shot(start=1000.0), Track(start=1000.0))
prepared(
    TIME,
    "0.3 s of picture missing, sound whole",
    "a.mkv",
    lambda: at_times([t / 25 for t in range(LENGTH) if not 10 <= t < 17]),
    outcome="prepared: the neighbours bridge the gap, the sound stays in step",
)


def _gap(seconds: float) -> Picture:
    times = [t / 25 for t in range(LENGTH)]
    return shot(performance() * 2, times=times + [t + LENGTH / 25 + seconds for t in times])


prepared(
    TIME,
    "2 s of picture missing, sound whole",
    "a.mkv",
    lambda: _gap(2.0),
    Track(sound=speech(4.56)),
    frames=(32, 32),
    outcome="two clips: the gap is black, and no clip goes across",
    quiet=True,
)
prepared(
    TIME,
    "last frame a minute after the others",
    "a.mkv",
    lambda: at_times([*(t / 25 for t in range(LENGTH)), 61.0]),
    outcome="prepared without it",
)


@case(
    TIME,
    "two recordings one after the other in a file, the clock starting anew",
    "the first is prepared, the second left out and noted",
    LENGTH,
    says="the clock jumps",
    margin=1,
)
def _concatenated(folder: Path) -> Path:
    track, settings = Track(codec="mp2"), {"codec": "mpeg1video", "options": {"b": "2000000"}}
    first = record(folder / "1.mpg", shot(start=100.0, **settings), Track(codec="mp2", start=100.0), form="mpeg")
    second = record(folder / "2.mpg", shot(**settings), track, form="mpeg")
    return spoilt(first, lambda data: data + second.read_bytes())


@case(TIME, "raw H.264 stream without any times, named .mp4, sound in a file beside it", "prepared", LENGTH)
def _raw(folder: Path) -> SourceClip:
    video = record(folder / "a.mp4", shot(options={"preset": "ultrafast", "tune": "zerolatency"}), (), form="h264")
    return source(video, wav(folder / "a.wav", speech()))


# ---- geometry --------------------------------------------------------------------------------------------------------

for _degrees in (90, 180, 270):
    prepared(
        SHAPE,
        f"turned by {_degrees}° by metadata, as telephones do",
        "a.mp4",
        lambda turn=_degrees // 90: shot(
            [np.ascontiguousarray(np.rot90(f, -turn)) for f in performance()], rotation=(90 * turn, False, False)
        ),
        outcome="prepared upright",
    )
prepared(
    SHAPE,
    "mirrored by metadata",
    "a.mp4",
    lambda: shot([np.ascontiguousarray(f[:, ::-1]) for f in performance()], rotation=(0, True, False)),
    outcome="prepared as it is to be shown",
)
prepared(
    SHAPE,
    "odd width and height, 359×287",
    "a.mp4",
    lambda: shot([np.ascontiguousarray(f[:287, :359]) for f in performance()], pix_fmt="yuv444p"),
)
prepared(
    SHAPE,
    "pixels 1.42 times as wide as high (16:9 on a PAL disc)",
    "a.mp4",
    lambda: shot(
        [cv2.resize(f, (254, 288), interpolation=cv2.INTER_AREA) for f in performance()], aspect=Fraction(64, 45)
    ),
    outcome="prepared in square pixels",
)


def _interlaced() -> Picture:
    fields = sampled(performance(), [t / 50 for t in range(2 * LENGTH)])
    frames = [first.copy() for first in fields[::2]]
    for frame, second in zip(frames, fields[1::2], strict=True):
        frame[1::2] = second[1::2]
    return shot(frames, options={"preset": "ultrafast", "x264-params": "tff=1"})


prepared(SHAPE, "interlaced", "a.mp4", _interlaced, outcome="prepared, de-interlaced")
prepared(
    SHAPE,
    "4K",
    "a.mp4",
    lambda: shot([cv2.resize(f, (3840, 3072)) for f in performance()]),
    outcome="prepared, reduced to 1920 px on decoding",
)


@case(SHAPE, "size changes in the middle, as live streams do", "prepared in the first size", LENGTH)
def _two_sizes(folder: Path) -> SourceClip:
    half, options = LENGTH // 2, {"preset": "ultrafast", "tune": "zerolatency"}
    video = record(folder / "a.mp4", shot(performance()[:half], options=options), (), form="h264")
    small = [cv2.resize(f, (240, 192), interpolation=cv2.INTER_AREA) for f in performance()[half:]]
    second = record(folder / "b.mp4", shot(small, options=options), (), form="h264").read_bytes()
    return source(spoilt(video, lambda data: data + second), wav(folder / "a.wav", speech()))


@case(SHAPE, "32×24 pixels", "skipped: no face found", says="face")
def _tiny(folder: Path) -> Path:
    return record(folder / "a.mp4", shot([cv2.resize(f, (32, 24)) for f in performance()]))


@case(SHAPE, "two video streams, the smaller one first", "prepared from the larger one", LENGTH)
def _two_streams(folder: Path) -> Path:
    small = [cv2.resize(f, (90, 72)) for f in performance()]
    return record(folder / "a.mkv", [shot(small, default=False), shot()])
