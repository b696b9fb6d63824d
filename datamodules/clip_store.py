"""The on-disk format of a prepared corpus: one folder, a `manifest.parquet`, one `.safetensors` a clip.

A clip is complete or absent: it is written under a temporary name, flushed to the disk and renamed. The manifest is an
index that can be rebuilt from the clips, for each carries its own row. Clips are memory-mapped and a window reads only
what it needs, so many loader processes share one copy.

Shape legend: T frames, A audio frames, C cepstra, S shape, E expression, P pose, J bytes of JPEG.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int16, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from datamodules.batch import CROP_UNITS
from datamodules.crop_codec import Image, decode_crop
from datamodules.manifest import MANIFEST, AtomicFile, ClipRow, read_manifest

FORMAT = "talkin-clip-1"
OPEN_CLIPS = 512  # memory maps that a reader keeps open; each takes a file descriptor


class Word(NamedTuple):
    """A word of the transcript. Times in seconds from the first frame."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class ClipData:
    """Everything of a clip but its row. Landmarks, boxes and poses in px of the 256-pixel crop.

    Attributes:
        crops: JPEG files, one a frame. mean_crop: JPEG of the mean of the valid ones.
        landmarks: projected from the fit. landmarks_detected: what was seen, NaN where nothing was.
        valid: frames with a fit of their own; the others are interpolated.
        crop_transform: similarity, source frame px -> crop px.
        sound: 16-bit samples at 16 kHz from the first frame to the end of the last, N = 640 T.
        mfcc: of it, raw, A = 4 T.
    """

    crops: Sequence[bytes]
    mean_crop: bytes
    landmarks: Float[Tensor, "T 68 2"]
    landmarks_detected: Float[Tensor, "T 68 2"]
    expression: Float[Tensor, "T E"]
    pose: Float[Tensor, "T P"]
    shape: Float[Tensor, "S"]
    valid: Bool[Tensor, "T"]
    sound: Int16[Tensor, "N"]
    mfcc: Float[Tensor, "A C"]
    crop_transform: Float[Tensor, "T 2 3"]
    mouth_box: Float[Tensor, "4"]
    mouth_region: Float[Tensor, "4"]
    words: Sequence[Word] = ()


_TENSORS = tuple(field.name for field in fields(ClipData) if field.name not in ("crops", "mean_crop", "words"))


class Clip:
    """A memory-mapped clip; tensors are read when asked for, then kept, and crops are decoded one by one."""

    def __init__(self, path: Path) -> None:
        self._file = safe_open(path, framework="pt")
        header = json.loads((self._file.metadata() or {}).get("clip", "{}"))
        if header.get("format") != FORMAT:
            raise ValueError(f"{path} is not a prepared clip: prepare the corpus again")
        self.row = ClipRow(**header["row"])
        self.words = tuple(Word(*word) for word in header["words"])
        self._jpeg = self._file.get_slice("jpeg")
        self._mean: dict[int, Image] = {}

    @property
    def id(self) -> str:
        """Clip id."""
        return self.row.id

    @property
    def num_frames(self) -> int:
        """T."""
        return self.row.frames

    @cached_property
    def _offsets(self) -> list[int]:
        return self._file.get_tensor("offsets").tolist()

    def __getattr__(self, name: str) -> Tensor:
        # only reached for what is not set yet
        if name not in _TENSORS:
            raise AttributeError(name)
        value = self._file.get_tensor(name)
        self.__dict__[name] = value
        return value

    def waveform(self) -> Float[Tensor, "N"]:
        """Sound at 16 kHz in [-1, 1]."""
        return self.sound.to(torch.float32) / 32768

    def jpeg(self, frame: int) -> UInt8[np.ndarray, "J"]:
        """The stored JPEG file of a crop; frame T is the mean crop."""
        return self._jpeg[self._offsets[frame] : self._offsets[frame + 1]].numpy()

    def crop(self, frame: int, size: int = CROP_UNITS) -> UInt8[np.ndarray, "S S 3"]:
        """Crop of a frame, RGB, resized to `size` px a side.

        Raises:
            IndexError: the clip has no such frame.
        """
        if not 0 <= frame < self.num_frames:
            raise IndexError(f"{self.id} has frames 0 to {self.num_frames - 1}, not {frame}")
        return decode_crop(self.jpeg(frame), size)

    def crops(self, frames: Iterable[int], size: int = CROP_UNITS) -> UInt8[np.ndarray, "N S S 3"]:
        """Crops of several frames; a frame that is asked for twice is decoded once."""
        frames = list(frames)
        decoded = {frame: self.crop(frame, size) for frame in set(frames)}
        return np.stack([decoded[frame] for frame in frames])

    def mean_crop(self, size: int = CROP_UNITS) -> UInt8[np.ndarray, "S S 3"]:
        """Mean of the valid crops of the clip, the trivial predictor `mean-frame`."""
        if size not in self._mean:
            self._mean[size] = decode_crop(self.jpeg(self.num_frames), size)
        return self._mean[size]


