"""What people's folders hold: how a kind of hostile input and what preparation makes of it are written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from datamodules.prepare.sources import SourceClip
from tests.datamodules.prepare.recording import LENGTH, SOUND_RATE, Picture, Track, performance, record, sampled

DOCUMENT = Path(__file__).parents[3] / "docs" / "hostile_inputs.md"


@dataclass(frozen=True)
class Case:
    """A kind of input.

    Attributes:
        group, kind: as the table calls it. make: writes it into a folder and names the files.
        frames: of each clip that is prepared, in order; none if it is skipped.
        says: what the reason, or a note on a prepared source, contains.
        outcome: the table's words.
        like: frames that it shows, for comparison with the plain recording, from this one on; None if it differs.
        quiet: samples of its sound need not be those of the plain recording.
        margin: frames by which a clip may be longer or shorter.
    """

    group: str
    kind: str
    make: Callable[[Path], SourceClip]
    outcome: str
    frames: tuple[int, ...] = ()
    says: str = ""
    like: int | None = 0
    quiet: bool = False
    margin: int = 0


def source(video: Path, audio: Path | None = None) -> SourceClip:
    """Source of the hostile speaker."""
    return SourceClip("hostile/clip", "hostile", "front", video, audio)


CODECS, TIME, SHAPE, SOUND, FILES, CONTENT = (
    "Codecs and pixel formats", "Time", "Geometry", "Sound", "Files", "Damage and content",
)  # fmt: skip

CASES: list[Case] = []


def case(group: str, kind: str, outcome: str, *frames: int, **expected) -> Callable:
    """Add a function that makes an input to the cases."""

    def add(make: Callable[[Path], SourceClip | Path]) -> Callable:
        def made(folder: Path) -> SourceClip:
            result = make(folder)
            return result if isinstance(result, SourceClip) else source(result)

        CASES.append(Case(group, kind, made, outcome, frames, **expected))
        return make

    return add


def prepared(group: str, kind: str, name: str, picture: Callable[[], Picture], *tracks: Track, **expected) -> None:
    """Add a recording that is prepared like the plain one."""
    outcome = expected.pop("outcome", "prepared: same landmarks, frames and sound as the plain recording")
    how = expected.pop("how", {})

    @case(group, kind, outcome, *expected.pop("frames", (LENGTH,)), **expected)
    def make(folder: Path) -> Path:
        return record(folder / name, picture(), tracks or (Track(),), **how)


def shot(frames: list[np.ndarray] | None = None, **settings) -> Picture:
    """The plain performance, recorded with settings."""
    return Picture(performance() if frames is None else frames, **settings)


def at_rate(rate: Fraction, **settings) -> Picture:
    """The performance as a camera of another rate sees it."""
    times = [index / float(rate) for index in range(round(LENGTH / 25 * float(rate)))]
    return shot(sampled(performance(), times), rate=rate, **settings)


def at_times(times: list[float], **settings) -> Picture:
    """The performance as a camera sees it at uneven times."""
    return shot(sampled(performance(), times), times=times, **settings)


def wav(path: Path, samples: np.ndarray, rate: int = SOUND_RATE) -> Path:
    """Write samples of whatever type."""
    wavfile.write(path, rate, samples)
    return path


def spoilt(path: Path, change: Callable[[bytearray], bytes | bytearray]) -> Path:
    """The file with its bytes changed."""
    path.write_bytes(change(bytearray(path.read_bytes())))
    return path


def garbage(data: bytearray, start: float, count: int) -> bytearray:
    """Bytes from `start` (a share of the file) on overwritten with noise."""
    first = int(start * len(data))
    data[first : first + count] = np.random.default_rng(0).bytes(min(count, len(data) - first))
    return data
