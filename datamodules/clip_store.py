"""The on-disk format of a prepared corpus: one folder, a `manifest.parquet`, one `.safetensors` a clip.

A clip is complete or absent: it is written under a temporary name, flushed to the disk and renamed. The manifest is an
index that can be rebuilt from the clips, for each carries its own row, and the hash of its bytes. Clips are
memory-mapped and a window reads only what it needs, so all processes share one copy; a store behind a URL is
read through fsspec, in ranges of bytes.

Shape legend: T frames, A audio frames, C cepstra, S shape, E expression, P pose, J bytes of JPEG.
"""

from __future__ import annotations

import errno
import json
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Self, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int16, UInt8
from torch import Tensor

from datamodules.atomic import atomic_file, store_error
from datamodules.batch import CROP_UNITS
from datamodules.crop_codec import Image, decode_crop
from datamodules.manifest import MANIFEST, ClipRow, read_manifest
from datamodules.tensor_file import Blocks, TensorFile, is_url, write_tensors

FORMAT = "talkin-clip-2"
OPEN_CLIPS = 512  # memory maps that a reader keeps open; each takes a file descriptor


class Word(NamedTuple):
    """A word of the transcript. Times in seconds from the first frame."""

    start: float
    end: float
    text: str


class CropSpool:
    """JPEG files on their way into a clip, on the store's disk, so that memory does not grow with a clip's length.

    The file has no name: it is gone when it is closed, and when its process is killed.

    Args:
        root: of the store.

    Raises:
        StoreError: there is no room, or the folder cannot be written; from `append` as well.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lengths: list[int] = []
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=root)  # noqa: SIM115
        except OSError as error:
            raise store_error(error, root) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[bytes]:
        """The JPEG files, in order."""
        self._write(self._file.flush)
        self._file.seek(0)
        for length in self.lengths:
            yield self._file.read(length)

    def append(self, jpeg: bytes) -> None:
        """Add the next frame's JPEG file; not while the files are being gone through."""
        self._write(lambda: self._file.write(jpeg))
        self.lengths.append(len(jpeg))

    def close(self) -> None:
        """Free the disk."""
        self._write(self._file.close)

    def _write(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            raise store_error(error, self.root) from error


@dataclass(frozen=True)
class ClipData:
    """Everything of a clip but its row. Landmarks, boxes and poses in px of the 256-pixel crop.

    Attributes:
        crops: JPEG files, one a frame; none of a clip for speech alone. mean_crop: JPEG of the mean of the valid ones.
        thumbnail: JPEG of a few small crops side by side, for the report; may be empty.
        landmarks: projected from the fit. landmarks_detected: what was seen, NaN where nothing was.
        valid: frames with a fit of their own; the others are interpolated.
        crop_transform: similarity, source frame px -> crop px.
        sound: 16-bit samples at 16 kHz from the first frame to the end of the last, N = 640 T.
        mfcc: of it, raw, A = 4 T.
    """

    crops: Sequence[bytes] | CropSpool
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
    thumbnail: bytes = b""


_NO_TENSORS = ("crops", "mean_crop", "thumbnail", "words")
_TENSORS = tuple(field.name for field in fields(ClipData) if field.name not in _NO_TENSORS)


class Clip:
    """A clip, memory-mapped or behind a URL; tensors are read when asked for, then kept, crops decoded one by one.

    Raises:
        OSError: there is no such file.
        ValueError: it is no whole clip of this format.
    """

    def __init__(self, path: Path | str) -> None:
        self._file = TensorFile(path)
        try:
            header = json.loads(self._file.metadata["clip"])
            if header["format"] != FORMAT:
                raise ValueError(f"it is of format {header['format']}, not {FORMAT}")
            self.row = ClipRow(**header["row"])
            self.words = tuple(Word(*word) for word in header["words"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a prepared clip of this version: prepare the corpus again") from error
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
        return self._file.tensor("offsets").tolist()

    def __getattr__(self, name: str) -> Tensor:
        # only reached for what is not set yet
        if name not in _TENSORS:
            raise AttributeError(name)
        value = self._file.tensor(name)
        self.__dict__[name] = value
        return value

    def waveform(self) -> Float[Tensor, "N"]:
        """Sound at 16 kHz in [-1, 1]."""
        return self.sound.to(torch.float32) / 32768

    def jpeg(self, frame: int) -> UInt8[np.ndarray, "J"]:
        """The stored JPEG file of a crop; frame T is the mean crop."""
        return next(iter(self.jpegs(frame, frame + 1)))

    def jpegs(self, start: int, stop: int) -> list[UInt8[np.ndarray, "J"]]:
        """The stored JPEG files of consecutive frames, read at once.

        Raises:
            ValueError: the clip has no pictures.
        """
        if len(self._offsets) < self.num_frames + 2:
            raise ValueError(f"{self.id} has no pictures: it is for experiments on speech alone")
        bounds = self._offsets[start : stop + 1]
        content = np.frombuffer(self._file.bytes("jpeg", bounds[0], bounds[-1]), np.uint8)
        return [content[first - bounds[0] : end - bounds[0]] for first, end in pairwise(bounds)]

    def thumbnail(self) -> bytes:
        """JPEG file of a few small crops side by side; empty if there is none."""
        return bytes(self._file.tensor("thumbnail").numpy())

    def crop(self, frame: int, size: int = CROP_UNITS) -> UInt8[np.ndarray, "S S 3"]:
        """Crop of a frame, RGB, resized to `size` px a side.

        Raises:
            IndexError: the clip has no such frame.
        """
        return decode_crop(self.jpeg(self._checked(frame)), size)

    def crops(self, frames: Iterable[int], size: int = CROP_UNITS) -> UInt8[np.ndarray, "N S S 3"]:
        """Crops of several frames; a frame that is asked for twice is decoded once.

        Raises:
            IndexError: the clip has no such frame.
        """
        frames = list(frames)
        first, last = self._checked(min(frames)), self._checked(max(frames))
        if last - first < 2 * len(frames):  # close together: one range of bytes
            jpegs = self.jpegs(first, last + 1)
            decoded = {frame: decode_crop(jpegs[frame - first], size) for frame in set(frames)}
        else:
            decoded = {frame: self.crop(frame, size) for frame in set(frames)}
        return np.stack([decoded[frame] for frame in frames])

    def _checked(self, frame: int) -> int:
        if not 0 <= frame < self.num_frames:
            raise IndexError(f"{self.id} has frames 0 to {self.num_frames - 1}, not {frame}")
        return frame

    def mean_crop(self, size: int = CROP_UNITS) -> UInt8[np.ndarray, "S S 3"]:
        """Mean of the valid crops of the clip, the trivial predictor `mean-frame`."""
        if size not in self._mean:
            self._mean[size] = decode_crop(self.jpeg(self.num_frames), size)
        return self._mean[size]


class ClipStore:
    """Reader of a prepared corpus.

    Args:
        root: folder with `manifest.parquet`, or its URL for fsspec ("s3://bucket/store").

    Raises:
        ValueError: there is no manifest.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = root if is_url(root) else Path(root)
        try:
            self.manifest: list[ClipRow] = read_manifest(self.root)
        except FileNotFoundError as error:
            raise ValueError(f"{self.root} holds no prepared corpus: prepare it first") from error
        self._rows = {row.id: row for row in self.manifest}
        self._open: OrderedDict[str, Clip] = OrderedDict()
        self._lock = Lock()  # of the open clips: loader threads share a store

    def __len__(self) -> int:
        return len(self.manifest)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": None, "_lock": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ = {**state, "_open": OrderedDict(), "_lock": Lock()}  # memory maps stay with their process

    def row(self, clip_id: str) -> ClipRow:
        """Manifest row of a clip.

        Raises:
            ValueError: there is no such clip.
        """
        if clip_id not in self._rows:
            raise ValueError(f"{self.root} holds no clip {clip_id!r}; its {len(self)} clips are listed in {MANIFEST}")
        return self._rows[clip_id]

    def open(self, clip_id: str) -> Clip:
        """The clip; the last few hundred stay open.

        Raises:
            ValueError: there is no such clip, or its file is missing or damaged.
        """
        with self._lock:
            if clip_id in self._open:
                self._open.move_to_end(clip_id)
                return self._open[clip_id]
        self.row(clip_id)
        try:
            clip = Clip(clip_path(self.root, clip_id))
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
                raise  # nothing is wrong with the clip
            raise ValueError(
                f"clip {clip_id} of {self.root} is missing or damaged: "
                "python -m experiments.prepare --verify with the corpus' other arguments repairs it"
            ) from error
        with self._lock:
            clip = self._open.setdefault(clip_id, clip)  # another thread may have been faster
            if len(self._open) > OPEN_CLIPS:
                self._open.popitem(last=False)
        return clip


@overload
def clip_path(root: Path, clip_id: str) -> Path: ...
@overload
def clip_path(root: Path | str, clip_id: str) -> Path | str: ...
def clip_path(root: Path | str, clip_id: str) -> Path | str:
    """File of a clip below the store's root."""
    name = f"{clip_id}.safetensors"
    return f"{root.rstrip('/')}/{name}" if isinstance(root, str) else root / name


def write_clip(root: Path, row: ClipRow, data: ClipData) -> Path:
    """Write a clip so that it is complete or absent; the same row and data give the same bytes.

    Raises:
        ValueError: the parts do not have the same number of frames.
        StoreError: the store cannot be written.
    """
    counted = ("landmarks", "expression", "pose", "valid", *(["crops"] if len(data.crops) else []))
    counts = {name: len(getattr(data, name)) for name in counted}
    if set(counts.values()) != {row.frames}:
        raise ValueError(f"{row.id}: expected {row.frames} frames everywhere, got {counts}")
    lengths = data.crops.lengths if isinstance(data.crops, CropSpool) else [len(jpeg) for jpeg in data.crops]
    offsets = np.cumsum([0, *lengths, len(data.mean_crop)], dtype=np.int64)
    tensors: dict[str, Tensor | Blocks] = {name: getattr(data, name) for name in _TENSORS}
    tensors["offsets"] = torch.from_numpy(offsets)
    tensors["jpeg"] = Blocks(int(offsets[-1]), chain(data.crops, [data.mean_crop]))
    tensors["thumbnail"] = Blocks(len(data.thumbnail), [data.thumbnail])
    header = {"format": FORMAT, "row": asdict(row), "words": data.words}
    path = clip_path(root, row.id)
    with atomic_file(root, path) as file:
        write_tensors(file, tensors, {"clip": json.dumps(header)})
    return path


def read_row(root: Path, clip_id: str) -> ClipRow | None:
    """Row of a clip that is there and of full length, else None. Reads the header only."""
    try:
        return Clip(clip_path(root, clip_id)).row
    except (OSError, ValueError):
        return None


def verify_clip(path: Path | str) -> bool:
    """Whether a clip is there and every byte of it as it was written. Reads all of it."""
    try:
        Clip(path)
        return TensorFile(path).is_whole()
    except (OSError, ValueError):
        return False
