"""Which of the tracked faces are one person, and which person a source is about.

A person who leaves and returns, or whom somebody crosses, has several tracks; whether they show one person is told by
`identity`, not by where they are. The person is chosen by all that the source shows of everybody in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum, auto

import numpy as np
from jaxtyping import Float, Float32, Int16

from datamodules.prepare.decode import SAMPLES_PER_FRAME, fit_length
from datamodules.prepare.sound import to_float
from model_zoo.face.detector import Box, Landmarks
from model_zoo.face.identity import SAME_PERSON, Chip, describe

_MIN_TRACK = 5  # frames; shorter ones are what is left of doubtful moments
_LIP_SMOOTHING = 5  # frames, over which lip motion and loudness are averaged before they are compared
HELD_TRACKS = 64  # that keep their pictures, 135 kB each; older ones only what these say
_SOUND_BLOCK = 1500  # frames whose sound is squared at once
_LIPS, _EYES = (62, 66), (36, 45)


@dataclass
class Track:
    """One face from frame `start` on, until it is lost.

    Attributes:
        start: frame number.
        rows: landmarks of each frame since, px; NaN where it was hidden.
        box: where it was last seen, px.
        patch: its eyes and nose at the last check.
        chips: pictures of it, to tell people apart. description: what they say, once that was worked out.
        vouched: how many of the rows a check, or likeness to the last check, speaks for.
        agreed: frame of the last check that saw it.
        alike: whether it looks in this frame as it did then. trusted: whether the last check saw it.
    """

    start: int
    rows: list[Landmarks]
    box: Box
    patch: Float32[np.ndarray, "N"]
    chips: list[Chip]
    vouched: int
    agreed: int
    alike: bool = True
    trusted: bool = True
    description: np.ndarray | None = None

    @property
    def stop(self) -> int:
        """One past its last frame."""
        return self.start + self.vouched

    @property
    def landmarks(self) -> Float32[np.ndarray, "N 68 2"]:
        """Landmarks of frames start..stop-1, px; NaN where it was hidden."""
        return np.stack(self.rows[: self.vouched]) if self.vouched else np.empty((0, 68, 2), np.float32)

    def described(self) -> np.ndarray:
        """What its pictures say of who it is, in their place from now on."""
        if self.description is None:
            self.description = np.mean([describe(chip) for chip in self.chips], axis=0)
            self.chips = []
        return self.description


@dataclass
class Tracks:
    """All that was seen in a source.

    Attributes:
        tracks: in order of their start.
        cuts: frames that start a new shot.
        searched, faces: frames that the detector was asked about, and how many faces it saw in each.
        num_frames: of the source. height, width: of a frame, px.
    """

    tracks: list[Track] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    searched: list[int] = field(default_factory=list)
    faces: list[int] = field(default_factory=list)
    num_frames: int = 0
    height: int = 0
    width: int = 0

    def add(self, track: Track) -> None:
        """Take a new track; that of `HELD_TRACKS` before gives up its pictures."""
        self.tracks.append(track)
        if len(self.tracks) > HELD_TRACKS:
            self.tracks[-1 - HELD_TRACKS].described()

    def forget_landmarks(self) -> None:
        """Give up all landmarks, once somebody has been chosen: of a long source they take more room than the rest."""
        for track in self.tracks:
            track.rows.clear()  # also of tracks that the tracker follows
        self.tracks.clear()

    def most_faces(self, start: int, stop: int) -> int:
        """Most faces that were seen at once in frames start..stop-1."""
        seen = (count for frame, count in zip(self.searched, self.faces, strict=True) if start <= frame < stop)
        return max(seen, default=0)


class Choice(StrEnum):
    """Whom to keep where there are several people."""

    largest = auto()
    central = auto()
    talking = auto()


@dataclass
class Person:
    """Tracks of one person, which do not overlap in time."""

    tracks: list[Track] = field(default_factory=list)
    descriptions: list[np.ndarray] = field(default_factory=list)

    def landmarks(self, num_frames: int) -> Float32[np.ndarray, "T 68 2"]:
        """Landmarks in every frame of the source, px; NaN where the person is not seen."""
        everywhere = np.full((num_frames, 68, 2), np.nan, np.float32)
        for track in self.tracks:
            everywhere[track.start : track.stop] = track.landmarks
        return everywhere

    def could_have(self, track: Track) -> bool:
        """Nobody is in two places at once."""
        return all(track.stop <= other.start or other.stop <= track.start for other in self.tracks)


def chosen_face(seen: Tracks, choice: Choice | str, sound: Int16[np.ndarray, "N"]) -> Float32[np.ndarray, "T 68 2"]:
    """Landmarks of the person whom a source is about.

    Args:
        seen: by the tracker.
        choice: `largest` sums up the area of the face over the frames, `central` its nearness to the middle of the
            frame, `talking` its lip motion in step with the sound; who does not move their lips with it, or a source
            without sound, falls back to `largest`.
        sound: 16 kHz from the first frame on.

    Returns:
        px of the frame; rows of NaN where the person is not seen.
    """
    people = find_people(seen.tracks, min(_MIN_TRACK, seen.num_frames))
    if not people:
        return np.full((seen.num_frames, 68, 2), np.nan, np.float32)
    faces = [person.landmarks(seen.num_frames) for person in people]
    if len(faces) == 1:
        return faces[0]
    scores = [_size(face) for face in faces]
    if choice == Choice.central:
        scores = [_centrality(face, seen.height, seen.width) for face in faces]
    elif choice == Choice.talking:
        loudness = _loudness(sound, seen.num_frames)
        speaking = [_lips_in_step(face, loudness) for face in faces]
        scores = speaking if max(speaking) > 0 else scores
    return faces[int(np.argmax(scores))]


def find_people(tracks: Sequence[Track], shortest: int = _MIN_TRACK) -> list[Person]:
    """Tracks sorted into people, the longest first; each goes to the likest person who is not elsewhere meanwhile."""
    ordered = sorted((track for track in tracks if track.vouched >= shortest), key=lambda track: -track.vouched)
    if len(ordered) == 1:
        return [Person(ordered)]  # nobody to be taken for: no description needed
    people: list[Person] = []
    for track in ordered:
        description = track.described()
        distances = [
            min(float(np.linalg.norm(description - other)) for other in person.descriptions)
            if person.could_have(track)
            else np.inf
            for person in people
        ]
        if distances and min(distances) <= SAME_PERSON:
            person = people[int(np.argmin(distances))]
        else:
            people.append(person := Person())
        person.tracks.append(track)
        person.descriptions.append(description)
    return people


def _size(face: Float32[np.ndarray, "T 68 2"]) -> float:
    """Area of the face's bounding box, summed over the frames, px²."""
    return float(np.nansum(np.prod(face.max(1) - face.min(1), axis=1)))