class ClipStore:
    """Reader of a prepared corpus.

    Args:
        root: folder with `manifest.parquet`.

    Raises:
        ValueError: there is no manifest.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        if not (self.root / MANIFEST).is_file():
            raise ValueError(f"{self.root} holds no prepared corpus: prepare it first")
        self.manifest: list[ClipRow] = read_manifest(self.root)
        self._rows = {row.id: row for row in self.manifest}
        self._open: OrderedDict[str, Clip] = OrderedDict()

    def __len__(self) -> int:
        return len(self.manifest)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict()}  # memory maps stay with their process

    def row(self, clip_id: str) -> ClipRow:
        """Manifest row of a clip.

        Raises:
            ValueError: there is no such clip.
        """
        if clip_id not in self._rows:
            raise ValueError(f"{self.root} holds no clip {clip_id!r}; its {len(self)} clips are listed in {MANIFEST}")
        return self._rows[clip_id]

    def open(self, clip_id: str) -> Clip:
        """The clip, memory-mapped; the last few hundred stay open.

        Raises:
            ValueError: there is no such clip, or its file is missing or damaged.
        """
        if clip_id in self._open:
            self._open.move_to_end(clip_id)
            return self._open[clip_id]
        self.row(clip_id)
        try:
            clip = Clip(clip_path(self.root, clip_id))
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"clip {clip_id} of {self.root} is missing or damaged: prepare the corpus again"
            ) from error
        self._open[clip_id] = clip
        if len(self._open) > OPEN_CLIPS:
            self._open.popitem(last=False)
        return clip


def clip_path(root: Path, clip_id: str) -> Path:
    """File of a clip below the store's root."""
    return root / f"{clip_id}.safetensors"


def write_clip(root: Path, row: ClipRow, data: ClipData) -> Path:
    """Write a clip so that it is complete or absent.

    Raises:
        ValueError: the parts do not have the same number of frames.
    """
    counts = {name: len(getattr(data, name)) for name in ("crops", "landmarks", "expression", "pose", "valid")}
    if set(counts.values()) != {row.frames}:
        raise ValueError(f"{row.id}: expected {row.frames} frames everywhere, got {counts}")
    jpegs = [*data.crops, data.mean_crop]
    tensors = {name: getattr(data, name).detach().cpu().contiguous() for name in _TENSORS}
    tensors["jpeg"] = torch.frombuffer(bytearray(b"".join(jpegs)), dtype=torch.uint8)
    tensors["offsets"] = torch.from_numpy(np.cumsum([0, *map(len, jpegs)], dtype=np.int64))
    header = {"format": FORMAT, "row": asdict(row), "words": data.words}
    path = clip_path(root, row.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with AtomicFile(path) as temporary:
        save_file(tensors, temporary, metadata={"clip": json.dumps(header)})
    return path


def read_row(root: Path, clip_id: str) -> ClipRow | None:
    """Row of a clip that is there and whole, else None. Reads the header only."""
    try:
        return Clip(clip_path(root, clip_id)).row
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        return None
