"""Landmarks that were found elsewhere, from files.

`<name>.npy` holds (T, 68, 2), `<name>.csv` a head line that names the columns x_0 ... x_67, y_0 ... y_67 (as OpenFace
writes them; others are ignored) and a line for each frame. In both: iBUG's 68, px of the upright raw frame at 25 frames
a second, pixel centres at integers; NaN, or nothing in a .csv, where there is no face.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from model_zoo.face.detector import NUM_LANDMARKS, Box, Frame, Landmarks

_COLUMNS = [f"{axis}_{index}" for index in range(NUM_LANDMARKS) for axis in "xy"]


class NoLandmarks(ValueError, FileNotFoundError):
    """A video has no file of landmarks."""


class LandmarkFiles:
    """Takes the place of a detector; sees nothing itself.

    Args:
        folder: holds `<clip id>.npy` or `.csv`; None: they lie beside the videos, under their names.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = None if folder is None else Path(folder).expanduser()
        where = "beside the videos" if self.folder is None else str(self.folder.resolve())
        digest = hashlib.sha256(where.encode(errors="surrogateescape")).hexdigest()
        self.name = f"landmark files {digest[:12]}"  # other folders hold other landmarks

    def detect(self, frame: Frame) -> list[Box]:
        """No face: who they are and where is for the files to say."""
        return []

    def landmarks(self, frame: Frame, box: Box) -> Landmarks:
        """None."""
        return np.full((NUM_LANDMARKS, 2), np.nan, np.float32)

    def file_of(self, video: Path, identity: str) -> Path | None:
        """The file of a source, if there is one."""
        return next((path for path in self._candidates(video, identity) if path.is_file()), None)

    def _candidates(self, video: Path, identity: str) -> list[Path]:
        stem = video.parent / video.stem if self.folder is None else self.folder / identity
        return [stem.parent / f"{stem.name}{suffix}" for suffix in (".npy", ".csv")]

    def of(
        self, video: Path, identity: str, num_frames: int, scale: tuple[float, float] = (1.0, 1.0)
    ) -> Float32[np.ndarray, "T 68 2"]:
        """Landmarks in every frame of a source.

        Args:
            video: the raw file.
            identity: id of the source.
            num_frames: of it, at 25 a second.
            scale: of the frames over the upright raw ones, in width and height.

        Returns:
            px of the frames; rows of NaN where there is no face.

        Raises:
            NoLandmarks: there is no file.
            ValueError: it does not fit the video; one line that says what was expected.
        """
        path = self.file_of(video, identity)
        if path is None:
            npy, table = self._candidates(video, identity)
            raise NoLandmarks(f"no landmarks: expected {npy} or {table.name}")
        landmarks = _read_npy(path) if path.suffix == ".npy" else _read_csv(path)
        expected = (num_frames, NUM_LANDMARKS, 2)
        if landmarks.shape != expected:
            raise ValueError(
                f"{path.name} holds {' x '.join(map(str, landmarks.shape))} numbers, "
                f"the video needs {' x '.join(map(str, expected))}: a row for each frame at 25 a second"
            )
        landmarks[~np.isfinite(landmarks).all((1, 2))] = np.nan
        if scale != (1.0, 1.0):  # not to round in vain
            landmarks = (landmarks + 0.5) * np.array(scale, np.float32) - 0.5  # edges of the pixels meet, not centres
        return landmarks


def _read_npy(path: Path) -> Float32[np.ndarray, "..."]:
    try:
        return np.load(path, allow_pickle=False).astype(np.float32)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path.name} is no array of numbers: {error}") from error


def _read_csv(path: Path) -> Float32[np.ndarray, "T 68 2"]:
    rows = []
    with open(path, newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file, skipinitialspace=True)
        missing = set(_COLUMNS) - {name.strip() for name in lines.fieldnames or ()}
        if missing:
            raise ValueError(
                f"{path.name} lacks the columns {', '.join(sorted(missing)[:3])}, ...: x_0 to y_67 are needed"
            )
        for line in lines:
            try:
                rows.append([float(line[name] or "nan") for name in _COLUMNS])
            except (TypeError, ValueError):
                raise ValueError(f"{path.name}, line {lines.line_num}: expected numbers") from None
    return np.array(rows, np.float32).reshape(-1, NUM_LANDMARKS, 2)
