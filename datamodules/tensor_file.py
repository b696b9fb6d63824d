"""Reading and writing of `.safetensors` files: a header of JSON, then the tensors' bytes back to back.

Ours beside the library's own reader and writer for three reasons: a tensor too large for memory is written as a
stream, the bytes of a file follow from its content alone, and files are read from anywhere that fsspec reaches.

Layout (https://github.com/huggingface/safetensors#format): 8 bytes with the length n of the header, n bytes of JSON
{name: {dtype, shape, data_offsets}, "__metadata__": {str: str}} padded with blanks, and the data.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import fsspec
import torch
from torch import Tensor

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_METADATA, _HASH = "__metadata__", "sha256"
_NO_HASH = "0" * 64
_LENGTH = 8  # bytes of the header's length
_ALIGNMENT = 8  # bytes; where the data starts
_LARGEST_HEADER = 100_000_000  # bytes, the format's limit
_BLOCK = 2**20  # bytes read at once


class DamagedFile(ValueError):
    """The file is not what its header says, or has no header."""


class Blocks(NamedTuple):
    """A tensor of bytes that is written as a stream.

    Attributes:
        size: bytes in all. content: the bytes, in pieces.
    """

    size: int
    content: Iterable[bytes]


def write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor | Blocks], metadata: Mapping[str, str]) -> None:
    """Write a file that the safetensors library reads; the same content gives the same bytes.

    The metadata gets an entry `sha256`: that of the whole file, these 64 digits taken as zeros.

    Args:
        file: empty, open for reading and writing.
        tensors: written by falling size of their elements, then by name, so that all of them are aligned.
        metadata: text beside them.
    """
    header: dict[str, object] = {_METADATA: {**dict(sorted(metadata.items())), _HASH: _NO_HASH}}
    order = sorted(tensors, key=lambda name: (-_itemsize(tensors[name]), name))
    end = 0
    for name in order:
        tensor, start = tensors[name], end
        end += tensor.size if isinstance(tensor, Blocks) else tensor.numel() * tensor.element_size()
        kind, shape = ("U8", [end - start]) if isinstance(tensor, Blocks) else (_NAMES[tensor.dtype], [*tensor.shape])
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH + len(text)) % _ALIGNMENT)
    start_of_hash = _LENGTH + text.index(f'"{_HASH}":"{_NO_HASH}"'.encode()) + len(f'"{_HASH}":"')

    digest = hashlib.sha256()
    for block in _blocks(text, [tensors[name] for name in order]):
        digest.update(block)
        file.write(block)
    assert file.tell() == _LENGTH + len(text) + end, "a stream was not as long as it said"
    file.seek(start_of_hash)
    file.write(digest.hexdigest().encode())


def _blocks(header: bytes, tensors: Iterable[Tensor | Blocks]) -> Iterable[bytes | memoryview]:
    yield len(header).to_bytes(_LENGTH, "little")
    yield header
    for tensor in tensors:
        if isinstance(tensor, Blocks):
            yield from tensor.content
        else:
            yield tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def _itemsize(tensor: Tensor | Blocks) -> int:
    return 1 if isinstance(tensor, Blocks) else tensor.element_size()


class TensorFile:
    """Reader of one file: a memory map of a local one, ranges of bytes of a remote one.

    Args:
        place: a path, or a URL that fsspec knows.

    Raises:
        OSError: the file cannot be read.
        DamagedFile: it is no whole `.safetensors` file.
    """

    def __init__(self, place: Path | str) -> None:
        self._source = _Remote(str(place)) if is_url(place) else _Mapped(Path(place))
        length = int.from_bytes(self._source.read(0, _LENGTH), "little")
        size = self._source.size
        if size < _LENGTH or not 2 <= length <= min(_LARGEST_HEADER, size - _LENGTH):
            raise DamagedFile(f"{place} is no .safetensors file")
        self._data = _LENGTH + length
        try:
            header = json.loads(bytes(self._source.read(_LENGTH, self._data)))
            self.metadata: dict[str, str] = header.pop(_METADATA, {})
            self._entries = {
                name: (_DTYPES[entry["dtype"]], entry["shape"], *entry["data_offsets"])
                for name, entry in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedFile(f"{place} has a damaged header") from error
        if self._data + max((end for *_, end in self._entries.values()), default=0) != size:
            raise DamagedFile(f"{place} is cut off")

    def tensor(self, name: str) -> Tensor:
        """A tensor; of a local file without a copy, on pages that are read when touched and shared until written to.

        Raises:
            KeyError: there is no such tensor.
        """
        dtype, shape, start, end = self._entries[name]
        if start == end:
            return torch.empty(shape, dtype=dtype)
        return self._source.tensor(dtype, self._data + start, self._data + end).view(shape)

    def bytes(self, name: str, start: int, stop: int) -> memoryview:
        """A range of a tensor of bytes."""
        first = self._data + self._entries[name][2]
        return self._source.read(first + start, first + stop)

    def is_whole(self) -> bool:
        """Whether the file hashes to the sha256 that its header carries. Reads all of it."""
        wanted = self.metadata.get(_HASH) or "none"
        header = bytes(self._source.read(0, self._data)).replace(wanted.encode(), _NO_HASH.encode())
        digest = hashlib.sha256(header)
        for start in range(self._data, self._source.size, _BLOCK):
            digest.update(self._source.read(start, min(start + _BLOCK, self._source.size)))
        return digest.hexdigest() == wanted


def is_url(place: Path | str) -> bool:
    """Whether a place is for fsspec to read rather than a path of this machine."""
    return isinstance(place, str) and "://" in place


class _Mapped:
    """A local file in memory, private: what is written to its tensors stays in this process."""

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if self.size else b""
        self._view = memoryview(self._map)

    def read(self, start: int, stop: int) -> memoryview:
        return self._view[start:stop]

    def tensor(self, dtype: torch.dtype, start: int, stop: int) -> Tensor:
        return torch.frombuffer(self._map, dtype=dtype, count=(stop - start) // dtype.itemsize, offset=start)


class _Remote:
    """A file behind a URL. The file system is looked up at each read, for it must not cross into a forked process."""

    def __init__(self, url: str) -> None:
        self._url = url
        files, path = fsspec.url_to_fs(url)
        self.size = int(files.size(path))

    def read(self, start: int, stop: int) -> memoryview:
        files, path = fsspec.url_to_fs(self._url)
        return memoryview(files.cat_file(path, start=start, end=stop))

    def tensor(self, dtype: torch.dtype, start: int, stop: int) -> Tensor:
        return torch.frombuffer(bytearray(self.read(start, stop)), dtype=dtype)