def _centrality(face: Float32[np.ndarray, "T 68 2"], height: int, width: int) -> float:
    """Nearness to the middle, 0 in a corner to 1, summed over the frames."""
    middle = np.array([width, height]) / 2
    away = np.linalg.norm(face.mean(1) - middle, axis=1) / np.linalg.norm(middle)
    return float(np.nansum(1 - away))


def _loudness(sound: Int16[np.ndarray, "N"], num_frames: int) -> Float[np.ndarray, "T"]:
    """Log energy of the sound of every frame; constant where there is none."""
    energy = np.empty(num_frames)
    for start in range(0, num_frames, _SOUND_BLOCK):
        stop = min(start + _SOUND_BLOCK, num_frames)
        samples = fit_length(to_float(sound[start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]), stop - start)
        energy[start:stop] = np.square(samples.reshape(-1, SAMPLES_PER_FRAME), dtype=np.float64).mean(1)
    return np.log10(energy + 1e-6)


def _lips_in_step(face: Float32[np.ndarray, "T 68 2"], loudness: Float[np.ndarray, "T"]) -> float:
    """Lip motion where it is loud less lip motion where it is not: covariance summed over the frames."""
    upper, lower = (face[:, index] for index in _LIPS)
    right, left = (face[:, index] for index in _EYES)
    opening = np.linalg.norm(lower - upper, axis=1) / np.linalg.norm(left - right, axis=1)
    motion = np.abs(np.diff(opening, prepend=np.nan))
    there = np.isfinite(motion)
    if there.sum() < _MIN_TRACK:
        return 0.0
    window = np.ones(_LIP_SMOOTHING) / _LIP_SMOOTHING
    motion = np.convolve(np.where(there, motion, 0), window, "same")
    loudness = np.convolve(loudness - loudness.mean(), window, "same")[there]  # about 0, as what lies beyond the ends
    return float(((loudness - loudness.mean()) * motion[there]).sum())
