"""Hostile sound, files, damage and content."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import av
import cv2
import numpy as np

from datamodules.prepare.sources import SourceClip
from tests.datamodules.prepare.hostile import (
    CONTENT,
    FILES,
    SOUND,
    case,
    garbage,
    prepared,
    shot,
    source,
    spoilt,
    wav,
)  # fmt: skip
from tests.datamodules.prepare.recording import LENGTH, SOUND_RATE, Track, performance, record, speech

_SECONDS = LENGTH / 25
_MPEG1 = {"codec": "mpeg1video", "options": {"b": "2000000"}}

# ---- sound -----------------------------------------------------------------------------------------------------------

prepared(SOUND, "192 kHz, 5.1, 24 bits", "a.mkv", shot, Track(codec="flac", rate=192_000, layout="5.1"))
prepared(
    SOUND,
    "8 kHz, 8 bits, mono",
    "a.avi",
    lambda: shot(codec="mpeg4", options={"b": "2000000"}),
    Track(codec="pcm_u8", rate=8000),
    quiet=True,
    outcome="prepared",
)
prepared(SOUND, "stereo, 11.025 kHz", "a.mkv", shot, Track(codec="pcm_s16le", rate=11_025, layout="stereo"))
prepared(
    SOUND,
    "half as long as the picture",
    "a.mp4",
    shot,
    Track(sound=speech(_SECONDS / 2)),
    quiet=True,
    outcome="prepared: silence after its end",
)
prepared(
    SOUND,
    "twice as long as the picture",
    "a.mp4",
    shot,
    Track(sound=speech(2 * _SECONDS)),
    quiet=True,
    outcome="prepared: cut at the picture's end",
)
prepared(
    SOUND,
    "0.4 s missing in its middle",
    "a.mkv",
    shot,
    Track(codec="pcm_s16le", lost=range(20, 40)),
    quiet=True,
    outcome="prepared: silence there, what follows stays in its place",
)
prepared(
    SOUND,
    "a commentary before the main track",
    "a.mkv",
    shot,
    Track(sound=0 * speech(), codec="flac", default=False),
    Track(codec="flac"),
)


@case(
    SOUND,
    "floating point with values that are no number or infinite",
    "prepared: those samples are silent",
    LENGTH,
    says="no number",
    quiet=True,
)
def _not_a_number(folder: Path) -> SourceClip:
    samples = speech()
    samples[1000:1100], samples[2000], samples[3000] = np.nan, np.inf, -np.inf
    return source(record(folder / "a.mp4", shot(), ()), wav(folder / "a.wav", samples))


@case(SOUND, "floating point a thousand times too loud", "prepared: clipped", LENGTH, quiet=True)
def _too_loud(folder: Path) -> SourceClip:
    return source(record(folder / "a.mp4", shot(), ()), wav(folder / "a.wav", 1e3 * speech()))


@case(SOUND, "digital silence", "prepared; the offset is unknown", LENGTH, quiet=True)
def _silence(folder: Path) -> SourceClip:
    return source(record(folder / "a.mp4", shot(), ()), wav(folder / "a.wav", np.zeros(SOUND_RATE, np.int16)))


@case(SOUND, "none", "skipped: no sound", says="no sound")
def _mute(folder: Path) -> Path:
    return record(folder / "a.mp4", shot(), ())


@case(
    SOUND, "a sound file of no bytes beside the video", "skipped: not readable as sound", says="not readable as sound"
)
def _empty_sound(folder: Path) -> SourceClip:
    (folder / "a.wav").touch()
    return source(record(folder / "a.mp4", shot(), ()), folder / "a.wav")


# ---- files -----------------------------------------------------------------------------------------------------------


@case(FILES, "name with spaces, quotes, percent signs, a colon and Chinese", "prepared", LENGTH)
def _name(folder: Path) -> Path:
    path = folder / 'it\'s "no" %03d file:x 说话 \U0001f600.mp4'
    return Path(shutil.move(record(folder / "a.mp4", shot()), path))


@case(FILES, "name that is not UTF-8", "prepared", LENGTH)
def _bytes_name(folder: Path) -> Path:
    return Path(shutil.move(record(folder / "a.mp4", shot()), folder / os.fsdecode(b"caf\xe9.mp4")))


@case(FILES, "tags that are not UTF-8", "prepared", LENGTH)
def _tags(folder: Path) -> Path:
    path = record(folder / "a.mkv", shot(), tags={"title": "cafeteria"})
    return spoilt(path, lambda data: data.replace(b"cafeteria", b"caf\xe9\xff\xferia"))


@case(FILES, "symbolic link to a video", "prepared", LENGTH)
def _link(folder: Path) -> Path:
    (folder / "link.mp4").symlink_to(record(folder / "a.mp4", shot()))
    return folder / "link.mp4"


@case(FILES, "symbolic link to itself", "skipped: not readable", says="not readable")
def _loop(folder: Path) -> Path:
    (folder / "a.mp4").symlink_to(folder / "a.mp4")
    return folder / "a.mp4"


@case(FILES, "file that has gone since the folder was listed", "skipped: not readable", says="not readable")
def _gone(folder: Path) -> Path:
    return folder / "a.mp4"


@case(FILES, "named pipe", "skipped: not a regular file", says="not a regular file")
def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.mp4")
    return folder / "a.mp4"


@case(FILES, "file of no bytes", "skipped: not readable", says="not readable")
def _nothing(folder: Path) -> Path:
    (folder / "a.mp4").touch()
    return folder / "a.mp4"


@case(FILES, "text named .mp4", "skipped: not readable", says="not readable")
def _text(folder: Path) -> Path:
    (folder / "a.mp4").write_text("this is no video\n" * 500)
    return folder / "a.mp4"


@case(FILES, "random bytes named .mp4", "skipped: not readable", says="not readable")
def _noise(folder: Path) -> Path:
    (folder / "a.mp4").write_bytes(np.random.default_rng(0).bytes(50_000))
    return folder / "a.mp4"


@case(FILES, "playlist named .mp4 that points to another file", "skipped: not readable", says="not readable")
def _playlist(folder: Path) -> Path:
    record(folder / "b.ts", shot(codec="mpeg2video", options={}), Track(codec="mp2"))
    (folder / "a.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.28,\nb.ts\n#EXT-X-ENDLIST\n")
    return folder / "a.mp4"


@case(FILES, "song with a cover picture", "skipped: only a cover picture", says="cover picture")
def _cover(folder: Path) -> Path:
    with av.open(str(folder / "a.mp3"), "w") as container:
        audio, cover = container.add_stream("libmp3lame", rate=SOUND_RATE), container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 360, 288, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(performance()[0], format="rgb24")))
        frame = av.AudioFrame.from_ndarray(speech()[None], format="fltp", layout="mono")
        frame.sample_rate = SOUND_RATE
        container.mux(audio.encode(frame))
        container.mux(audio.encode())
    return folder / "a.mp3"


@case(FILES, "sound alone, named .mp4", "skipped: no video stream", says="no video stream")
def _sound_alone(folder: Path) -> Path:
    return record(folder / "a.mp4")


@case(
    FILES,
    "folder of pictures, one of them broken, sound beside it",
    "prepared: the neighbours bridge the broken one",
    LENGTH,
    says="unreadable pictures",
)
def _pictures(folder: Path) -> SourceClip:
    (folder / "a").mkdir()
    for number, frame in enumerate(performance()):
        cv2.imwrite(str(folder / "a" / f"{number}.png"), frame[..., ::-1])
    (folder / "a" / "9.png").write_bytes(b"no picture")
    return source(folder / "a", wav(folder / "a.wav", speech()))


@case(FILES, "folder without pictures", "skipped: no readable picture", says="no readable picture")
def _no_pictures(folder: Path) -> SourceClip:
    (folder / "a").mkdir()
    return source(folder / "a", wav(folder / "a.wav", speech()))


@case(FILES, "single picture named .mp4", "skipped", says="")
def _single(folder: Path) -> Path:
    cv2.imwrite(str(folder / "a.jpg"), performance()[0])
    return Path(shutil.move(folder / "a.jpg", folder / "a.mp4"))


# ---- damage and content ----------------------------------------------------------------------------------------------


@case(CONTENT, "mp4 cut off before its index", "skipped: not readable", says="not readable")
def _no_index(folder: Path) -> Path:
    return spoilt(record(folder / "a.mp4", shot()), lambda data: data[: len(data) // 2])


@case(
    CONTENT,
    "mp4 with its index in front, cut off after 80%",
    "prepared as far as it goes, and noted",
    52,
    margin=8,
    says="damaged",
    quiet=True,
)
def _cut_mp4(folder: Path) -> Path:
    path = record(
        folder / "a.mp4", shot(performance() * 2), Track(sound=speech(2 * _SECONDS)), {"movflags": "faststart"}
    )
    return spoilt(path, lambda data: data[: int(0.8 * len(data))])


@case(
    CONTENT,
    "GRID's format, cut off after 60%",
    "prepared as far as it goes, and noted",
    36,
    margin=8,
    says="damaged",
    quiet=True,
)
def _cut_mpeg(folder: Path) -> Path:
    path = record(folder / "a.mpg", shot(performance() * 2, **_MPEG1), Track(speech(2 * _SECONDS), "mp2"), form="mpeg")
    return spoilt(path, lambda data: data[: int(0.6 * len(data))])


@case(CONTENT, "GRID's format, cut off within the first second", "skipped: damaged", says="damaged or cut off")
def _stump(folder: Path) -> Path:
    path = record(folder / "a.mpg", shot(**_MPEG1), Track(codec="mp2"), form="mpeg")
    return spoilt(path, lambda data: data[: len(data) // 2])


@case(
    CONTENT,
    "garbage in the middle of a file",
    "two clips: what depends on the damage is left out, the picture jumps there; noted",
    54,
    42,
    says="damaged",
    quiet=True,
    like=None,
    margin=8,
)
def _garbage(folder: Path) -> Path:
    path = record(folder / "a.ts", shot(performance() * 3, codec="libx264"), Track(speech(3 * _SECONDS), "mp2"))
    return spoilt(path, lambda data: garbage(data, 0.5, 2000))


@case(CONTENT, "three frames", "skipped: too short", says="too short")
def _three(folder: Path) -> Path:
    return record(folder / "a.mp4", shot(performance()[:3]))


@case(CONTENT, "nobody in the picture", "skipped: no face found", says="face")
def _nobody(folder: Path) -> Path:
    wall = np.full_like(performance()[0], 120)
    return record(folder / "a.mp4", shot([wall] * LENGTH))


@case(CONTENT, "first second black", "prepared from where the face appears", LENGTH, quiet=True, margin=1)
def _late(folder: Path) -> Path:
    black = [np.zeros_like(performance()[0])] * 25
    return record(folder / "a.mp4", shot(black + performance()), Track(sound=speech(_SECONDS + 1)))


@case(
    CONTENT,
    "a hand before the face for 0.6 s",
    "two clips: a hand as fast as that counts as a cut",
    10,
    22,
    like=None,
    margin=3,
    quiet=True,
)
def _hidden(folder: Path) -> Path:
    frames = [frame.copy() for frame in performance()]
    for t, height in enumerate((380, 310, 240, 180, 140, 140, 140, 140, 140, 140, 180, 240, 310, 380), start=9):
        cv2.ellipse(frames[t], (180, height), (60, 80), 0, 0, 360, (190, 150, 120), -1)
    return record(folder / "a.mp4", shot(frames))


@case(CONTENT, "cut from one person to another", "two clips", LENGTH, LENGTH, quiet=True, like=None)
def _cut(folder: Path) -> Path:
    return record(folder / "a.mp4", shot(performance() + performance(1)), Track(sound=speech(2 * _SECONDS)))
